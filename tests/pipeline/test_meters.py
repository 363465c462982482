"""Which packets pass a meter: those that would fill this node's conntrack table on another node's account."""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.model.errors import PipelineError
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.actions import ApplyMeter, PopMpls, PushMpls, Resubmit
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.meters import (
    METERS,
    arp_meter_number,
    fragment_meter_number,
    meter_number,
    setting_of,
    tenant_fragment_meter_number,
)
from romana_ovs.pipeline.zones import zone
from romana_ovs.simulator.interpret import Visit
from romana_ovs.simulator.packet import ACK, SYN, Addresses, Packet, arp_request, echo, tcp, udp
from tests.support.simulated_network import GATEWAY_PORT, PLAN, UPLINK_PORT, SimNetwork, SimPod


def lab() -> SimNetwork:
    return SimNetwork.of(SimPod("c", 1, 1), SimPod("near", 1, 2), SimPod("far", 2, 3))


def metered(lab: SimNetwork, port: int, packet: Packet) -> list[int]:
    """The ports of the meters that a packet passes on node 1."""
    lab.arrivals("n1", port, packet)
    taken = [event.flow for event in lab.network.hops[0].events if isinstance(event, Visit) and event.flow is not None]
    passed = (action for flow in taken for action in flow.actions if isinstance(action, ApplyMeter))
    return [METERS.index(action.number) for action in passed]


def test_new_connections_that_leave_the_node_pass_the_pods_meter() -> None:
    outside = Addresses.of(lab().pods["c"].address, "203.0.113.9")
    for packet in (tcp(outside, 4000, 80), udp(outside, 4000, 53), echo(outside)):
        assert metered(lab(), 1, packet) == [1]
    far = lab().ends("c", "far")
    assert metered(lab(), 1, udp(far, 4000, 53)) == [1]
    assert metered(lab(), 2, udp(lab().ends("near", "far"), 4000, 53)) == [2]
    assert metered(lab(), 1, udp(Addresses.of(far.nw_src, PLAN.gateway(1)), 4000, 53)) == [1]


def test_nothing_else_does() -> None:
    one = lab()
    assert metered(one, 1, udp(one.ends("c", "near"), 4000, 53)) == []
    arriving = udp(replace(one.ends("far", "c"), eth_src=0x0A05 << 32 | one.pods["far"].identity), 4000, 53)
    assert metered(one, UPLINK_PORT, arriving) == []
    probing = udp(Addresses.of(PLAN.gateway(1), one.pods["c"].address, eth_src=0x020000000001), 4000, 53)
    assert metered(one, GATEWAY_PORT, probing) == []


def test_later_packets_of_a_connection_pass_no_meter() -> None:
    one = lab()
    request = udp(one.ends("c", "far"), 4000, 53)
    assert [metered(one, 1, request) for _ in range(3)] == [[1], [], []]
    opening = tcp(one.ends("c", "far"), 4000, 80)
    assert metered(one, 1, opening) == [1]
    assert one.delivered("far", opening.reply()) == ["c"]
    assert metered(one, 1, opening.with_flags(ACK)) == []
    assert metered(one, 1, opening.with_flags(SYN)) == []


def test_no_limit_is_no_meter() -> None:
    one = lab()
    view = replace(one.view(1), settings=Settings(new_connections=0, fragments=0, tenant_fragments=0))
    program = compile_node(view, one.permissions(1))
    limited = one.program(1)
    asking = [arp_meter_number(1), arp_meter_number(2)]
    assert sorted(program.meters) == asking, "requests for addresses are always metered"
    pieces = [fragment_meter_number(1), fragment_meter_number(2)]
    tenant = tenant_fragment_meter_number(zone(1, 1))
    assert sorted(limited.meters) == [METERS[1], METERS[2], *asking, *pieces, tenant]
    gone = limited.flows.keys() - program.flows.keys()
    assert program.flows.keys() < limited.flows.keys()
    assert len(gone) == 5
    assert all(ApplyMeter in map(type, limited.flows[key].actions) for key in gone)


@pytest.mark.parametrize("port", [-1, 1 << 16])
def test_a_meter_stays_in_our_range(port: int) -> None:
    with pytest.raises(PipelineError, match="no meter"):
        meter_number(port)
    assert METERS.stop - 1 == tenant_fragment_meter_number(0xFFFF)
    assert meter_number(0xFFFF) < arp_meter_number(0) and arp_meter_number(0xFFFF) < fragment_meter_number(0)
    assert fragment_meter_number(0xFFFF) < tenant_fragment_meter_number(0)


def test_a_meter_names_the_setting_that_turns_it_off() -> None:
    numbers = (meter_number(7), fragment_meter_number(0xFFFF), tenant_fragment_meter_number(0), arp_meter_number(7))
    assert [setting_of(number) for number in numbers] == ["new_connections", "fragments", "tenant_fragments", ""]


def test_every_piece_of_a_packet_passes_another_meter_of_its_pod() -> None:
    one = lab()
    for whole in (udp(one.ends("c", "near"), 4000, 53), udp(one.ends("c", "far"), 4000, 53)):
        for piece in whole.fragments(7):
            own, tenant = fragment_meter_number(1), tenant_fragment_meter_number(zone(1, 1))
            assert metered(one, 1, piece)[:2] == [METERS.index(own), METERS.index(tenant)]
    assert metered(one, 1, udp(one.ends("c", "near"), 4000, 53)) == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(fragments=0), [tenant_fragment_meter_number(zone(1, 1))]),
        (Settings(tenant_fragments=0), [fragment_meter_number(1)]),
        (Settings(fragments=0, tenant_fragments=0), []),
    ],
    ids=["of the tenant", "of the pod", "none"],
)
def test_either_limit_of_fragments_may_be_absent(settings: Settings, expected: list[int]) -> None:
    one = lab()
    one.network.switches["n1"].program(
        compile_node(replace(one.view(1), settings=settings), one.permissions(1)).flows.values()
    )
    piece = udp(one.ends("c", "near"), 4000, 53).fragments(7)[0]
    assert metered(one, 1, piece) == [METERS.index(number) for number in expected]


def test_tenants_have_different_meters_for_fragments() -> None:
    one = SimNetwork.of(SimPod("c", 1, 1, segment=4), SimPod("other", 1, 2, segment=8))
    numbers = [number for number in one.program(1).meters if setting_of(number) == "tenant_fragments"]
    assert [tenant_fragment_meter_number(zone(1, index)) for index in (4, 8)] == numbers
    for port, source, index in ((1, "c", 4), (2, "other", 8)):
        piece = udp(one.ends(source, source), 4000, 53).fragments(7)[0]
        assert METERS.index(tenant_fragment_meter_number(zone(1, index))) in metered(one, port, piece)


def test_arp_requests_pass_a_meter_before_they_are_parsed() -> None:
    """On a real switch what stands before the second pass has a datapath flow of its own (test_packets)."""
    one = lab()
    assert metered(one, 1, arp_request(one.ends("c", "far"))) == [METERS.index(arp_meter_number(1))]
    (row,) = [
        row
        for row in one.flows(1)
        if row.table == "SpoofGuard" and row.match_text().startswith("arp,") and ("in_port", 1, 0xFFFFFFFF) in row.match
    ]
    kinds = [type(action) for action in row.actions]
    assert kinds[0] is ApplyMeter and kinds[-3:] == [PushMpls, PopMpls, Resubmit]
    assert not any(name in str(row) for name in ("arp_spa", "arp_tpa", "arp_sha"))
