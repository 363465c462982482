"""Runs end: at once and red when a worker dies or a test hangs, and no test takes the machine's memory or much time.

Each of them is a real run of a few tests, with this project's own configuration and conftest.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.limits import MEMORY_BYTES

pytestmark = pytest.mark.sessions
ROOT = Path(__file__).parents[2]
WORKERS = ("--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
DIES = """
import os, signal, time

def test_before(): pass
def test_that_dies():
    time.sleep(1)  # As those that die of what they take: nothing is on its way to the worker any more.
    os.kill(os.getpid(), signal.SIGKILL)
def test_after(): pass
"""
MANY = """
import time, pytest

@pytest.mark.parametrize("number", range(300))
def test_short(number): time.sleep(0.2)
"""


def run(folder: Path, *arguments: str, **files: str) -> subprocess.CompletedProcess[str]:
    """A session over these files, from its start to its end."""
    for name, text in files.items():
        (folder / f"test_{name}.py").write_text(text)
    ours = {"PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER"}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-c",
            str(ROOT / "setup.cfg"),
            f"--rootdir={folder}",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            *arguments,
            str(folder),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**{key: value for key, value in os.environ.items() if key not in ours}, "TMPDIR": str(folder)},
    )


def test_a_run_ends_soon_and_red_when_a_worker_dies(tmp_path: Path) -> None:
    begin = time.monotonic()
    done = run(tmp_path, *WORKERS, dies=DIES, many=MANY)
    assert done.returncode != 0
    assert "crashed while running" in done.stdout and "test_dies.py::test_that_dies" in done.stdout
    assert re.search("Interrupted: worker gw[01] has died", done.stdout), done.stdout
    assert time.monotonic() - begin < 30, "a minute is what the other worker still had to do"


def test_a_run_ends_red_when_the_only_worker_dies(tmp_path: Path) -> None:
    done = run(tmp_path, "--numprocesses=1", *WORKERS[1:], dies=DIES, many=MANY)
    assert done.returncode != 0
    assert "crashed while running" in done.stdout and "test_dies.py::test_that_dies" in done.stdout, done.stdout


@pytest.mark.parametrize("workers", [(), WORKERS], ids=["one process", "workers"])
def test_a_test_that_hangs_ends_the_run_and_says_where(tmp_path: Path, workers: tuple[str, ...]) -> None:
    hangs = "import threading\n\ndef test_that_hangs(): threading.Event().wait()\n"
    done = run(tmp_path, *workers, "-o", "faulthandler_timeout=1", hangs=hangs)
    assert done.returncode != 0
    assert "in test_that_hangs" in done.stdout + done.stderr, "the stack"


def test_a_test_that_takes_all_the_memory_fails_by_its_name(tmp_path: Path) -> None:
    takes = f"def test_that_takes_it():\n    bytearray({MEMORY_BYTES})\n\ndef test_after(): pass\n"
    done = run(tmp_path, takes=takes)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "_ test_that_takes_it _" in done.stdout and "E       MemoryError" in done.stdout
    assert "1 failed, 1 passed" in done.stdout


def test_long_tests_say_why(tmp_path: Path) -> None:
    """A second here stands for half a minute."""
    (tmp_path / "conftest.py").write_text(
        "from tests.support.limits import Durations\n"
        "def pytest_configure(config):\n"
        "    if not hasattr(config, 'workerinput'): config.pluginmanager.register(Durations(0.1))\n"
    )
    text = "import pytest, time\n\n{}\ndef test_long(): time.sleep({})\n"
    for marker, seconds, told, code in (
        ("", 0.15, True, 0),
        ("", 0.6, True, 1),
        ("@pytest.mark.slow('because')", 0.3, False, 0),
    ):
        done = run(tmp_path, long=text.format(marker, seconds))
        assert (done.returncode, "test_long (call)" in done.stdout) == (code, told), done.stdout
    done = run(tmp_path, long=text.format("@pytest.mark.slow", 0))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR and "the reason" in done.stdout + done.stderr
