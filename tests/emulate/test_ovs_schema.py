"""The database schema is that of the Open vSwitch whose programs are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs_emulate.system import DISTRIBUTION_PREFIX, SCHEMA, ovs_schema


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Open vSwitch outside the distribution's prefix, whose folder of programs is in the PATH by a link."""
    prefix = tmp_path / "prefix"
    (prefix / "sbin").mkdir(parents=True)
    (prefix / "sbin/ovs-vswitchd").touch(mode=0o755)
    (prefix / SCHEMA).parent.mkdir(parents=True)
    (prefix / SCHEMA).touch()
    (tmp_path / "link").symlink_to(prefix / "sbin")
    monkeypatch.setenv("PATH", str(tmp_path / "link"))
    return prefix


def test_it_is_beside_the_programs(prefix: Path) -> None:
    assert ovs_schema() == prefix / SCHEMA


def test_elsewhere_it_is_the_distributions(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prefix / SCHEMA).unlink()
    assert ovs_schema() == DISTRIBUTION_PREFIX / SCHEMA
    monkeypatch.setenv("PATH", "/nowhere")
    assert ovs_schema() == DISTRIBUTION_PREFIX / SCHEMA
