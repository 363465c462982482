"""What is published, as it was last read."""

from __future__ import annotations

from dataclasses import replace

from romana_ovs.controller.published_store import RESOURCES, PublishedStore
from romana_ovs.kube.api.messages import ListCompleted, ObjectsObserved
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.registry_types.report import Report
from tests.support.in_memory_server import ControllerProcess, MemoryServer, server_with_pods


def published() -> MemoryServer:
    server = server_with_pods("a@n1")
    process = ControllerProcess(server, nodes=("n1", "n2"))
    process.start()
    process.lead()
    process.settle()
    return server


def shelf_of(server: MemoryServer) -> PublishedStore:
    numbers = PublishedStore()
    numbers.apply(server.listings())
    return numbers


def test_nothing_is_published_before_all_is_listed() -> None:
    numbers, messages = PublishedStore(), MemoryServer().listings()
    for resource in RESOURCES:
        assert not numbers.synced
        numbers.apply([one for one in messages if getattr(one, "resource", "") == str(resource)])
    assert numbers.synced and numbers.published is None and numbers.problems == ()
    assert numbers.report_version("n1") is None and not numbers.reports


def test_what_was_published_is_read_with_its_reports() -> None:
    server = published()
    numbers = shelf_of(server)
    assert numbers.published is not None and numbers.published.hosts.keys() == {"n1", "n2"}
    assert numbers.reports.keys() == {"n1", "n2"}
    assert numbers.report_version("n1") == server.of(NODE_REPORTS, "n1")["metadata"]["resourceVersion"]
    assert not numbers.apply([ListCompleted(str(CLASS_SETS))])


def test_a_damaged_allocation_leaves_the_previous_in_force() -> None:
    server = published()
    numbers = shelf_of(server)
    before, good = numbers.published, server.of(ALLOCATIONS, "cluster")["spec"]
    messages = listen(server, numbers)
    server.put(ALLOCATIONS, "cluster", spec={**good, "revision": "high"})
    numbers.apply(messages)
    assert numbers.published is before
    assert [(problem.kind, problem.field) for problem in numbers.problems] == [("Allocation", "spec.revision")]
    messages.clear()
    server.put(ALLOCATIONS, "cluster", spec=good)
    numbers.apply(messages)
    assert numbers.published == before and numbers.problems == ()


def test_a_damaged_class_set_costs_only_itself() -> None:
    server = published()
    numbers = shelf_of(server)
    assert numbers.published is not None and "shop" in numbers.published.class_sets
    messages = listen(server, numbers)
    server.put(CLASS_SETS, "shop", spec={"classes": 7})
    numbers.apply(messages)
    assert [(problem.kind, problem.name) for problem in numbers.problems] == [("ClassSet", "shop")]
    assert numbers.published is not None and "shop" in numbers.published.class_sets


def test_a_report_that_cannot_be_read_acknowledges_nothing() -> None:
    server = published()
    numbers = shelf_of(server)
    messages, kept = listen(server, numbers), numbers.reports["n2"]
    assert numbers.reports["n1"].acknowledged > 0
    server.put(NODE_REPORTS, "n1", spec={}, status={"acknowledgedRevision": -1})
    assert numbers.apply(messages)
    assert numbers.reports == {"n1": Report("n1"), "n2": kept}
    assert numbers.reports["n2"] is kept, "what did not change is not read again"


def test_a_report_that_is_deleted_is_gone() -> None:
    server = published()
    numbers = shelf_of(server)
    messages = listen(server, numbers)
    server.remove(NODE_REPORTS, "n1")
    assert numbers.apply(messages)
    assert numbers.reports.keys() == {"n2"} and numbers.report_version("n1") is None


def listen(server: MemoryServer, numbers: PublishedStore) -> list[object]:
    """What the server tells from now on, as it comes."""
    process = replace(ControllerProcess(server))
    process.inbox.clear()
    server.watching = [process]
    assert not numbers.apply([ObjectsObserved(str(NODE_REPORTS))]), "nothing is no change"
    return process.inbox
