"""How many attacks held: what `make attack` ends with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import pytest


class Outcome(Enum):
    """What became of one attack."""

    HELD = "held"
    CAME_THROUGH = "came through"
    KNOWN = "came through, as known"
    NEWS = "held, and is to be removed from the open items"
    NOT_TRIED = "could not be tried"


@dataclass(slots=True, eq=False)
class Report:
    """A plugin that notes the outcome of every attack of this session, by its name."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Takes what one phase of a test says; of several, the worst counts."""
        properties = dict(report.user_properties)
        if "attack" not in properties:
            return
        outcome = _outcome(report, came_through="came through" in properties)
        name = str(properties["attack"])
        if outcome is not None and self.outcomes.get(name, Outcome.HELD) is Outcome.HELD:
            self.outcomes[name] = outcome
            self.reasons[name] = getattr(report, "wasxfail", "") or _last_line(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Writes `N of M held`, and a line for each attack that did not."""
        if not self.outcomes:
            return
        held = [name for name, outcome in self.outcomes.items() if outcome in (Outcome.HELD, Outcome.NEWS)]
        terminalreporter.section("attacks")
        terminalreporter.write_line(f"{len(held)} of {len(self.outcomes)} held")
        for name, outcome in self.outcomes.items():
            if outcome is not Outcome.HELD:
                terminalreporter.write_line(f"{outcome.value}: {name}: {self.reasons[name]}")


def _outcome(report: pytest.TestReport, *, came_through: bool) -> Outcome | None:
    """None where a phase says nothing."""
    if hasattr(report, "wasxfail") and report.skipped:
        return Outcome.KNOWN
    if report.failed:
        strict = report.when == "call" and "[XPASS(strict)]" in str(report.longrepr)
        return Outcome.NEWS if strict else Outcome.CAME_THROUGH if came_through else Outcome.NOT_TRIED
    if report.skipped:
        return Outcome.NOT_TRIED
    return Outcome.HELD if report.when == "call" else None


def _last_line(report: pytest.TestReport) -> str:
    """The sentence of a failure."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(getattr(crash, "message", report.longrepr or "")).partition("\n")[0][:300]
