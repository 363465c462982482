"""Packets of pods to Services: translated by the host, and decided as packets of the pod to the backend.

docs/hazards.md A26, A27 and A28; what the host does is `tests/support/host_proxy.py`.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.model.objects import Protocol
from romana_ovs.model.services import ServiceBackend, ServiceFrontend
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, ClientGroup, ServerGroup
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV
from romana_ovs.simulator.packet import ACK, Addresses, Packet, icmp_error, tcp, udp
from tests.support.host_proxy import GATEWAY_MAC, GATEWAY_PORT, MASQUERADE, Endpoint, HostProxy
from tests.support.simulated_network import (
    CLOSED_SERVER,
    OPEN_SERVER,
    PLAN,
    RULE,
    SimNetwork,
    SimPod,
    allow,
)

SERVICES = IPv4Network("172.30.0.0/16")
VIRTUAL = IPv4Address("172.30.0.10")
HTTP = PortRange(Protocol.TCP, 8080, 8080)
DNS = PortRange(Protocol.UDP, 5353, 5353)
EGRESS = replace(RULE, rule="egress[0]")
WHERE = [(1, 1, False, NETDEV), (1, 1, False, KERNEL), (1, 2, False, KERNEL), (1, 2, True, NETDEV)]
"""Nodes of client and server, whether tunnels join the nodes, and the datapath."""


class Lab:
    """A client `c`, a server `s` behind a Service, others, and the hosts with their proxies."""

    def __init__(self, near: int, far: int, network: SimNetwork) -> None:
        self.sim, self.near = network, near
        server = int(network.pods["s"].address)
        self.proxy = HostProxy(
            network.network,
            {
                Endpoint(int(VIRTUAL), 80): Endpoint(server, 8080),
                Endpoint(int(VIRTUAL), 81): Endpoint(server, 9090),
                Endpoint(int(VIRTUAL), 53): Endpoint(server, 5353),
                Endpoint(int(VIRTUAL), 90): Endpoint(int(network.pods["stranger"].address), 8080),
                Endpoint(int(VIRTUAL), 99): Endpoint(int(network.pods["c"].address), 8080),
            },
        )

    def opening(self, port: int, *, source: str = "c", client_port: int = 4000) -> Packet:
        ends = Addresses.of(self.sim.pods[source].address, VIRTUAL)
        return udp(ends, client_port, port) if port == 53 else tcp(ends, client_port, port)

    def send(self, name: str, packet: Packet) -> list[tuple[str, Packet]]:
        """Who receives a packet of pod `name`: pods by name, else `node:port`, with the packet as it arrives."""
        pod = self.sim.pods[name]
        return self.sent_by(f"n{pod.node}", pod.port, packet)

    def sent_by(self, node: str, port: int, packet: Packet) -> list[tuple[str, Packet]]:
        names = {(f"n{pod.node}", pod.port): pod.name for pod in self.sim.pods.values()}
        found = self.proxy.send(node, port, packet)
        places = [(one.place.node, one.place.port) for one in found]
        return [
            (names.get(place, "{}:{}".format(*place)), one.packet) for place, one in zip(places, found, strict=True)
        ]

    def reached(self, port: int, *, source: str = "c") -> str:
        """Which pod a connection to the Service reaches, with its answer back from the Service; empty for none."""
        packet = self.opening(port, source=source)
        arrivals = self.send(source, packet)
        if not arrivals:
            return ""
        [(server, arrived)] = arrivals
        assert arrived.nw_src == packet.nw_src or server == source
        [(client, answer)] = self.send(server, arrived.reply())
        assert (client, answer.nw_src, answer.tp_src) == (source, int(VIRTUAL), port)
        return server


@pytest.fixture(params=WHERE, ids=["one-node", "one-node-kernel", "link-kernel", "tunnel"])
def lab(request: pytest.FixtureRequest) -> Lab:
    near, far, tunnels, behaviour = request.param
    return Lab(
        near,
        far,
        SimNetwork.of(
            SimPod("c", near, 1),
            SimPod("s", far, 2, server=ServerGroup(3, (allow(ports=[HTTP, DNS]),), ())),
            SimPod("x", near, 3, server=CLOSED_SERVER),
            SimPod("stranger", far, 5, segment=2),
            tunnels=tunnels,
            service_ranges=(SERVICES,),
            behaviour=behaviour,
        ),
    )


def test_the_source_is_kept_and_policy_follows(lab: Lab) -> None:
    """docs/hazards.md A26, A27: the port that counts is the backend's."""
    assert lab.reached(80) == "s"
    assert lab.reached(53) == "s"
    assert lab.reached(81) == ""


def test_an_open_connection_goes_on(lab: Lab) -> None:
    assert lab.reached(80) == "s"
    again = lab.opening(80).with_flags(ACK)
    [(name, arrived)] = lab.send("c", again)
    assert (name, arrived.nw_src, arrived.tp_dst) == ("s", again.nw_src, 8080)
    [(name, answer)] = lab.send("s", arrived.reply())
    assert (name, answer.nw_src, answer.eth_src) == ("c", int(VIRTUAL), NEXT_HOP_MAC)


def test_tenants_are_separate(lab: Lab) -> None:
    assert lab.reached(90) == ""
    assert lab.reached(90, source="stranger") == "stranger"
    assert lab.reached(80, source="stranger") == ""


def test_identity_is_the_clients(lab: Lab) -> None:
    """docs/hazards.md A27: a server that admits one pod admits it through the Service, and nobody else."""
    lab.sim.moved("s", server=ServerGroup(4, (Allow(RULE, identities=allow(lab.sim.pods["c"]).identities),), ()))
    assert lab.reached(80) == "s"
    lab.sim.moved("x", number=2)
    assert lab.reached(80, source="x") == ""


@pytest.mark.parametrize(
    ("ports", "reached"), [((HTTP,), {80: "s", 53: ""}), ((DNS,), {80: "", 53: "s"}), ((), {80: "", 53: ""})]
)
def test_egress_is_decided_at_the_backend(lab: Lab, ports: tuple[PortRange, ...], reached: dict[int, str]) -> None:
    """docs/hazards.md A26: not at the Service's port; deny-all holds."""
    lab.sim.moved("c", client=ClientGroup(7, (Allow(EGRESS, ports=ports),) if ports else (), deferred=False))
    assert {port: lab.reached(port) for port in reached} == reached


def test_egress_by_a_block_of_addresses(lab: Lab) -> None:
    """The block has to have the backend's address; that of the Service has no meaning."""
    block = Allow(EGRESS, frozenset(), (IPv4Network(SERVICES),))
    lab.sim.moved("c", client=ClientGroup(7, (block,), deferred=False))
    assert lab.reached(80) == ""
    server = Allow(EGRESS, frozenset(), (IPv4Network(lab.sim.pods["s"].address),))
    lab.sim.moved("c", client=ClientGroup(8, (server,), deferred=False))
    assert lab.reached(80) == "s"


API_SERVER = IPv4Address("192.0.2.10")
API = ServiceFrontend(IPv4Address("172.30.0.1"), "tcp", 443, (ServiceBackend(API_SERVER, 6443),))


def api_server(lab: Lab, *backends: ServiceBackend, port: int = 443) -> bool:
    """Whether `c` reaches the host for the Service of the API server, and is answered."""
    lab.sim.frontends = (API._replace(backends=(*API.backends, *backends)),)
    lab.sim.change()
    packet = tcp(Addresses.of(lab.sim.pods["c"].address, API.address), 4000, port)
    there = lab.send("c", packet)
    assert all(name == f"n{lab.near}:{GATEWAY_PORT}" for name, _ in there)
    back = lab.sent_by(f"n{lab.near}", GATEWAY_PORT, replace(packet.reply(), eth_src=GATEWAY_MAC))
    assert [name for name, _ in back] == ["c"] * len(there)
    return bool(there)


def test_backends_that_are_no_pods_are_decided_at_the_frontend(lab: Lab) -> None:
    """Packets to them do not return to the bridge: egress policy must allow all, at their own addresses and ports."""
    https = PortRange(Protocol.TCP, 6443, 6443)
    others = ServiceBackend(IPv4Address("192.0.2.11"), 6443)
    assert api_server(lab)
    for number, (admitted, one, both) in enumerate(
        (
            (None, False, False),
            (Allow(EGRESS, ports=(https,)), True, True),
            (Allow(EGRESS, ports=(PortRange(Protocol.TCP, 443, 443),)), False, False),
            (Allow(EGRESS, frozenset(), (IPv4Network(API_SERVER),)), True, False),
            (Allow(EGRESS, frozenset(), (IPv4Network(API.address),)), False, False),
            (Allow(EGRESS, frozenset(), (IPv4Network("192.0.2.0/24"),), (https,)), True, True),
        ),
        start=10,
    ):
        rules = (admitted,) if admitted is not None else ()
        lab.sim.moved("c", client=ClientGroup(number, rules, deferred=False))
        assert (api_server(lab), api_server(lab, others)) == (one, both), admitted


def test_the_node_itself_is_always_reached_by_a_frontend(lab: Lab) -> None:
    lab.sim.moved("c", client=ClientGroup(10, (), deferred=False))
    on_node = ServiceBackend(PLAN.gateway(lab.near), 6443)
    lab.sim.frontends = (API._replace(backends=(on_node,)),)
    lab.sim.change()
    packet = tcp(Addresses.of(lab.sim.pods["c"].address, API.address), 4000, 443)
    assert [name for name, _ in lab.send("c", packet)] == [f"n{lab.near}:{GATEWAY_PORT}"]


def test_a_permission_that_ends_cuts_both_directions(lab: Lab) -> None:
    [(_, arrived)] = lab.send("c", lab.opening(53))
    assert [name for name, _ in lab.send("s", arrived.reply())] == ["c"]
    lab.sim.moved("s", server=CLOSED_SERVER)
    assert lab.send("s", arrived.reply()) == []
    assert lab.send("c", lab.opening(53)) == []


def test_a_pod_and_itself_by_a_service(lab: Lab) -> None:
    """docs/hazards.md A28: masqueraded by the host, so it is an outsider's connection to the pod."""
    [(name, arrived)] = lab.send("c", lab.opening(99))
    assert (name, arrived.nw_src, arrived.tp_dst) == ("c", MASQUERADE, 8080)
    [(name, answer)] = lab.send("c", arrived.reply())
    assert (name, answer.nw_src, answer.tp_src) == ("c", int(VIRTUAL), 99)
    lab.sim.moved("c", server=CLOSED_SERVER)
    assert lab.send("c", lab.opening(99)) == []


def test_one_port_for_a_service_and_its_backend(lab: Lab) -> None:
    """The way of the client's last packet is the way of the replies."""
    direct = udp(lab.sim.ends("c", "s"), 4000, 5353)
    for _ in range(2):
        [(_, arrived)] = lab.send("c", lab.opening(53))
        [(name, answer)] = lab.send("s", arrived.reply())
        assert (name, answer.nw_src) == ("c", int(VIRTUAL))
        [(_, arrived)] = lab.send("c", direct)
        [(name, answer)] = lab.send("s", arrived.reply())
        assert (name, answer.nw_src) == ("c", int(lab.sim.pods["s"].address))


def test_a_relabelled_client_keeps_its_service(lab: Lab) -> None:
    """Datagrams that are turned round to inform the server's node leave the connection's way as it is."""
    [(_, arrived)] = lab.send("c", lab.opening(53))
    assert [name for name, _ in lab.send("s", arrived.reply())] == ["c"]
    lab.sim.moved("c", number=2)
    answers = [lab.send("s", arrived.reply()) for _ in range(3)]
    [(name, answer)] = answers[-1]
    assert (name, answer.nw_src) == ("c", int(VIRTUAL))


def test_errors_return_by_the_host(lab: Lab) -> None:
    """A closed UDP port: the client hears of it about the packet that it sent."""
    packet = lab.opening(53)
    [(_, arrived)] = lab.send("c", packet)
    error = icmp_error(Addresses.of(arrived.nw_dst, arrived.nw_src), arrived, code=3)
    [(name, found)] = lab.send("s", error)
    assert found.inner is not None
    assert (name, found.nw_src, found.inner.nw_dst, found.inner.tp_dst) == ("c", int(VIRTUAL), int(VIRTUAL), 53)
    assert lab.send("x", replace(error, eth_src=0x0A58 << 32 | int(lab.sim.pods["x"].address))) == []


def from_host(source: IPv4Address, target: IPv4Address | int) -> Packet:
    return tcp(Addresses.of(source, target, eth_src=GATEWAY_MAC), 4000, 8080)


def test_only_local_pods_return_from_the_host(lab: Lab) -> None:
    """docs/hazards.md B24: a pod of another node, or an address of nobody, is not accepted there."""
    server = lab.sim.pods["s"]
    for name, node in (("c", 1), ("c", 2)):
        found = lab.sent_by(f"n{node}", GATEWAY_PORT, from_host(lab.sim.pods[name].address, server.address))
        assert [to for to, _ in found] == (["s"] if node == lab.near else [])
    nobody = PLAN.address(1, lab.near, 9)
    assert lab.sent_by(f"n{lab.near}", GATEWAY_PORT, from_host(nobody, server.address)) == []


def test_nothing_of_a_pod_goes_back_to_the_host(lab: Lab) -> None:
    for target in (IPv4Address("198.51.100.1"), VIRTUAL, PLAN.gateway(lab.near)):
        packet = from_host(lab.sim.pods["c"].address, target)
        assert lab.sent_by(f"n{lab.near}", GATEWAY_PORT, packet) == []


def test_no_pod_sends_as_a_service_or_as_another(lab: Lab) -> None:
    """docs/hazards.md B24."""
    mac = lab.sim.pods["x"].mac
    for source in (VIRTUAL, lab.sim.pods["c"].address):
        packet = tcp(Addresses.of(source, lab.sim.pods["s"].address, eth_src=mac), 4000, 8080)
        assert lab.send("x", packet) == []


def test_a_service_opens_no_connection(lab: Lab) -> None:
    """What has a Service's address and answers nothing is an outsider's."""
    packet = from_host(VIRTUAL, lab.sim.pods["x"].address)
    assert lab.sent_by(f"n{lab.near}", GATEWAY_PORT, packet) == []


def test_a_reply_by_the_host_is_no_local_pods(lab: Lab) -> None:
    """A server's answer has its own port as its way, also where the host could send it."""
    direct = tcp(lab.sim.ends("c", "s"), 4000, 8080)
    [(_, arrived)] = lab.send("c", direct)
    server = lab.sim.pods["s"]
    forged = replace(arrived.reply(), eth_src=GATEWAY_MAC)
    assert lab.sent_by(f"n{server.node}", GATEWAY_PORT, forged) == []
    assert [name for name, _ in lab.send("s", arrived.reply())] == ["c"]


def test_without_ranges_the_tables_are_as_before() -> None:
    """The host's packets with a pod's source are dropped, and no row mentions Services."""
    network = SimNetwork.of(SimPod("c", 1, 1), SimPod("s", 1, 2, server=OPEN_SERVER))
    packet = from_host(network.pods["c"].address, network.pods["s"].address)
    assert network.arrivals("n1", GATEWAY_PORT, packet) == []
    program = compile_node(network.view(1), network.permissions(1))
    assert not any("services" in str(item.origin) for item in program.flows.values())
