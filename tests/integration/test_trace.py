"""Compiled tables in Open vSwitch itself: loaded as `flows` prints them, and asked about packets.

Two questions for each packet: which flows `ofproto/trace` says it takes, and what leaves by which port when
the frame really comes in, one packet after another with connection tracking. The interpreter must agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline.fields import FIELDS, written
from romana_ovs.pipeline.listing import loadable
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import ClientGroup, ServerGroup
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.interpret import Switch, Visit
from romana_ovs.simulator.packet import ACK, FIN, SYN, Addresses, Packet, arp_request, echo, icmp_error, tcp, transport
from tests.integration.dummy_interfaces import LOCAL, DummyOvs, wanted
from tests.integration.packet_bridge import behaviour, packet_ovs
from tests.integration.wire import frame, packet_of
from tests.support.hypothesis_profiles import examples
from tests.support.simulated_network import CLOSED_SERVER, OPEN_SERVER, PLAN, UPLINK_PORT, SimNetwork, SimPod, allow

pytestmark = [pytest.mark.root, pytest.mark.skipif(not wanted(), reason="needs root and Open vSwitch")]

RANGES = (PortRange(Protocol.TCP, 80, 90), PortRange(Protocol.UDP, 53, 53), PortRange(Protocol.SCTP, 80, 81))
A, B, C, D, E, FAR = (
    SimPod("a", 1, 1, server=CLOSED_SERVER),
    SimPod("b", 1, 2),
    SimPod("c", 1, 3, segment=2),
    SimPod("d", 1, 4, segment=3),
    SimPod("e", 1, 5),
    SimPod("far", 2, 6),
)
LARGE = ServerGroup(7, (allow(A, C, D, FAR, ports=RANGES), allow(C, ports=(PortRange(Protocol.TCP, 443, 443),))), ())
"""Large enough for a conjunction."""
SOME_EGRESS = ClientGroup(9, (allow(ports=RANGES[:1]),), deferred=False)
LAB = SimNetwork.of(A, B, C, D, E, FAR)
LAB.moved("b", server=LARGE)
LAB.moved("e", client=SOME_EGRESS, server=OPEN_SERVER)
PORTS = (1, 2, 3, 4, 5, UPLINK_PORT, LOCAL)
TEXT = loadable(LAB.flows(1), LAB.program(1).meters)


@pytest.fixture(scope="module")
def ovs() -> Iterator[DummyOvs]:
    with packet_ovs(PORTS) as running:
        running.program(TEXT)
        yield running


def test_the_lab_has_a_conjunction() -> None:
    assert "conjunction(" in TEXT and "conj_id=" in TEXT


def test_the_switch_has_exactly_what_was_printed(ovs: DummyOvs) -> None:
    assert "add-meter" in TEXT and "first through meter:" in TEXT
    assert ovs.difference(TEXT) == (set(), set())
    has, wanted = ovs.difference(TEXT.replace("priority=400", "priority=401", 1))
    assert (len(has), len(wanted)) == (1, 1)


_NAMES = sorted(LAB.pods)
_FLAGS = st.sampled_from((SYN, SYN, ACK, SYN | ACK, FIN | ACK))


@st.composite
def plain_packets(draw: st.DrawFn) -> tuple[int, Packet]:
    """A packet between two pods of the lab, or a node or outsider and one, at the port it would come in by."""
    source, target = draw(st.sampled_from([*_NAMES, "node", "outside"])), draw(st.sampled_from([*_NAMES, "node"]))
    ends = Addresses.of(_address(source), _address(target), eth_src=_wire_mac(source))
    proto = draw(st.sampled_from((6, 6, 17, 132, 1, 47)))
    packet = transport(
        proto, ends, draw(st.sampled_from((4000, 80))), draw(st.sampled_from((80, 53, 90, 91, 443, 4000)))
    )
    if proto == 6:
        packet = packet.with_flags(draw(_FLAGS))
    return _port(source), packet


def _address(name: str) -> str:
    known = {"node": PLAN.gateway(1), "outside": "203.0.113.9"}
    return str(known[name] if name in known else LAB.pods[name].address)


def _port(name: str) -> int:
    if name in ("node", "outside"):
        return LOCAL
    return LAB.pods[name].port if LAB.pods[name].node == 1 else UPLINK_PORT


def _wire_mac(name: str) -> int:
    """The source MAC a packet has where it enters node 1: from the far node, identity and marks."""
    return 0x0A05 << 32 | LAB.pods[name].identity if name == "far" else 0


@st.composite
def any_packets(draw: st.DrawFn) -> tuple[int, Packet]:
    """A plain packet, its answer, an error about it, ARP, or one that comes in by the wrong port."""
    port, packet = draw(plain_packets())
    shape = draw(st.sampled_from(("plain",) * 4 + ("error", "arp", "astray", "tagged")))
    if shape == "error":
        return port, icmp_error(Addresses(packet.eth_src, packet.eth_dst, packet.nw_src, packet.nw_dst), packet.reply())
    if shape == "arp":
        return port, arp_request(Addresses(packet.eth_src, packet.eth_dst, packet.nw_src, packet.nw_dst))
    if shape == "astray":
        return draw(st.sampled_from(PORTS)), packet
    return port, packet.tagged(5) if shape == "tagged" else packet


@given(steps=st.lists(any_packets(), min_size=1, max_size=12))
@settings(
    max_examples=examples(150),
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_frames_leave_as_the_interpreter_says(ovs: DummyOvs, steps: list[tuple[int, Packet]]) -> None:
    _compare(ovs, steps)


@pytest.mark.parametrize("target", ["b", "far", "node"])
def test_whole_conversations_are_the_same(ovs: DummyOvs, target: str) -> None:
    ends = Addresses.of(_address("e"), _address(target))
    first = tcp(ends, 4000, 80)
    answer = first.reply()
    if target == "far":
        answer = Packet(
            **{**{name: getattr(answer, name) for name in Packet.__slots__}, "eth_src": 0x0A06 << 32 | 65537}
        )
    back = _port(target)
    _compare(
        ovs, [(5, first), (back, answer), (5, first.with_flags(ACK)), (back, answer.with_flags(ACK)), (5, echo(ends))]
    )


def test_fragments_are_the_same(ovs: DummyOvs) -> None:
    ends = Addresses.of(_address("a"), _address("b"))
    steps = [
        (1, piece) for number, port in ((1, 53), (2, 54)) for piece in transport(17, ends, 4000, port).fragments(number)
    ]
    _compare(ovs, steps)
    model = Switch(LAB.flows(1), conntrack=Conntrack(behaviour(ovs)))
    assert [len(model.receive(packet, port)) for port, packet in steps] == [0, 2, 0, 0]


def _compare(ovs: DummyOvs, steps: list[tuple[int, Packet]]) -> None:
    ovs.appctl("dpctl/flush-conntrack")
    model = Switch(LAB.flows(1), conntrack=Conntrack(behaviour(ovs)))
    for position, (port, packet) in enumerate(steps):
        real = [(out, packet_of(data, packet).fields()) for out, data in ovs.send(port, frame(packet))]
        expected = [(sent.port, sent.packet.fields()) for sent in model.receive(packet, port)]
        assert real == [
            (out, {**found, "tun_src": 0, "tun_dst": 0}) for out, found in sorted(expected, key=lambda e: e[0])
        ], f"step {position} of {steps}"


@given(step=plain_packets())
@settings(
    max_examples=examples(60), deadline=None, derandomize=True, phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
def test_trace_takes_the_same_flows(ovs: DummyOvs, step: tuple[int, Packet]) -> None:
    port, packet = step
    if packet.nw_proto == 6:
        packet = packet.with_flags(SYN)
    ovs.appctl("dpctl/flush-conntrack")
    answer = ovs.appctl("ofproto/trace", "br0", _trace_words(port, packet))
    pattern = re.compile(r"^ *(\d+)\. .*?priority (\d+)(?:, cookie (0x[0-9a-f]+))?", re.MULTILINE)
    real = [(int(table), int(rank), int(cookie, 16)) for table, rank, cookie in pattern.findall(answer) if cookie]
    model = Switch(LAB.flows(1), conntrack=Conntrack(behaviour(ovs)))
    model.receive(packet, port)
    expected = [
        (TABLE_IDS[event.table], event.flow.priority, event.flow.cookie)
        for event in model.trace
        if isinstance(event, Visit) and event.flow is not None
    ]
    assert real == expected, answer


def _trace_words(port: int, packet: Packet) -> str:
    shown = [
        written(FIELDS[name], value, FIELDS[name].ones)
        for name, value in packet.fields().items()
        if name not in ("tun_src", "tun_dst", "vlan_tci", "nw_frag", "tcp_flags")
    ]
    flags = [f"tcp_flags={packet.tcp_flags}"] if packet.nw_proto == 6 else []
    return ",".join([f"in_port={port}", *shown, *flags])
