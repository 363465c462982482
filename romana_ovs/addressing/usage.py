"""Computes how much of the address plan is in use, and how much is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.blocks import Block
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


@dataclass(frozen=True, slots=True)
class AllocatedNumbers:
    """Each tenant's blocks, each segment's indexes, each node's host number, all endpoints, and nodes' addresses."""

    plan: AddressPlan
    blocks: Mapping[str, tuple[Block, ...]]
    indexes: Mapping[SegmentKey, tuple[int, ...]]
    hosts: Mapping[str, int]
    endpoints: Collection[Endpoint]
    reserved: frozenset[IPv4Address] = frozenset()


def usage_of(allocated: AllocatedNumbers) -> Usage:
    """The use of the plan: tenants and tiers by name, nodes by number, foreign endpoints by pod."""
    plan, hosts = allocated.plan, allocated.hosts
    taken = _taken(allocated)
    used = Counter(end.segment for end in allocated.endpoints if end.segment is not None)
    owned = sum(block.size for blocks in allocated.blocks.values() for block in blocks)
    on_node = Counter(end.node for end in allocated.endpoints)
    return Usage(
        plan=plan,
        tenants=tuple(_tenant(tenant, allocated, taken, used) for tenant in sorted(allocated.blocks)),
        nodes=tuple(
            NodeUse(node, number, plan.gateway(number), on_node[node])
            for node, number in sorted(hosts.items(), key=lambda item: item[1])
        ),
        foreign=tuple(sorted((end for end in allocated.endpoints if end.foreign), key=lambda end: end.pod)),
        indexes_left=plan.segments - 1 - owned,
        hosts_left=plan.hosts - len(hosts),
    )


def _taken(allocated: AllocatedNumbers) -> Counter[int]:
    """By segment index: addresses on the nodes there are that no pod can get any more."""
    plan = allocated.plan
    hosts = set(allocated.hosts.values())
    addresses = {end.address for end in allocated.endpoints} | allocated.reserved | {plan.network.broadcast_address}
    places = (plan.split(address) for address in addresses)
    return Counter(place.segment for place in places if place is not None and place.host in hosts)


def _tenant(
    tenant: str, allocated: AllocatedNumbers, taken: Mapping[int, int], used: Mapping[SegmentKey, int]
) -> TenantUse:
    plan, blocks = allocated.plan, allocated.blocks[tenant]
    share = len(allocated.hosts) << plan.endpoint_bits
    segments = []
    for key, indexes in sorted(allocated.indexes.items()):
        if key.tenant == tenant:
            left = sum(share - taken[index] for index in indexes)
            segments.append(SegmentUse(key.tier, indexes[0], indexes, _merged(plan, indexes), used[key], left))
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
