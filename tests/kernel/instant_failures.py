"""Writes why a test failed as soon as it has, as a plugin of pytest: a machine may end before the run does."""

from __future__ import annotations

import pytest


class InstantFailures:
    """Writes the traceback of each failure after the line of its test."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test (setup, call or teardown) has ended."""
        if report.failed:
            self._terminal.ensure_newline()
            self._terminal.write_line(report.longreprtext)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Adds it to the run whose output is seen."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter):
        config.pluginmanager.register(InstantFailures(terminal), "romana-instant-failures")
