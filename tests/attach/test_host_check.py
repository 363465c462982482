"""The agent checks its host at the start, and offers no node that cannot work."""

from __future__ import annotations

import json

import pytest

from romana_ovs.attach.host_check import FATAL, fatal_errors
from romana_ovs.preflight.checks import CHECKS
from tests.support.cni_node import CniNode, needs_plugin
from tests.support.netns_sockets import run
from tests.support.waiting import PATIENCE, eventually

OVERLAP = {"check": "address-overlap", "severity": "error", "subject": "a", "reason": "b", "action": "Do c."}


def test_only_some_errors_are_fatal() -> None:
    others = [
        {**OVERLAP, "severity": "warning"},
        {**OVERLAP, "check": "cni-configuration"},
    ]
    assert fatal_errors(json.dumps({"findings": [*others, OVERLAP]})) == ("a: b. Do c.",)
    assert fatal_errors(json.dumps({"findings": others})) == ()
    assert {check.name for check in CHECKS} >= FATAL


@pytest.mark.parametrize("output", ["", "[]", "romana-ovs: error", '{"findings": [{}]}'])
def test_other_output_is_refused(output: str) -> None:
    with pytest.raises((ValueError, LookupError)):
        fatal_errors(output)


@needs_plugin
def test_a_host_that_cannot_work_is_not_offered() -> None:
    with CniNode(host_check=True) as node:
        assert run(node.name, "ip", "link", "add", "nic", "type", "veth").returncode == 0
        assert run(node.name, "ip", "address", "add", "10.3.0.1/16", "dev", "nic").returncode == 0
        node.controller.start()
        node.start_agent()
        eventually(lambda: node.call("STATUS").printed.get("code") == 50, "it is refused")
        eventually(lambda: "this host cannot work" in node.agent_log, f"the log says so; {node.agent_log[-2000:]}")
        # Before that, STATUS names a bridge that has no controller yet.
        eventually(lambda: "10.3.0.1/16" in node.call("STATUS").printed["msg"], "STATUS names the address")
        assert "Give the setting network" in node.call("STATUS").printed["msg"]
        assert not node.conf_folder.exists()
        assert run(node.name, "ip", "link", "del", "nic").returncode == 0
        eventually(node.conf_folder.exists, f"it can work; {node.agent_log[-2000:]}", 3 * PATIENCE)
        node.until_ready()
