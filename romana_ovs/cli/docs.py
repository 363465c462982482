"""Forwards to `python -m romana_ovs_emulate.docs`, for callers that still use the old name."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("romana_ovs_emulate.docs", run_name="__main__")
