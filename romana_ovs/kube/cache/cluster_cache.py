"""Caches the cluster of an API server: applies listings and changes, and builds the `Cluster`. Pure.

As with manifests, an invalid edit leaves the last valid version of the same object in force, and a policy that was
never valid is replaced by its fallback, which isolates and allows nothing. Unlike with manifests nothing is added:
no pods of workloads, no node for a pod that is not bound, no nodes without Node objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import CLUSTER
from romana_ovs.kube.cache.cluster_builder import ClusterBuilder
from romana_ovs.kube.cache.cow_dict import CowDict
from romana_ovs.kube.cache.object_tracker import Change, ObjectTracker
from romana_ovs.kube.decode.decoder import POLICY, ROMANA_POLICY
from romana_ovs.kube.decode.objects import KubeObject, ObjectId, Version
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Pod, Policy
from romana_ovs.model.settings import Settings

_NAMES = tuple(str(resource) for resource in CLUSTER)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object: its version in force, and the problems of its present version."""

    value: KubeObject | None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    kept: bool = False

    @property
    def effective(self) -> KubeObject | None:
        return self.value if self.value is not None else self.fallback


_NO_ENTRY = _Entry(None)
POLICY_KINDS = (POLICY, ROMANA_POLICY)
"""The kinds of policies in ObjectId."""


class ClusterCache:
    """Applies messages of the Kubernetes process, and returns the cluster whenever it has changed.

    Unchanged values are identical (`is`) in successive clusters, mappings and clusters included. A change costs a
    copy of one mapping, regardless of the size of the others.
    """

    def __init__(self, settings: Settings, resources: Iterable[str] = _NAMES) -> None:
        self.settings = settings
        self._tracker = ObjectTracker(resources)
        self._entries: dict[ObjectId, _Entry] = {}
        self._builder = ClusterBuilder(settings)
        self._problems_by_id: dict[ObjectId, tuple[Problem, ...]] = {}
        self._kept: set[ObjectId] = set()
        self._invalid: set[ObjectId] = set()
        self._versions, self._policies = CowDict(), CowDict()
        self._last: ClusterSnapshot | None = None
        self._dirty = False

    @property
    def synced(self) -> bool:
        """Whether all resources have been listed; before that there is no cluster, and nothing may be deleted."""
        return self._tracker.synced

    @property
    def missing(self) -> tuple[str, ...]:
        """The resources that have not been listed yet."""
        return self._tracker.missing

    @property
    def versions(self) -> Mapping[ObjectId, Version]:
        """The last read version of every object, valid or not; the identical mapping while none has changed."""
        return self._versions.view()

    @property
    def policies(self) -> Mapping[ObjectId, Version]:
        """The versions of policies; the identical mapping while none has changed."""
        return self._policies.view()

    @property
    def invalid(self) -> frozenset[ObjectId]:
        """The objects whose present version is not in force, but the last valid one, a fallback, or nothing."""
        return frozenset(self._invalid | self._builder.not_admitted)

    def apply(self, *messages: object) -> ClusterSnapshot | None:
        """The cluster after `messages`, in their order; None when nothing has changed, or not all is listed.

        Messages that are not about the cluster are ignored.
        """
        for message in messages:
            for change in self._tracker.apply(message):
                self._dirty |= self._apply_change(change)
        if not self.synced or not (self._dirty or self._last is None):
            return None
        self._dirty = False
        cluster, builder_problems = self._builder.cluster()
        problems = [problem for key in sorted(self._problems_by_id) for problem in self._problems_by_id[key]]
        snapshot = ClusterSnapshot(
            cluster=cluster,
            problems=tuple(dict.fromkeys([*problems, *builder_problems])),
            kept=tuple(sorted(self._kept)),
        )
        if self._last is not None and snapshot.cluster is self._last.cluster and snapshot == self._last:
            return None
        self._last = snapshot
        return snapshot

    def _apply_change(self, change: Change) -> bool:
        """Apply one change; returns whether it changes anything."""
        self._set_version(change)
        before = self._entries.get(change.id, _NO_ENTRY)
        if change.update is None:
            entry = _NO_ENTRY
            self._entries.pop(change.id, None)
        else:
            entry = _entry(change.update, _NO_ENTRY if change.replaced else before)
            if entry == before:
                return False
            entry = replace(
                entry,
                value=before.value if before.value == entry.value else entry.value,
                fallback=before.fallback if before.fallback == entry.fallback else entry.fallback,
            )
            self._entries[change.id] = entry
        _set_or_remove(self._problems_by_id, change.id, entry.problems)
        (self._kept.add if entry.kept else self._kept.discard)(change.id)
        lacking = change.update is not None and change.update.value is None
        (self._invalid.add if lacking else self._invalid.discard)(change.id)
        self._builder.replace(before.effective, entry.effective)
        return True

    def _set_version(self, change: Change) -> None:
        version = Version(change.update.uid, change.update.generation) if change.update is not None else None
        if self._versions.current.get(change.id) == version:
            return
        self._versions.set(change.id, version)
        if change.id.kind in POLICY_KINDS:
            self._policies.set(change.id, version)


def _entry(update: Update, before: _Entry) -> _Entry:
    """The entry of an object after `update`; `before` is its entry before."""
    if update.value is not None:
        return _Entry(_normalized(update.value), None, update.problems)
    if before.value is not None:
        return _Entry(before.value, None, update.problems, kept=True)
    return _Entry(None, update.fallback, update.problems)


def _normalized(value: KubeObject) -> KubeObject:
    """`value`; a pod without an address counts as one without status, so that it gets an address here.

    Its kubelet reports an address only after this controller has allocated it. A pod without a node gets none yet.
    """
    if not isinstance(value, Pod) or value.finished or value.host_network or value.address is not None:
        return value
    unbound = not value.node
    return value if value.has_status is unbound else replace(value, has_status=unbound)


def _set_or_remove(by_id: dict[ObjectId, tuple[Problem, ...]], key: ObjectId, problems: tuple[Problem, ...]) -> None:
    if problems:
        by_id[key] = problems
    else:
        by_id.pop(key, None)
