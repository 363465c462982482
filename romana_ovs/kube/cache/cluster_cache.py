"""The cluster as an API server tells it: listings and changes in, the cluster out. No I/O.

As with manifests, an invalid edit leaves the last valid version of that very object in force, and a policy that was
never valid is represented by its fallback, which isolates and allows nothing. Other than with manifests nothing is
made up: no pods of workloads, no node for a pod that is not bound, no nodes but the Node objects.
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
from romana_ovs.kube.decode.objects import Manifest, ObjectId, Version
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Pod, Policy
from romana_ovs.model.settings import Settings

_NAMES = tuple(str(resource) for resource in CLUSTER)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one object: what of it is in force, and what is wrong with its present version."""

    value: Manifest | None
    fallback: Policy | None = None
    problems: tuple[Problem, ...] = ()
    kept: bool = False

    @property
    def effective(self) -> Manifest | None:
        return self.value if self.value is not None else self.fallback


_NOTHING = _Entry(None)
POLICY_KINDS = (POLICY, ROMANA_POLICY)
"""What ObjectId calls policies."""


class ClusterCache:
    """Takes what the Kubernetes process tells, and yields the cluster whenever it is another.

    Values that have not changed are the same objects (`is`) in successive clusters, mappings and clusters included.
    One change costs a copy of one mapping, whatever else there is.
    """

    def __init__(self, settings: Settings, resources: Iterable[str] = _NAMES) -> None:
        self.settings = settings
        self._ledger = ObjectTracker(resources)
        self._entries: dict[ObjectId, _Entry] = {}
        self._builder = ClusterBuilder(settings)
        self._faulty: dict[ObjectId, tuple[Problem, ...]] = {}
        self._kept: set[ObjectId] = set()
        self._invalid: set[ObjectId] = set()
        self._versions, self._policies = CowDict(), CowDict()
        self._told: ClusterSnapshot | None = None
        self._dirty = False

    @property
    def listed(self) -> bool:
        """Whether all sources have been listed; before that there is no cluster, and nothing may be deleted."""
        return self._ledger.listed

    @property
    def missing(self) -> tuple[str, ...]:
        """The resources that have not been listed yet."""
        return self._ledger.missing

    @property
    def versions(self) -> Mapping[ObjectId, Version]:
        """Which version of every object was read last, valid or not; the same mapping while none is another."""
        return self._versions.copy()

    @property
    def policies(self) -> Mapping[ObjectId, Version]:
        """The versions of policies: the same object until one of them is another."""
        return self._policies.copy()

    @property
    def invalid(self) -> frozenset[ObjectId]:
        """The objects whose present version means nothing: its last valid one stays, its fallback, or nothing."""
        return frozenset(self._invalid | self._builder.misplaced)

    def apply(self, *messages: object) -> ClusterSnapshot | None:
        """The cluster after `messages`, in their order; None when nothing is other than it was, or not all is listed.

        Messages that do not concern it are passed over.
        """
        for message in messages:
            for change in self._ledger.take(message):
                self._dirty |= self._change(change)
        if not self.listed or not (self._dirty or self._told is None):
            return None
        self._dirty = False
        cluster, lost = self._builder.cluster()
        problems = [problem for key in sorted(self._faulty) for problem in self._faulty[key]]
        loaded = ClusterSnapshot(
            cluster=cluster,
            problems=tuple(dict.fromkeys([*problems, *lost])),
            kept=tuple(sorted(self._kept)),
        )
        if self._told is not None and loaded.cluster is self._told.cluster and loaded == self._told:
            return None
        self._told = loaded
        return loaded

    def _change(self, change: Change) -> bool:
        """Take note of a change; returns whether it matters."""
        self._note_version(change)
        before = self._entries.get(change.id, _NOTHING)
        if change.update is None:
            entry = _NOTHING
            self._entries.pop(change.id, None)
        else:
            entry = _entry(change.update, _NOTHING if change.anew else before)
            if entry == before:
                return False
            entry = replace(
                entry,
                value=before.value if before.value == entry.value else entry.value,
                fallback=before.fallback if before.fallback == entry.fallback else entry.fallback,
            )
            self._entries[change.id] = entry
        _hold(self._faulty, change.id, entry.problems)
        (self._kept.add if entry.kept else self._kept.discard)(change.id)
        lacking = change.update is not None and change.update.value is None
        (self._invalid.add if lacking else self._invalid.discard)(change.id)
        self._builder.exchange(before.effective, entry.effective)
        return True

    def _note_version(self, change: Change) -> None:
        version = Version(change.update.uid, change.update.generation) if change.update is not None else None
        if self._versions.now.get(change.id) == version:
            return
        self._versions.put(change.id, version)
        if change.id.kind in POLICY_KINDS:
            self._policies.put(change.id, version)


def _entry(update: Update, before: _Entry) -> _Entry:
    """What `update` makes of an object that was `before`."""
    if update.value is not None:
        return _Entry(_ours(update.value), None, update.problems)
    if before.value is not None:
        return _Entry(before.value, None, update.problems, kept=True)
    return _Entry(None, update.fallback, update.problems)


def _ours(value: Manifest) -> Manifest:
    """`value`; a pod of our network without an address, as one that is to get one from us.

    Its kubelet reports an address only after we have given it. A pod that is not bound is nobody's yet.
    """
    if not isinstance(value, Pod) or value.finished or value.host_network or value.address is not None:
        return value
    unbound = not value.node
    return value if value.has_status is unbound else replace(value, has_status=unbound)


def _hold(held: dict[ObjectId, tuple[Problem, ...]], key: ObjectId, problems: tuple[Problem, ...]) -> None:
    if problems:
        held[key] = problems
    else:
        held.pop(key, None)
