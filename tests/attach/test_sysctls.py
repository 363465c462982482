"""Sysctls are set where that is possible: in a container beside its own /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from romana_ovs.attach import gateway


def folder_in(path: Path, value: str) -> Path:
    """A folder as of net.ipv4, with ip_forward."""
    path.mkdir()
    (path / "ip_forward").write_text(f"{value}\n")
    return path


def test_the_nodes_sysctls_are_set_if_they_are_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted, own = tmp_path / "mounted", folder_in(tmp_path / "own", "0")
    monkeypatch.setattr(gateway, "SYSCTLS", (mounted, own))
    assert gateway.set_sysctl("ip_forward", "1")
    assert not gateway.set_sysctl("ip_forward", "1")
    folder_in(mounted, "0")
    own.joinpath("ip_forward").write_text("2")
    assert gateway.set_sysctl("ip_forward", "1")
    assert (mounted / "ip_forward").read_text() == "1"
    assert (own / "ip_forward").read_text() == "2"
