"""Keeps one endpoint record for each pod that has an address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Protocol

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.engine.changes import Changes
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.errors import AddressError, Problem
from romana_ovs.model.objects import Pod, PodKey, same_uid


class Identified(Protocol):
    """A pod with the number of its segment: what its identity is made of."""

    @property
    def pod(self) -> Pod:
        """The pod."""

    @property
    def number(self) -> int:
        """The permanent number of its segment."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A pod with its endpoint, the segment that its labels say now, and that segment's number."""

    pod: Pod
    segment: SegmentKey
    number: int
    endpoint: Endpoint


@dataclass(slots=True)
class EndpointChanges:
    """What an update did: members that are new, gone or different, and the nodes that these are or were on."""

    members: set[PodKey] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)


class Endpoints:
    """Every pod that has an address, and a problem for every pod or node that should have a number but cannot."""

    def __init__(self, registry: Allocator) -> None:
        self.registry = registry
        self.members: dict[PodKey, EndpointRecord] = {}
        self.in_namespace: Counter[str] = Counter()
        self._refused: dict[PodKey, Problem] = {}
        self._nodes_refused: dict[str, Problem] = {}
        self._seen_freed = registry.freed

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All of them, sorted by node and pod."""
        clashes = [
            _pod_problem(end.pod, f"address {end.address} is also that of a node") for end in self.registry.clashes()
        ]
        refused = [*self._nodes_refused.values(), *self._refused.values()]
        return tuple(sorted([*refused, *clashes], key=lambda problem: (problem.kind, problem.name, problem.reason)))

    def update(self, cluster: Cluster, changes: Changes, *, first: bool) -> EndpointChanges:
        """Follows `cluster`. What is freed is freed before anything is given, so one update can hand over."""
        done = EndpointChanges()
        gone = set(self.registry.endpoints) - cluster.pods.keys() if first else set()
        for key in sorted(changes.pods | gone):
            self._let_go(key, cluster.pods.get(key), done)
        self._follow_nodes(cluster, changes)
        looked_at = self._to_look_at(cluster, changes)
        wanted = [pod for key in sorted(looked_at) if (pod := needs_endpoint(cluster.pods.get(key))) is not None]
        self._admit(cluster, wanted)
        claims = [pod for pod in wanted if pod.address is not None]
        # Before the claims: a pod that comes with a node's own address does not push the node from it.
        again = cluster.nodes.keys() if changes.nodes or self._nodes_refused else set()
        self._number_hosts(again | {pod.node for pod in claims})
        for pod in (*claims, *(pod for pod in wanted if pod.address is None)):
            self._keep(pod, cluster, done)
        # A node that only its pods name has a number for as long as it has pods.
        for node in {pod.node for pod in wanted if pod.node not in cluster.nodes}:
            self.registry.forget_host(node)
        self._seen_freed = self.registry.freed
        return done

    def _to_look_at(self, cluster: Cluster, changes: Changes) -> set[PodKey]:
        """Changed pods, and those that were refused, if something was freed since."""
        if self.registry.freed == self._seen_freed and not changes.nodes:
            return set(changes.pods)
        return {*changes.pods, *self._refused}

    def _let_go(self, key: PodKey, pod: Pod | None, done: EndpointChanges) -> None:
        """Ends what the registry holds for `key` unless `pod` is still the one that has it."""
        held = self.registry.endpoint(key)
        wanted = needs_endpoint(pod)
        if wanted is None:
            self._refused.pop(key, None)
        if held is None or (wanted is not None and (_same(wanted, held) or self._stays(wanted, held))):
            return
        self.registry.release(key, uid=held.uid)
        self._drop(key, done)

    def _stays(self, pod: Pod, held: Endpoint) -> bool:
        """Whether `pod` now comes with an address that no pod may have: that is refused, and what it has stays."""
        if pod.address is None or not same_uid(held.uid, pod.uid) or held.node != pod.node:
            return False
        return held.address != pod.address and bool(self.registry.fault(pod.address))

    def _drop(self, key: PodKey, done: EndpointChanges) -> None:
        member = self.members.pop(key, None)
        if member is not None:
            self.in_namespace[member.pod.namespace] -= 1
            if not self.in_namespace[member.pod.namespace]:
                del self.in_namespace[member.pod.namespace]
            done.members.add(key)
            done.nodes.add(member.endpoint.node)

    def _follow_nodes(self, cluster: Cluster, changes: Changes) -> None:
        if not changes.nodes:
            return
        self.registry.reserve(address for node in cluster.nodes.values() for address in node.addresses)
        for node in self.registry.hosts:
            if node not in cluster.nodes:
                self.registry.forget_host(node)
        self._nodes_refused = {name: held for name, held in self._nodes_refused.items() if name in cluster.nodes}

    def _number_hosts(self, nodes: Set[str]) -> None:
        for node in sorted(nodes):
            try:
                self.registry.host(node)
                self._nodes_refused.pop(node, None)
            except AddressError as refused:
                self._nodes_refused[node] = Problem(str(refused), kind="Node", name=node)

    def _admit(self, cluster: Cluster, wanted: Iterable[Pod]) -> None:
        """First runs for tenants that are new, with room for all of the tiers that came with them."""
        tiers: dict[str, set[str]] = {}
        for pod in wanted:
            segment = cluster.segment_of(pod)
            if segment not in self.registry.segments:
                tiers.setdefault(segment.tenant, set()).add(segment.tier)
        for tenant in sorted(tiers):
            self.registry.admit(tenant, tiers[tenant])

    def _keep(self, pod: Pod, cluster: Cluster, done: EndpointChanges) -> None:
        """Gives `pod` its endpoint and number, or notes why not."""
        segment = cluster.segment_of(pod)
        try:
            number = self.registry.number(segment)
            endpoint = self._endpoint(pod, segment)
        except AddressError as refused:
            self._refused[pod.key] = _pod_problem(pod.key, str(refused))
            self._drop(pod.key, done)
            return
        if pod.address is None or pod.address == endpoint.address:
            self._refused.pop(pod.key, None)
        else:
            reason = f"{self.registry.fault(pod.address)}; it keeps {endpoint.address}"
            self._refused[pod.key] = _pod_problem(pod.key, reason)
        member = EndpointRecord(pod, segment, number, endpoint)
        if self.members.get(pod.key) == member:
            return
        if pod.key not in self.members:
            self.in_namespace[pod.namespace] += 1
        self.members[pod.key] = member
        done.members.add(pod.key)
        done.nodes.add(pod.node)

    def _endpoint(self, pod: Pod, segment: SegmentKey) -> Endpoint:
        """The endpoint of `pod`. Raises AddressError when it can have none."""
        if pod.address is None:
            return self.registry.attach(pod.key, uid=pod.uid, node=pod.node, segment=segment)
        held = self.registry.endpoint(pod.key)
        if held is not None and self._stays(pod, held):
            return held
        return self.registry.claim(pod.key, uid=pod.uid, node=pod.node, address=pod.address)


def needs_endpoint(pod: Pod | None) -> Pod | None:
    """`pod` when it should have an endpoint: it is on a node, and neither finished nor its node's own."""
    return pod if pod is not None and pod.networked and pod.node else None


def _same(pod: Pod, held: Endpoint) -> bool:
    """Whether `held` is what `pod` has. A pod without status may keep only what we gave."""
    if not same_uid(held.uid, pod.uid) or held.node != pod.node:
        return False
    return not held.foreign if pod.address is None else held.address == pod.address


def _pod_problem(pod: PodKey, reason: str) -> Problem:
    return Problem(reason, kind="Pod", name=pod)
