"""A failed test is explained before the next one begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
def test_one():
    assert [1] == ["the reason"]

def test_two():
    pass
"""


@pytest.mark.sessions
def test_a_failure_is_explained_at_once(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    argv = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "tests.kernel.instant_failures", "test_it.py"]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    explained = next(number for number, line in enumerate(lines) if "the reason" in line)
    following = next(number for number, line in enumerate(lines) if "test_two" in line)
    assert explained < following
