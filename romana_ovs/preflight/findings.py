"""Defines what the checks of a host find."""

from __future__ import annotations

from dataclasses import dataclass

from romana_ovs.model.errors import Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `subject` is what it is about, `action` one sentence on what to do."""

    check: str
    severity: Severity
    subject: str
    reason: str
    action: str

    def __str__(self) -> str:
        """Two sentences: what is wrong, and what to do."""
        return f"{self.subject}: {self.reason}. {self.action}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A check that does not concern this host, and why."""

    check: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all checks: what they found, those that found nothing, and those that were left out."""

    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    left_out: tuple[LeftOut, ...]

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of this severity and of more severe ones."""
        order = tuple(Severity)
        return tuple(each for each in self.findings if order.index(each.severity) <= order.index(severity))
