"""Sums up what the reports of all nodes mean for the registry."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from romana_ovs.registry_types.report import Report


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """The reports of the nodes that exist: of all (`by_node`), of those that are `lagging`, and of those that ask.

    `nodes_asking_for_range` are those with a segment without a free address, `claiming` those with addresses that the
    address plan did not give; both sorted. `acknowledged` is the revision that all nodes have acknowledged that do not
    lag, `acknowledged_by_all` that of all nodes, `released` the one of which no node relies on a retiring requirement;
    infinite without nodes.
    """

    by_node: Mapping[str, Report]
    lagging: Mapping[str, Report]
    nodes_asking_for_range: tuple[str, ...]
    claiming: tuple[str, ...]
    acknowledged: float
    acknowledged_by_all: float
    released: float

    @classmethod
    def of(cls, reports: Mapping[str, Report], nodes: Collection[str], lagging: Collection[str]) -> ReportSummary:
        """The summary of `reports`, by node; those of nodes that are not in `nodes` do not count."""
        by_node = {name: report for name, report in reports.items() if name in nodes}
        acknowledged = (report.acknowledged for name, report in by_node.items() if name not in lagging)
        return cls(
            by_node=by_node,
            lagging={name: report for name, report in by_node.items() if name in lagging},
            nodes_asking_for_range=tuple(sorted(name for name, report in by_node.items() if report.exhausted_segments)),
            claiming=tuple(sorted(name for name, report in by_node.items() if report.foreign)),
            acknowledged=min(acknowledged, default=math.inf),
            acknowledged_by_all=min((report.acknowledged for report in by_node.values()), default=math.inf),
            released=min((report.released for report in by_node.values()), default=math.inf),
        )
