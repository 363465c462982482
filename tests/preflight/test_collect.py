"""Facts of this host as they can be read here, and what stands for those that cannot."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from romana_ovs.model.settings import Settings
from romana_ovs.preflight import collect
from romana_ovs.preflight.checks import check_host
from romana_ovs.preflight.collect import CniFolders, read_facts
from romana_ovs.preflight.facts import CONFLIST, CniConfiguration, KernelModules, Ruleset, Unread
from tests.support.private_ovs import Ovs, needs_ovs

NOWHERE = "unix:/nowhere/db.sock"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /proc and /lib/modules, without any program in the PATH."""
    monkeypatch.setattr(collect, "PROC", tmp_path)
    monkeypatch.setattr(collect, "MODULES", tmp_path / "modules")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def write(path: Path, text: str) -> Path:
    """A file with `text`, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(folder: Path, name: str, script: str) -> None:
    """A program in the PATH."""
    write(folder / name, f"#!/bin/sh\n{script}\n").chmod(0o755)


def test_a_host_of_which_nothing_can_be_read(host: Path) -> None:
    facts = read_facts(NOWHERE)
    assert facts.bridges == Unread("/nowhere/db.sock: No such file or directory")
    assert facts.version == Unread("/nowhere/ovs-vswitchd.pid: No such file or directory")
    assert facts.modules == Unread("this kernel was built without modules")
    assert facts.links == facts.routes == Unread("the program ip is missing")
    assert facts.ruleset == Unread("the program nft is missing")
    assert facts.sysctls == {} and facts.own_namespace and isinstance(facts.listening, Unread)
    report = check_host(replace(facts, conntrack=Unread("no table")), Settings())
    known = [each.check for each in report.findings if "not checked" not in each.reason]
    assert [check for check in known if check != "clock"] == ["bridge"]


def test_sysctls_and_modules(host: Path) -> None:
    write(host / "sys/net/ipv4/ip_forward", "1\n")
    write(host / "sys/net/ipv4/conf/all/rp_filter", "2\n")
    write(host / "modules", "openvswitch 192512 0 - Live 0x0\n")
    facts = read_facts(NOWHERE)
    assert facts.sysctls == {"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "2"}
    assert facts.modules == KernelModules(frozenset({"openvswitch"}))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Operation not permitted' >&2; exit 1", "nft -j -t list ruleset: Operation not permitted"),
        ("exit 3", "nft -j -t list ruleset: exit code 3"),
        ("echo nonsense", "unexpected output (JSONDecodeError: Expecting value: line 1 column 1 (char 0))"),
        ("sleep 9", "nft -j -t list ruleset did not end within 0.2 s"),
    ],
)
def test_a_program_that_fails(host: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str) -> None:
    monkeypatch.setattr(collect, "COMMAND_SECONDS", 0.2 if "sleep" in script else 5.0)
    monkeypatch.setenv("PATH", f"{host}:{os.defpath}")
    write(host / "nft", f"#!/bin/sh\n{script.replace('sleep', 'exec sleep')}\n").chmod(0o755)
    assert read_facts(NOWHERE).ruleset == Unread(reason)


@needs_ovs
@pytest.mark.root
def test_a_switch_in_another_network_namespace() -> None:
    with Ovs() as ovs:
        ovs.bridge("br-int", node="node1")
        facts = read_facts(ovs.remote)
    assert not facts.own_namespace
    assert facts.links == facts.sysctls == Unread("Open vSwitch runs in another network namespace")
    assert isinstance(facts.version, str)
    assert isinstance(facts.features, dict) and facts.features["br-int"]["CT zone"] == "Yes"


def test_the_network_of_a_runtime(tmp_path: Path) -> None:
    folders = CniFolders(tmp_path / "net.d", tmp_path / "bin")
    assert read_facts(NOWHERE, folders).cni is None
    plugins = '{"plugins": [{"type": "romana-cni"}, {"type": "portmap"}]}'
    write(folders.configuration / CONFLIST, plugins)
    write(folders.configuration / "05-other.conf", "{}")
    write(folders.configuration / "README", "no configuration")
    write(folders.plugins / "romana-cni", "")
    expected = CniConfiguration(str(folders.configuration), ("05-other.conf", CONFLIST), ("portmap",))
    assert read_facts(NOWHERE, folders).cni == expected
    write(folders.configuration / CONFLIST, "{")
    assert isinstance(read_facts(NOWHERE, folders).cni, Unread)


def test_the_rules_of_iptables_legacy(host: Path) -> None:
    program(host, "nft", "echo '{}'")
    program(host, "iptables-legacy", "echo '-P FORWARD DROP'")
    assert read_facts(NOWHERE).ruleset == Ruleset()
    write(host / "net/ip_tables_names", "nat\nfilter\n")
    assert read_facts(NOWHERE).ruleset == Ruleset(forward_drops=("iptables-legacy filter FORWARD",))
