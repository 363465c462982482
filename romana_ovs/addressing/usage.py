"""Computes how much of the address plan is in use, and how much is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.addressing.cidrs import merge_cidrs
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey


@dataclass(frozen=True, slots=True)
class SegmentUse:
    """One tier: its permanent number, its indexes, ranges, and addresses in use.

    `left` are the free addresses of these ranges on the present nodes; when a node has none left, the segment gets a
    further index.
    """

    tier: str
    number: int
    indexes: tuple[int, ...]
    ranges: tuple[IPv4Network, ...]
    used: int
    left: int


@dataclass(frozen=True, slots=True)
class TenantUse:
    """One tenant: its ranges, their segment indexes, how many of these no tier owns yet, and its tiers."""

    tenant: str
    ranges: tuple[IPv4Network, ...]
    indexes: tuple[int, ...]
    spare: int
    segments: tuple[SegmentUse, ...]


@dataclass(frozen=True, slots=True)
class NodeUse:
    """One node: its host number, its gateway address, and how many pods have an address on it."""

    node: str
    number: int
    address: IPv4Address
    pods: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The whole plan. `indexes_left` belong to no tenant, `hosts_left` to no node; `foreign` have foreign addresses."""

    plan: AddressPlan
    tenants: tuple[TenantUse, ...]
    nodes: tuple[NodeUse, ...]
    foreign: tuple[Endpoint, ...]
    indexes_left: int
    hosts_left: int


def usage_of(allocator: Allocator) -> Usage:
    """The use of `allocator`'s plan: tenants and tiers by name, nodes by number, foreign endpoints by pod."""
    plan = allocator.plan
    endpoints = allocator.endpoints.values()
    taken = _taken(allocator, endpoints)
    used = Counter(end.segment for end in endpoints if end.segment is not None)
    owned = sum(block.size for blocks in allocator.tenants.values() for block in blocks)
    on_node = Counter(end.node for end in endpoints)
    return Usage(
        plan=plan,
        tenants=tuple(_tenant(tenant, allocator, taken, used) for tenant in sorted(allocator.tenants)),
        nodes=tuple(
            NodeUse(node, number, plan.gateway(number), on_node[node])
            for node, number in sorted(allocator.hosts.items(), key=lambda item: item[1])
        ),
        foreign=tuple(sorted((end for end in endpoints if end.foreign), key=lambda end: end.pod)),
        indexes_left=plan.segments - 1 - owned,
        hosts_left=plan.hosts - len(allocator.hosts),
    )


def _taken(allocator: Allocator, endpoints: Iterable[Endpoint]) -> Counter[int]:
    """By segment index: addresses on the present nodes that are not free."""
    plan = allocator.plan
    hosts = set(allocator.hosts.values())
    addresses = {end.address for end in endpoints} | allocator.reserved | {plan.network.broadcast_address}
    places = (plan.split(address) for address in addresses)
    return Counter(place.segment for place in places if place is not None and place.host in hosts)


def _tenant(tenant: str, allocator: Allocator, taken: Mapping[int, int], used: Mapping[SegmentKey, int]) -> TenantUse:
    plan, blocks = allocator.plan, allocator.tenants[tenant]
    share = len(allocator.hosts) << plan.endpoint_bits
    segments = []
    for key, number in allocator.segments.items():
        if key.tenant == tenant:
            indexes = allocator.indexes(key)
            left = sum(share - taken[index] for index in indexes)
            segments.append(SegmentUse(key.tier, number, indexes, _merged(plan, indexes), used[key], left))
    indexes = tuple(index for block in blocks for index in block.indexes)
    return TenantUse(
        tenant=tenant,
        ranges=tuple(plan.block_cidr(block.base, block.size) for block in blocks),
        indexes=indexes,
        spare=len(indexes) - sum(len(segment.indexes) for segment in segments),
        segments=tuple(segments),
    )


def _merged(plan: AddressPlan, indexes: Iterable[int]) -> tuple[IPv4Network, ...]:
    return merge_cidrs(plan.segment_cidr(index) for index in indexes)
