"""Connections that were lost with a switch, in the interpreter: what goes on is what policy admits at both ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.policy.view import ClientGroup
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV, ConntrackBehaviour
from romana_ovs.simulator.packet import ACK, SYN, Addresses, Packet, echo, icmp_error, sctp, tcp, udp
from tests.support.simulated_network import (
    CLOSED_SERVER,
    GATEWAY_PORT,
    OPEN_SERVER,
    PLAN,
    SimNetwork,
    SimPod,
)

SHUT = ClientGroup(9, (), deferred=False)
DEFERRED_ONLY = ClientGroup(8, (), deferred=True)
LOSSES = [(1,), (2,), (1, 2)]
EVERYWHERE = pytest.mark.parametrize(
    ("place", "behaviour"),
    [("node", NETDEV), ("node", KERNEL), ("link", KERNEL), ("tunnel", NETDEV)],
    ids=["node", "node-kernel", "link-kernel", "tunnel"],
)
BOTH = pytest.mark.parametrize("behaviour", [NETDEV, KERNEL], ids=["netdev", "kernel"])


def made(
    place: str,
    behaviour: ConntrackBehaviour,
    *,
    client: ClientGroup | None = None,
    server_out: ClientGroup | None = None,
) -> SimNetwork:
    """Client c, whom nobody may reach, and server s: on one node, over a link, through a tunnel."""
    return SimNetwork.of(
        SimPod("c", 1, 1, server=CLOSED_SERVER, client=client),
        SimPod("s", 1 if place == "node" else 2, 2, client=server_out),
        tunnels=place == "tunnel",
        behaviour=behaviour,
    )


def lose(lab: SimNetwork, *nodes: int) -> None:
    """The switches of these nodes lose their connections; the pods there survive it."""
    for node in nodes:
        lab.network.switches[f"n{node}"].conntrack.flush()
    for name, pod in list(lab.pods.items()):
        lab.moved(name, pre_restart=pod.node in nodes)


def opened(lab: SimNetwork, packet: Packet) -> tuple[Packet, Packet]:
    """A connection that is open: how its client and its server go on."""
    assert lab.delivered("c", packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == ["c"]
    if packet.nw_proto == 6:
        assert lab.delivered("c", packet.with_flags(ACK)) == ["s"]
        return packet.with_flags(ACK), packet.reply().with_flags(ACK)
    return packet, packet.reply()


@EVERYWHERE
@pytest.mark.parametrize("nodes", LOSSES)
def test_a_lost_handshake_starts_again(place: str, behaviour: ConntrackBehaviour, nodes: tuple[int, ...]) -> None:
    lab = made(place, behaviour)
    opening = tcp(lab.ends("c", "s"), 4000, 80)
    assert lab.delivered("c", opening) == ["s"]
    lose(lab, *nodes)
    lost = place != "node" or 1 in nodes
    for _ in range(2):
        assert lab.delivered("s", opening.reply().with_flags(SYN | ACK)) == ([] if lost else ["c"])
    assert lab.delivered("c", opening) == ["s"], "the client tries again"
    assert lab.delivered("s", opening.reply().with_flags(SYN | ACK)) == ["c"]


@EVERYWHERE
@pytest.mark.parametrize("nodes", LOSSES)
@pytest.mark.parametrize("first", ["c", "s"])
@pytest.mark.parametrize("server_out", [None, SHUT])
def test_tcp_is_picked_up_whichever_end_sends_first(
    place: str, behaviour: ConntrackBehaviour, nodes: tuple[int, ...], first: str, server_out: ClientGroup | None
) -> None:
    lab = made(place, behaviour, server_out=server_out)
    there, back = opened(lab, tcp(lab.ends("c", "s"), 4000, 80))
    lose(lab, *nodes)
    for sender in (first, first, "c", "s", "s", "c"):
        assert lab.delivered(sender, there if sender == "c" else back) == ["s" if sender == "c" else "c"]
    for name in ("c", "s"):
        lab.moved(name, pre_restart=False)
    assert lab.delivered("s", back) == ["c"], "the time for pick-up is over, the connection is known again"
    assert lab.delivered("c", there) == ["s"]
    lab.moved("s", server=CLOSED_SERVER)
    assert lab.delivered("s", back) == []
    assert lab.delivered("c", there) == []


@EVERYWHERE
@pytest.mark.parametrize("nodes", LOSSES)
@pytest.mark.parametrize("change", ["egress", "deferred egress", "ingress", "tenants"])
def test_a_connection_that_policy_denies_now_is_not_picked_up(
    place: str, behaviour: ConntrackBehaviour, nodes: tuple[int, ...], change: str
) -> None:
    """The client's egress, the server's ingress, their tenants, an egress rule that does not name the server."""
    lab = made(place, behaviour)
    there, back = opened(lab, tcp(lab.ends("c", "s"), 4000, 80))
    lose(lab, *nodes)
    client, server = lab.pods["c"], replace(lab.pods["s"], client=SHUT)
    if "egress" in change:
        client = replace(client, client=DEFERRED_ONLY if change == "deferred egress" else SHUT)
    elif change == "ingress":
        server = replace(server, server=CLOSED_SERVER)
    lab.change(client, server)
    if change == "tenants":
        for node in (1, 2):
            nobody = [flow for flow in lab.flows(node) if flow.table != "Tenancy" or flow.match == ()]
            lab.network.switches[f"n{node}"].program(nobody)
    for sender in ("s", "c", "s", "c"):
        assert lab.delivered(sender, there if sender == "c" else back) == []


@pytest.mark.parametrize(("place", "behaviour"), [("link", KERNEL), ("tunnel", NETDEV)], ids=["link-kernel", "tunnel"])
@pytest.mark.parametrize("nodes", LOSSES)
def test_a_pod_attached_after_the_loss_inherits_no_connection(
    place: str, behaviour: ConntrackBehaviour, nodes: tuple[int, ...]
) -> None:
    lab = made(place, behaviour)
    _, back = opened(lab, tcp(lab.ends("c", "s"), 4000, 80))
    _, push = opened(lab, udp(lab.ends("c", "s"), 4000, 53))
    lose(lab, *nodes)
    lab.network.switches["n1"].conntrack.flush(address=int(lab.pods["c"].address))
    lab.moved("c", pre_restart=False)
    for packet in (back, push, icmp_error(lab.ends("s", "c"), udp(lab.ends("c", "s"), 4000, 53))):
        for _ in range(3):
            assert lab.delivered("s", packet) == []


@BOTH
@pytest.mark.parametrize("nodes", LOSSES)
def test_nothing_but_tcp_goes_on_before_the_client_speaks(
    behaviour: ConntrackBehaviour, nodes: tuple[int, ...]
) -> None:
    lab = made("link", behaviour)
    for packet in (sctp(lab.ends("c", "s"), 4000, 80), udp(lab.ends("c", "s"), 4000, 53), echo(lab.ends("c", "s"))):
        _, back = opened(lab, packet)
        lose(lab, *nodes)
        for _ in range(3):
            assert lab.delivered("s", back) == []
        assert lab.delivered("c", packet) == ["s"]
        assert lab.delivered("s", back) == ["c"]


@BOTH
@pytest.mark.parametrize("from_outside", [True, False])
def test_connections_with_outside_go_on_both_ways(behaviour: ConntrackBehaviour, *, from_outside: bool) -> None:
    lab = SimNetwork.of(SimPod("p", 1, 1, server=OPEN_SERVER if from_outside else CLOSED_SERVER), behaviour=behaviour)
    outside = Addresses.of("203.0.113.9", lab.pods["p"].address, eth_src=0x020000000001)
    inward = tcp(outside, 4000, 80) if from_outside else tcp(outside, 80, 4000)
    outward = inward.reply()

    def there() -> bool:
        return lab.delivered("p", replace(outward, tcp_flags=ACK)) == [f"n1:{GATEWAY_PORT}"]

    def back() -> bool:
        return lab.arrivals("n1", GATEWAY_PORT, inward.with_flags(ACK)) == ["p"]

    assert not there() and not back()
    lab.moved("p", pre_restart=True)
    order = [back, there] if from_outside else [there, back]
    assert order[1]() and order[0]() and order[1]() and order[0]()


@BOTH
def test_pre_restart_pods_get_no_errors_about_denied_packets(behaviour: ConntrackBehaviour) -> None:
    """One refused datagram, then errors about it (docs/dataplane.md, "ICMP errors")."""
    lab = SimNetwork.of(
        SimPod("a", 1, 1, pre_restart=True),
        SimPod("v", 2, 2, segment=2, server=CLOSED_SERVER, pre_restart=True),
        behaviour=behaviour,
    )
    probe = udp(lab.ends("a", "v"), 7100, 7200)
    for lost in ((), (1,), (2,), (1, 2)):
        for node in lost:
            lab.network.switches[f"n{node}"].conntrack.flush()
        for packet in (probe, udp(lab.ends("v", "a"), 7200, 7100)):
            assert lab.delivered("a", packet) == []
            assert lab.delivered("a", icmp_error(lab.ends("a", "v"), packet.reply())) == []
        for flags in (ACK, SYN | ACK, 0x04, 0x01):
            assert lab.delivered("a", tcp(lab.ends("a", "v"), 7100, 7200, flags=flags)) == []


@BOTH
def test_the_node_itself_goes_on_too(behaviour: ConntrackBehaviour) -> None:
    lab = SimNetwork.of(SimPod("p", 1, 1, server=CLOSED_SERVER, pre_restart=True), behaviour=behaviour)
    node = Addresses.of(PLAN.gateway(1), lab.pods["p"].address, eth_src=0x020000000001)
    probe = tcp(node, 4000, 80).with_flags(ACK)
    assert lab.arrivals("n1", GATEWAY_PORT, probe) == ["p"]
    assert lab.delivered("p", probe.reply()) == [f"n1:{GATEWAY_PORT}"]


@BOTH
@pytest.mark.parametrize("nodes", LOSSES)
@pytest.mark.parametrize("crossing", [True, False])
def test_a_guess_that_was_wrong_is_put_right(
    behaviour: ConntrackBehaviour, nodes: tuple[int, ...], *, crossing: bool
) -> None:
    """Both directions are admitted and the server speaks first: it goes on, whichever end counts as client."""
    lab = made("link", behaviour)
    lab.moved("c", server=OPEN_SERVER)
    there, back = opened(lab, tcp(lab.ends("c", "s"), 4000, 80))
    lose(lab, *nodes)
    for sender in ("s", "c", "s", "c") if crossing else ("s", "s", "c", "c", "s"):
        assert lab.delivered(sender, there if sender == "c" else back) == ["s" if sender == "c" else "c"]
