"""Keeps eventlet out of this process: the `ovs` package imports it where it is installed."""

from __future__ import annotations

import sys

_MODULE = "eventlet"


def block_eventlet() -> None:
    """Make every later import of eventlet fail, which the `ovs` package takes for its absence."""
    sys.modules.setdefault(_MODULE, None)  # type: ignore[arg-type]  # importlib: None there means "no such module"
