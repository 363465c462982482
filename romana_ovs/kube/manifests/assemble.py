"""Assembles a cluster from objects: expands workloads, places pods on nodes, adds missing namespaces and nodes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.kube.admission.policy_quota import apply_quota, quota_problem
from romana_ovs.kube.decode.node_selection import KUBELET_LABELS
from romana_ovs.kube.decode.objects import DecodedObject, SourceLocation
from romana_ovs.kube.decode.workloads import Workload, template_path
from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.workload_pods import Schedulable, WorkloadPods
from romana_ovs.kube.snapshot import LeftOut
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import (
    NAME_LABEL,
    Namespace,
    Node,
    Pod,
    PodKey,
    Policy,
)
from romana_ovs.model.settings import Settings

HOSTNAME_LABEL = "kubernetes.io/hostname"

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class AssemblyInput:
    """The valid objects, the fallbacks of invalid policies, and the number of nodes if nothing names a node.

    `implied_nodes` are the nodes of earlier readings, while there are no Node objects. `node_by_port` is the node of
    each pod's port, where that is not the node that the pod was placed on. With `pod_uids` every pod has a UID.
    """

    objects: tuple[DecodedObject, ...]
    fallbacks: tuple[Policy, ...]
    nodes: int
    node_by_port: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    pod_uids: PodUids | None = None
    implied_nodes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Assembled:
    """A cluster, problems between its objects, and the location of each pod (or its workload).

    `notes` and `left_out` as in ClusterSnapshot.
    """

    cluster: Cluster
    problems: tuple[Problem, ...]
    locations: Mapping[PodKey, SourceLocation]
    notes: tuple[Problem, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


def assemble(inputs: AssemblyInput, before: Cluster) -> Assembled:
    """The cluster of `inputs`. A value that equals one in `before` is that identical object.

    A pod that is not bound to a node is on the node of its port; without a port it stays where it was in `before`.
    """
    policies, quota_problems = _policies(inputs, before.settings)
    nodes = _nodes(inputs)
    collector = WorkloadPods(_schedulable(inputs.objects, nodes))
    collector.collect(inputs.objects)
    identified = inputs.pod_uids.assign(collector.pods) if inputs.pod_uids is not None else collector.pods
    # A node that pods name only later may have no switch: nothing else is placed there.
    pods = _placed(
        identified, sorted(nodes.keys() & inputs.implied_nodes) or sorted(nodes), before, inputs.node_by_port
    )
    problems = quota_problems + collector.problems + _pods_on_missing_nodes(pods, nodes, collector.locations)
    named = {pod.namespace for pod in pods.values()} | {policy.namespace for policy in policies}
    named |= {item.value.namespace for item in inputs.objects if isinstance(item.value, Workload)}
    cluster = Cluster(
        settings=before.settings,
        namespaces=_reuse(before.namespaces, _namespaces(inputs.objects, named)),
        nodes=_reuse(before.nodes, nodes),
        pods=_reuse(before.pods, pods),
        policies=_reuse(before.policies, {policy.key: policy for policy in sorted(policies, key=lambda one: one.key)}),
    )
    unchanged = all(
        getattr(cluster, name) is getattr(before, name) for name in ("namespaces", "nodes", "pods", "policies")
    )
    return Assembled(
        cluster=before if unchanged else cluster,
        problems=tuple(problems),
        locations=MappingProxyType(collector.locations),
        notes=tuple(dict.fromkeys(collector.notes)),
        left_out=tuple(collector.left_out),
    )


def _reuse(before: Mapping[K, V], now: dict[K, V]) -> Mapping[K, V]:
    """`now`, read-only, with the values of `before` where they are equal; `before` itself when all are."""
    changed = len(before) != len(now)
    for key, value in now.items():
        if key in before and before[key] == value:
            now[key] = before[key]
        else:
            changed = True
    return MappingProxyType(now) if changed else before


def _policies(inputs: AssemblyInput, settings: Settings) -> tuple[list[Policy], list[Problem]]:
    """The effective policies, and a problem for each policy beyond the quota of its namespace."""
    given = [(item.value, item.location) for item in inputs.objects if isinstance(item.value, Policy)]
    counted, over = apply_quota((*inputs.fallbacks, *(policy for policy, _ in given)), settings.namespace_terms)
    return counted, [
        quota_problem(location, settings.namespace_terms) for policy, location in given if policy.key in over
    ]


def _nodes(inputs: AssemblyInput) -> dict[str, Node]:
    """The nodes of the Node objects; without any, the nodes that pods name, or else `node1` to `nodeN`.

    Without Node objects a node stays while the folder is followed, also when its last pod goes.
    """
    declared = {item.value.name: item.value for item in inputs.objects if isinstance(item.value, Node)}
    if declared:
        return declared
    default_names = {f"node{number + 1}" for number in range(inputs.nodes)}
    named = named_nodes(inputs.objects)
    names = default_names if named <= default_names else named
    return {name: Node(name) for name in sorted(names | inputs.implied_nodes)}


def named_nodes(objects: Iterable[DecodedObject]) -> set[str]:
    """The nodes that pods and pod templates name in nodeName; pods that have ended do not count."""
    names = set()
    for item in objects:
        if isinstance(item.value, Pod) and not item.value.finished:
            names.add(item.value.node)
        elif isinstance(item.value, Workload) and not item.value.no_pods:
            names.add(item.value.spec.node)
    return names - {""}


def _schedulable(objects: Iterable[DecodedObject], nodes: Mapping[str, Node]) -> list[Schedulable]:
    """The nodes in sorted order, with the labels that a kubelet gives each, unless they are not declared."""
    taints = {item.value.name: item.taints for item in objects if isinstance(item.value, Node)}
    return [
        Schedulable(name, {**KUBELET_LABELS, HOSTNAME_LABEL: name, **node.labels}, taints[name])
        if name in taints
        else Schedulable(name)
        for name, node in sorted(nodes.items())
    ]


def _namespaces(objects: Iterable[DecodedObject], named: set[str]) -> dict[str, Namespace]:
    namespaces = {name: Namespace(name, Labels({NAME_LABEL: name})) for name in named}
    namespaces |= {item.value.name: item.value for item in objects if isinstance(item.value, Namespace)}
    return dict(sorted(namespaces.items()))


def _placed(
    pods: Mapping[PodKey, Pod], nodes: list[str], before: Cluster, node_by_port: Mapping[PodKey, str]
) -> dict[PodKey, Pod]:
    """The pods in sorted order, those without a node on the one that has the fewest of them.

    Without `node_by_port` and earlier placements this is round-robin. A pod that waits for a scheduler is not placed.
    """
    placed = dict(sorted(pods.items()))
    waiting = []
    load = Counter({node: 0 for node in nodes})
    for key, pod in placed.items():
        if pod.node or not (pod.networked or pod.host_network):
            continue
        old = before.pods.get(key)
        home = node_by_port.get(key, "")
        if home not in load:
            home = old.node if old is not None else ""
        if home in load:
            load[home] += 1
            placed[key] = old if old is not None and old == replace(pod, node=home) else replace(pod, node=home)
        else:
            waiting.append(key)
    heap = [(count, node) for node, count in load.items()]
    heapq.heapify(heap)
    for key in waiting if heap else ():
        count, node = heap[0]
        placed[key] = replace(placed[key], node=node)
        heapq.heapreplace(heap, (count + 1, node))
    return placed


def _pods_on_missing_nodes(
    pods: Mapping[PodKey, Pod], nodes: Mapping[str, Node], locations: Mapping[PodKey, SourceLocation]
) -> list[Problem]:
    """A problem for each pod (or workload) that is bound to a missing node."""
    problems: dict[Problem, None] = {}
    for key, pod in pods.items():
        if pod.node and pod.node not in nodes and not pod.finished:
            location = locations[key]
            field = "spec.nodeName" if location.kind == "Pod" else f"{template_path(location.kind)}.spec.nodeName"
            problems[location.problem(field, f"there is no node {pod.node}")] = None
    return list(problems)
