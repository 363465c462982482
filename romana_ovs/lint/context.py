"""Defines what checks look at: a snapshot of manifests, with the objects of each kind and their locations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.kube.decode.objects import SourceLocation
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import Pod, Policy


@dataclass(frozen=True, slots=True)
class LintContext:
    """A snapshot with its policies and their locations, and the pods of each namespace."""

    snapshot: ClusterSnapshot
    policies: tuple[tuple[Policy, SourceLocation], ...]
    pods: Mapping[str, tuple[Pod, ...]]

    @property
    def cluster(self) -> Cluster:
        """The cluster of the snapshot."""
        return self.snapshot.cluster

    @classmethod
    def of(cls, snapshot: ClusterSnapshot) -> LintContext:
        """The context of a snapshot of manifests."""
        policies = tuple((item.value, item.location) for item in snapshot.objects if isinstance(item.value, Policy))
        pods: dict[str, list[Pod]] = defaultdict(list)
        for pod in snapshot.cluster.pods.values():
            pods[pod.namespace].append(pod)
        return cls(snapshot, policies, MappingProxyType({name: tuple(group) for name, group in pods.items()}))
