"""What usage says is left is what can be given out."""

from __future__ import annotations

import copy
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.addressing.allocator import Allocator
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.usage import AllocatedNumbers, TenantUse, usage_of
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError
from romana_ovs.model.objects import PodKey

PLAN = AddressPlan(IPv4Network("10.9.0.0/25"), 3, 2, 2)
SEGMENTS = [SegmentKey(tenant, tier) for tenant in ("a", "b") for tier in ("web", "db")]


@given(
    st.lists(st.tuples(st.sampled_from(SEGMENTS), st.sampled_from(["n1", "n2", "n3", "n4"])), max_size=40),
    st.frozensets(st.integers(0, 127).map(lambda low: IPv4Address("10.9.0.0") + low), max_size=6),
    st.sets(st.integers(0, 39), max_size=10),
)
def test_left_is_how_many_more_fit_without_a_further_range(
    pods: list[tuple[SegmentKey, str]], blocked: frozenset[IPv4Address], gone: set[int]
) -> None:
    registry = Allocator(PLAN)
    registry.reserve(blocked)
    for name, (segment, node) in enumerate(pods):
        try:
            registry.attach(PodKey(f"ns/{name}"), uid="", node=node, segment=segment)
        except AddressError:
            continue
    for name in gone:
        registry.release(PodKey(f"ns/{name}"), uid="")
    indexes = {key: registry.indexes(key) for key in registry.segments}
    ends = tuple(registry.endpoints.values())
    usage = usage_of(AllocatedNumbers(PLAN, registry.tenants, indexes, registry.hosts, ends, registry.reserved))
    for tenant in usage.tenants:
        for each in tenant.segments:
            key = SegmentKey(tenant.tenant, each.tier)
            assert each.used == sum(1 for end in registry.endpoints.values() if end.segment == key)
            assert each.left == sum(_room(registry, key, node) for node in registry.hosts)
            assert all(network.subnet_of(range_) for network in each.ranges for range_ in _around(tenant, network))
        assert tenant.spare == len(tenant.indexes) - sum(len(each.indexes) for each in tenant.segments)
    owned = sum(len(tenant.indexes) for tenant in usage.tenants)
    assert usage.indexes_left == PLAN.segments - 1 - owned
    assert usage.hosts_left == PLAN.hosts - len(usage.nodes)


def _around(tenant: TenantUse, network: IPv4Network) -> list[IPv4Network]:
    found = [range_ for range_ in tenant.ranges if range_.overlaps(network)]
    assert found
    return found


def _room(registry: Allocator, segment: SegmentKey, node: str) -> int:
    """How many pods fit on one node before the segment grows or is refused."""
    trial = copy.deepcopy(registry.to_json())
    copied = Allocator.from_json(trial, PLAN)
    indexes = copied.indexes(segment)
    for count in range(100):
        try:
            copied.attach(PodKey(f"trial/{count}"), uid="", node=node, segment=segment)
        except AddressError:
            return count
        if copied.indexes(segment) != indexes:
            return count
    raise AssertionError("no end of addresses")
