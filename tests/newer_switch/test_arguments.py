"""Which tests run, and on which Open vSwitch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.newer_switch import __main__ as command
from tests.newer_switch.selection import OPTIONS, TESTS
from tests.support.open_vswitch import PROGRAMS, VARIABLE

ROOT = Path(__file__).parents[2]


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prefix that ROMANA_OVS names."""
    for name in (*(f"bin/{program}" for program in PROGRAMS), "share/openvswitch/vswitch.ovsschema"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("test", TESTS)
def test_what_is_chosen_exists(test: str) -> None:
    assert (ROOT / test).exists()


def test_a_prefix_of_ones_own_needs_no_build(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--prefix"]) == 0
    assert capsys.readouterr().out == f"{prefix}\n"


def test_a_prefix_without_a_switch_is_refused(prefix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prefix / "bin/ovs-vswitchd").unlink()
    assert command.main([]) == 2
    assert capsys.readouterr().err == f"{VARIABLE} is {prefix}, but there is no ovs-vswitchd in its sbin or bin\n"


def test_pytest_gets_the_prefix_and_the_tests(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Sequence[str], str]] = []

    def execve(path: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        assert path == sys.executable
        calls.append((argv[argv.index("pytest") :], env[VARIABLE]))

    monkeypatch.setattr(os, "execve", execve)
    command.main([])
    command.main(["--", "tests/a.py::test_b[two words]", "-x"])
    (usual, first), (own, second) = calls
    assert usual == ["pytest", *command.PYTEST, *OPTIONS, *TESTS]
    assert own == ["pytest", *command.PYTEST, "tests/a.py::test_b[two words]", "-x"]
    assert first == second == str(prefix)
