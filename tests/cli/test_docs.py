"""The docs that are rendered from code: nothing around the process decides what is in them, and a stale one is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from romana_ovs_emulate import docs
from romana_ovs_emulate.manifests import INSTALL

PRINT = """import sys
from romana_ovs_emulate import docs
sys.stdout.buffer.write(docs.{page}(docs.ROOT / docs.DEMO).encode())"""


def test_a_stale_page_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(docs.ROOT / "etc", tmp_path / "etc")
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    assert docs.main(["--check"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["docs/pipeline.md", "docs/matrix.svg"]
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    picture = tmp_path / "docs" / "matrix.svg"
    picture.write_text(picture.read_text().replace("opened", "closed"))
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().err == "docs/matrix.svg does not match the code; run `make docs`\n"
    assert docs.main([]) == 0
    (tmp_path / INSTALL).write_text("kind: List\n")
    assert docs.main(["--check"]) == 1
    assert capsys.readouterr().err == f"{INSTALL} does not match the code; run `make docs`\n"


@pytest.mark.parametrize("page", ["pipeline_page", "matrix_picture"])
def test_pages_do_not_depend_on_terminal_or_locale(page: str) -> None:
    odd = {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "30", "LINES": "5", "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", PRINT.format(page=page)]
    done = subprocess.run(command, env=os.environ | odd, cwd=docs.ROOT, capture_output=True, check=True)
    assert done.stdout.decode() == getattr(docs, page)(docs.ROOT / docs.DEMO)
