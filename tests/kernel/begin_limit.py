"""Skips tests that would begin after a time (`--begin-limit`), as a plugin of pytest: a slow machine fails none."""

from __future__ import annotations

import time

import pytest


class BeginLimit:
    """Skips the tests that would begin more than `seconds` after now."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = time.monotonic() + seconds

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """A test is about to begin, before its fixtures."""
        if time.monotonic() > self._limit:
            pytest.skip(f"not run: no test begins after {self._seconds:.0f} s")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--begin-limit`."""
    parser.addoption("--begin-limit", type=float, metavar="SECONDS", help="skip tests that would begin after this time")


def pytest_configure(config: pytest.Config) -> None:
    """Takes the time from now on."""
    seconds = config.getoption("--begin-limit")
    if seconds is not None:
        config.pluginmanager.register(BeginLimit(seconds), "romana-begin-limit")
