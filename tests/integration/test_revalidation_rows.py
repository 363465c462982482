"""Replies to a client that became another one, on a real Open vSwitch: what leaves is what the interpreter says.

Node 1 is the client's node, and then the server's: pod `c` on one of them is relabelled and sends nothing since.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from romana_ovs.pipeline.fields import SCTP
from romana_ovs.pipeline.listing import loadable
from romana_ovs.pipeline.registers import MIDSTREAM, ORIGINAL, REPLY, UNSELECTED
from romana_ovs.policy.view import ClientGroup, ServerGroup
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.packet import ACK, COOKIE_ACK, COOKIE_ECHO, DATA, SYN, Packet, echo, sctp, tcp, transport, udp
from tests.integration.dummy_interfaces import DummyOvs, wanted
from tests.integration.packet_bridge import behaviour, packet_ovs
from tests.integration.wire import frame, packet_of
from tests.support.simulated_network import CLOSED_SERVER, UPLINK_PORT, SimNetwork, SimPod, allow

pytestmark = [pytest.mark.root, pytest.mark.skipif(not wanted(), reason="needs root and Open vSwitch")]

REVALIDATION, REVALIDATED = 1 << 4, 1 << 5
"""In the byte of marks."""


@pytest.fixture(scope="module")
def ovs() -> Iterator[DummyOvs]:
    with packet_ovs((1, 2, UPLINK_PORT)) as running:
        yield running


class Pair:
    """Node 1 twice: in Open vSwitch and interpreted, always asked the same."""

    def __init__(self, ovs: DummyOvs, lab: SimNetwork) -> None:
        self.ovs, self.lab = ovs, lab
        self.model = Switch(lab.flows(1), conntrack=Conntrack(behaviour(ovs)))
        self._program()
        ovs.appctl("dpctl/flush-conntrack")

    def _program(self) -> None:
        self.ovs.program(loadable(self.lab.flows(1)))
        self.ovs.appctl("revalidator/purge")
        self.model.program(self.lab.flows(1))

    def change(self, **changes: object) -> None:
        """`moved` of pod c."""
        self.lab.moved("c", **changes)
        self._program()

    def send(self, port: int, *packets: Packet) -> list[tuple[int, Packet]]:
        """What leaves when the packets have come in at a port: the same in both."""
        real, expected = [], []
        for packet in packets:
            real += [(out, packet_of(data, packet).fields()) for out, data in self.ovs.send(port, frame(packet))]
            expected += sorted(self.model.receive(packet, port), key=lambda sent: sent.port)
        shown = [(sent.port, {**sent.packet.fields(), "tun_src": 0, "tun_dst": 0}) for sent in expected]
        assert real == shown
        return [(sent.port, sent.packet) for sent in expected]


def lab(*, client: int) -> SimNetwork:
    """Client c and server s on different nodes."""
    return SimNetwork.of(SimPod("c", client, client, server=CLOSED_SERVER), SimPod("s", 3 - client, 3 - client))


def wired(pair: Pair, sender: str, packet: Packet, direction: int) -> Packet:
    """The packet as the other node sends it."""
    marks = UNSELECTED << 2 | direction
    return replace(packet, eth_src=0x0A << 40 | marks << 32 | pair.lab.pods[sender].identity)


def marks(packet: Packet) -> int:
    """The byte of marks of a packet that leaves by an uplink."""
    return packet.eth_src >> 32 & 0xFF


def opened(ovs: DummyOvs, packet: Packet) -> tuple[Pair, Packet]:
    """The client's node with a connection that `packet` opened, and a reply as it comes in there."""
    pair = Pair(ovs, lab(client=1))
    ends = pair.lab.ends("c", "s")
    packet = replace(packet, eth_src=ends.eth_src, nw_src=ends.nw_src, nw_dst=ends.nw_dst)
    assert [port for port, _ in pair.send(1, packet)] == [UPLINK_PORT]
    answer = wired(pair, "s", packet.reply(), REPLY)
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]
    if packet.nw_proto == SCTP:
        # An established association: Linux keeps an unfinished handshake for three seconds only.
        cookie, answer = replace(packet, sctp_chunk=COOKIE_ECHO), replace(answer, sctp_chunk=COOKIE_ACK)
        assert [port for port, _ in pair.send(1, cookie)] == [UPLINK_PORT]
        assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]
        answer = replace(answer, sctp_chunk=DATA)
    return pair, answer


NOWHERE = lab(client=1).ends("c", "s")


@pytest.mark.parametrize("protocol", [17, 47])
def test_a_datagram_to_a_relabelled_client_is_revalidated_once(ovs: DummyOvs, protocol: int) -> None:
    pair, answer = opened(ovs, transport(protocol, NOWHERE, *((4000, 53) if protocol == 17 else (0, 0))))
    pair.change(number=2)
    ((port, revalidation),) = pair.send(UPLINK_PORT, answer)
    assert (port, marks(revalidation)) == (UPLINK_PORT, REVALIDATION | UNSELECTED << 2 | ORIGINAL)
    assert revalidation.eth_src & 0xFFFFFFFF == pair.lab.pods["c"].identity
    asked = (revalidation.nw_src, revalidation.nw_dst, revalidation.tp_src, revalidation.tp_dst)
    assert asked == (answer.nw_dst, answer.nw_src, answer.tp_dst, answer.tp_src)
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1], "D was told"
    pair.change(number=1)
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [UPLINK_PORT]


def test_fragments_to_a_relabelled_client_are_asked_about_too(ovs: DummyOvs) -> None:
    pair, answer = opened(ovs, udp(NOWHERE, 4000, 53))
    pair.change(number=2)
    sent = pair.send(UPLINK_PORT, *answer.fragments(7))
    assert [(port, marks(packet) & REVALIDATION) for port, packet in sent] == [(UPLINK_PORT, REVALIDATION)] * 2
    assert [port for port, _ in pair.send(UPLINK_PORT, *answer.fragments(8))] == [1, 1]


def test_refined_classes_deliver_and_revalidate_until_active(ovs: DummyOvs) -> None:
    pair, answer = opened(ovs, udp(NOWHERE, 4000, 53))
    pair.change(number=2, previous_ids=(1,))
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1, UPLINK_PORT]
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]
    pair.change(number=3, previous_ids=(1, 2))
    pair.change(number=3, previous_ids=())
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [UPLINK_PORT]
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]


@pytest.mark.parametrize("opening", [tcp(NOWHERE, 4000, 80), sctp(NOWHERE, 4000, 80)], ids=["tcp", "sctp"])
def test_what_the_client_will_acknowledge_is_passed_on(ovs: DummyOvs, opening: Packet) -> None:
    pair, answer = opened(ovs, opening)
    pair.change(number=2)
    if answer.nw_proto == 6:
        answer = answer.with_flags(ACK)
    for _ in range(2):
        assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]


def test_a_question_that_its_own_node_refuses_is_asked_again(ovs: DummyOvs) -> None:
    pair, answer = opened(ovs, udp(NOWHERE, 4000, 53))
    pair.change(number=2, client=ClientGroup(9, (), deferred=False))
    for _ in range(2):
        assert pair.send(UPLINK_PORT, answer) == []
    pair.change(client=None)
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [UPLINK_PORT]
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]


def test_an_echo_reply_is_dropped_until_the_next_request(ovs: DummyOvs) -> None:
    request = echo(NOWHERE)
    pair, answer = opened(ovs, request)
    pair.change(number=2)
    assert pair.send(UPLINK_PORT, answer) == []
    pair.send(1, replace(request, eth_src=NOWHERE.eth_src))
    assert [port for port, _ in pair.send(UPLINK_PORT, answer)] == [1]


def test_a_denied_reply_is_revalidated_for_a_new_client_identity(ovs: DummyOvs) -> None:
    for opening in (udp(NOWHERE, 4000, 53), tcp(NOWHERE, 4000, 80)):
        pair, answer = opened(ovs, opening)
        refused = replace(answer, eth_src=answer.eth_src | REVALIDATION << 32)
        if opening.nw_proto == 6:
            refused = refused.with_flags(ACK)
        assert pair.send(UPLINK_PORT, refused) == [], "D was right"
        pair.change(number=2)
        ((port, sent),) = pair.send(UPLINK_PORT, refused)
        assert port == (1 if opening.nw_proto == 6 else UPLINK_PORT)
        assert opening.nw_proto == 6 or marks(sent) & REVALIDATION
        pair.ovs.appctl("dpctl/flush-conntrack")
        pair.model.conntrack.flush()
        assert pair.send(UPLINK_PORT, refused) == [], "nobody here has asked for it"


@pytest.mark.parametrize("direction", [REPLY, MIDSTREAM, MIDSTREAM | REVALIDATION])
def test_a_segment_to_a_survivor_is_judged_by_the_servers_node(ovs: DummyOvs, direction: int) -> None:
    """The revalidation that leaves, and the answer that is delivered, on the node that lost its connections."""
    pair = Pair(ovs, lab(client=1))
    segment = tcp(pair.lab.ends("s", "c"), 80, 4000, flags=ACK)
    assert pair.send(UPLINK_PORT, wired(pair, "s", segment, direction)) == []
    pair.change(pre_restart=True)
    ((port, revalidation),) = pair.send(UPLINK_PORT, wired(pair, "s", segment, direction))
    assert (port, marks(revalidation)) == (UPLINK_PORT, REVALIDATION | UNSELECTED << 2 | ORIGINAL)
    assert (revalidation.nw_src, revalidation.tp_src, revalidation.tp_dst) == (segment.nw_dst, 4000, 80)
    assert [port for port, _ in pair.send(UPLINK_PORT, wired(pair, "s", segment, REPLY | REVALIDATED))] == [1]
    there = segment.reply()
    ((port, midstream),) = pair.send(1, there)
    assert (port, marks(midstream) & 3) == (UPLINK_PORT, MIDSTREAM), "which end is the client is a guess"
    ((port, again),) = pair.send(1, there)
    assert marks(again) == marks(midstream)
    assert [port for port, _ in pair.send(UPLINK_PORT, wired(pair, "s", segment, REPLY))] == [1]
    ((port, firm),) = pair.send(1, there)
    assert marks(firm) & 3 == ORIGINAL, "the server's node has confirmed it"


def test_the_servers_node_answers_a_question_about_a_segment(ovs: DummyOvs) -> None:
    pair = Pair(ovs, lab(client=2))
    revalidation = tcp(pair.lab.ends("c", "s"), 4000, 80, flags=ACK)
    ((port, answer),) = pair.send(UPLINK_PORT, wired(pair, "c", revalidation, ORIGINAL | REVALIDATION))
    assert (port, marks(answer) & (REVALIDATED | REVALIDATION | 3)) == (UPLINK_PORT, REVALIDATED | REPLY)
    assert (answer.nw_src, answer.tp_src, answer.tp_dst) == (revalidation.nw_dst, 80, 4000)
    pair.lab.moved("s", server=CLOSED_SERVER)
    pair.change()
    assert pair.send(UPLINK_PORT, wired(pair, "c", revalidation, ORIGINAL | REVALIDATION)) == []


def test_the_servers_node_decides_revalidation_packets(ovs: DummyOvs) -> None:
    pair = Pair(ovs, lab(client=2))
    only = ServerGroup(5, (allow(replace(pair.lab.pods["c"], number=3)),), ())
    request = udp(pair.lab.ends("c", "s"), 4000, 53)
    assert [port for port, _ in pair.send(UPLINK_PORT, wired(pair, "c", request, ORIGINAL))] == [1]
    ((port, back),) = pair.send(1, request.reply())
    assert (port, marks(back) & REVALIDATION) == (UPLINK_PORT, 0)

    def asked(number: int) -> list[tuple[int, Packet]]:
        pair.lab.moved("c", number=number)
        original = wired(pair, "c", request, ORIGINAL)
        return pair.send(UPLINK_PORT, replace(original, eth_src=original.eth_src | REVALIDATION << 32))

    pair.lab.moved("s", server=only)
    pair.change()
    ((port, back),) = pair.send(1, request.reply())
    assert (port, marks(back) & (REVALIDATION | 3)) == (UPLINK_PORT, REVALIDATION | REPLY), (
        "refused by the old identity"
    )
    assert asked(3) == []
    ((port, back),) = pair.send(1, request.reply())
    assert (port, marks(back) & (REVALIDATION | 3)) == (UPLINK_PORT, REPLY), "allowed by the new one"
    assert asked(2) == []
    ((port, back),) = pair.send(1, request.reply())
    assert (port, marks(back) & (REVALIDATION | 3)) == (UPLINK_PORT, REVALIDATION | REPLY), (
        "refused by the one after that"
    )
    pair.lab.moved("s", server=ServerGroup(5, (allow(replace(pair.lab.pods["c"], number=2)),), ()))
    pair.change()
    ((port, back),) = pair.send(1, request.reply())
    assert (port, marks(back) & (REVALIDATION | 3)) == (UPLINK_PORT, REPLY), "allowed when this node hears of that"


def test_only_the_servers_node_revalidates_and_no_fragments(ovs: DummyOvs) -> None:
    pair = Pair(ovs, lab(client=2))
    request = tcp(pair.lab.ends("c", "s"), 4000, 80)
    pair.send(UPLINK_PORT, wired(pair, "c", request, ORIGINAL))
    pair.send(1, request.reply())
    datagram = udp(pair.lab.ends("c", "s"), 4000, 53)
    pair.send(UPLINK_PORT, wired(pair, "c", datagram, ORIGINAL))
    pair.lab.moved("s", server=CLOSED_SERVER)
    pair.change()
    for reply in (request.reply().with_flags(ACK), datagram.reply()):
        assert [marks(sent) & REVALIDATION for _, sent in pair.send(1, reply)] == [REVALIDATION]
    asked = [marks(sent) & REVALIDATION for _, sent in pair.send(1, *datagram.reply().fragments(3))]
    assert asked == [REVALIDATION] * (2 if behaviour(ovs).reassembles else 0), (
        "later fragments have no ports to turn round"
    )
    assert pair.send(UPLINK_PORT, wired(pair, "c", request.with_flags(SYN), ORIGINAL)) == []
