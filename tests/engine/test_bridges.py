"""What a node's view says of bridges: routes, uplinks, gateways, and ports where there is no switch."""

from __future__ import annotations

from ipaddress import IPv4Address
from types import MappingProxyType

import pytest

from romana_ovs.engine import offline_facts
from romana_ovs.model.bridge import BridgeFacts, PodPort, TunnelPort
from romana_ovs.model.objects import Node
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import ForeignRoute, RemoteHost, Uplink
from tests.support.builders import NODES, cluster, pod
from tests.support.confirming_engine import follow
from tests.support.known import known


def test_foreign_addresses_are_routed_to_their_nodes() -> None:
    at = cluster(pod("a", address="192.168.5.9"), pod("b", address="10.0.0.77", node="node2"), pod("c", "node3"))
    engine = follow(at)
    shown = engine.views(at)
    hosts = {name: known(engine.host_number(node)) for name, node in (("a", "node1"), ("b", "node2"))}
    routes = {name: ForeignRoute(known(engine.address_of(f"ns/{name}")), host) for name, host in hosts.items()}
    assert shown["node1"].foreign == (routes["b"],)
    assert shown["node2"].foreign == (routes["a"],)
    assert shown["node3"].foreign == (routes["b"], routes["a"])
    engine.update(at.without(pod("a", address="192.168.5.9")))
    assert engine.views(at)["node3"].foreign == (routes["b"],)


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_an_address_that_a_node_took_is_no_pods_any_more(node: str) -> None:
    at = cluster(pod("alien", address="192.168.7.9"), pod("other", "node2"))
    engine = follow(at)
    assert engine.views(at)["node3"].foreign
    at = at.with_object(Node(node, addresses=(IPv4Address("192.168.7.9"),)))
    engine.update(at)
    assert [problem.name for problem in engine.problems] == ["ns/alien"]
    for view in engine.views(at).values():
        assert view.foreign == () and compile_node(view, resolve(view)).flows


def test_a_line_of_bridges_is_walked_from_neighbour_to_neighbour() -> None:
    at = cluster()
    shown = follow(at).views(at)
    assert shown["node1"].hosts == (RemoteHost(1, "node2", 0x7001), RemoteHost(2, "node3", 0x7001))
    assert shown["node2"].uplinks == (Uplink(0x7000), Uplink(0x7002))


def test_a_tunnel_leads_to_every_node_and_admits_those_alone() -> None:
    at = cluster()
    engine = follow(at)
    facts = BridgeFacts("node1", tunnel=TunnelPort(5, IPv4Address("10.255.0.1")))
    other = BridgeFacts("node2", tunnel=TunnelPort(6, IPv4Address("10.255.0.2")))
    peers = (IPv4Address("10.255.0.2"), IPv4Address("172.16.0.3"))
    view = engine.view(facts, {"node1": facts, "node2": other})
    assert view.hosts == tuple(RemoteHost(n, f"node{n + 1}", 5, peer) for n, peer in enumerate(peers, 1))
    assert view.uplinks == (Uplink(5, peers),)


def test_the_gateway_has_the_plans_and_the_nodes_addresses() -> None:
    at = cluster()
    engine = follow(at)
    gateway = engine.views(at)["node2"].gateway
    assert known(gateway).addresses == (IPv4Address("10.0.0.65"), IPv4Address("172.16.0.2"))
    assert (known(gateway).ofport, known(gateway).mac) == (0xFFFE, "0a:58:0a:00:00:41")
    with_mac = BridgeFacts("node2", gateway_port=3, gateway_mac="02:00:00:00:00:01")
    assert known(engine.view(with_mac, {}).gateway).mac == "02:00:00:00:00:01"
    assert engine.view(BridgeFacts("node2"), {}).gateway is None


def test_offline_ports_are_numbered_in_order() -> None:
    at = cluster(pod("b"), pod("a"), pod("host", host_network=True), pod("c", "node3"))
    facts = offline_facts(at, at.nodes)
    assert facts["node1"].pod_ports == {"ns/a": PodPort(1), "ns/b": PodPort(2)}
    assert facts["node3"].pod_ports == {"ns/c": PodPort(1)}
    assert [dict(facts[name].links) for name in NODES] == [
        {"node2": 0x7001},
        {"node1": 0x7000, "node3": 0x7002},
        {"node2": 0x7001},
    ]
    assert isinstance(facts, MappingProxyType) and facts["node1"].gateway_port == 0xFFFE
