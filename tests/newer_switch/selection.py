"""Lists the tests that run on a newer Open vSwitch: those that start a switch."""

from __future__ import annotations

TESTS = (
    "tests/integration",
    "tests/attach",
    "tests/attacks",
    "tests/conformance/test_packets.py",
    "tests/corpus",
)
"""Folders and files, as pytest names them."""
OPTIONS = ("-m", "root and not apiserver", "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
"""Of pytest, when no tests are named."""
