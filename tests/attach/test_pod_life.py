"""ADD and DEL of pods, played as a container runtime does: the real plugin, agent, Open vSwitch and controller."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import pytest

from romana_ovs.model.bridge import INGRESS_HOOK, DatapathType, IngressHook
from romana_ovs.switch.ethertypes import filter_hooks, filter_ports, unfilter_ports
from romana_ovs_emulate.system import in_netns
from tests.support.cni_node import CniNode, cni_node, needs_plugin
from tests.support.datapath import datapath_type
from tests.support.netns_sockets import run
from tests.support.private_ovs import needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]


@pytest.fixture(scope="module")
def node() -> Iterator[CniNode]:
    """A node with pods x and y to attach."""
    with cni_node("x", "y") as running:
        yield running


def test_a_pod_has_its_address_and_reaches_others_at_once(node: CniNode) -> None:
    x, y = node.sandbox("x"), node.sandbox("y")
    server, client = node.add(y), node.add(x)
    ping = run(x.netns, "ping", "-c", "1", "-W", "2", server.address)
    assert ping.returncode == 0, ping.stdout
    assert client.address == node.controller.state["pods"]["a/x"]["address"]
    device = json.loads(run(x.netns, "ip", "-j", "address", "show", "eth0").stdout)[0]
    octets = "".join(f":{int(part):02x}" for part in client.address.split("."))
    assert device["address"] == f"0a:58{octets}" and device["mtu"] == 1400
    assert [each["local"] for each in device["addr_info"]] == [client.address]
    (route,) = json.loads(run(x.netns, "ip", "-j", "route").stdout)
    assert (route["dst"], route["gateway"], route["prefsrc"]) == ("default", "169.254.1.1", client.address)
    (neighbour,) = json.loads(run(x.netns, "ip", "-j", "neigh").stdout)
    assert (neighbour["dst"], neighbour["state"]) == ("169.254.1.1", ["PERMANENT"])
    node.delete(x)
    node.delete(y)
    node.assert_nothing_left()


def test_the_result_names_both_devices(node: CniNode) -> None:
    x = node.sandbox("x")
    answer = node.add(x)
    port = node.port_of(x)
    host, pod = answer.printed["interfaces"]
    assert (host["name"], pod["name"], pod["sandbox"]) == (port, "eth0", x.path)
    assert answer.printed["cniVersion"] == "1.1.0" and answer.printed["ips"][0]["interface"] == 1
    assert answer.printed["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
    ids = node.ports()[port]
    assert (ids["iface-id"], ids["iface-id-ver"]) == ("a/x", "x-1")
    assert (ids["sandbox"], ids["sandbox-ifname"], ids["sandbox-netns"]) == (x.container, "eth0", x.path)
    assert "transient" in node.ovs.vsctl("get", "port", port, "other_config")
    node.delete(x)
    node.assert_nothing_left()


def test_a_pod_keeps_its_address_when_its_sandbox_is_made_anew(node: CniNode) -> None:
    first = node.sandbox("x")
    address = node.add(first).address
    name = node.port_of(first)
    node.delete(first)
    second = node.sandbox("x")
    assert node.add(second).address == address and node.port_of(second) != name
    node.delete(second)
    node.assert_nothing_left()


def test_an_older_sandboxs_del_leaves_the_newer_alone(node: CniNode) -> None:
    older, newer, other = node.sandbox("x"), node.sandbox("x"), node.sandbox("y")
    address = node.add(older).address
    target = node.add(other).address
    assert node.add(newer).address == address
    assert {ids["sandbox"] for ids in node.ports().values()} == {newer.container, other.container}
    node.delete(older)
    assert run(newer.netns, "ping", "-c", "1", "-W", "2", target).returncode == 0
    assert len(node.devices()) == 2
    node.delete_all([newer, other])
    node.assert_nothing_left()


def test_a_new_pod_of_an_old_name_gets_nothing_of_it(node: CniNode) -> None:
    """The controller learns late of the new pod: its ADD waits, and the old address is not the answer."""
    old = node.sandbox("x")
    address = node.add(old).address
    new = node.sandbox("x", uid="x-2")
    node.stop_agent()
    node.start_agent("--wait", "1")
    node.until_ready()
    answer = node.call("ADD", new)
    assert answer.code == 11 and "a port claims pod a/x of UID x-2, whose UID is x-1" in answer.printed["msg"]
    node.write_pod("x", "x-2")
    eventually(lambda: node.controller.state["pods"].get("a/x", {}).get("uid") == "x-2", "the new pod is known")
    assert node.add(new).address != address
    node.delete(old)
    node.delete(new)
    node.write_pod("x", "x-1")
    eventually(lambda: node.controller.state["pods"].get("a/x", {}).get("uid") == "x-1", "as before")
    node.assert_nothing_left()


def test_an_agent_that_starts_filters_ports_that_are_there(node: CniNode) -> None:
    """As after an upgrade: the filter may be missing, or that of the other datapath."""

    def hooks() -> frozenset[IngressHook]:
        return in_netns(node.name, lambda: filter_hooks([port]))[port]

    x = node.sandbox("x")
    node.add(x)
    port = node.port_of(x)
    right = INGRESS_HOOK[datapath_type()]
    assert hooks() == {right}
    for other in ((), (DatapathType.SYSTEM,), (DatapathType.NETDEV,)):
        node.stop_agent()
        in_netns(node.name, lambda: unfilter_ports([port]))
        for datapath in other:
            in_netns(node.name, functools.partial(filter_ports, [port], datapath))
        node.start_agent()
        eventually(lambda: hooks() == {right}, "the filter is there")
    node.delete(x)
    node.assert_nothing_left()
