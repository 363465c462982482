"""Builds the `Cluster` of what an API server has, one changed object at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from romana_ovs.kube.admission.policy_quota import PolicyQuota
from romana_ovs.kube.admission.tenant_guard import TenantGuard
from romana_ovs.kube.cache.cow_dict import CowDict
from romana_ovs.kube.decode.objects import Manifest, ObjectId, Place
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, Namespace, Node, Pod, PodKey, Policy
from romana_ovs.model.settings import Settings

_MAPPINGS = ("namespaces", "nodes", "pods", "policies")


class ClusterBuilder:
    """The parts of the cluster, changed one value at a time."""

    def __init__(self, settings: Settings) -> None:
        self._pods, self._policies, self._namespaces, self._nodes = CowDict(), CowDict(), CowDict(), CowDict()
        self._declared: dict[str, Namespace] = {}
        self._named: Counter[str] = Counter()
        self._bound: dict[str, set[PodKey]] = {}
        """The pods that run on each node, whether there is such a node or not."""
        self._cluster = Cluster(settings=settings)
        self._tenants = TenantGuard(settings)
        self._allowance = PolicyQuota(settings.namespace_terms)

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
