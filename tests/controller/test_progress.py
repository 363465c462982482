"""When a change counts as programmed."""

from __future__ import annotations

from romana_ovs.controller.progress import Progress


def test_a_change_during_a_round_waits_for_the_next_one() -> None:
    progress = Progress()
    progress.on_change(1.0)
    progress.next_round()
    progress.count_sent("node1", 3)
    progress.on_change(2.0)
    assert progress.finish(["node1"], 2.5) is None, "the switches have the round before the second change"
    progress.next_round()
    progress.count_sent("node1", 4)
    done = progress.finish(["node1"], 3.0)
    assert done is not None
    assert (done.generation, done.milliseconds, done.sent) == (2, 2000.0, {"node1": 7})
    assert progress.finish(["node1"], 4.0) is None, "reported once"


def test_flows_of_a_late_switch_do_not_count_for_the_next_change() -> None:
    progress = Progress()
    progress.next_round()
    progress.count_sent("node2", 100)
    assert progress.finish(["node2"], 1.0) is None
    progress.on_change(2.0)
    progress.next_round()
    done = progress.finish(["node2"], 2.0)
    assert done is not None
    assert done.sent == {"node2": 0}
