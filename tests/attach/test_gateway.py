"""The node's own address on the bridge: set by the agent, and put back."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

import pytest

from romana_ovs.attach.gateway import concerns_device
from tests.support.cni_node import BRIDGE, CniNode, cni_node, needs_plugin
from tests.support.datapath import on_netdev
from tests.support.netns_sockets import Page, fetch, run
from tests.support.waiting import eventually

NEXT_HOP = "169.254.1.1"


@pytest.fixture
def node() -> Iterator[CniNode]:
    with cni_node("x") as running:
        yield running


def ip(node: CniNode, *words: str) -> list[dict[str, object]]:
    """What `ip` shows in the node's namespace; empty when there is no such device."""
    shown = run(node.name, "ip", "-j", *words)
    found: list[dict[str, object]] = json.loads(shown.stdout or "[]") if shown.returncode == 0 else []
    return found


def is_configured(node: CniNode, address: str = "10.0.0.1") -> bool:
    """Whether the gateway has the address with its MAC, MTU, route and next hop."""
    shown = json.dumps(ip(node, "address", "show", "dev", BRIDGE))
    routes = [(each.get("dst"), each.get("gateway")) for each in ip(node, "route", "show", "dev", BRIDGE)]
    hops = [(each.get("dst"), each.get("state")) for each in ip(node, "neighbour", "show", "dev", BRIDGE)]
    mac = "0a:58:" + ":".join(f"{int(part):02x}" for part in address.split("."))
    return (
        f'"local": "{address}", "prefixlen": 32' in shown
        and f'"address": "{mac}"' in shown
        and '"mtu": 1400' in shown
        and routes == [("10.0.0.0/8", NEXT_HOP)]
        and (NEXT_HOP, ["PERMANENT"]) in hops
    )


def until_configured(node: CniNode) -> None:
    eventually(lambda: is_configured(node), f"the gateway is configured; {node.agent_log[-2000:]}")


@needs_plugin
def test_the_node_reaches_its_pods_by_its_own_address(node: CniNode) -> None:
    datapath_id = node.ovs.vsctl("get", "bridge", BRIDGE, "datapath_id").strip()
    sandbox = node.sandbox("x")
    address = node.add(sandbox).address
    until_configured(node)
    with Page(sandbox.netns, 8080, "x"):
        assert fetch(node.name, address, 8080) == "x"
    assert node.ovs.vsctl("get", "bridge", BRIDGE, "datapath_id").strip() == datapath_id
    assert run(node.name, "sysctl", "-n", f"net.ipv4.conf.{BRIDGE}.rp_filter").stdout.strip() == "2"


REMOVALS: dict[str, tuple[str, ...]] = {
    "address": ("ip", "address", "flush", "dev", BRIDGE),
    "route": ("ip", "route", "del", "10.0.0.0/8"),
    "neighbour": ("ip", "neighbour", "del", NEXT_HOP, "dev", BRIDGE),
    "link": ("ip", "link", "set", BRIDGE, "down"),
    "another address": ("ip", "address", "add", "10.0.0.77/32", "dev", BRIDGE),
}


@needs_plugin
def test_what_somebody_removes_is_put_back(node: CniNode) -> None:
    until_configured(node)
    for what, command in REMOVALS.items():
        assert run(node.name, *command).returncode == 0, what
        until_configured(node)
    node.ovs.vsctl("remove", "bridge", BRIDGE, "other_config", "hwaddr")
    until_configured(node)
    eventually(lambda: "10.0.0.77" not in json.dumps(ip(node, "address")), "an address of nobody is removed")


@needs_plugin
@on_netdev
def test_a_restart_of_the_switch_keeps_the_address(node: CniNode) -> None:
    """The device is another one then. It outlives ovs-vswitchd, but not `exit --cleanup`."""
    sandbox = node.sandbox("x")
    address = node.add(sandbox).address
    until_configured(node)
    index = ip(node, "link", "show", BRIDGE)[0]["ifindex"]
    node.ovs.appctl("exit", "--cleanup")
    eventually(lambda: not ip(node, "link", "show", BRIDGE), "the device is gone")
    node.ovs.kill_switch()
    node.ovs.start_switch()
    until_configured(node)
    assert ip(node, "link", "show", BRIDGE)[0]["ifindex"] != index
    with Page(sandbox.netns, 8080, "x"):
        eventually(lambda: fetch(node.name, address, 8080, seconds=1.0) == "x", "the node reaches its pod again")


@needs_plugin
def test_a_network_that_the_host_is_in_is_left_alone() -> None:
    with CniNode() as node:
        assert run(node.name, "ip", "link", "add", "nic", "type", "veth").returncode == 0
        assert run(node.name, "ip", "address", "add", "10.3.0.1/16", "dev", "nic").returncode == 0
        node.start()
        eventually(lambda: "has the address 10.3.0.1 of the pod network 10.0.0.0/8" in node.agent_log, "it is said")
        assert not ip(node, "route", "show", "dev", BRIDGE)


def message(kind: int, body: bytes) -> bytes:
    """A netlink message, padded."""
    header = struct.pack("=LHHLL", 16 + len(body), kind, 0, 0, 0)
    return header + body + bytes(-len(body) % 4)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (message(16, b"....br-int\0"), True),
        (message(16, b"....rp0123\0"), False),
        (message(16, b"....rp0123\0") + message(17, b"br-int\0"), True),
        (message(20, b"br-int\0"), False),
        (message(21, b""), True),
        (message(25, b"") + b"\0" * 3, True),
        (bytes(40), False),
    ],
)
def test_only_some_messages_of_the_kernel_matter(data: bytes, expected: bool) -> None:
    assert concerns_device(data, "br-int") is expected
