"""Pods come and go in any order while agent, plugin, controller and switch are killed: nothing is left in the end.

A runtime repeats DEL until it succeeds, and an ADD that failed is followed by a DEL.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, multiple, rule, run_state_machine_as_test

from tests.support.cni_node import CniNode, Sandbox, needs_plugin
from tests.support.hypothesis_profiles import examples
from tests.support.netns_sockets import run
from tests.support.private_ovs import needs_ovs
from tests.support.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.root, needs_ovs, needs_plugin]

PODS = ("x", "y", "z")
EXAMPLES, STEPS = 3, 12
DELAYS = st.floats(0, 0.06)
"""Seconds from the start of the plugin to the kill; an ADD takes some forty milliseconds."""


class Runtime(RuleBasedStateMachine):
    """A container runtime that runs pods x, y and z, with processes killed meanwhile."""

    added = Bundle("added")

    def __init__(self) -> None:
        super().__init__()
        self.node = CniNode().__enter__()
        self.addresses: dict[str, str] = {}
        try:
            self.node.start(*PODS)
        except BaseException:
            self.node.__exit__()
            raise

    def teardown(self) -> None:
        """End all pods: what was added before is removed, as GC of a runtime without any pods does."""
        try:
            self.node.until_ready()
            none_valid = self.node.config(**{"cni.dev/valid-attachments": []})
            assert self.node.call("GC", None, none_valid).code == 0
            self.node.assert_nothing_left()
        finally:
            self.node.__exit__()

    def begin(self, command: str, sandbox: Sandbox) -> subprocess.Popen[str]:
        """The plugin, begun."""
        stdin = self.node.folder / "stdin.json"
        stdin.write_text(json.dumps(self.node.config()))
        with stdin.open() as file:
            return subprocess.Popen(
                [self.node.plugin],
                env=self.node.variables(command, sandbox),
                stdin=file,
                stdout=subprocess.PIPE,
                text=True,
            )

    def kill(self, process: str, plugin: subprocess.Popen[str]) -> None:
        """Kill a process, and start it again unless it is the plugin."""
        if process == "plugin":
            plugin.kill()
        elif process == "agent":
            self.node.stop_agent(signal.SIGKILL)
            self.node.start_agent()
        elif process == "controller":
            self.node.controller.stop(signal.SIGKILL)
            self.node.controller.start()
        else:
            self.node.ovs.kill_switch()
            self.node.ovs.start_switch()

    @rule(target=added, pod=st.sampled_from(PODS))
    def add(self, pod: str) -> Sandbox:
        """ADD succeeds; a pod has one address, whatever its sandbox."""
        self.node.until_ready()
        sandbox = self.node.sandbox(pod)
        address = self.node.add(sandbox).address
        assert self.addresses.setdefault(pod, address) == address
        return sandbox

    @rule(
        target=added,
        pod=st.sampled_from(PODS),
        process=st.sampled_from(["plugin", "agent", "controller", "switch"]),
        delay=DELAYS,
    )
    def add_and_kill(self, pod: str, process: str, delay: float) -> Sandbox | object:
        """ADD succeeds, or it fails with "try again later" and a DEL follows."""
        self.node.until_ready()
        sandbox = self.node.sandbox(pod)
        plugin = self.begin("ADD", sandbox)
        time.sleep(delay)
        self.kill(process, plugin)
        printed, _ = plugin.communicate(timeout=PATIENCE * 2)
        if plugin.returncode == 0:
            return sandbox
        assert plugin.returncode == -signal.SIGKILL or json.loads(printed)["code"] == 11, printed
        self.node.delete(sandbox)
        return multiple()

    @rule(sandbox=consumes(added), process=st.sampled_from(["plugin", "agent", "controller", "switch"]), delay=DELAYS)
    def delete_and_kill(self, sandbox: Sandbox, process: str, delay: float) -> None:
        """DEL succeeds, unless the plugin itself is killed."""
        plugin = self.begin("DEL", sandbox)
        time.sleep(delay)
        self.kill(process, plugin)
        plugin.communicate(timeout=PATIENCE * 2)
        assert plugin.returncode in (0, -signal.SIGKILL)
        self.node.delete(sandbox)

    @rule(sandbox=consumes(added), times=st.integers(1, 5), namespace_first=st.booleans())
    def delete(self, sandbox: Sandbox, times: int, namespace_first: bool) -> None:
        """DEL succeeds any number of times; it removes its own sandbox's port and device only."""
        others = {name for name, ids in self.node.ports().items() if ids["sandbox"] != sandbox.container}
        if namespace_first:
            self.node.delete_netns(sandbox.netns)
        for _ in range(times):
            self.node.delete(sandbox)
        eventually(lambda: set(self.node.ports()) == others, "the ports of others stay")
        if not namespace_first:
            assert "eth0" not in run(sandbox.netns, "ip", "link").stdout

    @rule(sandbox=consumes(added))
    def lose(self, sandbox: Sandbox) -> None:
        """The runtime forgets a sandbox, whose namespace goes."""
        self.node.delete_netns(sandbox.netns)
        eventually(
            lambda: all(ids["sandbox"] != sandbox.container for ids in self.node.ports().values()),
            "its port is collected",
        )


@pytest.mark.slow("a node is made for each example, and processes are started again")
def test_whatever_is_killed_nothing_is_left() -> None:
    few = settings(
        max_examples=examples(EXAMPLES),
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        print_blob=True,
    )
    run_state_machine_as_test(Runtime, settings=few)
