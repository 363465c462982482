"""Waits for a condition, never for time to pass; ROMANA_PATIENCE=5 waits five times as long (an emulated machine)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

from romana_ovs_emulate.patience import patience

T = TypeVar("T")

PATIENCE = patience(20.0)
"""Seconds within which everything happens, also on a loaded machine."""
TICK = 0.02


def eventually(check: Callable[[], T | None], what: str, seconds: float = PATIENCE) -> T:
    """The result of `check` as soon as it is true. Fails the test after `seconds`."""
    limit = time.monotonic() + seconds
    while not (result := check()):
        if time.monotonic() > limit:
            pytest.fail(f"never happened within {seconds:.0f} s: {what}")
        time.sleep(TICK)
    return result
