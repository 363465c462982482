"""The cluster as an API server tells it: listings and changes in, the cluster out. No I/O.

As with manifests, an invalid edit leaves the last valid version of that very object in force, and a policy that was
never valid is represented by its fallback, which isolates and allows nothing. Other than with manifests nothing is
made up: no pods of workloads, no node for a pod that is not bound, no nodes but the Node objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from romana_ovs.kube.allowance import Allowance
from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import CLUSTER
from romana_ovs.kube.bound import Bound
from romana_ovs.kube.decode import POLICY, ROMANA_POLICY
from romana_ovs.kube.items import Manifest, ObjectId, Place, Version
from romana_ovs.kube.ledger import Change, Ledger
from romana_ovs.kube.store import Loaded
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, Namespace, Node, Pod, PodKey, Policy
from romana_ovs.model.settings import Settings

_MAPPINGS = ("namespaces", "nodes", "pods", "policies")
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


class LiveStore:
    """Takes what the Kubernetes process tells, and yields the cluster whenever it is another.

    Values that have not changed are the same objects (`is`) in successive clusters, mappings and clusters included.
    One change costs a copy of one mapping, whatever else there is.
    """

    def __init__(self, settings: Settings, resources: Iterable[str] = _NAMES) -> None:
        self.settings = settings
        self._ledger = Ledger(resources)
        self._entries: dict[ObjectId, _Entry] = {}
        self._parts = _Parts(settings)
        self._faulty: dict[ObjectId, tuple[Problem, ...]] = {}
        self._kept: set[ObjectId] = set()
        self._invalid: set[ObjectId] = set()
        self._versions, self._policies = _Part(), _Part()
        self._told: Loaded | None = None
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
        return frozenset(self._invalid | self._parts.misplaced)

    def apply(self, *messages: object) -> Loaded | None:
        """The cluster after `messages`, in their order; None when nothing is other than it was, or not all is listed.

        Messages that do not concern it are passed over.
        """
        for message in messages:
            for change in self._ledger.take(message):
                self._dirty |= self._change(change)
        if not self.listed or not (self._dirty or self._told is None):
            return None
        self._dirty = False
        cluster, lost = self._parts.cluster()
        problems = [problem for key in sorted(self._faulty) for problem in self._faulty[key]]
        loaded = Loaded(
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
        self._parts.exchange(before.effective, entry.effective)
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


@dataclass(slots=True)
class _Part:
    """One mapping of the cluster: as it is now, and the read-only copy of it that was given out."""

    now: dict[Any, Any] = field(default_factory=dict)
    given: Mapping[Any, Any] = field(default_factory=lambda: MappingProxyType({}))
    touched: set[Any] = field(default_factory=set)

    def put(self, key: Any, value: Any) -> None:
        """Set (or, with None, remove) one value."""
        self.touched.add(key)
        if value is None:
            self.now.pop(key, None)
        else:
            self.now[key] = value

    def copy(self) -> Mapping[Any, Any]:
        """What is there now, read-only; the same mapping as last time when it holds the same."""
        changed = False
        for key in self.touched:
            before, value = self.given.get(key), self.now.get(key)
            if value is not before and value == before:
                self.now[key] = before
            else:
                changed |= value is not before
        self.touched.clear()
        if changed:
            self.given = MappingProxyType(dict(self.now))
        return self.given


class _Parts:
    """The parts of the cluster, changed one value at a time."""

    def __init__(self, settings: Settings) -> None:
        self._pods, self._policies, self._namespaces, self._nodes = _Part(), _Part(), _Part(), _Part()
        self._declared: dict[str, Namespace] = {}
        self._named: Counter[str] = Counter()
        self._bound: dict[str, set[PodKey]] = {}
        """The pods that run on each node, whether there is such a node or not."""
        self._cluster = Cluster(settings=settings)
        self._tenants = Bound(settings)
        self._allowance = Allowance(settings.namespace_terms)

    @property
    def misplaced(self) -> frozenset[ObjectId]:
        """The objects that name a tenant which their namespace may not hold, and policies that it has no room for."""
        return self._tenants.misplaced | self._allowance.over

    def cluster(self) -> tuple[Cluster, list[Problem]]:
        """The cluster, and what is wrong with how its objects fit."""
        before = self._cluster
        for key, policy in self._allowance.settle():
            self._policies.put(key, policy)
        cluster = Cluster(
            settings=before.settings,
            namespaces=self._namespaces.copy(),
            nodes=self._nodes.copy(),
            pods=self._pods.copy(),
            policies=self._policies.copy(),
        )
        if any(getattr(cluster, name) is not getattr(before, name) for name in _MAPPINGS):
            self._cluster = cluster
        return self._cluster, [*self._tenants.problems, *self._allowance.problems, *self._lost()]

    def exchange(self, old: Manifest | None, new: Manifest | None) -> None:
        """Put `new` where `old` was; either may be None."""
        if old is new:
            return
        sample = new if new is not None else old
        if isinstance(sample, Pod | Policy):
            old, new = self._tenants.exchange(old, new, self._labels_of(sample.namespace))
        self._replace(old, new)

    def _replace(self, old: Manifest | None, new: Manifest | None) -> None:
        if old is not None:
            self._put(old, None)
        if new is not None:
            self._put(new, new)

    def _labels_of(self, namespace: str) -> Labels:
        declared = self._declared.get(namespace)
        return declared.labels if declared is not None else Labels({NAME_LABEL: namespace})

    def _put(self, which: Manifest, value: Manifest | None) -> None:
        """Set, or with None remove, what has the key of `which`."""
        if isinstance(which, Node):
            self._nodes.put(which.name, value)
        elif isinstance(which, Namespace):
            self._declare(which, value is not None)
        elif isinstance(which, Pod):
            self._pods.put(which.key, value)
            self._name(which.namespace, 1 if value is not None else -1)
            self._bind(which, value is not None)
        elif isinstance(which, Policy):
            self._allowance.put(which.key, value if isinstance(value, Policy) else None)
            self._name(which.namespace, 1 if value is not None else -1)

    def _declare(self, namespace: Namespace, there: bool) -> None:
        if there:
            self._declared[namespace.name] = namespace
        else:
            self._declared.pop(namespace.name, None)
        self._name(namespace.name, 0)
        for old, new in list(self._tenants.relabelled(namespace.name, self._labels_of(namespace.name))):
            self._replace(old, new)

    def _name(self, namespace: str, more: int) -> None:
        """Count who names `namespace`: it exists while anything does, with the label of its name at least."""
        before = self._named[namespace]
        self._named[namespace] = before + more
        if more and before and before + more:
            return
        if not before + more:
            del self._named[namespace]
        declared = self._declared.get(namespace)
        if declared is None and namespace in self._named:
            declared = Namespace(namespace, Labels({NAME_LABEL: namespace}))
        self._namespaces.put(namespace, declared)

    def _bind(self, pod: Pod, there: bool) -> None:
        if not pod.node or pod.finished:
            return
        pods = self._bound.setdefault(pod.node, set())
        if there:
            pods.add(pod.key)
        else:
            pods.discard(pod.key)
            if not pods:
                del self._bound[pod.node]

    def _lost(self) -> Iterator[Problem]:
        """A problem for each pod that is bound to a node that there is none of."""
        for node in sorted(self._bound.keys() - self._nodes.now.keys()):
            for key in sorted(self._bound[node]):
                place = Place("", 0, "", "Pod", key)
                yield place.problem("spec.nodeName", f"there is no node {node}")


class LiveObjects:
    """The objects that are not decoded: by resource and name, as they were last told."""

    def __init__(self, resources: Iterable[str]) -> None:
        names = tuple(resources)
        self._ledger = Ledger(names)
        self._objects: dict[str, _Part] = {name: _Part() for name in names}

    @property
    def listed(self) -> bool:
        """Whether all of them have been listed."""
        return self._ledger.listed

    def apply(self, *messages: object) -> frozenset[str]:
        """The resources of which `messages` change anything (or which they list for the first time)."""
        changed: set[str] = set()
        for message in messages:
            before = self._ledger.missing
            for change in self._ledger.take(message):
                self._objects[change.resource].put(change.id.name, change.update)
                changed.add(change.resource)
            changed.update(set(before) - set(self._ledger.missing))
        return frozenset(changed)

    def of(self, resource: str) -> Mapping[str, Update]:
        """The objects of `resource` by name, read-only; those that did not change are the same as before."""
        return self._objects[resource].copy()
