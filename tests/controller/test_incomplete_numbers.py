"""Which published numbers a controller uses while they are being written, and when it computes."""

from __future__ import annotations

from typing import Any

from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.kube.published import COMPLETE_MARKER, allocation_object, class_set_object, marker_object
from tests.support.builders import cluster, pod


def observed(value: dict[str, Any], version: int) -> ObjectsObserved:
    kind, name = value["kind"], value["metadata"]["name"]
    resource = {"Allocation": ALLOCATIONS, "ClassSet": CLASS_SETS}[kind]
    raw = {**value, "metadata": {"name": name, "resourceVersion": str(version)}}
    return ObjectsObserved(str(resource), (Update(ObjectId(kind, "", name), uid=name, version=str(version), raw=raw),))


def listed() -> PublishedStore:
    numbers = PublishedStore()
    for resource in (ALLOCATIONS, NODE_REPORTS, CLASS_SETS):
        numbers.apply([ListStarted(str(resource)), ListCompleted(str(resource))])
    return numbers


def test_objects_before_the_marker_start_no_round() -> None:
    at = cluster(pod("a"), pod("b"))
    published = Registry(at.settings, None, writer="r").update(at)
    numbers = listed()
    assert numbers.synced
    assert not numbers.apply([observed(allocation_object(published), 1)])
    for version, classes in enumerate(published.class_sets.values(), start=2):
        assert not numbers.apply([observed(class_set_object(classes), version)])
    assert numbers.apply([observed(marker_object(published), 99)])
    assert numbers.published == published


def test_the_end_of_a_listing_without_marker_starts_a_round() -> None:
    at = cluster(pod("a"))
    published = Registry(at.settings, None, writer="r").update(at)
    numbers = PublishedStore()
    for resource in (ALLOCATIONS, NODE_REPORTS, CLASS_SETS):
        numbers.apply([ListStarted(str(resource))])
    numbers.apply(
        [observed(allocation_object(published), 1), ListCompleted(str(ALLOCATIONS)), ListCompleted(str(NODE_REPORTS))]
    )
    assert COMPLETE_MARKER not in numbers.objects.class_sets
    assert numbers.apply([ListCompleted(str(CLASS_SETS))])


def report(version: int) -> ObjectsObserved:
    raw = {"kind": "NodeReport", "metadata": {"name": "n1"}, "spec": {}, "status": {"acknowledgedRevision": version}}
    update = Update(ObjectId("NodeReport", "", "n1"), uid="n1", version=str(version), raw=raw)
    return ObjectsObserved(str(NODE_REPORTS), (update,))


def test_reports_count_by_node_where_their_contents_do_not() -> None:
    numbers = listed()
    assert numbers.apply([report(1)], contents=False), "a node has come"
    assert not numbers.apply([report(2)], contents=False)
    assert numbers.apply([report(3)])


def test_numbers_beside_a_report_start_a_round() -> None:
    """A node's own report comes back in the batch that brings its numbers."""
    at = cluster(pod("a"))
    published = Registry(at.settings, None, writer="r").update(at)
    numbers = listed()
    numbers.apply([report(1)], contents=False)
    objects = [observed(class_set_object(one), index) for index, one in enumerate(published.class_sets.values(), 2)]
    batch = [observed(allocation_object(published), 1), *objects, observed(marker_object(published), 99), report(2)]
    assert numbers.apply(batch, contents=False)
