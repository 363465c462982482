"""The controller over real switches: what it sends, when it sends nothing, and what survives."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.model.bridge import POD_PROBLEM
from romana_ovs.pipeline import priorities
from romana_ovs.switch import messages
from romana_ovs.switch.wire import add_flow
from tests.integration.flow_corpus import corpus
from tests.support.command import run_command
from tests.support.controller_process import Controller, sent_during
from tests.support.frames import udp_hex
from tests.support.manifests import PORT_80_POLICY, TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, RawSwitch, needs_ovs, ofports
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


def test_pods_are_programmed_and_no_packet_comes_here(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    state = controller.state
    assert state["pods"]["a/x"]["port"] == 1
    assert state["pods"]["a/y"]["port"] == 2
    assert state["problems"] == state["refused"] == []
    assert state["packet_ins"] == 0
    # Userspace's datapath tells SCTP apart by ports from Open vSwitch 3.2 on.
    newer = tuple(map(int, re.findall(r"\d+", ovs.run(["ovs-vswitchd", "--version"]))[:2])) >= (3, 2)
    assert state["nodes"]["node1"]["sctp_ports"] is newer
    assert {"in_port=1", "in_port=2"} <= ofports(ovs)
    assert "NORMAL" not in "".join(ovs.flows("br-int"))
    assert "frags=nx-match" in ovs.ofctl("br-int", "show")
    assert len(ovs.flows("br-int")) == state["nodes"]["node1"]["flows"]["total"]


@pytest.mark.alone
def test_one_flow_from_change_to_barrier_takes_milliseconds(one: tuple[Ovs, Controller]) -> None:
    _, controller = one
    state = controller.after_change(lambda: controller.write("policy.yaml", PORT_80_POLICY.replace("80", "81")))
    done = controller.programmed()[-1]
    assert done["generation"] == state["generation"]
    # The new ports, and the rows that name the pods they are for: a group of servers is numbered by its content.
    assert 0 < done["sent"]["node1"] <= 12
    # Ten of them are for reading the file twice; generous, as the machine may be busy.
    assert done["milliseconds"] < 250


def test_a_restarted_controller_sends_nothing(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    before = ovs.flows("br-int")
    addresses = {key: value["address"] for key, value in controller.state["pods"].items()}
    assert controller.stop() == 0

    def restart() -> None:
        controller.start()
        controller.settled()

    assert sent_during(ovs, "br-int", restart) == []
    assert ovs.flows("br-int") == before
    assert {key: value["address"] for key, value in controller.state["pods"].items()} == addresses
    assert controller.programmed()[-1]["sent"] == {"node1": 0}


def test_a_killed_controller_leaves_the_switch_as_it_is(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    before = ovs.flows("br-int")
    controller.stop(signal.SIGKILL)
    assert ovs.flows("br-int") == before


def test_flows_come_back_after_the_switch_process_dies(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.after_change(lambda: controller.write("more.yaml", placed_pod("z")))
    controller.after_change(lambda: ovs.port("br-int", "pz", iface_id="a/z", ofport=3))
    before = ovs.flows("br-int")
    ovs.kill_switch()
    controller.until(lambda state: not state["nodes"]["node1"]["connected"], "the death is noticed")
    ovs.start_switch()
    controller.settled()
    # What differs is that the newest pod too is now older than the bridge's connections (compile/pickup.py).
    after = [
        line for line in ovs.flows("br-int") if f"priority={priorities.ConntrackCommit.LOOSE_METERED}," not in line
    ]
    assert [line.partition(" actions=")[0] for line in after] == [line.partition(" actions=")[0] for line in before]
    newest = controller.state["pods"]["a/z"]["address"]
    assert any(f"nw_dst={newest} " in line for line in after if line not in before)
    controller.stop()

    def restart() -> None:
        controller.start()
        controller.settled()

    after = ovs.flows("br-int")
    assert sent_during(ovs, "br-int", restart) == []
    assert ovs.flows("br-int") == after


def test_an_ordinary_start_finds_no_survivors(one: tuple[Ovs, Controller]) -> None:
    ovs, _ = one
    assert not any("0x200/0x200->reg0" in line or "0x4000/0x4000->reg0" in line for line in ovs.flows("br-int"))
    noted = ovs.vsctl("get", "interface", "px", "external_ids:romana-programmed").strip().strip('"')
    assert noted.startswith("a/x 10.")


def test_a_pod_that_comes_later_is_no_survivor(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    ovs.kill_switch()
    ovs.start_switch()
    controller.settled()
    ovs.vsctl("del-port", "py")
    controller.until(lambda state: state["pods"]["a/y"]["port"] is None, "the port is gone")
    controller.after_change(lambda: ovs.port("br-int", "py2", iface_id="a/y", ofport=5))
    address = {key: controller.state["pods"][key]["address"] for key in ("a/x", "a/y")}
    places = {
        key: next(line for line in ovs.flows("br-int") if f"nw_dst={value} " in line) for key, value in address.items()
    }
    assert "0x200/0x200->reg0" in places["a/x"]
    assert "0x200/0x200->reg0" not in places["a/y"]


def test_foreign_flows_survive_and_are_not_overwritten(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    ours = next(line for line in ovs.flows("br-int") if "in_port=1," in line and "nw_src=" in line)
    match = ours.partition(" actions=")[0]
    controller.stop()
    match = ",".join(word for word in match.replace(" ", "").split(",") if not word.startswith("cookie="))
    ovs.ofctl("br-int", "del-flows", "--strict", match)
    ovs.ofctl("br-int", "add-flow", f"cookie=0x1234,{match} actions=drop")
    ovs.ofctl("br-int", "add-flow", "cookie=0x99,table=7,priority=7,udp,tp_dst=9 actions=drop")
    controller.start()
    state = controller.settled()
    controller.after_change(lambda: (controller.manifests / "policy.yaml").unlink())
    flows = ovs.flows("br-int")
    assert len([line for line in flows if "cookie=0x1234" in line]) == 1
    assert len([line for line in flows if "cookie=0x99" in line]) == 1
    assert any("a foreign flow already has the match" in problem for problem in state["problems"])


def test_a_refused_flow_is_reported_and_never_programmed(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    flows_before = ovs.flows("br-int")
    ovs.vsctl(
        "--",
        "--id=@ft",
        "create",
        "Flow_Table",
        "flow_limit=2",
        "overflow_policy=refuse",
        "--",
        "set",
        "bridge",
        "br-int",
        "flow_tables:0=@ft",
    )
    limited = ovs.flows("br-int")
    controller.after_change(lambda: controller.write("more.yaml", placed_pod("z")))
    ovs.port("br-int", "pz", iface_id="a/z", ofport=3)
    state = controller.until(
        lambda state: any("TABLE_FULL" in text for text in state["problems"]), "the refusal is told"
    )
    assert any("in_port=3" in text and "Pod a/z" in text for text in state["problems"]), state["problems"]
    assert state["generation"] not in [event["generation"] for event in controller.programmed()]
    synced = state["nodes"]["node1"]["synced_generation"]  # None while the session reads the switch's flows again.
    assert synced is None or synced < state["generation"]
    # Nothing of the bundle was done: what does not fit table 0 is not in the other tables either.
    assert not [line for line in ovs.flows("br-int") if "a/z" in line or "in_port=3" in line]
    assert len(limited) <= len(flows_before)
    ovs.vsctl("clear", "bridge", "br-int", "flow_tables")
    controller.settled()
    assert "in_port=3" in ofports(ovs)
    assert controller.state["problems"] == []


def test_ports_without_number_wait_and_others_proceed(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.write("more.yaml", placed_pod("z") + placed_pod("w"))
    ovs.vsctl(
        "--no-wait", "add-port", "br-int", "nothere", "--", "set", "interface", "nothere", "external_ids:iface-id=a/z"
    )
    ovs.port("br-int", "pw", iface_id="a/w", ofport=9)
    state = controller.until(lambda state: state["pods"].get("a/w", {}).get("port") == 9, "the other pod is there")
    assert state["pods"]["a/z"]["port"] is None
    controller.settled()
    assert "in_port=9" in ofports(ovs)
    controller.after_change(lambda: ovs.vsctl("set", "interface", "nothere", "type=internal"))
    state = controller.until(lambda state: state["pods"]["a/z"]["port"], "the device has come")
    controller.settled()
    assert f"in_port={state['pods']['a/z']['port']}" in ofports(ovs)


def test_a_reused_port_number_serves_its_new_pod_alone(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    old = controller.state["pods"]["a/x"]["address"]
    new = controller.state["pods"]["a/y"]["address"]

    def swap() -> None:
        ovs.vsctl(
            "del-port",
            "px",
            "--",
            "del-port",
            "py",
            "--",
            "add-port",
            "br-int",
            "pn",
            "--",
            "set",
            "interface",
            "pn",
            "type=internal",
            "ofport_request=1",
            "external_ids:iface-id=a/y",
        )

    controller.after_change(swap)
    controller.until(lambda state: state["pods"]["a/y"]["port"] == 1, "the number is given again")
    controller.settled()
    guards = [line for line in ovs.flows("br-int") if "in_port=1," in line]
    assert guards
    assert not [line for line in ovs.flows("br-int") if old in line]
    assert any(new in line for line in guards)
    assert "in_port=2" not in ofports(ovs)


def test_of_two_ports_with_one_pod_one_stays_closed(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.after_change(lambda: ovs.port("br-int", "px2", iface_id="a/x", ofport=7))
    ports = ofports(ovs)
    assert "in_port=7" in ports
    assert "in_port=1" not in ports
    assert any("both claim pod a/x" in problem for problem in controller.state["problems"])
    assert controller.log.count("both claim pod a/x") == 1


def test_unclaimed_ports_stay_closed_and_are_logged_once(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    ovs.port("br-int", "stray", ofport=11)
    ovs.port("br-int", "ghost", iface_id="a/ghost", ofport=12)
    controller.until(lambda state: len(state["problems"]) == 2, "both are told")
    controller.settled()
    assert not {"in_port=11", "in_port=12"} & ofports(ovs)
    controller.after_change(lambda: controller.write("policy.yaml", PORT_80_POLICY.replace("80", "82")))
    assert controller.log.count("port stray has no external_ids:iface-id") == 1
    assert controller.log.count("a port claims pod a/ghost") == 1
    eventually(lambda: "and there is no such pod" in noted_problem(ovs, "ghost"), "the reason is noted at the port")
    controller.write("ghost.yaml", placed_pod("ghost"))
    controller.until(lambda state: state["pods"].get("a/ghost", {}).get("port") == 12, "the pod and its port meet")
    controller.settled()
    assert "in_port=12" in ofports(ovs)
    eventually(lambda: noted_problem(ovs, "ghost") == "", "there is no reason any more")


def noted_problem(ovs: Ovs, port: str) -> str:
    """What the controller noted at a port about why nothing passes it."""
    return ovs.vsctl("--if-exists", "get", "interface", port, f"external_ids:{POD_PROBLEM}").strip().strip('"')


def test_a_bad_edit_is_refused_and_changes_nothing(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    before = ovs.flows("br-int")
    controller.write("policy.yaml", PORT_80_POLICY.replace("podSelector", "podSelectro"))
    controller.until(lambda state: state["refused"], "the edit is refused")
    controller.write("pods.yaml", "{{{ not yaml")
    controller.until(lambda state: any("pods.yaml" in text for text in state["refused"]), "and the other")
    assert ovs.flows("br-int") == before
    assert any(event["event"] == "refused" for event in controller.events)
    controller.write("policy.yaml", PORT_80_POLICY)
    controller.write("pods.yaml", placed_pod("x") + placed_pod("y"))
    controller.until(lambda state: not state["refused"], "good again")
    controller.settled()
    assert ovs.flows("br-int") == before


def test_hidden_flows_and_a_bridge_that_fails_open_are_told(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    assert "priority=180" not in ovs.appctl("bridge/dump-flows", "br-int")
    ovs.vsctl("set-fail-mode", "br-int", "standalone")
    controller.until(lambda state: any("fail_mode=secure" in text for text in state["problems"]), "it is told")
    ovs.vsctl("set-fail-mode", "br-int", "secure")
    controller.until(lambda state: not state["problems"], "and taken back")


def test_without_a_controller_a_secure_bridge_has_no_flow_at_all() -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int", node="node1", controller="/nonexistent/of.sock")
        assert ovs.flows("br-int") == []
        assert "NORMAL" not in ovs.appctl("bridge/dump-flows", "br-int")


def test_connections_of_pods_that_come_and_go_are_forgotten(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    x, y = (controller.state["pods"][key]["address"] for key in ("a/x", "a/y"))
    place = next(line for line in ovs.flows("br-int") if "in_port=1," in line and f"nw_src={x} " in line)
    zone = int(re.search(r"set_field:0x([0-9a-f]+)0000/0xffff0000->reg11", place)[1], 16)  # type: ignore[index]
    for source, target in ((x, y), (y, x), ("10.9.9.9", "10.9.9.8")):
        ovs.ofctl(
            "br-int", "packet-out", f"in_port=LOCAL,packet={udp_hex(source, target)},actions=ct(commit,zone={zone})"
        )
        ovs.ofctl(
            "br-int", "packet-out", f"in_port=LOCAL,packet={udp_hex(source, target)},actions=ct(commit,zone={zone + 1})"
        )
    assert ovs.appctl("dpctl/dump-conntrack", f"zone={zone}").count("udp") == 3
    ovs.vsctl("del-port", "py")
    eventually(lambda: ovs.appctl("dpctl/dump-conntrack", f"zone={zone}").count("udp") == 1, "they are forgotten")
    assert "10.9.9.9" in ovs.appctl("dpctl/dump-conntrack", f"zone={zone}")
    assert ovs.appctl("dpctl/dump-conntrack", f"zone={zone + 1}").count("udp") == 3


def test_a_shared_tenants_connections_are_flushed_in_every_zone(one: tuple[Ovs, Controller]) -> None:
    """They may be in any tenant's."""
    ovs, controller = one
    controller.after_change(lambda: controller.write("shared.yaml", placed_pod("d", namespace="kube-system")))
    ovs.port("br-int", "pd", iface_id="kube-system/d", ofport=3)
    controller.until(lambda state: state["pods"]["kube-system/d"]["port"] == 3, "the port is known")
    controller.settled()
    d, x = (controller.state["pods"][key]["address"] for key in ("kube-system/d", "a/x"))
    zones = (0x1004, 0x1008, 0x17FC)
    for source, target in ((d, "10.9.9.9"), ("10.9.9.9", d), ("10.9.9.9", x)):
        for zone in zones:
            packet = f"in_port=LOCAL,packet={udp_hex(source, target)},actions=ct(commit,zone={zone})"
            ovs.ofctl("br-int", "packet-out", packet)
    assert ovs.appctl("dpctl/dump-conntrack").count(d) == 2 * 2 * len(zones)
    ovs.vsctl("del-port", "pd")
    eventually(lambda: d not in ovs.appctl("dpctl/dump-conntrack"), "they are forgotten")
    assert ovs.appctl("dpctl/dump-conntrack").count(f"dst={x},") == len(zones), "and nobody else's"


def test_a_bundle_is_atomic_when_the_controller_dies(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.stop(signal.SIGKILL)
    before = ovs.flows("br-int")
    raw = RawSwitch(ovs, "br-int")
    raw.send(messages.bundle_control(1, messages.OPEN, 5))
    raw.send(b"".join(messages.bundled(1, add_flow(flow, n), n) for n, flow in enumerate(corpus(), 6)))
    assert raw.barrier() == []
    raw.close()
    assert ovs.flows("br-int") == before


def test_the_second_of_two_switches_with_one_number_is_refused(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    number = ovs.vsctl("get", "bridge", "br-int", "datapath_id").strip().strip('"')
    ovs.bridge("other", controller=controller.openflow)
    ovs.vsctl("set", "bridge", "other", f"other_config:datapath-id={number}")
    eventually(lambda: "a second connection" in controller.log, "the second is refused")
    assert controller.state["nodes"]["node1"]["connected"]
    assert ovs.flows("other") == []


def test_plain_ryu_manager_runs_the_same_application() -> None:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("pods.yaml", TWO_NODES + placed_pod("x"))
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        # The `.pth` of the installed package calls the shim; here the command does it by itself.
        start = "import sys, romana_ovs._ryu_shim as s; s.install(); from ryu.cmd.manager import main; main()"
        program = Path(controller.folder, "ryu-manager")
        program.write_text(f"#!{sys.executable}\n{start}\n")
        program.chmod(0o755)
        controller.environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
        controller.start((str(program), "romana_ovs.app"))
        controller.settled()
        assert "in_port=1" in ofports(ovs)


@pytest.mark.alone
def test_it_ends_soon_and_cleanly_and_not_at_all_quietly(one: tuple[Ovs, Controller]) -> None:
    """docs/hazards.md D11."""
    _, controller = one
    start = time.monotonic()
    assert controller.stop() == 0
    assert time.monotonic() - start < 2
    settings = controller.folder / "bad.conf"
    settings.write_text("[romana]\nisolation = sideways\nmanifests = /tmp\n")
    done = run_command("controller", "--config-file", str(settings), seconds=30)
    assert done.returncode == 2
    assert "sideways" in done.stderr


def test_nothing_is_deleted_before_the_manifests_are_there(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    before = ovs.flows("br-int")
    controller.stop()
    elsewhere = controller.manifests.rename(controller.folder / "elsewhere")

    def restart() -> None:
        controller.start()
        controller.until(lambda state: state["nodes"].get("node1", {}).get("state") == "waiting", "it waits")
        assert any("manifests" in text for text in controller.state["refused"])
        assert ovs.flows("br-int") == before
        elsewhere.rename(controller.manifests)
        controller.settled()

    assert sent_during(ovs, "br-int", restart) == []
    assert ovs.flows("br-int") == before


def test_a_hung_database_does_not_block_for_ever(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    controller.stop()
    controller.remotes = (ovs.remote, f"unix:{controller.folder}/nobody.sock")
    start = time.monotonic()
    controller.start()
    controller.settled()
    assert time.monotonic() - start > 5
    controller.after_change(lambda: controller.write("policy.yaml", PORT_80_POLICY.replace("80", "85")))


def test_a_hung_switch_catches_up_once_it_continues(one: tuple[Ovs, Controller]) -> None:
    ovs, controller = one
    pid = int((ovs.folder / "ovs-vswitchd.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    try:
        controller.write("policy.yaml", PORT_80_POLICY.replace("80", "86"))
        controller.until(lambda state: not state["nodes"]["node1"]["connected"], "it is given up")
    finally:
        os.kill(pid, signal.SIGCONT)
    controller.until(lambda state: state["nodes"]["node1"]["connected"], "it is back")
    controller.settled()
    assert any("tp_dst=86" in line for line in ovs.flows("br-int"))
    assert not any("tp_dst=80" in line for line in ovs.flows("br-int"))
