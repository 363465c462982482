"""Manifests that count -> the cluster: workloads expanded, pods placed, namespaces and nodes completed."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.kube.admission.policy_quota import admitted, too_much
from romana_ovs.kube.decode.objects import Item, Place
from romana_ovs.kube.decode.workloads import Offspring, Workload, expand
from romana_ovs.kube.manifests.pod_uids import PodUids
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

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class NodeAgents:
    """The valid items, the fallbacks of invalid policies, and how many nodes there are without a Node.

    `seen` tells on which node the port of a pod is, where that is not the node that the pod was placed on. With
    `incarnations` every pod has a UID.
    """

    items: tuple[Item, ...]
    fallbacks: tuple[Policy, ...]
    nodes: int
    seen: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    incarnations: PodUids | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    """A cluster, what is wrong with how its objects fit, and where each pod (or its workload) stands."""

    cluster: Cluster
    problems: tuple[Problem, ...]
    places: Mapping[PodKey, Place]


def assemble(parts: NodeAgents, before: Cluster) -> Assembled:
    """The cluster that `parts` make. What equals a value in `before` is that very value.

    A pod that is not bound to a node is where its port is seen; else one that was placed in `before` stays.
    """
    policies, crowded = _policies(parts, before.settings)
    nodes = _nodes(parts)
    gathered = _Pods()
    gathered.gather(parts.items, sorted(nodes))
    told = parts.incarnations.tell(gathered.pods) if parts.incarnations is not None else gathered.pods
    pods = _placed(told, sorted(nodes), before, parts.seen)
    problems = crowded + gathered.problems + _unbound(pods, nodes, gathered.places)
    named = {pod.namespace for pod in pods.values()} | {policy.namespace for policy in policies}
    named |= {item.value.namespace for item in parts.items if isinstance(item.value, Workload)}
    cluster = Cluster(
        settings=before.settings,
        namespaces=_same(before.namespaces, _namespaces(parts.items, named)),
        nodes=_same(before.nodes, nodes),
        pods=_same(before.pods, pods),
        policies=_same(before.policies, {policy.key: policy for policy in sorted(policies, key=lambda one: one.key)}),
    )
    unchanged = all(
        getattr(cluster, name) is getattr(before, name) for name in ("namespaces", "nodes", "pods", "policies")
    )
    return Assembled(before if unchanged else cluster, tuple(problems), MappingProxyType(gathered.places))


def _same(before: Mapping[K, V], now: dict[K, V]) -> Mapping[K, V]:
    """`now`, read-only, with the values of `before` where they are equal; `before` itself when all are."""
    changed = len(before) != len(now)
    for key, value in now.items():
        if key in before and before[key] == value:
            now[key] = before[key]
        else:
            changed = True
    return MappingProxyType(now) if changed else before


def _policies(parts: NodeAgents, settings: Settings) -> tuple[list[Policy], list[Problem]]:
    """What counts of the policies, and a problem for each that its namespace has no room for."""
    given = [(item.value, item.place) for item in parts.items if isinstance(item.value, Policy)]
    counted, over = admitted((*parts.fallbacks, *(policy for policy, _ in given)), settings.namespace_terms)
    return counted, [too_much(place, settings.namespace_terms) for policy, place in given if policy.key in over]


def _nodes(parts: NodeAgents) -> dict[str, Node]:
    declared = {item.value.name: item.value for item in parts.items if isinstance(item.value, Node)}
    return declared or {name: Node(name) for name in (f"node{number + 1}" for number in range(parts.nodes))}


def _namespaces(items: Iterable[Item], named: set[str]) -> dict[str, Namespace]:
    found = {name: Namespace(name, Labels({NAME_LABEL: name})) for name in named}
    found |= {item.value.name: item.value for item in items if isinstance(item.value, Namespace)}
    return dict(sorted(found.items()))


class _Pods:
    """Gathers the pods of the manifests, those of workloads included."""

    def __init__(self) -> None:
        self.pods: dict[PodKey, Pod] = {}
        self.places: dict[PodKey, Place] = {}
        self.problems: list[Problem] = []

    def gather(self, items: Iterable[Item], nodes: list[str]) -> None:
        """Take up all pods among `items`, then those of the workloads that have none there yet."""
        workloads: list[tuple[Workload, Place]] = []
        declared: list[Item] = []
        for item in items:
            if isinstance(item.value, Pod):
                declared.append(item)
                self.pods[item.value.key] = item.value
                self.places[item.value.key] = item.place
            elif isinstance(item.value, Workload):
                workloads.append((item.value, item.place))
        offspring = Offspring(
            ((item.value, item.owners) for item in declared if isinstance(item.value, Pod)),
            (workload for workload, _ in workloads),
        )
        for workload, place in sorted(workloads, key=lambda pair: (pair[0].namespace, pair[0].name, pair[0].kind)):
            if not offspring.has(workload, nodes):
                self._expand(workload, place, nodes)

    def _expand(self, workload: Workload, place: Place, nodes: list[str]) -> None:
        taken = []
        for pod in expand(workload, nodes):
            if pod.key in self.pods:
                taken.append(pod.key)
                continue
            self.pods[pod.key] = pod
            self.places[pod.key] = place
        if taken:
            more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
            reason = f"its pod {taken[0]}{more} exists already, by {self.places[taken[0]]}"
            self.problems.append(place.problem("metadata.name", reason))


def _placed(
    pods: Mapping[PodKey, Pod], nodes: list[str], before: Cluster, seen: Mapping[PodKey, str]
) -> dict[PodKey, Pod]:
    """The pods in sorted order, those without a node on the one that has the fewest of them.

    With none `seen` or placed before, this is round-robin. A pod that a scheduler has yet to bind is left alone.
    """
    placed = dict(sorted(pods.items()))
    waiting = []
    load = Counter({node: 0 for node in nodes})
    for key, pod in placed.items():
        if pod.node or not (pod.networked or pod.host_network):
            continue
        old = before.pods.get(key)
        home = seen.get(key, "")
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


def _unbound(pods: Mapping[PodKey, Pod], nodes: Mapping[str, Node], places: Mapping[PodKey, Place]) -> list[Problem]:
    """A problem for each pod (or workload) that is bound to a node that there is none of."""
    found: dict[Problem, None] = {}
    for key, pod in pods.items():
        if pod.node and pod.node not in nodes and not pod.finished:
            place = places[key]
            field = "spec.nodeName" if place.kind == "Pod" else "spec.template.spec.nodeName"
            found[place.problem(field, f"there is no node {pod.node}")] = None
    return list(found)
