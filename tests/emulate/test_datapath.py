"""Which datapath emulated nodes are on: by argument, by setting, by what this kernel has."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.errors import InputError, SetupError
from romana_ovs_emulate import datapath
from romana_ovs_emulate.cli.options import asked_datapath
from romana_ovs_emulate.nodes import bridge_commands


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a kernel's modules, without any, on a machine that can load none."""
    monkeypatch.setattr(datapath, "MODULE", tmp_path / "openvswitch")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def modprobe(folder: Path, *, code: int) -> None:
    """A program `modprobe` that loads nothing and ends with this exit code."""
    program = folder / "modprobe"
    program.write_text(f'#!/bin/sh\n[ "$*" = "-q openvswitch" ] && exit {code}\nexit 9\n')
    program.chmod(0o755)


def test_auto_is_the_kernels_datapath_where_there_is_one(kernel: Path) -> None:
    assert datapath.choose_datapath(None) is DatapathType.NETDEV
    modprobe(kernel, code=1)
    assert datapath.choose_datapath(None) is DatapathType.NETDEV
    modprobe(kernel, code=0)
    assert datapath.choose_datapath(None) is DatapathType.SYSTEM
    modprobe(kernel, code=1)
    (kernel / "openvswitch").mkdir()
    assert datapath.choose_datapath(None) is DatapathType.SYSTEM
    assert datapath.choose_datapath(DatapathType.NETDEV) is DatapathType.NETDEV


def test_system_without_the_module_is_one_clear_error(kernel: Path) -> None:
    with pytest.raises(SetupError) as caught:
        datapath.choose_datapath(DatapathType.SYSTEM)
    assert "needs the kernel's module openvswitch" in str(caught.value)
    assert "use the datapath netdev" in str(caught.value)
    modprobe(kernel, code=0)
    assert datapath.choose_datapath(DatapathType.SYSTEM) is DatapathType.SYSTEM


def test_the_argument_precedes_the_setting(tmp_path: Path) -> None:
    settings = tmp_path / "romana.conf"
    settings.write_text("[romana]\ndatapath = netdev\n")
    assert asked_datapath(None, settings) is DatapathType.NETDEV
    assert asked_datapath("system", settings) is DatapathType.SYSTEM
    assert asked_datapath("auto", settings) is None
    assert asked_datapath(None, None) is None
    settings.write_text("[romana]\ndatapath = user\n")
    with pytest.raises(InputError, match="datapath"):
        asked_datapath(None, settings)


def test_a_bridge_is_created_on_the_datapath() -> None:
    for one in DatapathType:
        assert f"datapath_type={one.value}" in bridge_commands("node1", "unix:x", one)
