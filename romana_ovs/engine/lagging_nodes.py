"""Detects nodes that have not acknowledged a revision for a time, and reports whose Nodes are deleted.

A node that lags behind what is published counts like one that is down.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping

from romana_ovs.registry_types.report import Report


class AckLag:
    """The time since each revision was published, and so since when a node lags behind."""

    def __init__(self, seconds: float) -> None:
        """A node is lagging when it has not acknowledged what was published `seconds` ago."""
        self._seconds = seconds
        self._revisions: list[int] = []
        self._times: list[float] = []

    def lagging(self, revision: int, reports: Mapping[str, Report], now: float) -> frozenset[str]:
        """The lagging nodes at `now`, seconds of a clock that never goes back; `revision` is published by now."""
        if not self._revisions or revision > self._revisions[-1]:
            self._revisions.append(revision)
            self._times.append(now)
        lagging = {name for name, report in reports.items() if self._lags(report.acknowledged, now)}
        self._forget(now)
        return frozenset(lagging)

    def next_check(self, reports: Mapping[str, Report], now: float) -> float | None:
        """Seconds until a node may count as lagging although nothing new is read; None when none lags."""
        due = [
            self._times[at] + self._seconds - now
            for report in reports.values()
            if (at := bisect_right(self._revisions, report.acknowledged)) < len(self._times)
        ]
        return min((seconds for seconds in due if seconds > 0), default=None)

    def _lags(self, acknowledged: int, now: float) -> bool:
        first = bisect_right(self._revisions, acknowledged)
        return first < len(self._times) and now - self._times[first] >= self._seconds

    def _forget(self, now: float) -> None:
        """Forgets revisions older than `seconds`, except the last one: a node behind any of them is lagging."""
        old = bisect_right(self._times, now - self._seconds) - 1
        if old > 0:
            self._revisions[: old + 1] = [self._revisions[old]]
            self._times[: old + 1] = [self._times[old]]


class OrphanReports:
    """The time since each report has been there without its Node."""

    def __init__(self, seconds: float) -> None:
        """A report has expired `seconds` after its Node was deleted."""
        self._seconds = seconds
        self._since: dict[str, float] = {}

    def expired(self, nodes: Collection[str], reports: Mapping[str, Report], now: float) -> tuple[str, ...]:
        """The nodes whose `reports` have expired at `now`, as they are not in `nodes`; sorted.

        Each is returned once, and again when its report is still there `seconds` later.
        """
        self._since = {name: self._since.get(name, now) for name in reports if name not in nodes}
        expired = sorted(name for name, since in self._since.items() if now - since >= self._seconds)
        self._since.update(dict.fromkeys(expired, now))
        return tuple(expired)

    def next_check(self, now: float) -> float | None:
        """Seconds until another may expire; None without a report that has no Node."""
        due = [since + self._seconds - now for since in self._since.values()]
        return min((seconds for seconds in due if seconds > 0), default=None)
