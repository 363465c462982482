"""Combines the times at which something is due."""

from __future__ import annotations


def earliest(*times: float | None) -> float | None:
    """The first of these times; None when there is none."""
    return min((moment for moment in times if moment is not None), default=None)
