"""Conntrack zones: whose they are, and that no two bridges of one ovs-vswitchd have the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import SegmentAllocator
from romana_ovs.model.identity import whole_segments
from romana_ovs.pipeline.actions import Load, Move
from romana_ovs.pipeline.compile.shared_zones import shared_zones
from romana_ovs.pipeline.fields import ETH_IP
from romana_ovs.pipeline.registers import (
    LOCAL,
    PKT_DESTINATION,
    PKT_SOURCE,
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    SENDER_SHARED,
    UPLINK,
    ZONE,
    Register,
)
from romana_ovs.pipeline.zones import COMMON, SLOTS, ZoneBlocks, ZoneShare, colliding, common_zone, node_zones, zone
from romana_ovs.policy.view import ForeignRoute
from romana_ovs.simulator.interpret import FlowTable
from romana_ovs.simulator.packet import ACK, Packet, icmp_error, tcp, udp
from tests.support.simulated_network import PLAN, SimNetwork, SimPod

FABRICS = pytest.mark.parametrize("tunnels", [False, True], ids=["link", "tunnel"])
SHARED, RED, BLUE = 4, 8, 12
"""Segments, each the first of a tenant's block."""


def test_zones_of_nearby_hosts_are_disjoint() -> None:
    found = [zone(host, index) for host in range(SLOTS) for index in (0, 1, 0xFFF)]
    assert len(set(found)) == len(found)
    assert min(found) > 0 and max(found) < 0xFFFF


def test_each_local_tenant_has_a_zone_and_the_rest_a_common_one() -> None:
    lab = SimNetwork.of(SimPod("a", 1, 1), SimPod("b", 1, 2, segment=2), SimPod("far", 2, 3, segment=3))
    known = {str(segment): (whole_segments(segment, 1),) for segment in (1, 2, 3)}
    view = replace(lab.view(1), tenants=known)
    assert node_zones(view).shares == {
        zone(1, 1): ZoneShare("1"),
        zone(1, 2): ZoneShare("2"),
        common_zone(1): ZoneShare(COMMON),
    }


def test_where_a_shared_tenant_has_a_pod_all_tenants_have_zones() -> None:
    lab = _meeting()
    runs = {
        "4": (whole_segments(SHARED, 4),),
        "8": (whole_segments(RED, 4),),
        "12": (whole_segments(BLUE, 4), whole_segments(32, 8)),
        "odd": (whole_segments(1, 1), whole_segments(2, 2)),
    }
    here = node_zones(replace(lab.view(1), tenants=runs)).shares
    assert here == {
        zone(1, SHARED): ZoneShare("4"),
        zone(1, RED): ZoneShare("8"),
        zone(1, BLUE): ZoneShare("12", 2),
        zone(1, 32): ZoneShare("12", 4),
        zone(1, 36): ZoneShare("12", 4),
        zone(1, 1): ZoneShare("odd", 2),
        zone(1, 2): ZoneShare("odd", 4),
        zone(1, 3): ZoneShare("odd", 4),
        common_zone(1): ZoneShare(COMMON),
    }
    without = SimNetwork.of(*(pod for pod in lab.pods.values() if pod.name in ("r2", "b2"))).view(2)
    there = node_zones(replace(without, tenants=runs)).shares
    assert there == {zone(2, RED): ZoneShare("8"), zone(2, BLUE): ZoneShare("12"), common_zone(2): ZoneShare(COMMON)}


def test_a_tenant_keeps_its_zone_when_it_gets_another_block() -> None:
    blocks = ZoneBlocks.of(PLAN)
    assert (
        blocks.home_index((whole_segments(64, 4),))
        == blocks.home_index((whole_segments(64, 4), whole_segments(128, 4)))
        == 64
    )
    assert blocks.home_index((whole_segments(0, 1),)) == 0


def _plan(segment_bits: int) -> AddressPlan:
    width = segment_bits + 6
    return AddressPlan(IPv4Network((int(IPv4Address("10.0.0.0")), 32 - width)), segment_bits, 3, 3)


@pytest.mark.parametrize("segment_bits", range(1, 15))
def test_no_two_tenants_share_a_zone_whatever_the_plan(segment_bits: int) -> None:
    """As long as the registry has whole blocks to give; what comes after them may be in the common zone."""
    plan = _plan(segment_bits)
    segments, blocks = SegmentAllocator(plan), ZoneBlocks.of(plan)
    owners: dict[int, set[str]] = {}
    for number in range(min(plan.segments // blocks.size - 1, 3000)):
        segments.allocate_tiers(f"t{number}", ["default"])
    assert segments.blocks
    for tenant, runs in segments.blocks.items():
        matches = [whole_segments(run.base, run.size) for run in runs]
        for index in blocks.zone_indexes(matches):
            owners.setdefault(index, set()).add(tenant)
    assert [found for found in owners.values() if len(found) > 1] == []
    assert 0 not in owners


SAMPLES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 63, 64, 1023, 2048, 4095, 4096, 4099, 8191, 16383, 20000, 32767)


@pytest.mark.parametrize("segment_bits", range(1, 16))
def test_rows_choose_the_zone_of_the_segment_in_both_directions(segment_bits: int) -> None:
    plan, host = _plan(segment_bits), 3
    blocks, table = ZoneBlocks.of(plan), FlowTable(shared_zones(plan, host, ()))
    for segment in (segment for segment in SAMPLES if segment < plan.segments):
        expected = zone(host, blocks.zone_index(segment))
        for address in (plan.address(segment, 5, 3), plan.address(segment, 2, 4)):
            arriving = _chosen(
                table, "nw_src", address, (PKT_SOURCE, UPLINK), (PKT_DESTINATION, LOCAL), (RECEIVER_SHARED, 1)
            )
            leaving = _chosen(
                table, "nw_dst", address, (PKT_SOURCE, LOCAL), (PKT_DESTINATION, UPLINK), (SENDER_SHARED, 1)
            )
            assert (arriving, leaving) == (expected, expected), f"segment {segment}"
        run = (whole_segments(segment >> blocks.bits << blocks.bits, blocks.size),)
        assert blocks.zone_index(segment) in set(blocks.zone_indexes(run))


def _chosen(table: FlowTable, end: str, address: IPv4Address, *marks: tuple[Register, int]) -> int | None:
    """The zone that a row of ConntrackZone chooses, or None; registers have what other rows put there."""
    fields = {"eth_type": ETH_IP, end: int(address), "reg11": 0x7FFF_0042}
    for register, value in (*marks, (RECEIVER_ZONE, 0xABC)):
        fields[register.bits.field] = fields.get(register.bits.field, 0) | value << register.bits.low
    found = table.lookup(fields)
    for action in found.actions if found is not None else ():
        if isinstance(action, (Load, Move)):
            value = (
                action.value
                if isinstance(action, Load)
                else (fields[action.source.field] >> action.source.low & (1 << action.source.width) - 1)
            )
            mask = (1 << action.to.width) - 1 << action.to.low
            fields[action.to.field] = fields[action.to.field] & ~mask | value << action.to.low
    assert fields["reg11"] & 0xFFFF == 0x42, "the port to leave by is as it was"
    return fields["reg11"] >> ZONE.bits.low if found is not None else None


def _meeting(*, tunnels: bool = False) -> SimNetwork:
    """Shared s on node 1, red and blue on both nodes, a shared k on node 2; r3 is of another segment of red."""
    return SimNetwork.of(
        SimPod("s", 1, 1, segment=SHARED),
        SimPod("k", 2, 2, segment=SHARED),
        SimPod("r1", 1, 3, segment=RED),
        SimPod("r2", 2, 4, segment=RED),
        SimPod("b1", 1, 5, segment=BLUE),
        SimPod("b2", 2, 6, segment=BLUE),
        SimPod("r3", 2, 7, segment=RED + 3),
        tunnels=tunnels,
        shared=frozenset({str(SHARED)}),
    )


def _zones_of(lab: SimNetwork, node: int) -> list[int]:
    """The zones that a node has entries in, sorted."""
    return sorted({entry.original.zone for entry in lab.network.switches[f"n{node}"].conntrack.entries()})


@FABRICS
@pytest.mark.parametrize("client", ["r2", "r3", "b2", "k"])
@pytest.mark.parametrize("opens", [tcp, udp])
def test_connections_from_another_node_are_in_their_tenants_zone(
    tunnels: bool, client: str, opens: Callable[..., Packet]
) -> None:
    lab = _meeting(tunnels=tunnels)
    packet: Packet = opens(lab.ends(client, "s"), 4000, 53)
    assert lab.delivered(client, packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == [client]
    if opens is tcp:
        packet = packet.with_flags(ACK)
    assert lab.delivered(client, packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == [client]
    own = ZoneBlocks.of(PLAN).zone_index(lab.pods[client].segment)
    assert own == {"r2": RED, "r3": RED, "b2": BLUE, "k": SHARED}[client]
    assert _zones_of(lab, 1) == [zone(1, own)]
    assert lab.delivered(client, icmp_error(lab.ends(client, "s"), packet.reply())) == ["s"]
    assert lab.delivered("s", icmp_error(lab.ends("s", client), packet)) == [client]
    assert lab.delivered("b1", icmp_error(lab.ends("b1", "s"), packet.reply())) == [], "an error of somebody else"


@FABRICS
def test_connections_of_shared_pods_are_in_their_peers_zone(tunnels: bool) -> None:
    lab = _meeting(tunnels=tunnels)
    packet = udp(lab.ends("s", "k"), 4000, 53)
    assert lab.delivered("s", packet) == ["k"]
    assert lab.delivered("k", packet.reply()) == ["s"]
    assert _zones_of(lab, 1) == [zone(1, SHARED)]
    for client in ("r1", "b1"):
        assert lab.delivered(client, udp(lab.ends(client, "s"), 4000, 53)) == ["s"]
    assert _zones_of(lab, 1) == [zone(1, SHARED), zone(1, RED), zone(1, BLUE)]
    assert lab.delivered("r2", udp(lab.ends("r2", "r1"), 4000, 53)) == ["r1"]
    assert _zones_of(lab, 2) == [zone(2, SHARED), zone(2, RED)]


@FABRICS
def test_foreign_addresses_count_for_the_shared_tenant(tunnels: bool) -> None:
    """It shows the segment of blue, whose zone its pod must not fill."""
    lab = _meeting(tunnels=tunnels)
    lab.foreign = (ForeignRoute(lab.pods["b2"].address, 2),)
    lab.change()
    packet = udp(lab.ends("b2", "s"), 4000, 53)
    assert lab.delivered("b2", packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == ["b2"]
    assert lab.delivered("b2", packet) == ["s"]
    assert _zones_of(lab, 1) == [zone(1, SHARED)]


def test_the_nodes_own_addresses_are_in_the_common_zone() -> None:
    table = FlowTable(shared_zones(PLAN, 1, ()))
    node = PLAN.gateway(2)
    assert _chosen(
        table, "nw_src", node, (PKT_SOURCE, UPLINK), (PKT_DESTINATION, LOCAL), (RECEIVER_SHARED, 1)
    ) == common_zone(1)
    assert _chosen(
        table, "nw_dst", node, (PKT_SOURCE, LOCAL), (PKT_DESTINATION, UPLINK), (SENDER_SHARED, 1)
    ) == common_zone(1)
    outside = IPv4Address("192.168.7.7")
    assert (
        _chosen(table, "nw_src", outside, (PKT_SOURCE, UPLINK), (PKT_DESTINATION, LOCAL), (RECEIVER_SHARED, 1)) is None
    )
    assert _chosen(table, "nw_dst", outside, (PKT_SOURCE, LOCAL), (PKT_DESTINATION, UPLINK), (SENDER_SHARED, 1)) is None


def test_rows_do_not_grow_with_the_number_of_tenants() -> None:
    lab, many = _meeting(), {f"t{base}": (whole_segments(base, 4),) for base in range(4, 4096, 4)}
    own = len(lab.program(1).flows)
    view = replace(lab.view(1), tenants=many)
    assert len(node_zones(view).shares) == len(many) + 1
    assert len(SimNetwork.of(*lab.pods.values()).program(1).flows) == own
    assert len(shared_zones(PLAN, 1, ())) == 4


def test_a_bridge_with_colliding_zones_is_reported() -> None:
    assert colliding({"a": 1, "b": 2, "c": 1 + SLOTS}) == {"c": "a"}
    assert colliding({"a": 1, "b": 2}) == {}
