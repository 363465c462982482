"""Allocates numbers and addresses (docs/design.md section 3).

Stateful, but free of I/O, clocks and randomness: the same calls in the same order give the same numbers, and
`to_json` and `from_json` at any point between two calls change nothing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.numbers import NumberAllocator
from romana_ovs.addressing.plan import AddressParts, AddressPlan
from romana_ovs.addressing.segments import SegmentAllocator, SegmentTable, named
from romana_ovs.model.addresses import address_fault
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.objects import PodKey, same_uid

FORMAT = 1
"""Version of the format of `to_json`."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One pod's attachment. `segment` owns the range of the address; None if the address is foreign."""

    pod: PodKey
    uid: str
    node: str
    address: IPv4Address
    segment: SegmentKey | None = None

    @property
    def foreign(self) -> bool:
        """Whether the address plan did not give this address."""
        return self.segment is None


class Allocator:
    """The numbers and addresses of one cluster under one plan.

    `freed` counts releases: while it is unchanged, retrying a failed allocation is pointless.
    """

    def __init__(self, plan: AddressPlan) -> None:
        self.plan = plan
        self.freed = 0
        self._segments: SegmentTable = SegmentAllocator(plan)
        self._hosts: dict[str, int] = {}
        self._host_numbers = NumberAllocator()
        self._leaving: set[str] = set()
        self._endpoints: dict[PodKey, Endpoint] = {}
        self._pod_by_address: dict[int, PodKey] = {}
        self._on_node: Counter[str] = Counter()
        self._shares: dict[tuple[SegmentKey, int], NumberAllocator] = {}
        self._reserved: frozenset[int] = frozenset()
        self._frozen_hosts: Mapping[str, int] | None = None

    @property
    def tenants(self) -> Mapping[str, tuple[Block, ...]]:
        """Each tenant's blocks of segment indexes: the same frozen object until it changes."""
        return self._segments.blocks

    @property
    def segments(self) -> Mapping[SegmentKey, int]:
        """Each segment's permanent number: the same frozen object until it changes."""
        return self._segments.numbers

    @property
    def hosts(self) -> Mapping[str, int]:
        """Each node's host number: the same frozen object until it changes."""
        if self._frozen_hosts is None:
            self._frozen_hosts = MappingProxyType(dict(sorted(self._hosts.items())))
        return self._frozen_hosts

    @property
    def endpoints(self) -> Mapping[PodKey, Endpoint]:
        """Every endpoint: a live, read-only view."""
        return MappingProxyType(self._endpoints)

    @property
    def reserved(self) -> frozenset[IPv4Address]:
        """The addresses of nodes, which are never allocated to a pod."""
        return frozenset(IPv4Address(value) for value in self._reserved)

    def endpoint(self, pod: PodKey) -> Endpoint | None:
        """The endpoint of `pod`, or None."""
        return self._endpoints.get(pod)

    def indexes(self, segment: SegmentKey) -> tuple[int, ...]:
        """The segment indexes of `segment`, the permanent number first."""
        return self._segments.indexes(segment)

    def allocate_tiers(self, tenant: str, tiers: Collection[str]) -> None:
        """Allocates the first block of `tenant`, with room for `tiers`, and their numbers, as far as there is room."""
        self._segments.allocate_tiers(tenant, tiers)

    def ensure_number(self, segment: SegmentKey) -> int:
        """The permanent number of `segment`, allocated at first use. Raises AddressError when none is left."""
        return self._segments.ensure_number(segment)

    def reserve(self, addresses: Iterable[IPv4Address]) -> None:
        """Replaces the reserved addresses, those of nodes, which are not allocated to pods.

        A pod that already has one of them keeps it: see `clashes`.
        """
        self.reserve_numbers(frozenset(int(address) for address in addresses))

    def reserve_numbers(self, addresses: frozenset[int]) -> None:
        """As `reserve`, with addresses as numbers; allocators may share one set."""
        if not self._reserved <= addresses:
            self.freed += 1
        self._reserved = addresses

    def clashes(self) -> tuple[Endpoint, ...]:
        """Endpoints with a reserved address, sorted by pod."""
        owners = (self._pod_by_address[value] for value in self._pod_by_address.keys() & self._reserved)
        return tuple(self._endpoints[pod] for pod in sorted(owners))

    def host(self, node: str) -> int:
        """The host number of `node`, allocated at first use. Raises AddressError when none is left."""
        self._leaving.discard(node)
        assigned = self._hosts.get(node)
        if assigned is not None:
            return assigned
        number = self._host_numbers.allocate(self.plan.hosts, self._free_gateway)
        if number is None:
            raise AddressError(
                f"node {node} gets no host number: all 2**{self.plan.host_bits} = {self.plan.hosts} (host_bits "
                f"{self.plan.host_bits}) are in use"
            )
        self._hosts[node] = number
        self._frozen_hosts = None
        return number

    def forget_host(self, node: str) -> None:
        """Frees the number of `node` as soon as it has no endpoints. Ignores unknown nodes."""
        if node in self._hosts:
            self._leaving.add(node)
            self._free_host(node)

    def attach(self, pod: PodKey, *, uid: str, node: str, segment: SegmentKey) -> Endpoint:
        """The endpoint of `pod`, with an address of `segment`'s range on `node`.

        An existing endpoint of this pod (key and UID) on this node is kept, even after its segment changed. An endpoint
        without UID matches by name only, and gets this UID. Raises AddressError, without effect on other endpoints,
        when numbers have run out.
        """
        current = self._endpoints.get(pod)
        if current is not None and same_uid(current.uid, uid) and current.node == node and not current.foreign:
            return self._with_uid(current, uid)
        if current is not None:
            self.release(pod, uid=current.uid)
        host = self.host(node)
        self.ensure_number(segment)
        endpoint = Endpoint(pod, uid, node, self._allocate_address(segment, host, node), segment)
        self._record(endpoint)
        return endpoint

    def claim(self, pod: PodKey, *, uid: str, node: str, address: IPv4Address) -> Endpoint:
        """The endpoint of `pod` with the address that the pod already has; foreign unless allocated here to this pod.

        Raises AddressError when another pod or a node has the address, or no pod may have it.
        """
        current = self._endpoints.get(pod)
        if current is not None and same_uid(current.uid, uid) and (current.node, current.address) == (node, address):
            return self._with_uid(current, uid)
        owner = self._pod_by_address.get(int(address))
        if owner is not None and owner != pod:
            raise AddressError(f"address {address} is already that of pod {owner}")
        if fault := self.fault(address):
            raise AddressError(fault)
        if current is not None:
            self.release(pod, uid=current.uid)
        endpoint = Endpoint(pod, uid, node, address)
        self._record(endpoint)
        return endpoint

    def fault(self, address: IPv4Address) -> str:
        """The reason why no pod may have `address`, as a sentence, or empty: it is unusable, or a node's."""
        if fault := address_fault(address) or self.plan.address_fault(address):
            return f"address {fault}"
        node_of = self._owning_node(address)
        return f"address {address} is that of {node_of}" if node_of is not None else ""

    def release(self, pod: PodKey, *, uid: str) -> bool:
        """Releases the endpoint of `pod` if it has this `uid`, and returns whether it did."""
        endpoint = self._endpoints.get(pod)
        if endpoint is None or endpoint.uid != uid:
            return False
        del self._endpoints[pod]
        del self._pod_by_address[int(endpoint.address)]
        self._on_node[endpoint.node] -= 1
        if not self._on_node[endpoint.node]:
            del self._on_node[endpoint.node]
        place = self.plan.split(endpoint.address)
        if endpoint.segment is not None and place is not None:
            self._shares[endpoint.segment, place.host].free(self._position(endpoint.segment, place))
        self.freed += 1
        self._free_host(endpoint.node)
        return True

    def capacity(self, segment: SegmentKey) -> int:
        """The number of endpoint numbers of `segment` on one host, over all its indexes."""
        return len(self._segments.indexes(segment)) << self.plan.endpoint_bits

    def to_json(self) -> dict[str, Any]:
        """The state as JSON values, sorted, for `from_json`; only tests write it whole."""
        return {
            **self._segments.to_json(),
            "hosts": dict(sorted(self._hosts.items())),
            "host_numbers": self._host_numbers.to_json(),
            "leaving": sorted(self._leaving),
            **self._allocations_to_json(),
        }

    def _allocations_to_json(self) -> dict[str, Any]:
        """The endpoints, and the free numbers of each share."""
        plan = self.plan
        return {
            "format": FORMAT,
            "plan": [str(plan.network), plan.segment_bits, plan.host_bits, plan.endpoint_bits],
            "freed": self.freed,
            "shares": [[*key, host, share.to_json()] for (key, host), share in sorted(self._shares.items())],
            "blocked": sorted(self._reserved),
            "endpoints": [
                [pod, end.uid, end.node, str(end.address), *(end.segment or ())]
                for pod, end in sorted(self._endpoints.items())
            ],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], plan: AddressPlan) -> Allocator:
        """The allocator of `to_json`. Raises AddressError if `plan` differs from its plan, InputError if invalid."""
        try:
            if data["format"] != FORMAT:
                raise InputError.because(f"{data['format']} was expected to be {FORMAT}", field="addresses.format")
            written = [str(plan.network), plan.segment_bits, plan.host_bits, plan.endpoint_bits]
            if data["plan"] != written:
                raise AddressError(
                    f"the state was written for the plan {_plan_text(data['plan'])}, "
                    f"the settings say {_plan_text(written)}: "
                    "restore the settings, or remove the state to give every pod a new address"
                )
            return cls(plan)._restore(data)
        except (KeyError, TypeError, ValueError, AttributeError) as broken:
            raise InputError.because(f"not what was saved: {broken}", field="addresses") from broken

    def _restore(self, data: Mapping[str, Any]) -> Allocator:
        self.freed = int(data["freed"])
        self._segments = SegmentAllocator.from_json(data, self.plan)
        self._hosts.update((node, int(number)) for node, number in data["hosts"].items())
        if len(set(self._hosts.values())) != len(self._hosts):
            raise ValueError("two nodes have one host number")
        self._host_numbers = _numbers(data["host_numbers"])
        self._leaving.update(data["leaving"])
        # Each segment and node once: the JSON has a string for each pod.
        segments: dict[SegmentKey, SegmentKey] = {}
        for tenant, tier, host, share in data["shares"]:
            owner = SegmentKey(tenant, tier)
            self._shares[segments.setdefault(owner, owner), int(host)] = _numbers(share)
        self._reserved = frozenset(int(value) for value in data["blocked"])
        for pod, uid, node, address, *segment in data["endpoints"]:
            segment_key = SegmentKey(*segment) if segment else None
            if segment_key is not None:
                segment_key = segments.setdefault(segment_key, segment_key)
            self._record(Endpoint(PodKey(pod), uid, sys.intern(node), IPv4Address(address), segment_key))
        return self

    def _record(self, endpoint: Endpoint) -> None:
        if int(endpoint.address) in self._pod_by_address:
            raise ValueError(f"two pods have the address {endpoint.address}")
        self._endpoints[endpoint.pod] = endpoint
        self._pod_by_address[int(endpoint.address)] = endpoint.pod
        self._on_node[endpoint.node] += 1

    def _with_uid(self, endpoint: Endpoint, uid: str) -> Endpoint:
        """`endpoint` with the UID of its pod, which may have been unknown until now."""
        if uid and not endpoint.uid:
            endpoint = self._endpoints[endpoint.pod] = replace(endpoint, uid=uid)
        return endpoint

    def _allocate_address(self, segment: SegmentKey, host: int, node: str) -> IPv4Address:
        share = self._shares.setdefault((segment, host), NumberAllocator())
        while True:
            position = share.allocate(self.capacity(segment), lambda number: self._free_position(segment, host, number))
            if position is not None:
                return IPv4Address(self._value(segment, host, position))
            if not self._segments.grow(segment):
                raise AddressError(self._exhaustion_text(segment, node))

    def _exhaustion_text(self, segment: SegmentKey, node: str) -> str:
        count = len(self._segments.indexes(segment))
        return (
            f"no address is left for {named(segment)} on node {node}: {count} * 2**{self.plan.endpoint_bits} = "
            f"{self.capacity(segment)} (endpoint_bits {self.plan.endpoint_bits}) are in use, and "
            f"{self._segments.exhaustion_reason}"
        )

    def _value(self, segment: SegmentKey, host: int, position: int) -> int:
        """The address of a position in a share: the segment's indexes one after the other."""
        plan = self.plan
        index = self._segments.indexes(segment)[position >> plan.endpoint_bits]
        offset = (index << plan.host_bits | host) << plan.endpoint_bits | position & plan.endpoints - 1
        return int(plan.network.network_address) + offset

    def _position(self, segment: SegmentKey, place: AddressParts) -> int:
        order = self._segments.indexes(segment).index(place.segment)
        return order << self.plan.endpoint_bits | place.endpoint

    def _free_position(self, segment: SegmentKey, host: int, position: int) -> bool:
        value = self._value(segment, host, position)
        return value not in self._pod_by_address and value not in self._reserved and self.plan.usable(value)

    def _free_gateway(self, number: int) -> bool:
        value = int(self.plan.gateway(number))
        return value not in self._pod_by_address and value not in self._reserved

    def _owning_node(self, address: IPv4Address) -> str | None:
        if int(address) in self._reserved:
            return "a node"
        for node, number in self.hosts.items() if address in self.plan.node_addresses() else ():
            if self.plan.gateway(number) == address:
                return f"node {node} on its own bridge"
        return None

    def _free_host(self, node: str) -> None:
        if node in self._leaving and not self._on_node[node]:
            self._leaving.discard(node)
            self._host_numbers.free(self._hosts.pop(node))
            self._frozen_hosts = None
            self.freed += 1


def _numbers(data: list[int]) -> NumberAllocator:
    unused, *waiting = data
    return NumberAllocator(int(unused), [int(number) for number in waiting])


def _plan_text(plan: list[Any]) -> str:
    network, segment, host, endpoint = plan
    return f"{network} = {segment} segment, {host} host, {endpoint} endpoint bits"
