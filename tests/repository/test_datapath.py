"""Tests of tests.support.datapath: which datapath the bridges of tests run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs_emulate import datapath as emulated
from tests.support import datapath
from tests.support.command import on_datapath


@pytest.mark.parametrize(("text", "wanted"), [("", "netdev"), ("netdev", "netdev"), ("system", "system")])
def test_the_environment_names_the_datapath(monkeypatch: pytest.MonkeyPatch, text: str, wanted: str) -> None:
    monkeypatch.setenv(datapath.VARIABLE, text)
    assert datapath.datapath_type() is DatapathType(wanted)
    assert on_datapath(["demo", "--json"]) == ["demo", "--datapath", wanted, "--json"]
    assert on_datapath(["matrix", "demo"]) == ["matrix", "demo"]


def test_without_the_variable_it_is_the_userspace_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datapath.VARIABLE, raising=False)
    assert datapath.datapath_type() is DatapathType.NETDEV


def test_an_unknown_datapath_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datapath.VARIABLE, "kernel")
    with pytest.raises(pytest.UsageError, match="^ROMANA_DATAPATH is 'kernel'; it must be system or netdev$"):
        datapath.check_datapath()


def test_system_without_the_module_ends_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(datapath.VARIABLE, "system")
    monkeypatch.setattr(emulated, "MODULE", tmp_path / "openvswitch")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.UsageError, match="the datapath system needs the kernel's module openvswitch"):
        datapath.check_datapath()
    (tmp_path / "openvswitch").mkdir()
    datapath.check_datapath()
