"""How a controller retries writes that an API server refuses."""

from __future__ import annotations

from romana_ovs.controller.write_slot import CONFLICT_RETRY_SECONDS, ERROR_RETRY_SECONDS
from romana_ovs.kube.api.resources import ALLOCATIONS, NODE_REPORTS
from romana_ovs.kube.published import Verb
from tests.support.in_memory_server import ControllerProcess, put_pod, server_with_pods


def writes_of(process: ControllerProcess) -> list[list[tuple[Verb, str]]]:
    return [[(write.verb, write.name) for write in request.writes] for request in process.requests]


def test_a_refused_report_is_tried_again_after_a_pause() -> None:
    """docs/hazards.md C3 and C8."""
    server = server_with_pods("a@n1")
    server.trouble = "forbidden"
    node = ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    node.look()
    [first] = writes_of(node)
    node.execute()
    node.look()
    assert node.reconciler.problems == ("NodeReport: forbidden",) and node.next_check == node.now + ERROR_RETRY_SECONDS
    node.look()
    assert writes_of(node) == []
    node.now += ERROR_RETRY_SECONDS
    node.look()
    assert writes_of(node) == [first]


def test_refused_numbers_are_tried_again_after_a_pause() -> None:
    """docs/hazards.md C3 and C8."""
    server = server_with_pods("a@n1")
    server.trouble = "forbidden"
    registry = ControllerProcess(server)
    registry.start()
    registry.lead()
    registry.look()
    [first] = writes_of(registry)
    registry.execute()
    registry.due = True
    registry.look()
    assert writes_of(registry) == [] and registry.next_check is not None
    assert registry.next_check <= registry.now + ERROR_RETRY_SECONDS
    registry.now += ERROR_RETRY_SECONDS
    registry.look()
    assert len(writes_of(registry)) == 1


# Somebody was quicker, and the watch does not tell of it: it is away, or behind.


def jobs_in(process: ControllerProcess, seconds: float) -> int:
    """How many jobs are brought to the server in so many seconds, with something to look at ten times a second."""
    before, end = process.server.jobs, process.now + seconds
    while process.now < end:
        process.due = True
        process.settle()
        process.wait(0.1)
    return process.server.jobs - before


def test_a_report_that_is_too_late_is_not_repeated() -> None:
    server = server_with_pods("a@n1")
    node = ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    node.look()
    server.watching.clear()
    server.put(NODE_REPORTS, "n1", spec={}, status={"acknowledgedRevision": 99})
    assert 5 <= jobs_in(node, 10 * CONFLICT_RETRY_SECONDS) <= 12
    server.watching.append(node)
    node.start()
    node.settle()
    node.wait(CONFLICT_RETRY_SECONDS)
    assert server.of(NODE_REPORTS, "n1")["status"]["acknowledgedRevision"] == 0


def test_numbers_that_come_too_late_are_not_sent_again_and_again() -> None:
    server = server_with_pods("a@n1")
    registry = ControllerProcess(server, nodes=("n1",))
    registry.start()
    registry.lead()
    registry.settle()
    server.watching.clear()
    server.put(ALLOCATIONS, "cluster", spec=server.of(ALLOCATIONS, "cluster")["spec"])
    server.watching.append(registry)
    put_pod(server, "b", "n1", tier="db")
    assert 5 <= jobs_in(registry, 10 * CONFLICT_RETRY_SECONDS) <= 20, "its reports included"


def test_a_change_before_the_answer_is_written_at_once() -> None:
    server = server_with_pods("a@n1")
    registry = ControllerProcess(server, nodes=("n1",))
    registry.start()
    registry.lead()
    registry.settle()
    put_pod(server, "b", "n1", tier="db")
    registry.look()
    server.put(ALLOCATIONS, "cluster", spec=server.of(ALLOCATIONS, "cluster")["spec"])
    before = registry.now
    registry.settle()
    assert registry.now == before
    tenant = server.of(ALLOCATIONS, "cluster")["spec"]["tenants"][0]
    assert [tier["name"] for tier in tenant["tiers"]] == ["db", "default"]
