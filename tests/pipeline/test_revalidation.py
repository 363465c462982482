"""Clients that became others and send nothing, on linked and tunnelled nodes: what their servers may go on with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.policy.view import Allow, ClientGroup, ServerGroup
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV
from romana_ovs.simulator.packet import ACK, Packet, echo, sctp, tcp, transport, udp
from tests.support.simulated_network import CLOSED_SERVER, SimNetwork, SimPod, allow

CLIENT = SimPod("c", 1, 1, server=CLOSED_SERVER)
BECOMES = {number: replace(CLIENT, number=number) for number in (1, 2, 3)}


def accepting(*numbers: int, deferred_egress: tuple[Allow, ...] = ()) -> ServerGroup:
    """A server that admits the client while it has one of these classes."""
    return ServerGroup(3, (allow(*(BECOMES[number] for number in numbers)),), deferred_egress)


@pytest.fixture(params=[(False, KERNEL), (True, NETDEV)], ids=["link-kernel", "tunnel"])
def lab(request: pytest.FixtureRequest) -> SimNetwork:
    """Client c on one node; server s, which admits its classes 1 and 2, on the other."""
    tunnels, behaviour = request.param
    return SimNetwork.of(CLIENT, SimPod("s", 2, 2, server=accepting(1, 2)), tunnels=tunnels, behaviour=behaviour)


def opened(lab: SimNetwork, packet: Packet) -> Packet:
    """The next reply of a connection that c has opened and s has answered."""
    assert lab.delivered("c", packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == ["c"]
    return packet.reply().with_flags(ACK) if packet.nw_proto == 6 else packet.reply()


def datagrams(lab: SimNetwork) -> list[Packet]:
    """The first packets of connections that need no acknowledgement."""
    return [udp(lab.ends("c", "s"), 4000, 53), transport(47, lab.ends("c", "s"), 0, 0)]


def test_an_allowed_stream_loses_one_datagram_after_a_relabel(lab: SimNetwork) -> None:
    for packet in datagrams(lab):
        answer = opened(lab, packet)
        lab.moved("c", number=2)
        assert [lab.delivered("s", answer) for _ in range(3)] == [[], ["c"], ["c"]]
        lab.moved("c", number=1)


def test_a_denied_stream_stops_and_resumes_with_the_permission(lab: SimNetwork) -> None:
    for packet in datagrams(lab):
        answer = opened(lab, packet)
        lab.moved("c", number=3)
        assert [lab.delivered("s", answer) for _ in range(3)] == [[], [], []]
        assert lab.delivered("c", packet) == []
        lab.moved("c", number=1)
        opened(lab, packet)


def test_a_class_learnt_late_is_admitted_once_it_is_known(lab: SimNetwork) -> None:
    answer = opened(lab, udp(lab.ends("c", "s"), 4000, 53))
    lab.moved("c", number=3)
    for _ in range(2):
        assert lab.delivered("s", answer) == []
    lab.moved("s", server=accepting(3))
    assert lab.delivered("s", answer) == ["c"]


def test_a_rule_of_the_servers_that_wants_the_new_class_finds_it(lab: SimNetwork) -> None:
    """The server's node refuses by what the client was; its node answers what it is."""
    for number, packet in enumerate((udp(lab.ends("c", "s"), 4000, 53), tcp(lab.ends("c", "s"), 4000, 80))):
        answer = opened(lab, packet)
        lab.moved("c", number=2)
        lab.moved("s", server=accepting(2))
        assert [lab.delivered("s", answer) for _ in range(2)] == [[[], ["c"]], [["c"], ["c"]]][number]
        lab.moved("c", number=1)
        lab.moved("s", server=accepting(1, 2))


def test_a_denial_by_the_present_identity_stays(lab: SimNetwork) -> None:
    for packet in (udp(lab.ends("c", "s"), 4000, 53), tcp(lab.ends("c", "s"), 4000, 80)):
        answer = opened(lab, packet)
        lab.moved("s", server=accepting(2))
        assert lab.delivered("s", answer) == []
        assert [hop.place.node for hop in lab.network.hops] == ["n2", "n1"], "asked, and not answered"
        lab.moved("s", server=accepting(1, 2))


def test_streams_are_cut_by_the_first_acknowledgement(lab: SimNetwork) -> None:
    for packet in (tcp(lab.ends("c", "s"), 4000, 80), sctp(lab.ends("c", "s"), 4000, 80)):
        answer = opened(lab, packet)
        going_on = packet.with_flags(ACK) if packet.nw_proto == 6 else packet
        lab.moved("c", number=2)
        assert lab.delivered("s", answer) == ["c"]
        assert lab.delivered("c", going_on) == ["s"]
        lab.moved("c", number=3)
        assert lab.delivered("s", answer) == ["c"], "nobody has acknowledged yet"
        assert lab.delivered("c", going_on) == []
        assert lab.delivered("s", answer) == []
        lab.moved("c", number=1)


def test_an_echo_reply_waits_for_the_next_request(lab: SimNetwork) -> None:
    answer = opened(lab, echo(lab.ends("c", "s")))
    lab.moved("c", number=2)
    assert lab.delivered("s", answer) == []
    opened(lab, echo(lab.ends("c", "s")))


def test_egress_of_the_new_labels_counts_too(lab: SimNetwork) -> None:
    nowhere, somewhere = ClientGroup(5, (), deferred=False), ClientGroup(6, (), deferred=True)
    for packet in (udp(lab.ends("c", "s"), 4000, 53), tcp(lab.ends("c", "s"), 4000, 80)):
        answer = opened(lab, packet)
        lab.moved("c", number=2, client=nowhere)
        assert [lab.delivered("s", answer) for _ in range(2)] == [[], []]
        lab.moved("s", server=accepting(1, 2, deferred_egress=(allow(BECOMES[2]),)))
        lab.moved("c", client=somewhere)
        assert [lab.delivered("s", answer) for _ in range(2)][1] == ["c"], "only the server's node can tell"
        lab.moved("c", number=1, client=None)
        lab.moved("s", server=accepting(1, 2))


def test_previous_ids_are_accepted_until_rules_distinguish_them(lab: SimNetwork) -> None:
    packets = [*datagrams(lab), tcp(lab.ends("c", "s"), 4000, 80), sctp(lab.ends("c", "s"), 4000, 80)]
    answers = [opened(lab, packet) for packet in packets]
    silent = opened(lab, udp(lab.ends("c", "s"), 4001, 53))
    request = opened(lab, echo(lab.ends("c", "s")))
    lab.moved("c", number=2, previous_ids=(1,))
    assert [lab.delivered("s", answer) for answer in (*answers, request)] == [["c"]] * 5
    lab.moved("c", previous_ids=())
    lab.moved("s", server=accepting(2))
    assert [lab.delivered("s", answer) for answer in answers] == [["c"]] * 4, "the server's node has been told"
    assert [lab.delivered("s", silent) for _ in range(2)] == [[], ["c"]]


def test_a_revalidation_packet_ends_at_the_servers_node(lab: SimNetwork) -> None:
    answer = opened(lab, udp(lab.ends("c", "s"), 4000, 53))
    lab.moved("c", number=2)
    assert lab.delivered("s", answer) == []
    assert [hop.place.node for hop in lab.network.hops] == ["n2", "n1", "n2"]


def test_pods_of_one_node_need_no_revalidation() -> None:
    lab = SimNetwork.of(CLIENT, SimPod("s", 1, 2, server=accepting(1, 2)))
    answer = opened(lab, udp(lab.ends("c", "s"), 4000, 53))
    lab.moved("c", number=2)
    assert lab.delivered("s", answer) == ["c"]
    lab.moved("c", number=3)
    assert lab.delivered("s", answer) == []
