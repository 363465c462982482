"""The wake-up of a database's watch neither waits nor loses a change, also with eventlet's sockets."""

from __future__ import annotations

import select
import subprocess
import sys

import pytest

from romana_ovs.switch.wakeup import Wakeup

GREEN = """
import eventlet
eventlet.monkey_patch()
from romana_ovs.switch.wakeup import Wakeup
switched = []
eventlet.spawn(switched.append, True)
wakeup = Wakeup()
wakeup.clear()
for _ in range(100000):
    wakeup.set()
wakeup.clear()
wakeup.clear()
assert not switched, "another green thread has run meanwhile"
"""


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup()


def readable(wakeup: Wakeup) -> bool:
    return bool(select.select([wakeup.fileno()], [], [], 0)[0])


def test_readable_from_set_to_clear(wakeup: Wakeup) -> None:
    assert not readable(wakeup)
    wakeup.set()
    assert readable(wakeup)
    wakeup.clear()
    assert not readable(wakeup)
    wakeup.set()
    wakeup.set()
    assert readable(wakeup)


def test_clear_waits_for_no_data(wakeup: Wakeup) -> None:
    wakeup.clear()
    wakeup.set()
    wakeup.clear()
    wakeup.clear()
    assert not readable(wakeup)


def test_set_waits_for_no_reader(wakeup: Wakeup) -> None:
    for _ in range(100_000):
        wakeup.set()
    wakeup.clear()
    assert not readable(wakeup)


def test_no_other_green_thread_runs_meanwhile() -> None:
    """Else a note and a change of the database at the same time would stop the watch for ever."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", GREEN], check=True, timeout=60)
