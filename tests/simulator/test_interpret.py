"""The interpreter itself: lookups, conjunctions, actions, conntrack, fragments, networks of switches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.bridge import BridgeFacts, TunnelPort
from romana_ovs.model.errors import PipelineError
from romana_ovs.pipeline.actions import (
    Action,
    Bits,
    Conjunction,
    Ct,
    Goto,
    InPort,
    Load,
    Move,
    Output,
    OutputReg,
    Resubmit,
)
from romana_ovs.pipeline.compile.port_masks import masks
from romana_ovs.pipeline.fields import ETH_IP, FIELDS, ct_state
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.policy.view import Origin
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.conntrack_behaviour import NETDEV
from romana_ovs.simulator.interpret import Sent, Switch, Tracking, Visit
from romana_ovs.simulator.network import Arrival, Network, Place, Wiring
from romana_ovs.simulator.packet import (
    ACK,
    SYN,
    Addresses,
    Packet,
    arp_request,
    echo,
    icmp_error,
    sctp,
    tcp,
    transport,
    udp,
)

A = Addresses.of("10.0.0.1", "10.0.0.2")
Conditions = Mapping[str, int | tuple[int, int]]
IP = {"eth_type": ETH_IP}
LOCAL_PORT = 0xFFFE


def rule(table: str, priority: int, match: Conditions, *actions: Action) -> Flow:
    """A flow without the checks of the declared tables: any field, any way."""
    full = {name: value if isinstance(value, tuple) else (value, FIELDS[name].ones) for name, value in match.items()}
    return Flow(table, priority, canonical(full), actions, 0, Origin("Test", name=f"{table} {priority}"))


def out(flows: Iterable[Flow], packet: Packet, in_port: int = 1) -> list[int]:
    """The ports that a packet leaves by."""
    return [sent.port for sent in Switch(flows).receive(packet, in_port)]


def test_the_highest_priority_wins_whatever_the_order() -> None:
    low, high = rule("SpoofGuard", 1, {}, Output(2)), rule("SpoofGuard", 9, {"nw_dst": A.nw_dst} | IP, Output(3))
    for flows in ([low, high], [high, low]):
        assert out(flows, udp(A, 1, 2)) == [3]
        assert out(flows, arp_request(A)) == [2]


def test_a_table_miss_drops_and_is_in_the_trace() -> None:
    switch = Switch([rule("SpoofGuard", 1, {}, Goto("L3Forward"))])
    assert switch.receive(udp(A, 1, 2), 1) == []
    assert [(event.table, event.flow is None) for event in switch.trace if isinstance(event, Visit)] == [
        ("SpoofGuard", False),
        ("L3Forward", True),
    ]


def test_masks_match_bits_and_nothing_else() -> None:
    flows = [rule("SpoofGuard", 5, IP | {"nw_src": (0x0A000000, 0xFF0000FF)}, Output(2))]
    assert out(flows, udp(Addresses.of("10.9.9.0", "1.2.3.4"), 1, 2)) == [2]
    assert out(flows, udp(Addresses.of("10.9.9.1", "1.2.3.4"), 1, 2)) == []


def test_different_flows_of_equal_key_are_an_error() -> None:
    first = rule("SpoofGuard", 5, IP | {"nw_src": A.nw_src}, Output(2))
    other = rule("SpoofGuard", 5, IP | {"nw_dst": A.nw_dst}, Output(3))
    with pytest.raises(PipelineError, match="one priority"):
        out([first, other], udp(A, 1, 2))
    assert out([first, replace(other, actions=first.actions)], udp(A, 1, 2)) == [2]


def test_a_duplicate_flow_is_refused() -> None:
    with pytest.raises(PipelineError, match="same flow twice"):
        Switch([rule("SpoofGuard", 5, IP, Output(2)), rule("SpoofGuard", 5, IP, Output(3))])


def test_move_and_load_write_only_their_bits() -> None:
    flows = [
        rule(
            "SpoofGuard", 5, IP, Load(Bits("reg0", 4, 4), 0xA), Move(Bits("nw_src", 0, 4), Bits("reg0", 0, 4)),
            Move(Bits("reg0", 0, 16), Bits("reg1", 8, 16)), Goto("L3Forward"),
        ),
        rule("L3Forward", 5, {"reg0": 0xA1, "reg1": 0xA100, "reg2": 0}, Output(7)),
    ]  # fmt: skip
    assert out(flows, udp(A, 1, 2)) == [7]


def test_output_never_sends_to_the_in_port() -> None:
    flows = [rule("SpoofGuard", 5, {}, Output(1), Output(2), InPort())]
    assert out(flows, arp_request(A), in_port=1) == [2, 1]
    assert out(flows, arp_request(A), in_port=2) == [1, 2]


def test_output_to_register_bits_reaches_the_local_port() -> None:
    bits = Bits("reg11", 0, 16)
    flows = [rule("SpoofGuard", 5, {}, Load(bits, LOCAL_PORT), OutputReg(bits))]
    assert out(flows, arp_request(A)) == [LOCAL_PORT]


def test_a_sent_packet_is_as_at_the_output_action() -> None:
    source = Bits("eth_src", 0, 48)
    switch = Switch([rule("SpoofGuard", 5, {}, Load(source, 1), Output(2), Load(source, 2), Output(3))])
    assert [sent.packet.eth_src for sent in switch.receive(udp(A, 1, 2), 1)] == [1, 2]


def test_resubmit_keeps_registers_and_goes_on_with_the_rest() -> None:
    flows = [
        rule("SpoofGuard", 5, {}, Resubmit("ArpSpoofGuard"), Output(3), Goto("L3Forward")),
        rule("ArpSpoofGuard", 5, {}, Load(Bits("reg1", 0, 32), 4), Output(2)),
        rule("L3Forward", 5, {"reg1": 4}, Output(4)),
    ]
    assert out(flows, udp(A, 1, 2)) == [2, 3, 4]


def test_a_circle_of_resubmits_is_an_error() -> None:
    with pytest.raises(PipelineError, match="circles"):
        out([rule("SpoofGuard", 5, {}, Resubmit("SpoofGuard"))], udp(A, 1, 2))


def test_arp_fields_can_be_matched_and_rewritten() -> None:
    flows = [
        rule(
            "SpoofGuard", 5, {"eth_type": 0x0806, "arp_op": 1, "arp_tpa": A.nw_dst}, Load(Bits("arp_op", 0, 16), 2),
            Move(Bits("arp_sha", 0, 48), Bits("arp_tha", 0, 48)), InPort(),
        )
    ]  # fmt: skip
    (answer,) = Switch(flows).receive(arp_request(A), 4)
    assert (answer.port, answer.packet.arp_op, answer.packet.arp_tha) == (4, 2, A.eth_src)


# Conjunctive match: ovs-fields(7), "conj_id".
PEERS, PORTS = 1, 2


def clause(priority: int, match: Conditions, *members: tuple[int, int]) -> Flow:
    return rule("SpoofGuard", priority, match, *(Conjunction(number, part, 2) for number, part in members))


def conjunction(*numbers: int) -> list[Flow]:
    return [rule("SpoofGuard", 20, {"conj_id": number}, Output(number)) for number in numbers]


TCP_TO_80: Conditions = IP | {"nw_proto": 6, "tcp_dst": 80}


def test_a_conjunction_needs_all_its_clauses() -> None:
    peer, port = clause(10, IP | {"nw_src": A.nw_src}, (7, PEERS)), clause(10, TCP_TO_80, (7, PORTS))
    miss = rule("SpoofGuard", 0, {}, Output(99))
    flows = [peer, port, *conjunction(7), miss]
    assert out(flows, tcp(A, 1, 80)) == [7]
    assert out(flows, tcp(A, 1, 81)) == [99]
    assert out(flows, tcp(Addresses.of("10.0.0.9", "10.0.0.2"), 1, 80)) == [99]
    assert out([peer, *conjunction(7), miss], tcp(A, 1, 80)) == [99]


def test_conjunctions_may_share_a_clause() -> None:
    """docs/hazards.md B17: two rules with a common source are one flow with two clauses; neither loses the other."""
    shared = clause(10, IP | {"nw_src": A.nw_src}, (7, PEERS), (8, PEERS))
    flows = [shared, clause(10, TCP_TO_80, (7, PORTS)), *conjunction(7, 8)]
    other = clause(10, IP | {"nw_proto": 17, "udp_dst": 53}, (8, PORTS))
    assert out([*flows, other], tcp(A, 1, 80)) == [7]
    assert out([*flows, other], udp(A, 1, 53)) == [8]
    assert out(flows, tcp(A, 1, 80)) == [7]


def test_clauses_of_different_priorities_never_join() -> None:
    """docs/hazards.md B18: each level of priority is looked at alone."""
    flows = [clause(11, IP | {"nw_src": A.nw_src}, (7, PEERS)), clause(10, TCP_TO_80, (7, PORTS)), *conjunction(7)]
    assert out(flows, tcp(A, 1, 80)) == []


def test_a_plain_flow_beside_clauses_of_its_priority_is_an_error() -> None:
    flows = [
        clause(10, IP | {"nw_src": A.nw_src}, (7, PEERS)),
        rule("SpoofGuard", 10, TCP_TO_80, Output(1)),
    ]
    with pytest.raises(PipelineError, match="share a priority"):
        out(flows, tcp(A, 1, 80))


def test_plain_flows_and_clauses_compare_by_priority() -> None:
    flows = [clause(10, IP | {"nw_src": A.nw_src}, (7, PEERS)), clause(10, TCP_TO_80, (7, PORTS)), *conjunction(7)]
    assert out([*flows, rule("SpoofGuard", 15, IP, Output(50))], tcp(A, 1, 80)) == [50]
    assert out([*flows, rule("SpoofGuard", 5, IP, Output(50))], tcp(A, 1, 80)) == [7]


# Conntrack.


def tracking(*rows: Flow) -> list[Flow]:
    return [rule("SpoofGuard", 1, IP, Ct(zone=1, table="ConntrackState")), *rows]


def on(text: str, *actions: Action, priority: int = 5, **more: int) -> Flow:
    return rule("ConntrackState", priority, IP | {"ct_state": ct_state(text)} | more, *actions)


COMMIT = Ct(zone=1, commit=True, writes=(Load(Bits("ct_mark", 0, 32), 9),))
STATEFUL = tracking(
    on("+new", COMMIT, Output(2)), on("+est-rpl", Output(3)), on("+rpl", Output(4)), on("+inv", Output(5), priority=9)
)


def test_the_rest_of_the_list_goes_on_without_conntrack_fields() -> None:
    flows = [
        rule("SpoofGuard", 1, IP, Ct(zone=1, table="ConntrackState"), Goto("L3Forward")),
        rule("ConntrackState", 1, {"ct_state": ct_state("+trk+new")}, Output(2)),
        rule("L3Forward", 1, {"ct_state": 0}, Output(3)),
    ]
    assert out(flows, udp(A, 1, 2)) == [2, 3]


def test_registers_survive_conntrack() -> None:
    flows = [
        rule("SpoofGuard", 1, IP, Load(Bits("reg3", 0, 8), 5), Ct(zone=1, table="ConntrackState")),
        rule("ConntrackState", 1, {"reg3": 5, "ct_zone": 1}, Output(2)),
    ]
    assert out(flows, udp(A, 1, 2)) == [2]


@pytest.mark.parametrize("packet", [tcp(A, 1, 80), udp(A, 1, 53), echo(A, 3), sctp(A, 5, 6), transport(47, A, 0, 0)])
def test_a_connection_is_new_until_it_is_answered(packet: Packet) -> None:
    """docs/hazards.md A21: one-way datagrams never become established."""
    switch = Switch(STATEFUL)
    assert [sent.port for _ in range(4) for sent in switch.receive(packet, 1)] == [2, 2, 2, 2]
    assert [sent.port for sent in switch.receive(packet.reply(), 1)] == [4]
    again = packet.with_flags(ACK) if packet.tcp_flags else packet
    assert [sent.port for sent in switch.receive(again, 1)] == [3]


def test_midstream_tcp_is_new_and_syn_ack_is_invalid() -> None:
    """docs/hazards.md B11, B12: what would recommit a flushed connection turned round is for the tables to drop."""
    switch = Switch(STATEFUL)
    assert [sent.port for sent in switch.receive(tcp(A, 1, 80, flags=SYN | ACK), 1)] == [5]
    assert [sent.port for sent in switch.receive(tcp(A, 1, 80, flags=ACK), 1)] == [2]
    assert switch.conntrack.entries()[0].original.target_port == 80


def test_out_of_window_is_invalid_and_has_no_other_state() -> None:
    """docs/hazards.md B12: +inv comes alone with +trk, so that a match on -new takes it too."""
    switch = Switch(STATEFUL)
    for packet in (tcp(A, 1, 80), tcp(A, 1, 80).reply()):
        switch.receive(packet, 1)
    switch.receive(replace(tcp(A, 1, 80, flags=ACK), in_window=False), 1)
    (result,) = [event.result for event in switch.trace if isinstance(event, Tracking)]
    assert (result.state, result.mark) == (ct_state("+trk+inv")[0], 9)


def test_sctp_of_other_ports_belongs_to_the_first_association() -> None:
    """docs/hazards.md A9: before Open vSwitch 3.2 ports of SCTP do not count."""
    assert _second_association(sctp_ports=False) == [3]
    assert _second_association(sctp_ports=True) == [2]


def _second_association(*, sctp_ports: bool) -> list[int]:
    switch = Switch(STATEFUL, conntrack=Conntrack(replace(NETDEV, sctp_ports=sctp_ports)))
    for packet in (sctp(A, 4000, 80), sctp(A, 4000, 80).reply()):
        switch.receive(packet, 1)
    return [sent.port for sent in switch.receive(sctp(A, 4000, 81), 1)]


def test_an_icmp_error_has_the_mark_of_its_connection() -> None:
    """docs/hazards.md A19: a router in the middle reports about a tracked packet."""
    related = rule("ConntrackState", 20, IP | {"ct_state": ct_state("+rel+rpl"), "ct_mark": 9}, Output(8))
    switch = Switch([*STATEFUL, related])
    packet = tcp(A, 1, 80)
    from_router = Addresses.of("10.0.7.7", "10.0.0.1")
    assert [sent.port for sent in switch.receive(icmp_error(from_router, packet), 1)] == [5]
    switch.receive(packet, 1)
    assert [sent.port for sent in switch.receive(icmp_error(from_router, packet), 1)] == [8]
    elsewhere = Addresses.of("10.0.7.7", "10.0.0.99")
    assert [sent.port for sent in switch.receive(icmp_error(elsewhere, packet), 1)] == [5]


def test_force_turns_an_answered_entry_round() -> None:
    turn = replace(COMMIT, force=True)
    switch = Switch(tracking(on("+new", COMMIT), on("+rpl", turn)))
    packet = udp(A, 1, 2)
    switch.receive(packet, 1)
    switch.receive(packet.reply(), 1)
    (entry,) = switch.conntrack.entries()
    assert (entry.original.source, entry.original.target) == (A.nw_dst, A.nw_src)


def test_a_second_commit_changes_the_mark_in_place() -> None:
    other = Ct(zone=1, commit=True, writes=(Load(Bits("ct_mark", 4, 4), 0), Load(Bits("ct_label", 0, 2), 1)))
    switch = Switch(tracking(on("+new", COMMIT, ct_mark=0), on("+new", other, ct_mark=9)))
    for _ in range(2):
        switch.receive(udp(A, 1, 2), 1)
    assert [(entry.mark, entry.label) for entry in switch.conntrack.entries()] == [(9, 1)]


def test_zones_are_separate_and_flushed_by_address() -> None:
    shared = Conntrack()
    first = Switch([rule("SpoofGuard", 1, IP, Ct(zone=1, commit=True))], conntrack=shared)
    second = Switch([rule("SpoofGuard", 1, IP, Ct(zone=2, commit=True))], conntrack=shared)
    for switch in (first, second):
        switch.receive(udp(A, 1, 2), 1)
        switch.receive(udp(Addresses.of("10.0.0.7", "10.0.0.8"), 1, 2), 1)
    assert len(shared.entries()) == 4
    shared.flush(zone=1, address=A.nw_dst)
    assert [entry.original.zone for entry in shared.entries()] == [1, 2, 2]
    shared.flush(zone=2)
    assert len(shared.entries()) == 1


def test_fragments_wait_for_each_other_in_any_order() -> None:
    """docs/hazards.md A22: nothing goes on before the datagram is whole; then both do, only the first with ports."""
    port = Bits("reg1", 0, 16)
    switch = Switch(tracking(on("+new", Load(port, 1), Output(2))))
    first, later = udp(A, 1, 53).fragments()
    assert switch.receive(later, 1) == []
    assert [sent.packet.nw_frag for sent in switch.receive(first, 1)] == [1, 3]
    assert switch.receive(udp(A, 1, 54).fragments(2)[1], 1) == []


def test_later_fragments_share_the_verdict_of_their_first() -> None:
    flows = tracking(
        rule("ConntrackState", 5, IP | {"nw_proto": 17, "udp_dst": 53}, Ct(zone=1, commit=True, table="Output")),
        rule("ConntrackState", 5, IP | {"nw_frag": (2, 2)}, Ct(zone=1, commit=True, table="Output")),
        rule("Output", 1, {}, Output(2)),
    )
    for port, leaving in ((53, 2), (54, 0)):
        switch = Switch(flows)
        received = [sent for packet in udp(A, 1, port).fragments() for sent in switch.receive(packet, 1)]
        assert len(received) == leaving


@given(st.integers(1, 65535), st.integers(1, 65535), st.sampled_from((6, 17, 132)))
def test_masks_of_a_port_range_take_exactly_its_ports(one: int, other: int, proto: int) -> None:
    """docs/hazards.md A7: both ends included, neighbours not, every protocol."""
    low, high = sorted((one, other))
    name = {6: "tcp_dst", 17: "udp_dst", 132: "sctp_dst"}[proto]
    flows = [rule("SpoofGuard", 5, IP | {"nw_proto": proto, name: pair}, Output(2)) for pair in masks(low, high)]
    switch = Switch(flows)
    for port in {low, high, low - 1, high + 1, (low + high) // 2} & set(range(65536)):
        sent = switch.receive(transport(proto, A, 1, port), 1)
        assert bool(sent) == (low <= port <= high), port


# Networks.
def forwarding(port: int, *actions: Action) -> Switch:
    return Switch([rule("SpoofGuard", 5, {"in_port": port}, *actions)])


def facts(node: str, address: str, **links: int) -> BridgeFacts:
    return BridgeFacts(node, links=links, tunnel=TunnelPort(9, IPv4Address(address)))


def test_a_packet_crosses_links_and_arrives() -> None:
    wiring = Wiring.of({"n1": facts("n1", "1.1.1.1", n2=5), "n2": facts("n2", "2.2.2.2", n1=6)})
    network = Network({"n1": forwarding(1, Output(5)), "n2": forwarding(6, Output(2))}, wiring)
    packet = udp(A, 1, 2)
    assert network.send("n1", 1, packet) == [Arrival(Place("n2", 2), packet)]
    assert [hop.place for hop in network.hops] == [Place("n1", 1), Place("n2", 6)]


def test_a_tunnel_delivers_by_its_outer_destination() -> None:
    wiring = Wiring.of({"n1": facts("n1", "1.1.1.1"), "n2": facts("n2", "2.2.2.2")})
    known = rule("SpoofGuard", 5, {"in_port": 9, "tun_src": 0x01010101}, Output(2))
    for target, arrivals in ((0x02020202, [Place("n2", 2)]), (0x03030303, [])):
        sender = forwarding(1, Load(Bits("tun_dst", 0, 32), target), Output(9))
        found = Network({"n1": sender, "n2": Switch([known])}, wiring).send("n1", 1, udp(A, 1, 2))
        assert [arrival.place for arrival in found] == arrivals
        assert all(arrival.packet == udp(A, 1, 2) for arrival in found)


def test_a_loop_between_bridges_is_an_error() -> None:
    wiring = Wiring(links={Place("n1", 1): Place("n2", 1), Place("n2", 2): Place("n1", 2)})
    network = Network({"n1": forwarding(2, Output(1)), "n2": forwarding(1, Output(2))}, wiring)
    with pytest.raises(PipelineError, match="circles between bridges"):
        network.send("n1", 2, udp(A, 1, 2))


def test_the_trace_is_of_the_last_packet() -> None:
    switch = Switch(STATEFUL)
    switch.receive(udp(A, 1, 2), 1)
    first = list(switch.trace)
    switch.receive(arp_request(A), 1)
    assert [type(event) for event in first] == [Visit, Tracking, Visit, Tracking, Sent]
    assert [type(event) for event in switch.trace] == [Visit]
