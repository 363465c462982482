"""What the registry reads in the reports of all nodes."""

from __future__ import annotations

import math
from ipaddress import IPv4Address

from romana_ovs.engine.report_summary import ReportSummary
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.registry_types.report import Report

REPORTS = {
    "n1": Report("n1", acknowledged=7, released=5, exhausted_segments={SegmentKey("t", "s"): 1}),
    "n2": Report("n2", acknowledged=3, released=6, foreign=frozenset({IPv4Address("192.0.2.1")})),
    "gone": Report("gone", exhausted_segments={SegmentKey("t", "s"): 1}, foreign=frozenset({IPv4Address("192.0.2.2")})),
}


def test_nodes_that_are_gone_do_not_count() -> None:
    summary = ReportSummary.of(REPORTS, {"n1", "n2", "new"}, ())
    assert summary.by_node.keys() == {"n1", "n2"} and not summary.lagging
    assert (summary.nodes_asking_for_range, summary.claiming) == (("n1",), ("n2",))
    assert (summary.acknowledged, summary.acknowledged_by_all, summary.released) == (3, 3, 5)


def test_nodes_that_lag_hold_nothing_up_but_numbers() -> None:
    summary = ReportSummary.of(REPORTS, {"n1", "n2"}, {"n2"})
    assert summary.lagging == {"n2": REPORTS["n2"]}
    assert (summary.acknowledged, summary.acknowledged_by_all) == (7, 3)


def test_without_nodes_nothing_is_waited_for() -> None:
    summary = ReportSummary.of(REPORTS, (), ())
    assert (summary.acknowledged, summary.acknowledged_by_all, summary.released) == (math.inf,) * 3
