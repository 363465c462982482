"""DEL, CHECK, GC and STATUS in every bad state, and what is left over after each: nothing (docs/hazards.md C16)."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.cni_node import BRIDGE, CniNode, Sandbox, cni_node, needs_plugin
from tests.support.controller_process import ROOT
from tests.support.netns_sockets import run
from tests.support.private_ovs import needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]


@pytest.fixture(scope="module")
def shared() -> Iterator[CniNode]:
    """A node with pods x and y to attach."""
    with cni_node("x", "y") as running:
        yield running


@pytest.fixture
def node(shared: CniNode) -> Iterator[CniNode]:
    """The node, on which nothing may be left after the test."""
    yield shared
    if shared.agent is None:
        shared.start_agent()
    shared.until_ready()
    shared.assert_nothing_left()


def without_namespace(node: CniNode, x: Sandbox) -> None:
    node.delete_netns(x.netns)


def without_device(node: CniNode, x: Sandbox) -> None:
    run(x.netns, "ip", "link", "del", "eth0")


def without_row(node: CniNode, x: Sandbox) -> None:
    node.ovs.vsctl("del-port", BRIDGE, node.port_of(x))


def with_another_netns(node: CniNode, x: Sandbox) -> None:
    """A file in place of the namespace, as after a reboot."""
    node.delete_netns(x.netns)
    with open(x.path, "w", encoding="utf-8"):
        pass


def without_all(node: CniNode, x: Sandbox) -> None:
    without_row(node, x)
    without_namespace(node, x)


@pytest.mark.parametrize(
    "harm", [without_namespace, without_device, without_row, with_another_netns, without_all, lambda *_: None]
)
def test_del_succeeds_five_times(node: CniNode, harm: Callable[[CniNode, Sandbox], None]) -> None:
    x = node.sandbox("x")
    node.add(x)
    harm(node, x)
    for _ in range(5):
        node.delete(x)
    if os.path.isfile(x.path) and not os.path.ismount(x.path):
        os.unlink(x.path)


def test_del_of_what_was_never_added_and_without_namespace(node: CniNode) -> None:
    x = Sandbox("a/x", "x-1", "never-added", "")
    node.delete(x)
    node.delete(x, CNI_NETNS=None)
    node.delete(x, CNI_ARGS=None)


@pytest.mark.parametrize("previous", [None, {}, {"cniVersion": "0.0"}, {"cniVersion": "1.0.0", "ips": [{"a": 1}]}])
def test_del_does_not_need_prev_result(node: CniNode, previous: Any) -> None:
    x = node.sandbox("x")
    node.add(x)
    assert node.call("DEL", x, node.config(prevResult=previous)).code == 0


@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_every_version_has_add_check_and_del(node: CniNode, version: str) -> None:
    x = node.sandbox("x")
    config = node.config(cniVersion=version)
    added = node.call("ADD", x, config).printed
    assert added["cniVersion"] == version
    assert ("version" in added["ips"][0]) == (version == "0.4.0")
    assert node.call("CHECK", x, {**config, "prevResult": added}).code == 0
    assert node.call("DEL", x, {**config, "prevResult": added}).code == 0


def test_add_keeps_what_an_earlier_plugin_returned(node: CniNode) -> None:
    x = node.sandbox("x")
    before = {"cniVersion": "1.1.0", "interfaces": [{"name": "other0"}], "dns": {"domain": "d"}}
    added = node.call("ADD", x, node.config(prevResult=before)).printed
    assert [each["name"] for each in added["interfaces"]][::2] == ["other0", "eth0"]
    assert added["ips"][0]["interface"] == 2 and added["dns"] == {"domain": "d"}
    node.delete(x)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (["ip", "address", "flush", "dev", "eth0"], "lacks the address"),
        (["ip", "link", "set", "eth0", "address", "0a:58:01:02:03:04"], "has the MAC 0a:58:01:02:03:04"),
        (["ip", "link", "set", "eth0", "down"], "eth0 is down"),
        (["ip", "route", "del", "default"], "the default route by 169.254.1.1 is missing"),
        (["ip", "link", "del", "eth0"], "has no device eth0"),
    ],
)
def test_check_names_what_is_not_as_added(node: CniNode, harm: list[str], words: str) -> None:
    x = node.sandbox("x")
    added = node.add(x).printed
    assert node.call("CHECK", x, node.config(prevResult=added)).code == 0
    run(x.netns, *harm)
    answer = node.call("CHECK", x, node.config(prevResult=added))
    assert answer.code == 101 and words in answer.printed["msg"]
    node.delete(x)


def test_check_after_the_port_or_the_namespace_is_gone(node: CniNode) -> None:
    x = node.sandbox("x")
    added = node.add(x).printed
    without_row(node, x)
    answer = node.call("CHECK", x, node.config(prevResult=added))
    assert answer.code == 101 and f"bridge {BRIDGE} has no port" in answer.printed["msg"]
    node.delete(x)
    node.add(x)
    without_namespace(node, x)
    assert node.call("CHECK", x, node.config(prevResult=added)).code in (3, 101)
    node.delete(x)


def test_gc_removes_all_but_the_valid_and_foreign_ports(node: CniNode) -> None:
    x, y = node.sandbox("x"), node.sandbox("y")
    node.add_all([x, y])
    node.ovs.port(BRIDGE, "by-hand", iface_id="a/hand")
    valid = [{"containerID": y.container, "ifname": "eth0"}]
    assert node.call("GC", None, node.config(**{"cni.dev/valid-attachments": valid})).code == 0
    assert {ids["iface-id"] for ids in node.ports().values()} == {"a/y", "a/hand"}
    with_null = json.dumps({**node.config(), "cni.dev/valid-attachments": None})  # As libcni writes it.
    assert node.call("GC", stdin=with_null).code == 0
    assert {ids["iface-id"] for ids in node.ports().values()} == {"a/hand"}
    node.ovs.vsctl("del-port", "by-hand")


def test_a_port_whose_namespace_is_gone_is_collected(node: CniNode) -> None:
    x, y = node.sandbox("x"), node.sandbox("y")
    node.add_all([x, y])
    node.delete_netns(x.netns)
    eventually(lambda: [ids["iface-id"] for ids in node.ports().values()] == ["a/y"], "only y's port is left")
    node.controller.write("y.yaml", "")
    run(y.netns, "true")
    assert len(node.devices()) == 1, "a pod that is gone from the cluster may still be running"
    node.delete(y)
    node.write_pod("y", "y-1")


def test_while_the_agent_is_away(node: CniNode) -> None:
    """The codes are those of the specification; a DEL succeeds and is done as soon as the agent is back."""
    x = node.sandbox("x")
    added = node.add(x).printed
    node.stop_agent(signal.SIGKILL)
    answer = node.call("ADD", node.sandbox("y"))
    assert answer.code == 11 and "attach agent" in answer.printed["msg"]
    assert node.call("STATUS").code == 50
    assert node.call("CHECK", x, node.config(prevResult=added)).code == 11
    assert node.call("VERSION").exit_code == 0
    for _ in range(5):
        node.delete(x)
    assert [path.suffix for path in node.queue.iterdir()] == [".json"] and len(node.ports()) == 1
    node.start_agent()
    eventually(lambda: not node.ports() and not list(node.queue.iterdir()), "the queued DEL is done")


def test_an_add_waits_for_an_agent_that_is_replaced(node: CniNode) -> None:
    """As in a rolling update; kubelet would wait some 13 s after an error."""
    node.stop_agent()
    waiting = node.config(agentWait=60)
    x, new = node.sandbox("x"), node.sandbox("new")
    with ThreadPoolExecutor(2) as pool:
        asked = pool.submit(node.call, "ADD", x, waiting)
        unknown = pool.submit(node.call, "ADD", new, waiting)
        assert not asked.done()
        node.start_agent()
        assert asked.result().code == 0
        # This one waits for the controller, which does not know the pod yet, when the agent is killed.
        eventually(lambda: len(node.ports()) == 2, "both ports are there")
        node.stop_agent(signal.SIGKILL)
        node.write_pod("new", "new-1")
        node.start_agent()
        assert unknown.result().code == 0
    assert len(node.ports()) == len(node.devices()) == 2
    node.delete_all([x, new])
    node.controller.write("new.yaml", "")


def test_an_agent_that_stays_away_fails_an_add(node: CniNode) -> None:
    node.stop_agent()
    began = time.monotonic()
    assert node.call("ADD", node.sandbox("x"), node.config(agentWait=0.3)).code == 11
    assert time.monotonic() - began >= 0.3
    node.start_agent()
    node.until_ready()


def test_an_add_after_a_queued_del_stays(node: CniNode) -> None:
    x = node.sandbox("x")
    node.add(x)
    node.stop_agent()
    node.delete(x)
    node.start_agent("--wait", "5")
    node.until_ready()
    node.add(x)
    eventually(lambda: not list(node.queue.iterdir()), "nothing is queued")
    assert len(node.ports()) == 1
    node.delete(x)


def test_files_in_the_queue_that_are_no_del(node: CniNode) -> None:
    node.stop_agent()
    for name, text in (("a.json", "{"), ("b.json", "[]"), ("c.json", '{"command": "DEL"}')):
        (node.queue / name).write_text(text)
    node.start_agent()
    eventually(lambda: not list(node.queue.iterdir()), "they are removed")
    assert "is no queued DEL" in node.agent_log


def test_status_says_what_is_missing(node: CniNode) -> None:
    node.controller.stop()
    eventually(lambda: node.call("STATUS").code == 50, "without a controller no ADD can be served")
    assert "is not connected to its controller" in node.call("STATUS").printed["msg"]
    node.controller.start()
    node.until_ready()
    node.ovs.vsctl("set-fail-mode", BRIDGE, "standalone")
    eventually(lambda: "fail_mode=secure" in node.call("STATUS").printed.get("msg", ""), "an open bridge is refused")
    node.ovs.vsctl("set-fail-mode", BRIDGE, "secure")


def test_an_add_waits_for_a_controller_that_is_restarted(node: CniNode) -> None:
    node.controller.stop()
    x = node.sandbox("x")
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(node.add, x)
        eventually(lambda: bool(node.ports()), "the port is made")
        node.controller.start()
        assert adding.result().address
    node.delete(x)


def test_the_configuration_list_is_there_and_stays(node: CniNode) -> None:
    (path,) = node.conf_folder.iterdir()
    listed = json.loads(path.read_text())
    assert listed["cniVersion"] == "1.0.0" and listed["cniVersions"] == ["0.4.0", "1.0.0", "1.1.0"]
    first, second = listed["plugins"]
    assert (first["type"], first["socket"], first["queue"]) == ("romana-cni", str(node.socket), str(node.queue))
    assert second == {"type": "portmap", "capabilities": {"portMappings": True}}
    node.stop_agent()
    assert json.loads(path.read_text()) == listed and not node.socket.exists()


def test_a_second_agent_is_refused(node: CniNode) -> None:
    done = subprocess.run(node.agent_command(), capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 2 and "another attach agent serves it" in done.stderr
    assert node.call("STATUS").code == 0


def test_a_configuration_list_that_was_changed_is_written_again(node: CniNode) -> None:
    (path,) = node.conf_folder.iterdir()
    before = path.read_text()
    path.write_text("{}")
    eventually(lambda: path.read_text() == before, "it is as before")
    assert list(node.conf_folder.iterdir()) == [path]


def test_pods_have_no_ipv6_address(node: CniNode) -> None:
    x = node.sandbox("x")
    node.add(x)
    assert "inet6" not in run(x.netns, "ip", "address", "show", "eth0").stdout
    node.delete(x)


def test_the_socket_is_roots_alone(node: CniNode) -> None:
    """docs/hazards.md E6"""
    assert stat.S_IMODE(node.socket.stat().st_mode) == 0o600
    node.socket.chmod(0o666)
    node.folder.chmod(0o755)
    node.folder.parent.chmod(0o755)
    program = f"import socket as s; c=s.socket(s.AF_UNIX); c.connect({str(node.socket)!r}); print(c.recv(9))"
    done = run(node.name, "setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", program)
    assert done.stdout.strip() == "b''", done.stderr
    assert "a client of another user is refused" in node.agent_log
