"""`node check`: its text within 80 columns, its JSON, its exit codes, and what it finds on a real Open vSwitch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from romana_ovs.cli.main import main
from romana_ovs.cli.node import as_json, as_text
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.checks import CHECKS, check_host
from romana_ovs.preflight.facts import ConntrackTable, Unread
from tests.preflight.hosts import BRIDGE, GOOD
from tests.support.private_ovs import Ovs, needs_ovs

NO_SWITCH = "unix:/nowhere/db.sock"


def rows(output: str) -> list[dict[str, str]]:
    """The findings in a JSON output."""
    document: dict[str, list[dict[str, str]]] = json.loads(output)
    return document["findings"]


def test_every_check_has_a_line_of_at_most_80_columns() -> None:
    facts = replace(
        GOOD,
        bridges=(replace(BRIDGE, fail_mode="", port_mtu=9000, protocols=("OpenFlow10",)),),
        conntrack=ConntrackTable(65536, {0x2001: 60_000}),
        ruleset=Unread("nft -j -t list ruleset: Operation not permitted (you must be root)"),
    )
    lines = list(as_text(check_host(facts, Settings())))
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line and not line.startswith(" ")]) == len(CHECKS) + 1
    assert lines[-1] == "Errors: 2, warnings: 3, notes: 2; checks passed: 13, left out: 0."
    assert "error     settings of the bridge" in lines
    assert "    > Run: ovs-vsctl set-fail-mode br-int secure." in lines


def test_json() -> None:
    report = check_host(replace(GOOD, bridges=(replace(BRIDGE, tunnel=None, fail_mode=""),)), Settings())
    document = as_json(report)
    assert document["findings"] == [
        {
            "check": "bridge",
            "severity": "error",
            "subject": "bridge br-int",
            "reason": "it is not fail_mode=secure, so it forwards everything until a controller connects",
            "action": "Run: ovs-vsctl set-fail-mode br-int secure.",
        }
    ]
    assert {"check": "mtu", "reason": "there is no bridge with a tunnel port"} in document["left_out"]
    assert "bridge" not in document["passed"] and "forwarding" in document["passed"]


def test_without_open_vswitch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", "check", "--ovsdb", NO_SWITCH, "--json"]) == 1
    output = capsys.readouterr()
    finding = next(each for each in rows(output.out) if each["check"] == "bridge")
    assert "/nowhere/db.sock: No such file or directory" in finding["reason"]
    assert output.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["node"], "the following arguments are required: action"),
        (["node", "mend"], "invalid choice: 'mend'"),
        (["node", "check", "--ovsdb", "tcp:192.0.2.1:6640"], "is no unix socket of this host"),
        (["node", "check", "--config-file", "/nowhere/romana.conf"], "cannot be read"),
    ],
)
def test_usage(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_settings_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "romana.conf"
    file.write_text("[romana]\nnetwork = 127.0.0.0/8\n")
    assert main(["node", "check", "--config-file", str(file)]) == 2
    assert "network" in capsys.readouterr().err


def test_an_api_server_of_the_settings_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "romana.conf"
    file.write_text(f"[romana]\nkubeconfig = {tmp_path}/missing.kubeconfig\n")
    main(["node", "check", "--ovsdb", NO_SWITCH, "--json", "--config-file", str(file)])
    finding = next(each for each in rows(capsys.readouterr().out) if each["check"] == "cluster-addresses")
    assert finding["severity"] == "info" and "missing.kubeconfig" in finding["reason"]


@needs_ovs
@pytest.mark.root
def test_a_private_open_vswitch(capsys: pytest.CaptureFixture[str]) -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int", node="node1", controller="/nowhere/controller.sock")
        ovs.port("br-int", "web", iface_id="default/web")
        assert main(["node", "check", "--ovsdb", ovs.remote, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert {"bridge", "datapath-features", "mtu"} - set(document["passed"]) == {"mtu"}
        assert [each["check"] for each in document["findings"] if each["severity"] == "warning"] == ["controller"]
        assert main(["node", "check", "--ovsdb", ovs.remote, "--strict"]) == 1
        ovs.vsctl("set", "bridge", "br-int", "fail_mode=standalone", "protocols=OpenFlow13")
        capsys.readouterr()
        assert main(["node", "check", "--ovsdb", ovs.remote, "--json"]) == 1
        errors = [each for each in rows(capsys.readouterr().out) if each["severity"] == "error"]
        assert [each["subject"] for each in errors] == ["bridge br-int"] * 2
        ovs.kill_switch()
        assert main(["node", "check", "--ovsdb", ovs.remote, "--json"]) == 1
        finding = next(each for each in rows(capsys.readouterr().out) if each["check"] == "switch-version")
        assert finding["severity"] == "info" and "not checked" in finding["reason"]
