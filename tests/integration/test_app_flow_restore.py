"""The controller over switches that wait for their flows (flow-restore-wait), as in an upgrade of Open vSwitch."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.support.controller_process import Controller
from tests.support.frames import udp_hex
from tests.support.manifests import PORT_80_POLICY, TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs, ofports
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs]


@pytest.fixture
def one() -> Iterator[tuple[Ovs, Controller]]:
    """One node with pods a/x and a/y on it, programmed."""
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("nodes.yaml", TWO_NODES)
        controller.write("pods.yaml", placed_pod("x") + placed_pod("y"))
        controller.write("policy.yaml", PORT_80_POLICY)
        controller.start()
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        ovs.port("br-int", "py", iface_id="a/y", ofport=2)
        controller.until(lambda state: state["pods"].get("a/y", {}).get("port") == 2, "the ports are known")
        controller.settled()
        yield ovs, controller


def _waits(ovs: Ovs) -> bool:
    """Whether the switch of this database starts without its controller: docs/hazards.md B3."""
    return "flow-restore-wait" in ovs.vsctl("--no-wait", "get", "open_vswitch", ".", "other_config")


def test_an_upgraded_switch_gets_its_flows_before_it_goes_on(one: tuple[Ovs, Controller]) -> None:
    """The controller programs it over its management socket, and these flows outlast the end of the wait."""
    ovs, controller = one
    ports = ofports(ovs)
    ovs.vsctl("--no-wait", "set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    controller.until(lambda state: not state["problems"], "nothing is wrong with that")
    ovs.kill_switch()
    controller.until(lambda state: not state["nodes"]["node1"]["connected"], "the switch is away")
    ovs.start_switch()
    eventually(lambda: not _waits(ovs), "the wait is over")
    over = time.monotonic()
    assert ofports(ovs) == ports
    eventually(lambda: "connected over its management socket" in controller.log, "by a connection from here")
    eventually(lambda: controller.log.count(": connected\n") == 2, "the switch connects as before")
    controller.settled()
    since = time.monotonic() - over
    durations = [float(each) for each in re.findall(r"duration=([0-9.]+)s", ovs.ofctl("br-int", "dump-flows"))]
    assert min(durations) >= since, "no flow was added after that"
    controller.until(lambda state: not state["problems"], "nothing is reported")


@pytest.mark.slow("waits as long as for ovs-ctl")
def test_a_wait_that_was_left_set_ends(one: tuple[Ovs, Controller]) -> None:
    """As after a restart that was broken off, with no controller at that time."""
    ovs, controller = one
    ports = ofports(ovs)
    assert controller.stop() == 0
    ovs.kill_switch()
    ovs.vsctl("--no-wait", "set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    ovs.start_switch()
    assert ovs.flows("br-int") == []
    controller.start()
    eventually(lambda: ofports(ovs) == ports, "its flows are in")
    assert _waits(ovs), "whoever set it may remove it"
    eventually(lambda: not _waits(ovs), "the wait is over")
    controller.settled()
    assert ofports(ovs) == ports


def test_an_upgrade_forgets_only_what_has_another_owner(one: tuple[Ovs, Controller]) -> None:
    """By the marks of the ports; the new owner of an address may have come while the switch was away."""
    ovs, controller = one
    x, y = (controller.state["pods"][key]["address"] for key in ("a/x", "a/y"))
    place = next(line for line in ovs.flows("br-int") if "in_port=1," in line and f"nw_src={x} " in line)
    zone = int(re.search(r"set_field:0x([0-9a-f]+)0000/0xffff0000->reg11", place)[1], 16)  # type: ignore[index]
    assert controller.stop() == 0
    ovs.kill_switch()
    ovs.vsctl("--no-wait", "set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    ovs.start_switch()
    for address in (x, y):
        commit = f"in_port=LOCAL,packet={udp_hex(address, '10.9.9.9')},actions=ct(commit,zone={zone})"
        ovs.ofctl("br-int", "packet-out", commit)
    assert ovs.appctl("dpctl/dump-conntrack", f"zone={zone}").count("udp") == 2
    ovs.vsctl("--no-wait", "set", "interface", "py", f'external_ids:romana-programmed="a/former {y}"')
    controller.start()
    controller.until(lambda state: state["nodes"].get("node1", {}).get("state") == "synced", "it is programmed")
    assert _waits(ovs)
    connections = ovs.appctl("dpctl/dump-conntrack", f"zone={zone}")
    assert x in connections
    assert y not in connections


def test_a_primary_controller_is_no_way_to_upgrade(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    ovs.vsctl("clear", "controller", "br-int", "type")
    ovs.vsctl("set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
    controller.until(lambda state: any("type=service" in text for text in state["problems"]), "it is reported")
    ovs.vsctl("set", "controller", "br-int", "type=service")
    controller.until(lambda state: not state["problems"], "and taken back")


@pytest.mark.parametrize(("kind", "kept"), [("service", True), ("primary", False)])
def test_flows_outlast_a_wait_by_the_controllers_type(kind: str, kept: bool) -> None:
    """Why bridges have controllers of type `service`: Open vSwitch 3.1, ofproto/connmgr.c, connmgr_set_controllers."""
    with Ovs() as ovs:
        ovs.bridge("br-int", node="node1", controller="/nonexistent/of.sock")
        ovs.vsctl("set", "controller", "br-int", f"type={kind}")
        ovs.vsctl("set", "open_vswitch", ".", "other_config:flow-restore-wait=true")
        ovs.kill_switch()
        ovs.start_switch()
        ovs.ofctl("br-int", "add-flow", "priority=7,actions=drop")
        ovs.vsctl("remove", "open_vswitch", ".", "other_config", "flow-restore-wait")
        assert bool(ovs.flows("br-int")) is kept
