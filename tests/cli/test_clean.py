"""`romana-ovs clean`: says what it removed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from romana_ovs.cli.main import main
from romana_ovs_emulate import runs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@needs_root
@pytest.mark.root
def test_dead_runs_are_removed_and_live_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "RUNS_FOLDER", tmp_path)
    live = runs.start_run(tmp_path)
    for name in ("dead", "gone"):
        (tmp_path / name).mkdir()
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "".join(
        f"Removed run {name}: 0 processes, 0 network namespaces.\n" for name in ("dead", "gone")
    )
    (tmp_path / "dead").mkdir()
    assert main(["clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": [{"run": "dead", "processes": 0, "namespaces": []}]}
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"
    assert live.folder.is_dir()
    live.close()


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in (["clean"], ["demo"]):
        assert main(command) == 2
        assert "needs root" in capsys.readouterr().err
