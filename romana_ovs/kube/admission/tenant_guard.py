"""What counts of pods and policies whose labels name a tenant that their namespace may not hold (`tenancy`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from romana_ovs.kube.admission.tenancy import bound_pod, bound_policy
from romana_ovs.kube.decode.objects import Manifest, ObjectId, Place
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, RomanaPolicy
from romana_ovs.model.settings import Settings, TenantSource

Exchange = tuple[Manifest | None, Manifest | None]
"""What counted, and what counts now in its place."""


@dataclass(slots=True)
class _Held:
    """One object: as it stands, and as it counts."""

    given: Manifest
    counted: Manifest | None


@dataclass(slots=True)
class TenantGuard:
    """Keeps account of the objects that name tenants, by namespace; with other tenant sources it passes all on."""

    settings: Settings
    _held: dict[str, dict[ObjectId, _Held]] = field(default_factory=dict)
    _faults: dict[ObjectId, Problem] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Why objects do not count as they stand, sorted by object."""
        return tuple(self._faults[key] for key in sorted(self._faults))

    @property
    def misplaced(self) -> frozenset[ObjectId]:
        """The objects that do not count as they stand."""
        return frozenset(self._faults)

    def exchange(self, old: Manifest | None, new: Manifest | None, labels: Labels) -> Exchange:
        """What `new` in the place of `old` amounts to in a namespace of these `labels`."""
        if self.settings.tenant_source is not TenantSource.POD_LABEL:
            return old, new
        # Each by its own kind: what stands in for an invalid policy names no tenant, the valid one after it does.
        return self._release(old), self._hold(new, labels)

    def _release(self, old: Manifest | None) -> Manifest | None:
        """What counted of `old`, which is held no longer."""
        if not isinstance(old, Pod | RomanaPolicy):
            return old
        key = _key(old)
        here = self._held.get(old.namespace, {})
        before = here.pop(key, None)
        if not here:
            self._held.pop(old.namespace, None)
        self._faults.pop(key, None)
        return before.counted if before is not None else None

    def _hold(self, new: Manifest | None, labels: Labels) -> Manifest | None:
        """What counts of `new`, which is held from now on."""
        if not isinstance(new, Pod | RomanaPolicy):
            return new
        counted = self._bind(new, labels)
        self._held.setdefault(new.namespace, {})[_key(new)] = _Held(new, counted)
        return counted

    def relabelled(self, namespace: str, labels: Labels) -> Iterator[Exchange]:
        """What changes when `namespace` has these `labels` now."""
        for held in self._held.get(namespace, {}).values():
            old, given = held.counted, held.given
            if isinstance(given, Pod | RomanaPolicy):
                self._faults.pop(_key(given), None)
                new = self._bind(given, labels)
                if new != old:
                    held.counted = new
                    yield old, new

    def _bind(self, given: Pod | RomanaPolicy, labels: Labels) -> Manifest | None:
        counted: Manifest | None
        if isinstance(given, Pod):
            counted, reason = bound_pod(given, labels, self.settings)
        else:
            counted, reason = bound_policy(given, labels, self.settings)
        if reason:
            key = _key(given)
            place = Place("", 0, "", key.kind, f"{key.namespace}/{key.name}")
            self._faults[key] = place.problem("metadata.labels", reason)
        return counted


def _key(given: Pod | RomanaPolicy) -> ObjectId:
    kind = "Pod" if isinstance(given, Pod) else given.key.kind
    return ObjectId(kind, given.namespace, given.name)
