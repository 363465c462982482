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
    assert numbers.listed
    assert not numbers.apply([observed(allocation_object(published), 1)])
    for version, classes in enumerate(published.namespaces.values(), start=2):
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
