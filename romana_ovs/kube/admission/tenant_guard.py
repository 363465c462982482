"""Tracks pods and policies with tenant labels, and replaces those of tenants that their namespace may not hold.

`tenancy` decides which these are, and what takes their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from romana_ovs.kube.admission.tenancy import admit_pod, admit_policy
from romana_ovs.kube.decode.objects import KubeObject, ObjectId, SourceLocation
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, RomanaPolicy
from romana_ovs.model.settings import Settings, TenantSource

Replacement = tuple[KubeObject | None, KubeObject | None]
"""The object in effect before, and the one after; None for no object."""


@dataclass(slots=True)
class _Entry:
    """One object: as the API server has it, and as it takes effect here (None: it does not)."""

    stored: KubeObject
    effective: KubeObject | None


@dataclass(slots=True)
class TenantGuard:
    """Tracks objects by namespace; with other tenant sources than pod labels it passes them on unchanged."""

    settings: Settings
    _objects: dict[str, dict[ObjectId, _Entry]] = field(default_factory=dict)
    _problems_by_id: dict[ObjectId, Problem] = field(default_factory=dict)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """A problem for each violation, sorted by object."""
        return tuple(self._problems_by_id[key] for key in sorted(self._problems_by_id))

    @property
    def violations(self) -> frozenset[ObjectId]:
        """The objects with a tenant that their namespace may not hold."""
        return frozenset(self._problems_by_id)

    def replace(self, old: KubeObject | None, new: KubeObject | None, labels: Labels) -> Replacement:
        """The effective objects of replacing `old` with `new` in a namespace with these `labels`."""
        if self.settings.tenant_source is not TenantSource.POD_LABEL:
            return old, new
        # Separately, because kinds may differ: the fallback of an invalid policy has no tenant.
        return self._untrack(old), self._track(new, labels)

    def _untrack(self, old: KubeObject | None) -> KubeObject | None:
        """Stop tracking `old`; returns its effective version."""
        if not isinstance(old, Pod | RomanaPolicy):
            return old
        key = _key(old)
        entries = self._objects.get(old.namespace, {})
        before = entries.pop(key, None)
        if not entries:
            self._objects.pop(old.namespace, None)
        self._problems_by_id.pop(key, None)
        return before.effective if before is not None else None

    def _track(self, new: KubeObject | None, labels: Labels) -> KubeObject | None:
        """Track `new`; returns its effective version."""
        if not isinstance(new, Pod | RomanaPolicy):
            return new
        effective = self._admit(new, labels)
        self._objects.setdefault(new.namespace, {})[_key(new)] = _Entry(new, effective)
        return effective

    def relabel(self, namespace: str, labels: Labels) -> Iterator[Replacement]:
        """The replacements that follow from new `labels` of `namespace`."""
        for entry in self._objects.get(namespace, {}).values():
            old, stored = entry.effective, entry.stored
            if isinstance(stored, Pod | RomanaPolicy):
                self._problems_by_id.pop(_key(stored), None)
                new = self._admit(stored, labels)
                if new != old:
                    entry.effective = new
                    yield old, new

    def _admit(self, stored: Pod | RomanaPolicy, labels: Labels) -> KubeObject | None:
        """The object that takes effect; keeps a problem when it is not `stored` itself."""
        effective: KubeObject | None
        if isinstance(stored, Pod):
            effective, reason = admit_pod(stored, labels, self.settings)
        else:
            effective, reason = admit_policy(stored, labels, self.settings)
        if reason:
            key = _key(stored)
            location = SourceLocation("", 0, "", key.kind, f"{key.namespace}/{key.name}")
            self._problems_by_id[key] = location.problem("metadata.labels", reason)
        return effective


def _key(stored: Pod | RomanaPolicy) -> ObjectId:
    kind = "Pod" if isinstance(stored, Pod) else stored.key.kind
    return ObjectId(kind, stored.namespace, stored.name)
