"""What is published, as it was last read."""

from __future__ import annotations

from dataclasses import replace

from romana_ovs.controller.shelf import RESOURCES, Shelf
from romana_ovs.kube.api.messages import Listed, Seen
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.policy.published import Report
from tests.controller.server import Process, Server, furnished


def published() -> Server:
    server = furnished("a@n1")
    process = Process(server, nodes=("n1", "n2"))
    process.start()
    process.lead()
    process.settle()
    return server


def shelf_of(server: Server) -> Shelf:
    shelf = Shelf()
    shelf.take(server.listings())
    return shelf


def test_nothing_is_published_before_all_is_listed() -> None:
    shelf, messages = Shelf(), Server().listings()
    for resource in RESOURCES:
        assert not shelf.listed
        shelf.take([one for one in messages if getattr(one, "resource", "") == str(resource)])
    assert shelf.listed and shelf.published is None and shelf.problems == ()
    assert shelf.report_version("n1") is None and not shelf.reports


def test_what_was_published_is_read_with_its_reports() -> None:
    server = published()
    shelf = shelf_of(server)
    assert shelf.published is not None and shelf.published.hosts.keys() == {"n1", "n2"}
    assert shelf.reports.keys() == {"n1", "n2"}
    assert shelf.report_version("n1") == server.of(NODE_REPORTS, "n1")["metadata"]["resourceVersion"]
    assert not shelf.take([Listed(str(CLASS_SETS))])


def test_a_damaged_allocation_leaves_in_force_what_was_read_before() -> None:
    server = published()
    shelf = shelf_of(server)
    before, good = shelf.published, server.of(ALLOCATIONS, "cluster")["spec"]
    messages = listen(server, shelf)
    server.put(ALLOCATIONS, "cluster", spec={**good, "revision": "high"})
    shelf.take(messages)
    assert shelf.published is before
    assert [(problem.kind, problem.field) for problem in shelf.problems] == [("Allocation", "spec.revision")]
    messages.clear()
    server.put(ALLOCATIONS, "cluster", spec=good)
    shelf.take(messages)
    assert shelf.published == before and shelf.problems == ()


def test_a_damaged_class_set_costs_only_itself() -> None:
    server = published()
    shelf = shelf_of(server)
    assert shelf.published is not None and "shop" in shelf.published.namespaces
    messages = listen(server, shelf)
    server.put(CLASS_SETS, "shop", spec={"classes": 7})
    shelf.take(messages)
    assert [(problem.kind, problem.name) for problem in shelf.problems] == [("ClassSet", "shop")]
    assert shelf.published is not None and "shop" in shelf.published.namespaces


def test_a_report_that_cannot_be_read_acknowledges_nothing() -> None:
    server = published()
    shelf = shelf_of(server)
    messages, kept = listen(server, shelf), shelf.reports["n2"]
    assert shelf.reports["n1"].acknowledged > 0
    server.put(NODE_REPORTS, "n1", spec={}, status={"acknowledgedRevision": -1})
    assert shelf.take(messages)
    assert shelf.reports == {"n1": Report("n1"), "n2": kept}
    assert shelf.reports["n2"] is kept, "what did not change is not read again"


def test_a_report_that_is_deleted_is_gone() -> None:
    server = published()
    shelf = shelf_of(server)
    messages = listen(server, shelf)
    server.remove(NODE_REPORTS, "n1")
    assert shelf.take(messages)
    assert shelf.reports.keys() == {"n2"} and shelf.report_version("n1") is None


def listen(server: Server, shelf: Shelf) -> list[object]:
    """What the server tells from now on, as it comes."""
    process = replace(Process(server))
    process.inbox.clear()
    server.watching = [process]
    assert not shelf.take([Seen(str(NODE_REPORTS))]), "nothing is no change"
    return process.inbox
