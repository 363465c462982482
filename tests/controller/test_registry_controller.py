"""The leading process allocates numbers; what happens to these when terms change, writes fail, nodes are lagging."""

from __future__ import annotations

import logging

import pytest

from romana_ovs.controller.kubernetes import ProcessStarted
from romana_ovs.controller.registry_controller import MAX_LAG_SECONDS, NEW_TERM_SECONDS, REPORT_RETENTION_SECONDS
from romana_ovs.controller.write_slot import ERROR_RETRY_SECONDS
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS, NODES, PODS
from romana_ovs.kube.published import COMPLETE_MARKER, Verb
from romana_ovs.model.objects import PodKey
from romana_ovs.registry_types.published import Published
from tests.support.in_memory_server import (
    ControllerProcess,
    MemoryServer,
    put_pod,
    put_policy,
    server_with_pods,
    settle,
)


def leading(server: MemoryServer, *nodes: str, deaf: bool = False) -> ControllerProcess:
    process = ControllerProcess(server, nodes=nodes, deaf=deaf)
    process.start()
    process.lead()
    process.settle()
    return process


def published(process: ControllerProcess) -> Published:
    published = process.reconciler.published.published
    assert published is not None
    return published


def test_who_does_not_lead_writes_no_number() -> None:
    server = server_with_pods("a@n1")
    process = ControllerProcess(server, nodes=("n1", "n2"))
    process.start()
    process.settle()
    assert {write.kind for write in server.writes} == {"NodeReport"}
    assert process.reconciler.registry is not None
    assert process.reconciler.registry.registry is None and process.reconciler.problems == ()
    process.lead()
    process.settle()
    assert published(process).hosts.keys() == {"n1", "n2"} and "shop" in published(process).blocks


def test_one_job_at_a_time_allocation_first_marker_last() -> None:
    server = server_with_pods("a@n1")
    process = ControllerProcess(server)
    process.start()
    process.lead()
    process.look()
    [job] = process.requests
    kinds = [write.kind for write in job.writes]
    assert job.leading and kinds[0] == "Allocation" and job.writes[-1].name == COMPLETE_MARKER
    put_pod(server, "b", "n2")
    process.look()
    assert process.requests == [job], "nothing more is asked for before the answer"
    process.settle()
    names = [(write.kind, write.name) for write in server.writes]
    assert names[0] == ("Allocation", "cluster") and names[-1] == ("ClassSet", COMPLETE_MARKER)


def test_a_new_term_goes_on_from_what_is_published() -> None:
    server = server_with_pods("a@n1")
    process = leading(server, "n1", "n2")
    before = published(process)
    process.lead(False)
    put_pod(server, "new", "n1", tier="db")
    process.settle()
    assert published(process) is before, "its new tier waits for somebody who leads"
    process.lead()
    process.settle()
    now = published(process)
    assert now.epoch == before.epoch + 1 and now.hosts == before.hosts
    assert now.indexes.items() > before.indexes.items()


def test_of_two_that_lead_the_later_one_is_not_written_over() -> None:
    server = server_with_pods("a@n1")
    one = leading(server, "n1", "n2")
    two = ControllerProcess(server)
    two.start()
    two.lead()
    settle([one, two])
    epoch = published(two).epoch
    put_pod(server, "b", "n2", tier="db")
    settle([one, two])
    allocation = server.of(ALLOCATIONS, "cluster")["spec"]
    assert allocation["epoch"] > epoch and published(one) == published(two)
    assert [tier["name"] for tier in allocation["tenants"][0]["tiers"]] == ["db", "default"]


def test_superseded_it_begins_anew_from_what_is_there(caplog: pytest.LogCaptureFixture) -> None:
    server = server_with_pods("a@n1")
    process = leading(server, "n1", "n2")
    spec = server.of(ALLOCATIONS, "cluster")["spec"]
    server.put(ALLOCATIONS, "cluster", spec={**spec, "epoch": spec["epoch"] + 7, "writer": "another"})
    with caplog.at_level(logging.WARNING, "romana_ovs.registry"):
        process.settle()
    assert caplog.text.count("a new term begins") == 1
    process.wait(NEW_TERM_SECONDS)
    assert published(process).epoch == spec["epoch"] + 8, "without anything else having happened"
    put_pod(server, "b", "n2", tier="db")
    process.settle()
    assert ("shop", "db") in published(process).indexes


def test_the_leader_restores_numbers_that_were_edited() -> None:
    server = server_with_pods("a@n1")
    process = leading(server, "n1", "n2")
    before, good = published(process), server.of(ALLOCATIONS, "cluster")["spec"]
    server.put(ALLOCATIONS, "cluster", spec={**good, "hosts": {"n1": "zero"}})
    process.look()
    assert process.agents.published is before, "nodes go on by what they had"
    assert [problem.field for problem in process.reconciler.published.problems] == ["spec.hosts.n1"]
    process.settle()
    assert server.of(ALLOCATIONS, "cluster")["spec"] == good and process.reconciler.problems == ()


def test_an_unreadable_allocation_is_not_overwritten() -> None:
    server = server_with_pods("a@n1")
    process = leading(server, "n1", "n2")
    before, good = published(process), server.of(ALLOCATIONS, "cluster")["spec"]
    server.put(ALLOCATIONS, "cluster", spec={**good, "revision": "high"})
    done = len(server.writes)
    put_pod(server, "b", "n2", tier="db")
    process.settle()
    assert {write.kind for write in server.writes[done:]} == {"NodeReport"}, "it asks, and nobody may give"
    assert process.agents.published is before
    assert [problem for problem in process.reconciler.problems if not problem.startswith("Pod ")] == [
        "Allocation cluster: spec.revision: a number from 0 to 9007199254740992 was expected"
    ]
    server.put(ALLOCATIONS, "cluster", spec=good)
    process.settle()
    assert process.reconciler.problems == () and ("shop", "db") in published(process).indexes


def test_an_allocation_of_another_plan_is_refused_in_words() -> None:
    server = server_with_pods("a@n1")
    process = leading(server, "n1", "n2")
    process.lead(False)
    process.settle()
    spec = server.of(ALLOCATIONS, "cluster")["spec"]
    other = {**spec, "plan": {**spec["plan"], "network": "11.0.0.0/8"}}
    server.put(ALLOCATIONS, "cluster", spec=other)
    process.settle()
    process.lead()
    process.settle()
    assert server.of(ALLOCATIONS, "cluster")["spec"] == other
    problems = [problem for problem in process.reconciler.problems if "another address plan" in problem]
    assert [problem for problem in problems if "restore the settings" in problem]
    assert process.agents.address_of(PodKey("shop/a")) is not None


def test_a_deleted_allocation_changes_no_address() -> None:
    server = server_with_pods("z@n1")
    process = leading(server, "n1", "n2")
    server.put(PODS, "a", namespace="abc", status={"phase": "Pending"}, spec={"nodeName": "n1", "containers": []})
    process.settle()
    process.lead()
    process.settle()
    before = [process.agents.address_of(PodKey(name)) for name in ("shop/z", "abc/a")]
    server.remove(ALLOCATIONS, "cluster")
    process.settle()
    process.wait(3 * NEW_TERM_SECONDS)
    assert server.names(ALLOCATIONS) == ["cluster"], "it is created again"
    assert [process.agents.address_of(PodKey(name)) for name in ("shop/z", "abc/a")] == before
    assert all("not taken" in problem.reason for problem in process.agents.problems)


def test_a_failing_write_is_logged_once_and_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    server = server_with_pods("a@n1")
    process = ControllerProcess(server)
    process.start()
    process.lead()
    server.trouble = "Allocation cluster cannot be written: 403"
    with caplog.at_level(logging.ERROR, "romana_ovs.registry"):
        process.wait(4 * ERROR_RETRY_SECONDS)
    assert list(process.reconciler.problems) == [server.trouble]
    assert caplog.text.count("cannot be published") == 1
    server.trouble = ""
    process.wait(2 * ERROR_RETRY_SECONDS)
    assert list(process.reconciler.problems) == []
    assert server.names(ALLOCATIONS) == ["cluster"]


def test_a_new_process_awaits_no_answer_to_the_old_one() -> None:
    server = server_with_pods("a@n1")
    process = ControllerProcess(server)
    process.start()
    process.lead()
    process.look()
    assert process.requests
    process.start()
    process.settle()
    assert not server.names(ALLOCATIONS), "another election has to be won first"
    process.lead()
    process.settle()
    assert server.names(ALLOCATIONS) == ["cluster"]


def test_a_node_that_stays_away_is_waited_for_only_so_long() -> None:
    server = server_with_pods("a@n1", "b@n2")
    here = leading(server, "n1")
    lagging = ControllerProcess(server, nodes=("n2",), runs_registry=False)
    lagging.start()
    settle([here, lagging])
    server.watching.remove(lagging)
    put_policy(server)
    here.settle()
    sets = server.of(CLASS_SETS, "shop")["spec"]
    assert any("pending" in each for each in sets["classes"]), "no pod takes a class that n2 may not know"
    assert here.reconciler.registry is not None and here.reconciler.registry.next_check is not None
    here.wait(MAX_LAG_SECONDS - 1)
    assert server.of(CLASS_SETS, "shop")["spec"] == sets
    here.wait(MAX_LAG_SECONDS)
    assert not any("pending" in each for each in server.of(CLASS_SETS, "shop")["spec"]["classes"])


def test_a_node_that_is_gone_is_not_waited_for() -> None:
    server = server_with_pods("a@n1")
    server.put(NODE_REPORTS, "ghost", spec={}, status={"acknowledgedRevision": 0})
    here = leading(server, "n1", "n2")
    put_policy(server, to="a", source="a")
    here.settle()
    assert here.reconciler.registry is not None and here.reconciler.registry.registry is not None
    assert not here.reconciler.registry.registry.pending


def reporting() -> tuple[MemoryServer, ControllerProcess, ControllerProcess]:
    """A server, a registry that drives n1, and the controller of n2; both nodes have reported."""
    server = server_with_pods("a@n1", "b@n2")
    here = leading(server, "n1")
    there = ControllerProcess(server, nodes=("n2",), runs_registry=False)
    there.start()
    settle([here, there])
    assert server.names(NODE_REPORTS) == ["n1", "n2"]
    return server, here, there


def test_the_report_of_a_node_that_is_gone_goes_after_a_while() -> None:
    server, here, there = reporting()
    server.watching.remove(there)
    server.remove(NODES, "n2")
    here.settle()
    here.wait(REPORT_RETENTION_SECONDS - 1)
    assert server.names(NODE_REPORTS) == ["n1", "n2"]
    here.wait(2)
    assert server.names(NODE_REPORTS) == ["n1"]
    server.put(NODES, "n2")
    settle([here])
    there.start()
    settle([here, there])
    assert server.names(NODE_REPORTS) == ["n1", "n2"]
    here.wait(10 * REPORT_RETENTION_SECONDS)
    assert [write.name for write in server.writes if write.verb is Verb.DELETE] == ["n2"]
    assert server.names(NODE_REPORTS) == ["n1", "n2"] and here.reconciler.problems == ()


def test_a_failing_delete_of_a_report_is_retried_every_minute() -> None:
    server, here, there = reporting()
    server.watching.remove(there)
    server.remove(NODES, "n2")
    here.settle()
    here.now += REPORT_RETENTION_SECONDS
    here.due = True
    here.look()
    [job] = [each for each in here.requests if each.leading]
    assert [(write.verb, write.name) for write in job.writes] == [(Verb.DELETE, "n2")]
    server.trouble = "no"
    here.settle()
    assert here.reconciler.registry is not None and [str(each) for each in here.reconciler.registry.problems] == ["no"]
    server.trouble = ""
    here.wait(REPORT_RETENTION_SECONDS - ERROR_RETRY_SECONDS)
    assert server.names(NODE_REPORTS) == ["n1", "n2"]
    here.wait(2 * ERROR_RETRY_SECONDS)
    assert server.names(NODE_REPORTS) == ["n1"] and here.reconciler.problems == ()


def test_the_report_of_a_node_that_is_not_ready_stays() -> None:
    server, here, there = reporting()
    server.watching.remove(there)
    server.put(NODES, "n2", status={"conditions": [{"type": "Ready", "status": "False"}]})
    put_policy(server)
    here.settle()
    here.wait(10 * REPORT_RETENTION_SECONDS)
    assert server.names(NODE_REPORTS) == ["n1", "n2"]


def test_the_report_of_a_node_that_is_made_anew_stays() -> None:
    server, here, _ = reporting()
    for _ in range(3):
        server.remove(NODES, "n2")
        here.settle()
        here.wait(REPORT_RETENTION_SECONDS - 1)
        server.put(NODES, "n2")
        here.settle()
        here.wait(1)
    assert not any(write.verb is Verb.DELETE for write in server.writes)


def test_a_controller_of_a_deleted_node_sends_no_report() -> None:
    """It goes on with what it has, and reports again when there is a Node again."""
    server, here, there = reporting()
    address = there.agents.address_of(PodKey("shop/b"))
    server.remove(NODES, "n2")
    settle([here, there])
    here.wait(REPORT_RETENTION_SECONDS)
    settle([here, there])
    writes = len(server.writes)
    here.wait(10 * REPORT_RETENTION_SECONDS)
    settle([here, there])
    assert server.names(NODE_REPORTS) == ["n1"] and len(server.writes) == writes
    assert address is not None and there.agents.address_of(PodKey("shop/b")) == address
    server.put(NODES, "n2")
    settle([here, there])
    assert server.names(NODE_REPORTS) == ["n1", "n2"]


def test_who_does_not_lead_deletes_no_report() -> None:
    server, here, _ = reporting()
    here.lead(False)
    server.remove(NODES, "n2")
    here.settle()
    here.wait(10 * REPORT_RETENTION_SECONDS)
    assert server.names(NODE_REPORTS) == ["n1", "n2"]


def test_a_term_of_the_process_before_is_over() -> None:
    """What it said last may come in one batch with the start of the next process."""
    server = server_with_pods("a@n1")
    process = ControllerProcess(server, nodes=("n1",))
    process.start()
    process.lead()
    process.inbox.append(ProcessStarted())
    process.look()
    assert process.reconciler.registry is not None and not process.reconciler.registry.leads
