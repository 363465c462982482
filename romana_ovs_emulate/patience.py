"""Reads ROMANA_PATIENCE: how many times as long as usual everything may take here, such as in an emulated processor."""

from __future__ import annotations

import os

VARIABLE = "ROMANA_PATIENCE"


def patience(seconds: float) -> float:
    """How long to wait on this machine for what takes at most `seconds` on a usual one.

    Anything but a number above 1 in ROMANA_PATIENCE counts as 1.
    """
    try:
        factor = float(os.environ.get(VARIABLE, "") or 1)
    except ValueError:
        return seconds
    return seconds * factor if 1 < factor < float("inf") else seconds
