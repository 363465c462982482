"""Keeps an endpoint record for each pod that has an address."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.node_allocator import NodeAllocator
from romana_ovs.engine.changes import Changes
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.errors import AddressError, Problem
from romana_ovs.model.objects import Node, Pod, PodKey, same_uid


class NumberedPod(Protocol):
    """A pod with the number of its segment: these decide its identity."""

    @property
    def pod(self) -> Pod:
        """The pod."""

    @property
    def segment_number(self) -> int:
        """The permanent number of its segment."""


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """A pod with its endpoint, the segment that its labels put it in now, and that segment's number."""

    pod: Pod
    segment: SegmentKey
    segment_number: int
    endpoint: Endpoint


class Endpoints:
    """The record of every pod of a node that has an address, and a problem for each that gets none.

    `addresses_of` returns the addresses of nodes, as numbers: agents may share one set.
    """

    def __init__(self, allocator: NodeAllocator, addresses_of: Callable[[Mapping[str, Node]], frozenset[int]]) -> None:
        self.allocator = allocator
        self._addresses_of = addresses_of
        self.records: dict[PodKey, EndpointRecord] = {}
        self._unallocated: dict[PodKey, Problem] = {}
        self._node_unnumbered: Problem | None = None
        self._freed = allocator.freed

    @property
    def problems(self) -> tuple[Problem, ...]:
        """All of them, sorted by node and pod."""
        clashes = [
            _pod_problem(end.pod, f"address {end.address} is also that of a node") for end in self.allocator.clashes()
        ]
        problems = [*self._unallocated.values(), *clashes]
        if self._node_unnumbered is not None:
            problems.append(self._node_unnumbered)
        return tuple(sorted(problems, key=lambda problem: (problem.kind, problem.name, problem.reason)))

    def update(self, cluster: Cluster, changes: Changes, *, first: bool) -> None:
        """Updates the records to `cluster`. Releases come before allocations, so that freed numbers can be reused."""
        gone = set(self.allocator.endpoints) - cluster.pods.keys() if first else set()
        for key in sorted(changes.pods | gone):
            self._release(key, cluster.pods.get(key))
        if changes.nodes:
            self.allocator.reserve_numbers(self._addresses_of(cluster.nodes))
        updated = self._pods_to_update(cluster, changes)
        wanted = {key: pod for key in sorted(updated) if (pod := needs_endpoint(cluster.pods.get(key))) is not None}
        claims = [key for key, pod in wanted.items() if pod.address is not None]
        self._check_host_number(needed=bool(claims) or self.allocator.node in cluster.nodes)
        for key in (*claims, *(key for key, pod in wanted.items() if pod.address is None)):
            self._assign(key, wanted[key], cluster)
        self._freed = self.allocator.freed

    def _pods_to_update(self, cluster: Cluster, changes: Changes) -> set[PodKey]:
        """The changed pods, and those without an endpoint if a number was freed since."""
        if self.allocator.freed == self._freed and not changes.nodes:
            return set(changes.pods)
        return {*changes.pods, *self._unallocated}

    def _release(self, key: PodKey, pod: Pod | None) -> None:
        """Releases the endpoint of `key` unless `pod` is still the one that has it."""
        endpoint = self.allocator.endpoint(key)
        wanted = needs_endpoint(pod)
        if wanted is None:
            self._unallocated.pop(key, None)
        if endpoint is None or (
            wanted is not None and (_is_current(wanted, endpoint) or self._keeps_address(wanted, endpoint))
        ):
            return
        self.allocator.release(key, uid=endpoint.uid)
        self.records.pop(key, None)

    def _keeps_address(self, pod: Pod, endpoint: Endpoint) -> bool:
        """Whether `pod` has got an address that no pod may have: it keeps its endpoint."""
        if pod.address is None or not same_uid(endpoint.uid, pod.uid) or endpoint.node != pod.node:
            return False
        return endpoint.address != pod.address and bool(self.allocator.fault(pod.address))

    def _check_host_number(self, *, needed: bool) -> None:
        """Record a problem while the node has no host number."""
        self._node_unnumbered = None
        if needed:
            try:
                self.allocator.host(self.allocator.node)
            except AddressError as error:
                self._node_unnumbered = Problem(str(error), kind="Node", name=self.allocator.node)

    def _assign(self, key: PodKey, pod: Pod, cluster: Cluster) -> None:
        """Records the endpoint and the segment number of `pod`, or a problem when it gets none."""
        segment = cluster.segment_of(pod)
        try:
            number = self.allocator.ensure_number(segment)
            endpoint = self._endpoint(key, pod, segment)
        except AddressError as error:
            self._unallocated[key] = _pod_problem(key, str(error))
            self.records.pop(key, None)
            return
        if pod.address is None or pod.address == endpoint.address:
            self._unallocated.pop(key, None)
        else:
            reason = f"{self.allocator.fault(pod.address)}; it keeps {endpoint.address}"
            self._unallocated[key] = _pod_problem(key, reason)
        record = EndpointRecord(pod, segment, number, endpoint)
        if self.records.get(key) != record:
            self.records[key] = record

    def _endpoint(self, key: PodKey, pod: Pod, segment: SegmentKey) -> Endpoint:
        """The endpoint of `pod`. Raises AddressError when it can have none."""
        if pod.address is None:
            return self.allocator.attach(key, uid=pod.uid, node=pod.node, segment=segment)
        endpoint = self.allocator.endpoint(key)
        if endpoint is not None and self._keeps_address(pod, endpoint):
            return endpoint
        return self.allocator.claim(key, uid=pod.uid, node=pod.node, address=pod.address)


def needs_endpoint(pod: Pod | None) -> Pod | None:
    """`pod` when it should have an endpoint: it is on a node, and neither finished nor its node's own."""
    return pod if pod is not None and pod.networked and pod.node else None


def _is_current(pod: Pod, endpoint: Endpoint) -> bool:
    """Whether `endpoint` is still that of `pod`. A pod without an address in its status keeps only one of our plan."""
    if not same_uid(endpoint.uid, pod.uid) or endpoint.node != pod.node:
        return False
    return not endpoint.foreign if pod.address is None else endpoint.address == pod.address


def _pod_problem(pod: PodKey, reason: str) -> Problem:
    return Problem(reason, kind="Pod", name=pod)
