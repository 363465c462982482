"""Compiled tables asked about packets, hazard by hazard: one node, two linked nodes, two tunnelled ones."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, ClientGroup, RemoteHost, ServerGroup, Uplink
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV
from romana_ovs.simulator.interpret import Sent, Switch
from romana_ovs.simulator.packet import (
    ACK,
    ARP_REPLY,
    BROADCAST,
    FIN,
    RST,
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
from tests.support.simulated_network import (
    CLOSED_SERVER,
    GATEWAY_PORT,
    OPEN_SERVER,
    PLAN,
    RULE,
    UPLINK_PORT,
    SimNetwork,
    SimPod,
    allow,
)

TCP80, UDP53, SCTP80 = (
    PortRange(Protocol.TCP, 80, 80), PortRange(Protocol.UDP, 53, 53), PortRange(Protocol.SCTP, 80, 80),
)  # fmt: skip
WHERE = [(1, 1, False, NETDEV), (1, 1, False, KERNEL), (1, 2, False, KERNEL), (1, 2, True, NETDEV)]
"""Nodes of client and server, whether tunnels join the nodes, and the datapath: not all of them, for time's sake."""


@pytest.fixture(params=WHERE, ids=["one-node", "one-node-kernel", "link-kernel", "tunnel"])
def lab(request: pytest.FixtureRequest) -> SimNetwork:
    """A client `c`, a server `s` that admits c on TCP/80, UDP/53, SCTP/80, and one more pod `x` beside each."""
    near, far, tunnels, behaviour = request.param
    client = SimPod("c", near, 1, server=CLOSED_SERVER)
    admitted = ServerGroup(3, (allow(ports=[TCP80, UDP53, SCTP80]),), ())
    return SimNetwork.of(
        client,
        SimPod("s", far, 2, server=admitted),
        SimPod("x", near, 3, server=CLOSED_SERVER),
        SimPod("y", far, 4, server=CLOSED_SERVER),
        SimPod("stranger", near, 5, segment=2),
        tunnels=tunnels,
        behaviour=behaviour,
    )


def opened(lab: SimNetwork, packet: Packet) -> None:
    """Open a connection from c to s and see the first packets through."""
    assert lab.delivered("c", packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == ["c"]


@pytest.mark.parametrize("port", [79, 80, 81])
@pytest.mark.parametrize("proto", [6, 17, 132])
def test_only_the_named_ports_are_reached(lab: SimNetwork, proto: int, port: int) -> None:
    packet = transport(proto, lab.ends("c", "s"), 4000, port)
    assert lab.delivered("c", packet) == (["s"] if port == 80 and proto != 17 else [])


def test_an_admitted_connection_goes_on_in_both_directions(lab: SimNetwork) -> None:
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    for flags in (ACK, FIN | ACK):
        assert lab.delivered("c", packet.with_flags(flags)) == ["s"]
        assert lab.delivered("s", packet.reply().with_flags(flags)) == ["c"]


def test_delivered_packets_have_the_gateways_and_receivers_mac(lab: SimNetwork) -> None:
    lab.delivered("c", udp(lab.ends("c", "s"), 4000, 53))
    (arrival,) = lab.network.send("n1", 1, udp(lab.ends("c", "s"), 4000, 53))
    assert (arrival.packet.eth_src, arrival.packet.eth_dst) == (0x0A5800000001, lab.pods["s"].mac)


def test_other_tenants_are_apart(lab: SimNetwork) -> None:
    assert lab.delivered("stranger", tcp(lab.ends("stranger", "s"), 1, 80)) == []
    assert lab.delivered("c", tcp(lab.ends("c", "stranger"), 1, 80)) == []


def test_revocation_cuts_both_directions_at_once(lab: SimNetwork) -> None:
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    lab.moved("s", server=CLOSED_SERVER)
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == [], "the server could go on pushing data"
    assert lab.delivered("c", packet.with_flags(ACK)) == []
    lab.moved("s", server=OPEN_SERVER)
    assert lab.delivered("c", tcp(lab.ends("c", "s"), 4001, 80)) == ["s"]


def test_udp_is_revoked_without_any_reply(lab: SimNetwork) -> None:
    """docs/hazards.md A21."""
    packet = udp(lab.ends("c", "s"), 4000, 53)
    for _ in range(3):
        assert lab.delivered("c", packet) == ["s"]
    lab.moved("s", server=CLOSED_SERVER)
    assert lab.delivered("c", packet) == []
    assert lab.delivered("s", packet.reply()) == []


def test_sctp_is_decided_on_ports_although_it_is_tracked_without(lab: SimNetwork) -> None:
    """docs/hazards.md A9: an allowed association to /80 opens nothing else between the two."""
    packet = sctp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    for port in (79, 81):
        assert lab.delivered("c", sctp(lab.ends("c", "s"), 4000, port)) == []
        assert lab.delivered("s", sctp(lab.ends("s", "c"), port, 4000)) == []
    assert lab.delivered("c", packet) == ["s"]
    assert lab.delivered("s", packet.reply()) == ["c"]


def test_an_entry_of_sctp_hides_no_connection_of_other_ports(lab: SimNetwork) -> None:
    """docs/hazards.md A9: the server opens an association of its own, which conntrack takes for replies."""
    opened(lab, sctp(lab.ends("c", "s"), 4000, 80))
    back = sctp(lab.ends("s", "c"), 5000, 7000)
    assert lab.delivered("s", back) == []
    lab.moved("c", server=OPEN_SERVER)
    assert lab.delivered("s", back) == ["c"]
    assert lab.delivered("c", back.reply()) == ["s"]


def test_a_denied_connection_may_be_opened_from_the_other_end(lab: SimNetwork) -> None:
    """What conntrack takes for an answer of the refused one is decided as an original and turns the entry round."""
    packet = udp(lab.ends("c", "s"), 4000, 53)
    opened(lab, packet)
    lab.moved("s", server=CLOSED_SERVER)
    lab.moved("c", server=OPEN_SERVER)
    assert lab.delivered("c", packet) == []
    assert lab.delivered("s", packet.reply()) == ["c"]
    assert lab.delivered("c", packet) == ["s"], "now it is the answer"


def test_icmp_errors_about_an_allowed_connection_pass_both_ways(lab: SimNetwork) -> None:
    """docs/hazards.md A19."""
    packet = udp(lab.ends("c", "s"), 4000, 53)
    error = icmp_error(lab.ends("s", "c"), packet)
    assert lab.delivered("s", error) == [], "no connection yet"
    opened(lab, packet)
    assert lab.delivered("s", error) == ["c"]
    assert lab.delivered("c", icmp_error(lab.ends("c", "s"), packet.reply())) == ["s"]
    lab.moved("s", server=CLOSED_SERVER)
    lab.delivered("c", packet)
    assert lab.delivered("s", error) == [], "the refused original cleared the mark"


def test_a_router_in_the_middle_may_report(lab: SimNetwork) -> None:
    """docs/hazards.md A19: frag-needed from the node itself."""
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    node = Addresses.of(PLAN.gateway(1), lab.pods["c"].address, eth_src=0x020000000001)
    assert lab.arrivals("n1", GATEWAY_PORT, icmp_error(node, packet)) == ["c"]


def test_a_flushed_connection_is_never_reversed(lab: SimNetwork) -> None:
    """docs/hazards.md B11: the server's data after a flush must not make the client's denied packets replies."""
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    lab.moved("s", server=CLOSED_SERVER)
    for switch in lab.network.switches.values():
        switch.conntrack.flush()
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == []
    assert lab.delivered("c", packet.with_flags(ACK)) == []
    assert all(switch.conntrack.entries() == () for switch in lab.network.switches.values())


@pytest.mark.parametrize("lost", ["n1", "n2"])
def test_connections_survive_the_loss_of_one_nodes_conntrack(lab: SimNetwork, lost: str) -> None:
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    if lab.pods["c"].node == lab.pods["s"].node:
        return
    lab.network.switches[lost].conntrack.flush()
    for name in ("c", "s"):
        lab.moved(name, pre_restart=lab.pods[name].node == int(lost[1]))
    assert lab.delivered("c", packet.with_flags(ACK)) == ["s"]
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == ["c"]


def test_a_reused_address_inherits_no_replies(lab: SimNetwork) -> None:
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    lab.network.switches["n1"].conntrack.flush(address=int(lab.pods["c"].address))
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == []


def test_invalid_segments_never_reach_policy(lab: SimNetwork) -> None:
    """docs/hazards.md B12."""
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    assert lab.delivered("c", replace(packet.with_flags(ACK), in_window=False)) == []
    assert lab.delivered("c", tcp(lab.ends("c", "s"), 4007, 80, flags=SYN | ACK)) == []
    assert lab.delivered("c", tcp(lab.ends("c", "s"), 4007, 80, flags=SYN | RST)) == []


def test_tcp_in_mid_stream_opens_nothing(lab: SimNetwork) -> None:
    stray = tcp(lab.ends("c", "s"), 4000, 80, flags=ACK)
    assert lab.delivered("c", stray) == []
    assert lab.delivered("s", stray.reply()) == []


def test_a_server_cannot_open_connections_by_way_of_its_clients(lab: SimNetwork) -> None:
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    assert lab.delivered("c", packet) == ["s"]
    assert lab.delivered("s", packet.reply().with_flags(SYN)) == []
    assert lab.delivered("s", udp(lab.ends("s", "c"), 80, 4000)) == []


def test_two_that_probe_each_other_with_fixed_ports_get_nothing(lab: SimNetwork) -> None:
    there, back = udp(lab.ends("x", "y"), 9, 9), udp(lab.ends("y", "x"), 9, 9)
    for _ in range(3):
        assert lab.delivered("x", there) == []
        assert lab.delivered("y", back) == []


def test_only_fragments_of_allowed_datagrams_arrive(lab: SimNetwork) -> None:
    """docs/hazards.md A22."""
    first, later = udp(lab.ends("c", "s"), 4000, 53).fragments(1)
    assert lab.delivered("c", first) + lab.delivered("c", later) == ["s", "s"]
    back = [packet.reply() for packet in udp(lab.ends("c", "s"), 4000, 53).fragments(2)]
    assert [name for packet in back for name in lab.delivered("s", packet)] == ["c", "c"]
    denied = udp(lab.ends("c", "s"), 4000, 54).fragments(3)
    assert [name for packet in denied for name in lab.delivered("c", packet)] == []


def test_later_fragments_of_denied_replies_are_dropped(lab: SimNetwork) -> None:
    """docs/hazards.md A22: the first fragment's port is refused, and another port of the same peers is not."""
    packet = udp(lab.ends("c", "s"), 4000, 53)
    opened(lab, packet)
    lab.moved("s", server=ServerGroup(6, (allow(lab.pods["c"], ports=[PortRange(Protocol.UDP, 54, 54)]),), ()))
    assert [name for piece in packet.reply().fragments(9) for name in lab.delivered("s", piece)] == []


MANY = [PortRange(Protocol.TCP, 80, 90), PortRange(Protocol.UDP, 53, 60), PortRange(Protocol.SCTP, 1000, 2000)]


@pytest.mark.parametrize(
    ("proto", "port", "passes"), [(6, 85, True), (6, 91, False), (17, 60, True), (132, 999, False)]
)
def test_large_rules_work_as_conjunctions_in_every_table(
    lab: SimNetwork, proto: int, port: int, *, passes: bool
) -> None:
    known = [lab.pods[name] for name in ("c", "x", "y", "stranger")]
    large = (allow(*known, ports=MANY),)
    lab.moved("s", server=ServerGroup(6, large, large))
    lab.moved("c", client=ClientGroup(5, (), deferred=True))
    node = lab.pods["s"].node
    texts = [item.match_text() for item in lab.flows(node) if item.table in ("DeferredEgress", "Ingress")]
    assert sum("conj_id" in text for text in texts) == 2
    packet = transport(proto, lab.ends("c", "s"), 4000, port)
    assert lab.delivered("c", packet) == ["s"] * passes
    assert lab.delivered("s", packet.reply()) == ["c"] * passes


@pytest.mark.parametrize(
    ("target", "port", "passes"),
    [("192.0.2.9", 85, True), ("192.0.2.9", 91, False), ("198.51.100.1", 80, True), ("203.0.113.1", 80, False)],
)
def test_large_egress_rules_to_outsiders(lab: SimNetwork, target: str, port: int, *, passes: bool) -> None:
    cidrs = tuple(IPv4Network(text) for text in ("192.0.2.0/28", "198.51.100.0/24", "100.64.0.0/10", "8.8.8.8/32"))
    lab.moved("c", client=ClientGroup(5, (Allow(RULE, frozenset(), cidrs, tuple(MANY)),), deferred=False))
    assert any("conj_id" in item.match_text() for item in lab.flows(1) if item.table == "Egress")
    packet = tcp(Addresses.of(lab.pods["c"].address, target), 4000, port)
    assert lab.delivered("c", packet) == [f"n1:{GATEWAY_PORT}"] * passes
    assert lab.arrivals("n1", GATEWAY_PORT, replace(packet.reply(), eth_src=0x020000000001)) == ["c"] * passes


def test_packets_between_other_nodes_pass_untracked() -> None:
    lab = SimNetwork.of(SimPod("c", 1, 1))
    view = lab.view(1)
    third = RemoteHost(3, "n3", UPLINK_PORT + 1)
    view = replace(view, hosts=(*view.hosts, third), uplinks=(*view.uplinks, Uplink(UPLINK_PORT + 1)))
    switch = Switch(compile_node(view, lab.permissions(1)).flows.values())
    passing = udp(Addresses.of(PLAN.address(1, 2, 7), PLAN.address(1, 3, 8), eth_src=0x0A05 << 32 | 65537), 1, 2)
    assert switch.receive(passing, UPLINK_PORT) == [Sent(UPLINK_PORT + 1, passing)]
    assert switch.receive(passing, UPLINK_PORT + 1) == [], "never back where it came from"
    outward = udp(Addresses.of(PLAN.address(1, 2, 7), "203.0.113.9", eth_src=0x0A05 << 32 | 65537), 1, 2)
    assert switch.receive(outward, UPLINK_PORT) == [], "each node has its own way out"
    assert switch.conntrack.entries() == ()


def test_arp_has_one_answer_even_for_isolated_pods(lab: SimNetwork) -> None:
    """docs/hazards.md A23."""
    (answer,) = lab.network.send("n1", 1, arp_request(lab.ends("c", "y")))
    assert tuple(answer.place) == ("n1", 1)
    packet = answer.packet
    target = lab.pods["y"]
    assert (packet.arp_op, packet.arp_sha, packet.arp_spa) == (ARP_REPLY, NEXT_HOP_MAC, int(target.address))
    assert (packet.eth_dst, packet.arp_tha, packet.arp_tpa) == (lab.pods["c"].mac,) * 2 + (int(lab.pods["c"].address),)


@pytest.mark.parametrize(
    "change",
    [
        {"arp_tpa": "own"},
        {"arp_spa": 0},
        {"arp_spa": "x"},
        {"arp_sha": 0x0A5800000099},
        {"eth_src": 0x0A5800000099},
        {"arp_op": ARP_REPLY},
        {"vlan_tci": 0x1005},
    ],
    ids=str,
)
def test_spoofed_arp_is_dropped(lab: SimNetwork, change: dict[str, object]) -> None:
    """docs/hazards.md A23: duplicate address detection gets no answer, and nobody asks or answers for another."""
    known = {"own": int(lab.pods["c"].address), "x": int(lab.pods["x"].address)}
    values = {name: known.get(value, value) for name, value in change.items()}  # type: ignore[call-overload]
    packet = replace(arp_request(lab.ends("c", "y")), **values)
    assert lab.delivered("c", packet) == []


@pytest.mark.parametrize("mac", [0x02A1B2C3D4E5, 0x0A58FFFFFFFF], ids=hex)
def test_arp_of_a_pod_with_another_mac(mac: int) -> None:
    lab = SimNetwork.of(SimPod("c", 1, 1, other_mac=mac), SimPod("x", 1, 2))
    asked = replace(arp_request(lab.ends("c", "x")), eth_src=mac, arp_sha=mac)
    (answer,) = lab.network.send("n1", 1, asked)
    assert (tuple(answer.place), answer.packet.arp_op, answer.packet.arp_tha) == (("n1", 1), ARP_REPLY, mac)
    derived = 0x0A58 << 32 | int(lab.pods["c"].address)
    own, other = int(lab.pods["c"].address), int(lab.pods["x"].address)
    assert lab.network.send("n1", 2, replace(asked, eth_src=mac)) == [], "on another pod's port"
    for forged in (
        {"eth_src": derived},
        {"arp_sha": derived},
        {"eth_src": derived, "arp_sha": derived},
        {"eth_src": 0x0A5800000000, "arp_sha": 0x0A5800000000, "arp_spa": 0},
        {"arp_spa": other},
        {"arp_spa": 0},
        {"arp_tpa": own},
        {"arp_op": ARP_REPLY},
    ):
        assert lab.network.send("n1", 1, replace(asked, **forged)) == [], forged  # type: ignore[arg-type]


def test_other_icmp_and_protocols_follow_allows_without_ports(lab: SimNetwork) -> None:
    """docs/hazards.md A23: an allow with ports covers only those; one without covers everything."""
    for packet in (echo(lab.ends("c", "s")), transport(47, lab.ends("c", "s"), 0, 0)):
        assert lab.delivered("c", packet) == []
        lab.moved("s", server=OPEN_SERVER)
        opened(lab, packet)
        lab.moved("s", server=ServerGroup(3, (allow(ports=[TCP80]),), ()))
        assert lab.delivered("s", packet.reply()) == []


@pytest.mark.parametrize(
    "forged",
    [
        {"nw_src": "x"},
        {"eth_src": "x"},
        {"nw_src": "x", "eth_src": "x"},
        {"eth_src": 0x0A05 << 32 | 1 << 16 | 1},
        {"vlan_tci": 0x1064},
        {"nw_src": 0},
        {"nw_dst": BROADCAST & 0xFFFFFFFF},
        {"nw_dst": 0xE0000001},
    ],
    ids=str,
)
def test_forged_packets_go_nowhere(lab: SimNetwork, forged: dict[str, object]) -> None:
    other = lab.pods["x"]
    known = {"nw_src": int(other.address), "eth_src": other.mac}
    values = {name: known[name] if value == "x" else value for name, value in forged.items()}
    packet = replace(udp(lab.ends("c", "s"), 4000, 53), **values)  # type: ignore[arg-type]
    assert lab.delivered("c", packet) == []


def test_uplinks_accept_only_marked_packets_of_known_nodes(lab: SimNetwork) -> None:
    if lab.pods["s"].node == 1:
        return
    wire = replace(udp(lab.ends("c", "s"), 4000, 53), eth_src=0x0A05 << 32 | lab.pods["c"].identity)
    marked = replace(wire, tun_src=0xC0000201) if lab.tunnels else wire
    assert lab.arrivals("n2", UPLINK_PORT, marked) == ["s"]
    for forged in (
        replace(marked, eth_src=0x0A58 << 32 | int(lab.pods["c"].address)),
        replace(marked, vlan_tci=0x1001),
        replace(marked, tun_src=0xC0000209) if lab.tunnels else replace(marked, eth_src=0),
    ):
        assert lab.arrivals("n2", UPLINK_PORT, forged) == []


def test_the_gateway_cannot_speak_as_a_pod(lab: SimNetwork) -> None:
    assert lab.arrivals("n1", GATEWAY_PORT, udp(lab.ends("c", "x"), 1, 53)) == []
    outside = Addresses.of("203.0.113.9", lab.pods["c"].address)
    assert lab.arrivals("n1", GATEWAY_PORT, udp(outside, 1, 53)) == []
    lab.moved("c", server=OPEN_SERVER)
    assert lab.arrivals("n1", GATEWAY_PORT, udp(outside, 1, 53)) == ["c"]


def test_the_node_reaches_its_own_isolated_pods_only(lab: SimNetwork) -> None:
    probe = tcp(Addresses.of(PLAN.gateway(1), lab.pods["c"].address), 5000, 8080)
    assert lab.arrivals("n1", GATEWAY_PORT, probe) == ["c"]
    assert lab.delivered("c", replace(probe.reply(), eth_src=lab.pods["c"].mac)) == [f"n1:{GATEWAY_PORT}"]
    other = tcp(Addresses.of(PLAN.gateway(1), lab.pods["y"].address), 5000, 8080)
    assert lab.arrivals("n1", GATEWAY_PORT, other) == (["y"] if lab.pods["y"].node == 1 else [])


def test_denied_egress_never_leaves_the_node(lab: SimNetwork) -> None:
    lab.moved("c", client=ClientGroup(5, (), deferred=False))
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    assert lab.delivered("c", packet) == []
    assert len(lab.network.hops) == 1
    lab.moved("c", client=None)
    opened(lab, packet)
    lab.moved("c", client=ClientGroup(5, (), deferred=False))
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == [], "replies are judged by the client's egress too"


def test_egress_that_only_the_server_can_judge_cuts_replies_too(lab: SimNetwork) -> None:
    """The client becomes open by a policy; the server, which alone can look, must not go on on its old word."""
    packet = tcp(lab.ends("c", "s"), 4000, 80)
    opened(lab, packet)
    lab.moved("c", client=ClientGroup(5, (), deferred=True))
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == []
    assert lab.delivered("c", packet.with_flags(ACK)) == []
    lab.moved("s", server=ServerGroup(4, (allow(),), (allow(lab.pods["c"]),)))
    opened(lab, packet)
    lab.moved("c", client=None)
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == ["c"], "nor wait for the client to be let go on"
    lab.moved("c", client=ClientGroup(5, (), deferred=True))
    assert lab.delivered("s", packet.reply().with_flags(ACK)) == ["c"]


def test_a_pod_reaches_itself_by_its_own_loopback_only(lab: SimNetwork) -> None:
    assert lab.delivered("c", udp(lab.ends("c", "c"), 1, 2)) == []
