"""The collector need not walk what stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from romana_ovs.controller.gc_freeze import MIN_PODS, YOUNG_OBJECTS, YOUNG_RUNS, GcFreeze


@pytest.fixture(autouse=True)
def _thawed() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_a_large_cluster_is_frozen_again_when_it_has_grown() -> None:
    rest = GcFreeze()
    assert [rest.update(pods) for pods in (MIN_PODS - 1, MIN_PODS, MIN_PODS + 5, 3 * MIN_PODS - 1, 3 * MIN_PODS)] == [
        False,
        True,
        False,
        False,
        True,
    ]
    assert gc.get_freeze_count() > 0


def test_the_collector_runs_less_often_than_by_default() -> None:
    *_, oldest = gc.get_threshold()
    GcFreeze()
    assert gc.get_threshold() == (YOUNG_OBJECTS, YOUNG_RUNS, oldest)
