"""Maintains the `Cluster` from the objects of an API server, one changed object at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from romana_ovs.kube.admission.policy_quota import PolicyQuota
from romana_ovs.kube.admission.tenant_guard import TenantGuard
from romana_ovs.kube.cache.cow_dict import CowDict
from romana_ovs.kube.cache.frontends import Frontends
from romana_ovs.kube.decode.objects import KubeObject, ObjectId, SourceLocation
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, Namespace, Node, Pod, PodKey, Policy
from romana_ovs.model.services import EndpointsObject, Service, ServiceCIDR
from romana_ovs.model.settings import Settings

_MAPPINGS = ("namespaces", "nodes", "pods", "policies", "service_cidrs", "frontends")


class ClusterBuilder:
    """Builds successive clusters, one changed object at a time."""

    def __init__(self, settings: Settings) -> None:
        self._pods, self._policies, self._namespaces, self._nodes = CowDict(), CowDict(), CowDict(), CowDict()
        self._service_cidrs = CowDict()
        self._frontends = Frontends()
        self._declared: dict[str, Namespace] = {}
        self._object_counts: Counter[str] = Counter()
        self._pods_by_node: dict[str, set[PodKey]] = {}
        """The pods that are bound to each node, whether the node exists or not."""
        self._cluster = Cluster(settings=settings)
        self._tenant_guard = TenantGuard(settings)
        self._quota = PolicyQuota(settings.namespace_terms)

    @property
    def not_admitted(self) -> frozenset[ObjectId]:
        """Objects with a tenant that their namespace may not hold, and policies beyond its quota."""
        return self._tenant_guard.violations | self._quota.over

    def cluster(self) -> tuple[Cluster, list[Problem]]:
        """The cluster, and problems between its objects."""
        before = self._cluster
        for key, policy in self._quota.changes():
            self._policies.set(key, policy)
        cluster = Cluster(
            settings=before.settings,
            namespaces=self._namespaces.view(),
            nodes=self._nodes.view(),
            pods=self._pods.view(),
            policies=self._policies.view(),
            service_cidrs=self._service_cidrs.view(),
            frontends=self._frontends.view(),
        )
        if any(getattr(cluster, name) is not getattr(before, name) for name in _MAPPINGS):
            self._cluster = cluster
        return self._cluster, [*self._tenant_guard.problems, *self._quota.problems, *self._pods_on_missing_nodes()]

    def replace(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Replace `old` by `new`; either may be None."""
        if old is new:
            return
        sample = new if new is not None else old
        if isinstance(sample, Pod | Policy):
            old, new = self._tenant_guard.replace(old, new, self._labels_of(sample.namespace))
        self._set(old, new)

    def _set(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None:
            self._set_one(old, None)
        if new is not None:
            self._set_one(new, new)

    def _labels_of(self, namespace: str) -> Labels:
        declared = self._declared.get(namespace)
        return declared.labels if declared is not None else Labels({NAME_LABEL: namespace})

    def _set_one(self, which: KubeObject, value: KubeObject | None) -> None:
        """Set (or, with None, remove) the object with the key of `which`."""
        if isinstance(which, Node):
            self._nodes.set(which.name, value)
        elif isinstance(which, ServiceCIDR):
            self._service_cidrs.set(which.name, value)
        elif isinstance(which, Service | EndpointsObject):
            self._frontends.set(which, exists=value is not None)
        elif isinstance(which, Namespace):
            self._set_namespace(which, value is not None)
        elif isinstance(which, Pod):
            self._pods.set(which.key, value)
            self._count_objects(which.namespace, 1 if value is not None else -1)
            self._track_node(which, value is not None)
        elif isinstance(which, Policy):
            self._quota.set(which.key, value if isinstance(value, Policy) else None)
            self._count_objects(which.namespace, 1 if value is not None else -1)

    def _set_namespace(self, namespace: Namespace, exists: bool) -> None:
        if exists:
            self._declared[namespace.name] = namespace
        else:
            self._declared.pop(namespace.name, None)
        self._count_objects(namespace.name, 0)
        for old, new in list(self._tenant_guard.relabel(namespace.name, self._labels_of(namespace.name))):
            self._set(old, new)

    def _count_objects(self, namespace: str, more: int) -> None:
        """Count the objects in `namespace`: it exists while there are any, at least with the label of its name."""
        before = self._object_counts[namespace]
        self._object_counts[namespace] = before + more
        if more and before and before + more:
            return
        if not before + more:
            del self._object_counts[namespace]
        declared = self._declared.get(namespace)
        if declared is None and namespace in self._object_counts:
            declared = Namespace(namespace, Labels({NAME_LABEL: namespace}))
        self._namespaces.set(namespace, declared)

    def _track_node(self, pod: Pod, exists: bool) -> None:
        if not pod.node or pod.finished:
            return
        pods = self._pods_by_node.setdefault(pod.node, set())
        if exists:
            pods.add(pod.key)
        else:
            pods.discard(pod.key)
            if not pods:
                del self._pods_by_node[pod.node]

    def _pods_on_missing_nodes(self) -> Iterator[Problem]:
        """A problem for each pod that is bound to a missing node."""
        for node in sorted(self._pods_by_node.keys() - self._nodes.current.keys()):
            for key in sorted(self._pods_by_node[node]):
                location = SourceLocation("", 0, "", "Pod", key)
                yield location.problem("spec.nodeName", f"there is no node {node}")
