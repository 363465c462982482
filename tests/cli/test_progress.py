"""Long commands say on a terminal what they do; nothing changes elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, threading
from romana_ovs.cli import progress
progress.SHOW_AFTER_SECONDS = float(sys.argv[1])
done, shown = [], (threading.Event(), threading.Event(), threading.Event())
def describe():
    shown[len(done)].set()
    return f"compiling node {len(done)} of 2"
with progress.activity(describe):
    for node in range(2):
        if sys.stderr.isatty() and progress.SHOW_AFTER_SECONDS == 0:
            assert shown[node].wait(60)
        done.append(node)
print("result")
"""


def on_a_terminal(seconds: float) -> tuple[str, str]:
    """What the program writes to standard output and, on a terminal, to standard error."""
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-c", PROGRAM, str(seconds)]
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=theirs, env=environment, text=True, check=True)
    os.close(theirs)
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # EIO: the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(ours)
    return done.stdout, shown.decode()


def test_a_long_step_is_shown_on_a_terminal_and_removed() -> None:
    output, shown = on_a_terminal(0.0)
    assert output == "result\n"
    assert "compiling node 0 of 2" in shown and "compiling node 1 of 2" in shown
    assert "\x1b[2K" in shown, "the line is erased at the end"


def test_a_short_step_is_not_shown() -> None:
    assert on_a_terminal(60.0) == ("result\n", "")


def test_nothing_is_shown_where_there_is_no_terminal() -> None:
    argv = [sys.executable, "-c", PROGRAM, "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, env=environment, text=True, check=True)
    assert (done.stdout, done.stderr) == ("result\n", "")
