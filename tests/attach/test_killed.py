"""Agent and plugin killed in the middle of ADD and DEL, and many requests at once: nothing is left over afterwards."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.cni_node import CniNode, Sandbox, cni_node, needs_plugin
from tests.support.netns_sockets import run
from tests.support.private_ovs import needs_ovs
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]
MANY = 50
KILLS = 12
"""How often a process is killed; with a fixed seed the moments are the same in every run."""


@pytest.fixture(scope="module")
def node() -> Iterator[CniNode]:
    """A node with many pods to attach."""
    with cni_node("x", "y", *(f"p{number}" for number in range(MANY))) as running:
        yield running


def begin(node: CniNode, command: str, sandbox: Sandbox) -> subprocess.Popen[str]:
    """The plugin, begun."""
    process = subprocess.Popen(
        [node.plugin],
        env=node.variables(command, sandbox),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    with process.stdin as stdin:
        stdin.write(json.dumps(node.config()))
    process.stdin = None  # So that communicate() does not flush it.
    return process


def test_many_at_once_all_have_addresses_of_their_own(node: CniNode) -> None:
    sandboxes = [node.sandbox(f"p{number}") for number in range(MANY)]
    addresses = [answer.address for answer in node.add_all(sandboxes)]
    assert len(set(addresses)) == MANY
    known = node.controller.state["pods"]
    assert addresses == [known[sandbox.pod]["address"] for sandbox in sandboxes]
    for client, server in ((0, 1), (MANY - 1, 0)):
        assert run(sandboxes[client].netns, "ping", "-c", "1", "-W", "2", addresses[server]).returncode == 0
    node.delete_all(sandboxes)
    node.assert_nothing_left()


def test_one_pod_added_by_many_sandboxes_has_one_port(node: CniNode) -> None:
    """The ADDs of the others fail, or succeeded before the last; DELs of all of them leave nothing."""
    sandboxes = [node.sandbox("x") for _ in range(8)]
    processes = [begin(node, "ADD", sandbox) for sandbox in sandboxes]
    codes = [process.wait(PATIENCE) for process in processes]
    for process in processes:
        process.communicate()
    assert len(node.ports()) == 1 and 0 in codes
    (ids,) = node.ports().values()
    (last,) = [number for number, each in enumerate(sandboxes) if each.container == ids["sandbox"]]
    assert codes[last] == 0
    node.delete_all(sandboxes)
    node.assert_nothing_left()


@pytest.mark.slow("the agent is started a dozen times")
@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_agent_is_killed(node: CniNode, command: str) -> None:
    """An ADD fails with 11 or has succeeded before; a DEL succeeds. After the runtime's DELs nothing is left."""
    chance = random.Random(command)
    for _ in range(KILLS):
        x = node.sandbox("x")
        if command == "DEL":
            node.add(x)
        process = begin(node, command, x)
        time.sleep(chance.uniform(0, 0.04))
        node.stop_agent(signal.SIGKILL)
        printed, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0 or (command == "ADD" and json.loads(printed)["code"] == 11), printed
        node.start_agent()
        if command == "ADD":
            node.delete(x)
        node.delete_netns(x.netns)
    node.until_ready()
    node.assert_nothing_left()


@pytest.mark.parametrize("command", ["ADD", "DEL"])
def test_the_plugin_is_killed(node: CniNode, command: str) -> None:
    """The runtime sees a failure and calls DEL, as containerd does."""
    chance = random.Random(command)
    for _ in range(KILLS):
        x = node.sandbox("x")
        if command == "DEL":
            node.add(x)
        process = begin(node, command, x)
        time.sleep(chance.uniform(0, 0.04))
        process.kill()
        process.communicate(timeout=PATIENCE)
        node.delete(x)
    node.assert_nothing_left()


def test_a_runtime_that_never_calls_del(node: CniNode) -> None:
    """As after a crash of containerd: what a killed agent has made goes with the namespace, or at the next start."""
    chance = random.Random("never")
    for _ in range(KILLS // 2):
        x = node.sandbox("x")
        process = begin(node, "ADD", x)
        time.sleep(chance.uniform(0, 0.04))
        node.stop_agent(signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        node.delete_netns(x.netns)
        node.start_agent()
    node.until_ready()
    node.assert_nothing_left()


def test_a_del_ends_an_add_that_waits(node: CniNode) -> None:
    """A pod that the controller never learns of: DEL does not wait for the ADD's time to be over."""
    stranger = node.sandbox("stranger")
    adding = begin(node, "ADD", stranger)
    eventually(lambda: bool(node.ports()), "the port is made")
    node.delete(stranger)
    printed, _ = adding.communicate(timeout=PATIENCE / 2)
    assert json.loads(printed)["code"] == 11 and "removed, by DEL" in printed
    node.assert_nothing_left()


def test_while_the_database_is_away_a_del_is_queued(node: CniNode) -> None:
    x = node.sandbox("x")
    node.add(x)
    pid = int((node.ovs.folder / "ovsdb-server.pid").read_text())
    subprocess.run(["kill", "-STOP", str(pid)], check=True)
    try:
        node.delete(x)
        assert [path.suffix for path in node.queue.iterdir()] == [".json"] and not node.devices()
    finally:
        subprocess.run(["kill", "-CONT", str(pid)], check=True)
    eventually(lambda: not list(node.queue.iterdir()), "the queued DEL is done")
    node.assert_nothing_left()
