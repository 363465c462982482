"""What a test may take: memory, so that a runaway is a failed test with a name, and time, unless it says why."""

from __future__ import annotations

import resource

import pytest

from romana_ovs_emulate.patience import patience

MEMORY_BYTES = 6 << 30
"""Of one process that runs tests, and of each process that it starts."""
SECONDS = patience(30.0)
"""A test or a fixture that takes longer has the marker `slow`."""
SLACK = 4.0
"""How many times as slow as a developer's machine a busy one of CI may be: only beyond that is a run red."""


def limit_memory() -> None:
    """Have allocations beyond MEMORY_BYTES fail, with MemoryError where Python makes them.

    RLIMIT_DATA counts what is private and writable, not address space that is only reserved: Go's runtime reserves
    much, and the API server lives well under the limit, which it inherits.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def check_marker(item: pytest.Item) -> None:
    """Raises UsageError for a `slow` that does not say why."""
    for marker in item.iter_markers("slow"):
        if not (len(marker.args) == 1 and isinstance(marker.args[0], str) and marker.args[0]):
            raise pytest.UsageError(f"{item.nodeid}: slow has one argument, the reason")


class Durations:
    """A plugin of the process that reports: lists tests that take long and do not say so, and fails a run for them."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._long: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes note of one phase (setup, call or teardown) of a test."""
        if report.duration > self._seconds and "slow" not in report.keywords:
            self._long[f"{report.nodeid} ({report.when})"] = report.duration

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """No success when one took far too long."""
        if session.exitstatus == 0 and any(duration > SLACK * self._seconds for duration in self._long.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line for each."""
        if self._long:
            terminalreporter.section(f"over {self._seconds:g} s and not marked slow (red beyond {SLACK:g} times that)")
        for name, duration in sorted(self._long.items(), key=lambda item: -item[1]):
            terminalreporter.line(f"{duration:7.2f}s {name}")
