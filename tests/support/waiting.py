"""Waits for a condition, never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
PATIENCE = 20.0
"""Seconds within which everything happens, also on a loaded machine."""
TICK = 0.02


def eventually(check: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """The result of `check` as soon as it is true. Fails the test after `patience` seconds."""
    limit = time.monotonic() + patience
    while not (result := check()):
        if time.monotonic() > limit:
            pytest.fail(f"never happened within {patience} s: {what}")
        time.sleep(TICK)
    return result
