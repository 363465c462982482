"""The agent makes the bridge of its node, and corrects one that is another node's, on a real Open vSwitch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest

from romana_ovs.attach.bridge_creation import BridgeSettings, Tunnel, TunnelType, datapath_id, ensure_bridge
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import SetupError
from tests.support.cni_node import BRIDGE, CniNode, needs_plugin
from tests.support.netns_sockets import run
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs]
ADDRESS = IPv4Address("192.0.2.1")
SETTINGS = BridgeSettings(BRIDGE, "node1", DatapathType.NETDEV, tunnel=Tunnel(TunnelType.VXLAN, ADDRESS))
HEALTH = 18361


@pytest.fixture
def ovs() -> Iterator[Ovs]:
    with Ovs() as private:
        yield private


def columns(ovs: Ovs, table: str, name: str, *names: str) -> dict[str, Any]:
    """Columns of a row as ovs-vsctl prints them in JSON: maps and sets as dicts and lists."""
    (row,) = json.loads(ovs.vsctl("--format=json", f"--columns={','.join(names)}", "list", table, name))["data"]
    plain = {}
    for column, value in zip(names, row, strict=True):
        kind, content = value if isinstance(value, list) else ("", value)
        plain[column] = dict(content) if kind == "map" else content
    return plain


def settled(ovs: Ovs) -> None:
    """Wait until the switch has made the bridge, and noted so in the database."""
    ovs.vsctl("set", "open_vswitch", ".", "external_ids:settled=yes")
    eventually(lambda: columns(ovs, "interface", BRIDGE, "ofport")["ofport"] == 65534, "the switch has the bridge")


def test_a_missing_bridge_is_made(ovs: Ovs) -> None:
    ensure_bridge(ovs.remote, SETTINGS)
    assert columns(
        ovs, "bridge", BRIDGE, "fail_mode", "datapath_type", "protocols", "external_ids", "other_config"
    ) == {
        "fail_mode": "secure",
        "datapath_type": "netdev",
        "protocols": "OpenFlow15",
        "external_ids": {"romana-node": "node1"},
        "other_config": {"disable-in-band": "true", "datapath-id": datapath_id("node1")},
    }
    assert ovs.vsctl("get-controller", BRIDGE) == "tcp:127.0.0.1:6653\n"
    assert columns(ovs, "controller", BRIDGE, "connection_mode", "type") == {
        "connection_mode": "out-of-band",
        "type": "service",
    }
    assert columns(ovs, "interface", "romana-tunnel", "type", "options", "external_ids") == {
        "type": "vxlan",
        "options": {"remote_ip": "flow"},
        "external_ids": {"romana-tunnel": "192.0.2.1"},
    }
    settled(ovs)
    assert columns(ovs, "interface", BRIDGE, "type", "ofport") == {"type": "internal", "ofport": 65534}


def test_a_second_time_changes_nothing(ovs: Ovs) -> None:
    ensure_bridge(ovs.remote, SETTINGS)
    settled(ovs)
    before = ovs.run(["ovsdb-client", "dump", ovs.remote, "Bridge"])
    ensure_bridge(ovs.remote, SETTINGS)
    assert ovs.run(["ovsdb-client", "dump", ovs.remote, "Bridge"]) == before


def test_the_bridge_of_a_copied_disk_is_corrected(ovs: Ovs) -> None:
    ovs.vsctl("add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "external_ids:romana-node=node0", "external_ids:x=y")
    ensure_bridge(ovs.remote, SETTINGS)
    corrected = columns(ovs, "bridge", BRIDGE, "fail_mode", "external_ids", "other_config")
    assert corrected["fail_mode"] == "secure"
    assert corrected["external_ids"] == {"romana-node": "node1", "x": "y"}
    assert corrected["other_config"]["datapath-id"] == datapath_id("node1")
    assert ovs.vsctl("get-controller", BRIDGE) == "tcp:127.0.0.1:6653\n"


def test_a_controller_that_is_there_stays(ovs: Ovs) -> None:
    ovs.bridge(BRIDGE, node="node1", controller="tcp:127.0.0.1:6699")
    ensure_bridge(ovs.remote, SETTINGS)
    assert ovs.vsctl("get-controller", BRIDGE) == "tcp:127.0.0.1:6699\n"


def test_the_tunnel_follows_the_address(ovs: Ovs) -> None:
    ensure_bridge(ovs.remote, SETTINGS)
    moved = Tunnel(TunnelType.GENEVE, IPv4Address("192.0.2.7"))
    ensure_bridge(ovs.remote, BridgeSettings(BRIDGE, "node1", tunnel=moved))
    assert columns(ovs, "interface", "romana-tunnel", "type", "external_ids") == {
        "type": "geneve",
        "external_ids": {"romana-tunnel": "192.0.2.7"},
    }


def test_the_kernels_datapath_has_the_address_in_local_ip(ovs: Ovs) -> None:
    # The bridge is not used, so that it does not matter whether the kernel has the module.
    ovs.kill_switch()
    ensure_bridge(ovs.remote, BridgeSettings(BRIDGE, "node1", tunnel=SETTINGS.tunnel))
    shown = ovs.run(["ovs-vsctl", f"--db={ovs.remote}", "--no-wait", "get", "interface", "romana-tunnel", "options"])
    assert shown == '{local_ip="192.0.2.1", remote_ip=flow}\n'


def test_an_operators_tunnel_port_stays(ovs: Ovs) -> None:
    ovs.bridge(BRIDGE, node="node1")
    mine = ["type=geneve", "options:remote_ip=flow", "external_ids:romana-tunnel=192.0.2.9"]
    ovs.vsctl("add-port", BRIDGE, "mine", "--", "set", "interface", "mine", *mine)
    ensure_bridge(ovs.remote, SETTINGS)
    assert ovs.vsctl("list-ports", BRIDGE) == "mine\n"


def test_without_a_database_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("romana_ovs.attach.bridge_creation.CONNECT_SECONDS", 0.3)
    with pytest.raises(SetupError, match=r"at unix:/none cannot be reached: is Open vSwitch running\?$"):
        ensure_bridge("unix:/none", SETTINGS)


@needs_plugin
def test_an_agent_makes_its_bridge_and_is_ready() -> None:
    with CniNode() as node:
        node.ovs.vsctl("del-br", BRIDGE)
        node.write_pod("web", "web-1")
        node.controller.start()
        options = ["--create-bridge", "--node", "node1", "--tunnel", "none", "--datapath", "netdev"]
        node.start_agent(
            *options, "--controller", f"unix:{node.ovs.folder}/controller.sock", "--health-port", str(HEALTH)
        )
        node.until_ready()
        node.add(node.sandbox("web"))

        def status(path: str) -> int:
            command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{HEALTH}{path}"]
            return int(run(node.name, *command).stdout)

        eventually(lambda: status("/readyz") == 200, "the agent is ready")
        node.ovs.vsctl("del-br", BRIDGE)
        eventually(lambda: BRIDGE in node.ovs.vsctl("list-br"), "the bridge is made again")
        node.controller.stop()
        eventually(lambda: status("/readyz") == 503, "without its controller the agent is not ready")
        assert status("/livez") == 200
