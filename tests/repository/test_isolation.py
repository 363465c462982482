"""Tests of several workers run beside each other, and some of them alone."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.isolation import AloneLock

SECONDS = 10.0


def test_others_run_beside_each_other(tmp_path: Path) -> None:
    one, two = AloneLock(tmp_path), AloneLock(tmp_path)
    with one.taken(alone=False), two.taken(alone=False):
        pass


def test_who_must_be_alone_waits_and_keeps_others_waiting(tmp_path: Path) -> None:
    one, two, three = (AloneLock(tmp_path) for _ in range(3))
    order: list[str] = []
    begun, ended = threading.Event(), threading.Event()

    def alone() -> None:
        begun.set()
        with two.taken(alone=True):
            order.append("alone")
        ended.set()

    with one.taken(alone=False):
        waiting = threading.Thread(target=alone)
        waiting.start()
        assert begun.wait(SECONDS)
        order.append("one")
    assert ended.wait(SECONDS)
    with three.taken(alone=False):
        order.append("three")
    waiting.join()
    assert order == ["one", "alone", "three"]
    with two.taken(alone=True):
        late = threading.Thread(target=lambda: order.append(_turn(three)))
        late.start()
        order.append("alone again")
    late.join()
    assert order[3:] == ["alone again", "late"]


def _turn(turns: AloneLock) -> str:
    with turns.taken(alone=False):
        return "late"
