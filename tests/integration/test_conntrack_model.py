"""The conntrack model against Open vSwitch itself: the same packets through the same flows, the same outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from romana_ovs.pipeline.actions import Bits, Ct, Load, Move, Output
from romana_ovs.pipeline.fields import ETH_IP
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.pipeline.listing import loadable
from romana_ovs.policy.view import Origin
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.packet import (
    ACK,
    COOKIE_ACK,
    COOKIE_ECHO,
    DATA,
    FIN,
    INIT,
    INIT_ACK,
    RST,
    SYN,
    Addresses,
    Packet,
    echo,
    icmp_error,
    sctp,
    tcp,
    transport,
    udp,
)
from tests.integration.dummy_interfaces import DummyOvs, wanted
from tests.integration.packet_bridge import behaviour, packet_ovs
from tests.integration.wire import frame, packet_of
from tests.support.hypothesis_profiles import examples

pytestmark = [pytest.mark.root, pytest.mark.skipif(not wanted(), reason="needs root and Open vSwitch")]

LOOK, COMMIT, FORCE, TWICE, OUT = 1, 2, 3, 4, 5
"""Ports: the ones a packet comes in by say what is done with it, the last is where it leaves."""
ZONE = 7
ORIGIN = Origin("Test")
A, B = Addresses.of("10.0.0.1", "10.0.0.2"), Addresses.of("10.0.0.2", "10.0.0.1")
MARK = (Move(Bits("eth_src", 0, 32), Bits("ct_mark", 0, 32)), Load(Bits("ct_label", 2, 2), 3))


def _flow(table: str, match: dict[str, tuple[int, int]], *actions: object) -> Flow:
    return Flow(table=table, priority=10, match=canonical(match), actions=actions, cookie=0, origin=ORIGIN)  # type: ignore[arg-type]


def _from(port: int) -> dict[str, tuple[int, int]]:
    return {"in_port": (port, 0xFFFFFFFF), "eth_type": (ETH_IP, 0xFFFF)}


def _state(new: int) -> dict[str, tuple[int, int]]:
    return {"ct_state": (0x20 | new, 0x21), "eth_type": (ETH_IP, 0xFFFF)}


FLOWS = (
    _flow("SpoofGuard", _from(LOOK), Ct(ZONE, "Output")),
    _flow("SpoofGuard", _from(COMMIT), Ct(ZONE, "Output", commit=True, writes=MARK)),
    _flow("SpoofGuard", _from(FORCE), Ct(ZONE, "Output", commit=True, force=True, writes=MARK)),
    _flow("SpoofGuard", _from(TWICE), Ct(ZONE, "ConntrackZone")),
    _flow(
        "ConntrackZone",
        {"ct_state": (0x21, 0x21), "eth_type": (ETH_IP, 0xFFFF)},
        Ct(ZONE, commit=True, writes=MARK),
        Load(Bits("eth_dst", 40, 8), 2),
        Output(OUT),
    ),
    _flow(
        "ConntrackZone",
        {"ct_state": (0x20, 0x21), "eth_type": (ETH_IP, 0xFFFF)},
        Ct(ZONE, "Output", commit=True, force=True),
    ),
    _flow(
        "Output",
        {},
        Move(Bits("ct_state", 0, 32), Bits("eth_dst", 0, 32)),
        Move(Bits("ct_label", 0, 8), Bits("eth_dst", 32, 8)),
        Move(Bits("ct_mark", 0, 32), Bits("eth_src", 0, 32)),
        Output(OUT),
    ),
)


class Step(NamedTuple):
    """A packet and the port it comes in by."""

    port: int
    packet: Packet


@pytest.fixture(scope="module")
def ovs() -> Iterator[DummyOvs]:
    with packet_ovs((LOOK, COMMIT, FORCE, TWICE, OUT)) as running:
        running.program(loadable(FLOWS))
        yield running


def _same(ovs: DummyOvs, steps: list[Step]) -> None:
    """Play `steps` on both and compare what came out at each."""
    ovs.appctl("dpctl/flush-conntrack")
    model = Switch(FLOWS, conntrack=Conntrack(behaviour(ovs)))
    for position, step in enumerate(steps):
        real = [(port, packet_of(data, step.packet)) for port, data in ovs.send(step.port, frame(step.packet))]
        expected = [(sent.port, sent.packet) for sent in model.receive(step.packet, step.port)]
        assert [(port, _shown(packet)) for port, packet in real] == [
            (port, _shown(packet)) for port, packet in expected
        ], f"step {position} of {steps}"


def _shown(packet: Packet) -> dict[str, int]:
    return packet.fields()


_FLAGS = st.sampled_from((SYN, SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST, RST | ACK, FIN, SYN | FIN, 0, SYN | RST))
_PORTS = st.sampled_from((80, 4000))
_ENDS = st.sampled_from((A, B))
_SEGMENTS = st.builds(lambda ends, a, b, flags: tcp(ends, a, b, flags=flags), _ENDS, _PORTS, _PORTS, _FLAGS)
_DATAGRAMS = st.builds(udp, _ENDS, _PORTS, _PORTS)
_KINDS = st.sampled_from((INIT, INIT, INIT, INIT_ACK, INIT_ACK, COOKIE_ECHO, COOKIE_ACK, DATA, DATA))
_CHUNKS = st.builds(lambda ends, a, b, kind: sctp(ends, a, b, chunk=kind), _ENDS, _PORTS, _PORTS, _KINDS)
_ECHOES = st.builds(
    lambda ends, number, back: echo(ends, number).reply() if back else echo(ends, number),
    _ENDS,
    st.integers(1, 2),
    st.booleans(),
)
_PLAIN = st.one_of(_SEGMENTS, _SEGMENTS, _DATAGRAMS, _CHUNKS, _ECHOES, st.just(transport(47, A, 0, 0)))
_ERRORS = st.builds(
    lambda inner, kind: icmp_error(_to_source(inner), inner, kind=kind), _PLAIN, st.sampled_from((3, 11))
)
_ASTRAY = _PLAIN.map(lambda inner: icmp_error(Addresses(1, 2, 0x0A000009, 0x0A000008), inner))
_PACKETS = st.one_of(_PLAIN, _PLAIN, _PLAIN, _ERRORS, _ASTRAY)
_MARKS = st.integers(1, 3)


def _to_source(inner: Packet) -> Addresses:
    return Addresses(0x0A58 << 32 | 9, inner.eth_src, 0x0A000009, inner.nw_src)


def _steps() -> st.SearchStrategy[list[Step]]:
    step = st.builds(
        lambda port, packet, mark: Step(port, _marked(packet, mark)),
        st.sampled_from((LOOK, COMMIT, COMMIT, FORCE, TWICE)),
        _PACKETS,
        _MARKS,
    )
    return st.lists(step, min_size=1, max_size=9)


def _marked(packet: Packet, mark: int) -> Packet:
    """The packet with a source MAC that `MARK` turns into a conntrack mark."""

    return replace(packet, eth_src=0x0A58 << 32 | mark)


SYN_AB = _marked(tcp(A, 4000, 80), 1)
UDP_AB = _marked(udp(A, 4000, 80), 1)


@example([Step(COMMIT, SYN_AB), Step(LOOK, SYN_AB.reply()), Step(LOOK, SYN_AB.with_flags(ACK))])
@example([Step(COMMIT, SYN_AB), Step(LOOK, tcp(B, 80, 4000)), Step(COMMIT, tcp(B, 80, 4000)), Step(LOOK, SYN_AB)])
@example([Step(COMMIT, UDP_AB)] * 4 + [Step(LOOK, UDP_AB.reply()), Step(LOOK, UDP_AB)])
@example([Step(COMMIT, _marked(sctp(A, 4000, 80), 2)), Step(LOOK, sctp(B, 81, 4001)), Step(LOOK, sctp(A, 4000, 81))])
@given(steps=_steps())
@settings(
    max_examples=examples(250),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
def test_states_and_marks_are_those_of_open_vswitch(ovs: DummyOvs, steps: list[Step]) -> None:
    _same(ovs, steps)


def test_a_segment_outside_the_window_is_invalid(ovs: DummyOvs) -> None:

    stray = replace(SYN_AB.with_flags(ACK), in_window=False)
    opening = [Step(COMMIT, SYN_AB), Step(LOOK, SYN_AB.reply()), Step(LOOK, SYN_AB.with_flags(ACK))]
    _same(ovs, [*opening, Step(LOOK, stray), Step(LOOK, replace(stray.reply(), in_window=False))])
    assert Switch(FLOWS, conntrack=Conntrack(behaviour(ovs))).conntrack.entries() == ()


def test_fragments_wait_for_each_other_and_go_on_together(ovs: DummyOvs) -> None:
    first, later = _marked(udp(A, 4000, 80), 1).fragments(7)
    other, rest = _marked(udp(A, 4000, 81), 1).fragments(8)
    _same(ovs, [Step(COMMIT, first), Step(COMMIT, later), Step(COMMIT, rest), Step(COMMIT, other), Step(LOOK, first)])


def test_entries_are_the_same(ovs: DummyOvs) -> None:
    _same(ovs, [Step(COMMIT, SYN_AB), Step(COMMIT, UDP_AB), Step(COMMIT, _marked(sctp(A, 5, 6), 3))])
    dump = ovs.appctl("dpctl/dump-conntrack")
    assert "sctp" in dump
    assert ("sport=5" in dump) == behaviour(ovs).sctp_ports
    assert len(dump.splitlines()) == 3
