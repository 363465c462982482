"""Tests of tests.support.open_vswitch: which Open vSwitch tests use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from romana_ovs_emulate.system import SCHEMA, ovs_schema
from tests.support import open_vswitch


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A folder that looks like an Open vSwitch of version 9.8.7."""
    for program in open_vswitch.PROGRAMS:
        path = tmp_path / ("sbin" if program.endswith(("d", "server")) else "bin") / program
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{program} (Open vSwitch) 9.8.7"\necho "and more"\n')
        path.chmod(0o755)
    (tmp_path / SCHEMA).parent.mkdir(parents=True)
    (tmp_path / SCHEMA).touch()
    return tmp_path


def test_its_programs_and_schema_come_first(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/bin")
    monkeypatch.setenv(open_vswitch.VARIABLE, str(prefix))
    for _ in range(2):  # A worker of pytest-xdist inherits the PATH of what started it.
        open_vswitch.use_open_vswitch()
        assert os.environ["PATH"] == f"{prefix}/sbin:{prefix}/bin:/usr/sbin:/usr/bin:/bin"
    assert open_vswitch.open_vswitch_version() == "9.8.7"
    assert ovs_schema() == prefix / SCHEMA


def test_without_the_variable_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv(open_vswitch.VARIABLE, "")
    open_vswitch.use_open_vswitch()
    assert os.environ["PATH"] == "/nowhere"
    assert open_vswitch.chosen_prefix() is None
    assert open_vswitch.open_vswitch_version() == ""


@pytest.mark.parametrize("lacking", ["bin/ovs-ofctl", str(SCHEMA)])
def test_an_incomplete_prefix_ends_the_run(prefix: Path, monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    (prefix / lacking).unlink()
    monkeypatch.setenv(open_vswitch.VARIABLE, str(prefix))
    name = lacking.removeprefix("bin/")
    with pytest.raises(pytest.UsageError, match=f"^ROMANA_OVS is {prefix}, but there is no {name} in "):
        open_vswitch.use_open_vswitch()
