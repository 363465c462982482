"""Checks of the controller's host: what is reported, when, and that nothing there ends the controller."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from romana_ovs.controller.host_checks import HostChecks
from romana_ovs.flag import Flag
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import HostFacts, Unread
from tests.preflight.hosts import BRIDGE, GOOD

HERE = "unix:/run/openvswitch/db.sock"


class Host:
    """A host whose facts a test replaces; `read` are the databases that were asked about."""

    def __init__(self) -> None:
        self.facts = GOOD
        self.read: list[str] = []

    def facts_of(self, remote: str) -> HostFacts:
        self.read.append(remote)
        return self.facts


@pytest.fixture
def host() -> Host:
    return Host()


def test_warnings_and_errors_are_problems(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    flag = Flag()
    checks = HostChecks([HERE, "tcp:192.0.2.1:6640"], Settings(), flag, read=host.facts_of)
    host.facts = replace(GOOD, version="2.17.0", bridges=(replace(BRIDGE, port_mtu=1500),), ruleset=Unread("no nft"))
    with caplog.at_level(logging.INFO, "romana_ovs.host"):
        checks.check()
        checks.check()
    assert [text.partition(":")[2].partition(":")[0] for text in checks.problems] == [
        " Open vSwitch 2.17.0",
        " ports of pods on br-int",
    ]
    assert [(each.levelname, each.message) for each in caplog.records] == [
        ("WARNING", text) for text in checks.problems
    ]
    assert host.read == [HERE, HERE]
    assert flag.wait(0)


def test_a_problem_that_is_gone(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    checks = HostChecks([HERE], Settings(), Flag(), read=host.facts_of)
    host.facts = replace(GOOD, version="2.17.0")
    checks.check()
    host.facts = GOOD
    caplog.clear()
    with caplog.at_level(logging.INFO, "romana_ovs.host"):
        checks.check()
    assert checks.problems == ()
    assert caplog.messages[0].startswith("no longer: node check: Open vSwitch 2.17.0")


def test_the_switch_of_an_emulated_node_is_not_checked(host: Host) -> None:
    host.facts = replace(GOOD, version="2.17.0", own_namespace=False)
    checks = HostChecks([HERE], Settings(), Flag(), read=host.facts_of)
    checks.check()
    assert checks.problems == ()


def test_facts_that_cannot_be_read_are_no_problem(host: Host) -> None:
    unread = Unread("refused")
    host.facts = HostFacts(unread, unread, unread, unread, unread, unread, unread, unread, unread, unread)
    checks = HostChecks([HERE], Settings(), Flag(), read=host.facts_of)
    checks.check()
    assert checks.problems == ()


def test_an_internal_error_changes_nothing(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    checks = HostChecks([HERE], Settings(), Flag(), read=host.facts_of)
    host.facts = replace(GOOD, version="2.17.0")
    checks.check()
    before = checks.problems
    host.facts = replace(GOOD, features={"br-int": None})  # type: ignore[dict-item]
    checks.check()
    assert checks.problems == before != ()
    assert "internal error in the checks of this host" in caplog.text
