"""In what the connection tracking of the kernel's datapath differs from the userspace one's.

tests/integration/test_conntrack_model.py compares each with the datapath itself.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.pipeline.actions import Bits as Where
from romana_ovs.pipeline.actions import Ct, Load, Output
from romana_ovs.pipeline.fields import CT_STATE_BITS, ETH_IP
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.policy.view import Origin
from romana_ovs.simulator.conntrack import Commitment, Conntrack, Tracked, Write
from romana_ovs.simulator.conntrack_behaviour import BEHAVIOURS, KERNEL, NETDEV, ConntrackBehaviour
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.packet import (
    ACK,
    COOKIE_ECHO,
    DATA,
    FIN,
    INIT,
    INIT_ACK,
    RST,
    SYN,
    Addresses,
    Packet,
    icmp_error,
    sctp,
    tcp,
    udp,
)

A, B = Addresses.of("10.0.0.1", "10.0.0.2"), Addresses.of("10.0.0.2", "10.0.0.1")
COMMIT = Commitment(mark=Write(9, 0xFFFFFFFF), label=Write(3, 3))
FORCE = replace(COMMIT, force=True)
OPENING = tcp(A, 4000, 80)
BOTH = pytest.mark.parametrize("behaviour", [NETDEV, KERNEL], ids=["netdev", "kernel"])


def words(result: Tracked) -> str:
    """The state as ovs-ofctl writes it, without +trk."""
    return "".join(f"+{word}" for word, bit in CT_STATE_BITS.items() if result.state & bit and word != "trk")


def states(behaviour: ConntrackBehaviour, *packets: Packet) -> list[str]:
    """The states of packets of one zone, of which the first is committed if it can be."""
    conntrack = Conntrack(behaviour)
    return [
        words(conntrack.process(packet, 1, COMMIT if number == 0 else None)) for number, packet in enumerate(packets)
    ]


def test_each_datapath_type_has_a_behaviour() -> None:
    assert {kind.value: BEHAVIOURS[kind] for kind in BEHAVIOURS} == {"netdev": NETDEV, "system": KERNEL}


@pytest.mark.parametrize("flags", [FIN | ACK, RST, RST | ACK])
def test_no_fin_and_no_rst_begins_a_connection_in_the_kernel(flags: int) -> None:
    assert states(KERNEL, tcp(A, 1, 80, flags=flags)) == ["+inv"]
    assert states(NETDEV, tcp(A, 1, 80, flags=flags)) == ["+new"]


@BOTH
def test_an_ack_begins_a_connection_and_a_syn_ack_does_not(behaviour: ConntrackBehaviour) -> None:
    assert states(behaviour, tcp(A, 1, 80, flags=ACK)) == ["+new"]
    assert states(behaviour, tcp(A, 1, 80, flags=SYN | ACK)) == ["+inv"]
    assert states(behaviour, tcp(A, 1, 80, flags=SYN | FIN)) == ["+inv"]


def test_established_tcp_has_no_window_in_the_kernel() -> None:
    stray = replace(OPENING.with_flags(ACK), in_window=False)
    handshake = (OPENING, OPENING.reply(), OPENING.with_flags(ACK))
    assert states(KERNEL, *handshake, stray)[1:] == ["+est+rpl", "+est", "+est"]
    assert states(NETDEV, *handshake, stray)[1:] == ["+est+rpl", "+est", "+inv"]
    assert states(KERNEL, OPENING, OPENING.reply(), stray)[2] == "+inv", "it is not established yet"


@pytest.mark.parametrize(("behaviour", "mark"), [(NETDEV, 9), (KERNEL, 0)], ids=["netdev", "kernel"])
def test_an_invalid_packet_has_the_mark_in_userspace_only(behaviour: ConntrackBehaviour, mark: int) -> None:
    conntrack = Conntrack(behaviour)
    conntrack.process(OPENING, 1, COMMIT)
    result = conntrack.process(OPENING.with_flags(SYN | FIN), 1)
    assert (words(result), result.mark, result.label) == ("+inv", mark, 3 if mark else 0)
    assert (result.original is None) == (mark == 0)


def test_crossing_syns_are_replies_in_the_kernel() -> None:
    crossing = tcp(B, 80, 4000)
    assert states(KERNEL, OPENING, crossing, OPENING) == ["+new", "+est+rpl", "+est"]
    assert states(NETDEV, OPENING, crossing, OPENING) == ["+new", "+new", "+new"]
    assert states(KERNEL, OPENING, crossing, OPENING.reply(), OPENING.with_flags(ACK))[2:] == ["+est+rpl", "+est"]


def test_one_direction_of_tcp_is_soon_invalid_in_the_kernel() -> None:
    assert states(KERNEL, OPENING, OPENING, OPENING.with_flags(ACK)) == ["+new", "+new", "+inv"]
    assert states(NETDEV, OPENING, OPENING, OPENING.with_flags(ACK)) == ["+new", "+new", "+est"]
    middle = OPENING.with_flags(ACK)
    assert states(KERNEL, middle, middle) == ["+new", "+new"]


def test_the_kernel_forgets_a_connection_whose_syn_was_reset() -> None:
    conntrack = Conntrack(KERNEL)
    conntrack.process(OPENING, 1, COMMIT)
    assert words(conntrack.process(OPENING.reply().with_flags(RST | ACK), 1)) == "+est+rpl"
    assert conntrack.entries() == ()


def test_a_syn_reopens_a_closed_connection_of_the_kernel() -> None:
    fin = OPENING.with_flags(FIN | ACK)
    closed = (OPENING, OPENING.reply(), OPENING.with_flags(ACK), fin, fin.reply(flags=FIN | ACK), fin.with_flags(ACK))
    assert states(KERNEL, *closed, OPENING)[-2:] == ["+est", "+new"]
    assert states(KERNEL, *closed[:4], OPENING)[-1] == "+est", "a SYN out of turn changes nothing"


def test_sctp_of_the_kernel_has_ports_and_begins_with_init() -> None:
    first = sctp(A, 4000, 80)
    assert states(KERNEL, *(sctp(A, 4000, 80, chunk=chunk) for chunk in (DATA,))) == ["+inv"]
    assert states(NETDEV, *(sctp(A, 4000, 80, chunk=chunk) for chunk in (DATA,))) == ["+new"]
    assert states(KERNEL, first, first.reply(), sctp(A, 4000, 81))[1:] == ["+est+rpl", "+new"]
    assert states(NETDEV, first, first.reply(), sctp(A, 4000, 81))[1:] == ["+est+rpl", "+est"]


def test_sctp_of_the_kernel_needs_the_other_ends_tag() -> None:
    first, cookie = sctp(A, 4000, 80), sctp(A, 4000, 80, chunk=COOKIE_ECHO)
    assert (first.sctp_chunk, first.reply().sctp_chunk) == (INIT, INIT_ACK)
    assert states(KERNEL, first, cookie) == ["+new", "+inv"]
    assert states(KERNEL, first, first.reply(), cookie, cookie.reply())[2:] == ["+est", "+est+rpl"]


@BOTH
@pytest.mark.parametrize("looked_up", [False, True])
def test_force_reverses_with_and_without_a_lookup(behaviour: ConntrackBehaviour, *, looked_up: bool) -> None:
    packet, conntrack = udp(A, 1, 2), Conntrack(behaviour)
    conntrack.process(packet, 1, COMMIT)
    state = conntrack.process(packet.reply(), 1).state if looked_up else 0
    conntrack.process(packet.reply(), 1, FORCE, before=state)
    assert [entry.original.source for entry in conntrack.entries()] == [B.nw_src]


def test_force_does_nothing_to_what_the_kernel_found_invalid() -> None:
    conntrack, crossing = Conntrack(KERNEL), tcp(B, 80, 4000)
    conntrack.process(OPENING.with_flags(ACK), 1, COMMIT)
    state = conntrack.process(crossing, 1).state
    assert words(conntrack.process(crossing, 1, FORCE, before=state)) == "+inv"
    assert [entry.original.source for entry in conntrack.entries()] == [A.nw_src]


@pytest.mark.parametrize(("behaviour", "left"), [(NETDEV, 0), (KERNEL, 1)], ids=["netdev", "kernel"])
def test_force_by_an_error_deletes_in_userspace_only(behaviour: ConntrackBehaviour, left: int) -> None:
    conntrack = Conntrack(behaviour)
    conntrack.process(OPENING, 1, COMMIT)
    about = icmp_error(Addresses.of("10.0.7.7", "10.0.0.1"), OPENING)
    assert words(conntrack.process(about, 1, FORCE)) == ("+rel+rpl" if left else "+inv")
    assert len(conntrack.entries()) == left


def test_a_second_pass_of_the_kernel_does_not_track_again() -> None:
    conntrack = Conntrack(KERNEL)
    fin = OPENING.with_flags(FIN | ACK)
    for packet in (OPENING, OPENING.reply(), OPENING.with_flags(ACK)):
        conntrack.process(packet, 1, COMMIT)
    state = conntrack.process(fin, 1).state
    after_one = conntrack.entries()[0].state
    assert conntrack.process(fin, 1, COMMIT, before=state).state == state
    assert conntrack.entries()[0].state == after_one


@BOTH
def test_fragments_leave_as_fragments(behaviour: ConntrackBehaviour) -> None:
    """What is between ct() and the output sees the whole datagram, with its ports, in the kernel only."""
    ip = {"eth_type": (ETH_IP, 0xFFFF)}
    port = {**ip, "nw_proto": (17, 0xFF), "udp_dst": (53, 0xFFFF), "ct_state": (0x20, 0x20)}

    def flow(table: str, match: dict[str, tuple[int, int]], *actions: object) -> Flow:
        return Flow(table, 5, canonical(match), actions, 0, Origin("Test", name=table))  # type: ignore[arg-type]

    flows = [
        flow("SpoofGuard", ip, Ct(zone=1, table="ConntrackState")),
        flow("ConntrackState", port, Load(Where("eth_dst", 0, 8), 7), Output(2)),
    ]
    switch = Switch(flows, conntrack=Conntrack(behaviour))
    first, later = udp(A, 1, 53).fragments()
    assert switch.receive(later, 1) == []
    pieces = [sent.packet for sent in switch.receive(first, 1)]
    assert [piece.nw_frag for piece in pieces] == ([1, 3] if behaviour is KERNEL else [1])
    assert {piece.eth_dst & 0xFF for piece in pieces} == {7}
    assert [piece.tp_dst for piece in pieces] == [53, 0][: len(pieces)]
