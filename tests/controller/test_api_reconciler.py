"""What a controller does with an API server: reports at most once a second, patience, each status written once."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import pytest

from romana_ovs.controller.api_reconciler import REGISTRY_TIMEOUT_SECONDS, REPORT_SECONDS
from romana_ovs.controller.status_reporter import STATUS_SECONDS, TENANT_SECONDS
from romana_ovs.controller.write_slot import ERROR_RETRY_SECONDS
from romana_ovs.kube.api.desired import (
    PolicyStatus,
    ReplaceStatuses,
    ReplaceWarnings,
    Status,
    TenantStatus,
    UpdateStatuses,
    UpdateWarnings,
)
from romana_ovs.kube.api.resources import NODE_REPORTS, NODES, POLICIES, ROMANA_POLICIES, SERVICE_CIDRS, TENANTS
from romana_ovs.kube.decode.objects import ObjectId
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.registry_types.report import Observed
from tests.support.in_memory_server import (
    ControllerProcess,
    MemoryServer,
    put_pod,
    put_policy,
    server_with_pods,
    settle,
)
from tests.support.known import known

P = ObjectId("RomanaNetworkPolicy", "shop", "p")
SHOP = ObjectId("Tenant", "", "shop")
QUIET = 100.0
"""Seconds after which everything that was put off has been done."""
T = TypeVar("T")


def started(
    server: MemoryServer, *nodes: str, leads: bool = True, runs_registry: bool = True, deaf: bool = False
) -> ControllerProcess:
    process = ControllerProcess(server, nodes=nodes, runs_registry=runs_registry, deaf=deaf)
    process.start()
    if leads and runs_registry:
        process.lead()
    process.settle()
    return process


def sent(process: ControllerProcess, kind: type[T]) -> list[T]:
    return [message for message in process.sent if isinstance(message, kind)]


def waits(process: ControllerProcess) -> tuple[bool, bool]:
    """Whether rules wait for the registry, and whether there is patience left for it."""
    return bool(process.agents.needs_registry), process.agents.awaits_registry


def statuses(process: ControllerProcess) -> dict[ObjectId, Status]:
    """The statuses that all sent messages together result in."""
    statuses: dict[ObjectId, Status] = {}
    for message in process.sent:
        if isinstance(message, ReplaceStatuses):
            statuses = dict(message.statuses)
        elif isinstance(message, UpdateStatuses):
            statuses |= {key: status for key, status in message.changed.items() if status is not None}
            statuses = {
                key: status for key, status in statuses.items() if key not in message.changed or message.changed[key]
            }
    return statuses


def reason(process: ControllerProcess, condition: str = "Programmed") -> str:
    status = statuses(process)[P]
    assert isinstance(status, PolicyStatus)
    return next(each.reason for each in status.conditions if each.type == condition)


# Reports.


def test_a_report_is_stored_before_published_numbers_are_used() -> None:
    server = server_with_pods("a@n1")
    registry, node = started(server), ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    node.look()
    assert node.reconciler.published.published is not None
    assert node.agents.host_number("n1") is not None and node.agents.address_of(PodKey("shop/a")) is None
    [job] = node.requests
    assert not job.leading and [(write.kind, write.name) for write in job.writes] == [("NodeReport", "n1")]
    settle([registry, node])
    assert node.agents.address_of(PodKey("shop/a")) is not None


def test_one_report_is_on_its_way_at_a_time() -> None:
    server = server_with_pods("a@n1")
    registry, node = started(server), started(server, "n1", runs_registry=False)
    settle([registry, node])
    for tier in ("web", "db"):
        put_pod(server, tier, "n1", tier=tier)
        node.look()
        assert len(node.requests) == 1
    node.settle()
    assert [want["tier"] for want in server.of(NODE_REPORTS, "n1")["status"]["exhaustedSegments"]] == ["db", "web"]


def test_programmed_policies_are_reported_once_a_second() -> None:
    """docs/hazards.md C14: writes are bounded on the nodes' side too."""
    server = server_with_pods("a@n1")
    put_policy(server, source="a")
    node = started(server, "n1")
    node.wait(QUIET)
    before = len(server.writes)
    for number in range(50):
        put_policy(server, port=1000 + number, source="a")
        node.settle()
    assert [(write.kind, write.name) for write in server.writes[before:]] == [("NodeReport", "n1")]
    assert node.next_check is not None, "the rest is sent later"
    node.wait(QUIET)
    assert [(write.kind, write.name) for write in server.writes[before:]] == [("NodeReport", "n1")] * 2
    assert server.of(NODE_REPORTS, "n1")["status"]["policiesDigest"] == node.reconciler.policies_digest != ""


def test_a_report_that_cannot_be_stored_is_a_problem_until_it_is() -> None:
    server = server_with_pods("a@n1")
    node = ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    server.trouble = "NodeReport n1 cannot be written: 403"
    node.look()
    node.execute()
    node.look()
    assert [str(problem) for problem in node.reconciler.problems] == [f"NodeReport: {server.trouble}"]
    server.trouble = ""
    node.wait(2 * ERROR_RETRY_SECONDS)
    assert node.reconciler.problems == () and server.names(NODE_REPORTS) == ["n1"]


def test_a_report_over_another_version_is_written_again() -> None:
    server = server_with_pods("a@n1")
    node = ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    node.look()
    server.put(NODE_REPORTS, "n1", spec={}, status={"acknowledgedRevision": 99})
    node.settle()
    assert server.of(NODE_REPORTS, "n1")["status"]["acknowledgedRevision"] == 0


def test_a_new_process_reports_without_the_old_ones_answer() -> None:
    server = server_with_pods("a@n1")
    node = ControllerProcess(server, nodes=("n1",), runs_registry=False)
    node.start()
    node.look()
    assert node.requests
    node.start()
    node.settle()
    node.wait(REPORT_SECONDS)
    assert server.names(NODE_REPORTS) == ["n1"]


# Patience.


def test_what_waits_for_a_registry_waits_only_so_long() -> None:
    server = server_with_pods("a@n1", "b@n1")
    node = started(server, "n1")
    node.wait(QUIET)
    node.lead(False)
    put_policy(server)
    node.settle()
    assert waits(node) == (True, True), "its labels never distinguish the two"
    node.wait(REGISTRY_TIMEOUT_SECONDS / 2)
    put_pod(server, "c", "n1")
    node.settle()
    assert waits(node) == (True, True)
    node.wait(REGISTRY_TIMEOUT_SECONDS / 2)
    assert not waits(node)[1]
    node.lead()
    node.settle()
    assert waits(node) == (False, False)
    put_policy(server, "q", to="b", source="c")
    node.look()
    assert waits(node) == (True, True), "the next one waits, too"
    node.settle()
    assert waits(node) == (False, False)


# Statuses.


def test_only_the_leader_sends_statuses_and_only_changes() -> None:
    server = server_with_pods("a@n1")
    put_policy(server, source="a")
    node = started(server, "n1", leads=False)
    node.wait(QUIET)
    assert node.sent == []
    node.lead()
    node.settle()
    node.wait(QUIET)
    assert len(sent(node, ReplaceStatuses)) == len(sent(node, ReplaceWarnings)) == 1
    assert reason(node) == "Programmed" and reason(node, "Invalid") == "Valid"
    node.sent.clear()
    node.wait(QUIET)
    assert node.sent == []
    put_policy(server, "q", source="a")
    node.settle()
    [update] = sent(node, UpdateStatuses)
    assert [str(key) for key in update.changed] == ["RomanaNetworkPolicy shop/q"]


def test_a_new_process_gets_everything_again() -> None:
    server = server_with_pods("a@n1")
    put_policy(server, source="a")
    node = started(server, "n1")
    node.wait(QUIET)
    before = statuses(node)
    node.sent.clear()
    node.start()
    node.settle()
    assert node.sent == [], "it has not been elected"
    node.lead()
    node.settle()
    node.wait(QUIET)
    assert len(sent(node, ReplaceStatuses)) == len(sent(node, ReplaceWarnings)) == 1
    assert statuses(node) == before and before.keys() == {P, SHOP}


def test_statuses_keep_to_a_pace() -> None:
    server = server_with_pods("a@n1")
    node = started(server, "n1")
    node.wait(QUIET)
    node.sent.clear()
    for number in range(20):
        put_policy(server, f"p{number}", source="a")
        node.settle()
    assert len(node.sent) == 1
    node.wait(STATUS_SECONDS)
    assert len(sent(node, UpdateStatuses)) == 2
    node.wait(QUIET)
    assert {key.name for key in statuses(node)} >= {f"p{number}" for number in range(20)}


def test_a_refusal_is_a_warning_until_the_object_is_gone() -> None:
    server = server_with_pods("a@n1")
    bad = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}
    node = started(server, "n1")
    node.wait(QUIET)
    server.put(POLICIES, "k", namespace="shop", spec=bad)
    node.settle()
    key = ObjectId("NetworkPolicy", "shop", "k")
    [update] = sent(node, UpdateWarnings)
    refused = update.changed[key]
    assert refused is not None and refused.reason == "Invalid" and "10.0.0.0/33" in refused.note
    server.remove(POLICIES, "k", "shop")
    node.settle()
    node.wait(QUIET)
    assert sent(node, UpdateWarnings)[-1].changed == {key: None}


def test_a_pod_without_an_address_has_a_warning() -> None:
    tiny = Settings(network=IPv4Network("10.9.0.0/24"), segment_bits=3, host_bits=2, endpoint_bits=3)
    server = server_with_pods("a@n1", settings=tiny)
    node = started(server, "n1")
    node.wait(QUIET)
    for number in range(60):
        put_pod(server, f"p{number}", "n1")
    node.settle()
    node.wait(QUIET)
    refused = {key.name: one for message in sent(node, UpdateWarnings) for key, one in message.changed.items()}
    assert refused and {one.reason for one in refused.values() if one is not None} == {"NoAddress"}


def test_a_policy_is_called_programmed_when_its_switches_have_it() -> None:
    server = server_with_pods("a@n1")
    node = started(server, "n1")
    node.wait(QUIET)
    node.deaf = True
    put_policy(server, source="a")
    node.settle()
    node.wait(QUIET)
    assert reason(node) == "Pending"
    node.deaf = False
    put_pod(server, "b", "n1")
    node.settle()
    node.wait(QUIET)
    assert reason(node) == "Programmed"


def test_a_tenants_pods_are_counted_at_a_slower_pace() -> None:
    server = server_with_pods("a@n1")
    node = started(server, "n1")
    node.wait(QUIET)
    node.sent.clear()
    first = int(node.agents.plan.network[64 * 64 * 4])
    for number in range(30):
        put_pod(server, f"p{number}", "n1", ip=str(IPv4Address(first + number)))
        node.settle()
        node.wait(TENANT_SECONDS / 20)
    counts = [message for message in sent(node, UpdateStatuses) if SHOP in message.changed]
    assert len(counts) == 2
    node.wait(QUIET)
    status = statuses(node)[SHOP]
    assert isinstance(status, TenantStatus) and status.pods == 30
    node.sent.clear()
    node.wait(QUIET)
    assert node.sent == [] and node.next_check is None, "nothing goes on for ever"


def test_a_tenants_status_has_the_version_of_its_object() -> None:
    server = server_with_pods("a@n1")
    server.put(TENANTS, "the-shop", spec={"tenant": "shop"})
    node = started(server, "n1")
    node.wait(QUIET)
    assert [str(key) for key in statuses(node) if key.kind == "Tenant"] == ["Tenant the-shop"]
    [status] = [each for each in statuses(node).values() if isinstance(each, TenantStatus)]
    assert status.tenant == "shop" and status.version is not None


# Nodes that other processes drive.


def shared() -> tuple[MemoryServer, ControllerProcess, ControllerProcess, ControllerProcess]:
    """A registry, and a node each for n1 and n2."""
    server = server_with_pods("a@n1", "b@n2")
    put_policy(server)
    registry = ControllerProcess(server)
    one, two = (ControllerProcess(server, nodes=(name,), runs_registry=False) for name in ("n1", "n2"))
    for process in (registry, one, two):
        process.start()
    registry.lead()
    rest(registry, one, two)
    return server, registry, one, two


def rest(*processes: ControllerProcess) -> None:
    """Everything is done that was put off."""
    for _ in range(4):
        settle(processes)
        for process in processes:
            process.wait(REPORT_SECONDS)
    settle(processes)


def test_a_policy_is_programmed_when_every_node_reports_it() -> None:
    """docs/hazards.md C14: aggregated, after every node's barrier."""
    server, registry, one, two = shared()
    assert reason(registry) == "Programmed"
    two.deaf = True
    put_policy(server, port=81)
    rest(registry, one, two)
    assert reason(registry) == "Pending"
    two.deaf, two.due = False, True
    rest(registry, one, two)
    assert reason(registry) == "Programmed"
    assert one.sent == two.sent == []


def test_the_leader_s_own_bridge_counts_beside_those_of_others() -> None:
    server = server_with_pods("a@n1", "b@n2")
    put_policy(server)
    leader, other = (
        ControllerProcess(server, nodes=("n1",)),
        ControllerProcess(server, nodes=("n2",), runs_registry=False),
    )
    for process in (leader, other):
        process.start()
    leader.lead()
    rest(leader, other)
    assert reason(leader) == "Programmed"
    leader.deaf = True
    put_policy(server, port=81)
    rest(leader, other)
    assert reason(leader) == "Pending"
    leader.deaf, leader.due = False, True
    rest(leader, other)
    assert reason(leader) == "Programmed"


def test_the_report_of_a_node_that_is_no_more_holds_up_nobody() -> None:
    server, registry, one, two = shared()
    server.watching.remove(two)
    put_policy(server, port=81)
    rest(registry, one)
    assert reason(registry) == "Pending"
    server.remove(NODES, "n2")
    rest(registry, one)
    assert reason(registry) == "Programmed"


def test_an_old_report_of_another_node_delays_no_status() -> None:
    server = server_with_pods("a@n1")
    server.put(NODE_REPORTS, "ghost", spec={}, status={"acknowledgedRevision": 7, "policiesDigest": "of long ago"})
    put_policy(server, source="a")
    node = started(server, "n1", "n2")
    node.wait(QUIET)
    assert reason(node) == "Programmed"


def test_what_other_processes_observe_is_in_the_status() -> None:
    """By way of its report: who is at a limit there, and what stays open of SCTP."""
    server, registry, one, two = shared()
    sctp = [{"toPorts": [{"port": 2905, "protocol": "SCTP"}]}]
    server.put(ROMANA_POLICIES, "p", namespace="shop", spec={"podSelector": {}, "allowIncoming": sctp})
    put_policy(server, "other")
    rest(registry, one, two)
    other = ObjectId("RomanaNetworkPolicy", "shop", "other")

    def types() -> tuple[list[str], ...]:
        return tuple([each.type for each in statuses(registry)[key].conditions] for key in (SHOP, P, other))

    plain = ["Programmed", "Invalid"]
    one.observed = {"n1": Observed(sctp_ports=True)}
    rest(registry, one, two)
    assert types() == (["Ready"], plain, plain)
    two.observed = {"n2": Observed(sctp_ports=False, tenants_at_limit=frozenset({"shop"}))}
    rest(registry, one, two)
    assert types() == (["Ready", "Limited"], [*plain, "SCTPPortsOpen"], plain)
    two.observed = {"n2": Observed(sctp_ports=True)}
    rest(registry, one, two)
    assert types() == (["Ready"], plain, plain)


def test_of_a_policy_that_is_deleted_nothing_is_wanted() -> None:
    server = server_with_pods("a@n1")
    put_policy(server, source="a")
    node = started(server, "n1")
    node.wait(QUIET)
    server.remove(ROMANA_POLICIES, "p", "shop")
    node.settle()
    node.wait(QUIET)
    assert P not in statuses(node)


def test_the_status_has_the_leader_and_what_is_published() -> None:
    server = server_with_pods("a@n1")
    node = started(server, "n1", leads=False)
    assert node.reconciler.status() == {"registry": {"leads": False, "revision": 0}}
    node.lead()
    node.settle()
    assert node.reconciler.status() == {
        "registry": {"leads": True, "revision": known(node.reconciler.published.published).revision}
    }


def test_no_address_plan_over_services_or_nodes() -> None:
    """Nothing is numbered before, and both ranges are named."""
    server = server_with_pods("a@n1")
    server.put(SERVICE_CIDRS, "kubernetes", spec={"cidrs": ["10.96.0.0/12"]})
    server.put(NODES, "n2", status={"addresses": [{"type": "InternalIP", "address": "10.4.0.2"}]})
    with pytest.raises(InputError) as refused:
        started(server, "n1")
    assert "ServiceCIDR kubernetes" in str(refused.value) and "10.96.0.0/12" in str(refused.value)
    assert "Node n2" in str(refused.value) and "10.4.0.2 lies in the pods' network 10.0.0.0/8" in str(refused.value)
    assert server.writes == []


def test_an_overlap_that_comes_later_is_a_problem() -> None:
    """A second range of Services must not stop what runs, and is not used."""
    server = server_with_pods("a@n1")
    server.put(SERVICE_CIDRS, "kubernetes", spec={"cidrs": ["172.30.0.0/16", "fd00::/108"]})
    process = started(server, "n1")
    assert not process.reconciler.problems
    server.put(SERVICE_CIDRS, "second", spec={"cidrs": ["10.96.0.0/12"]})
    put_pod(server, "b", "n1")
    process.settle()
    assert process.agents.address_of(PodKey("shop/b")) is not None
    [problem] = process.reconciler.problems
    assert "ServiceCIDR second" in problem and "10.96.0.0/12 overlaps the pods' network 10.0.0.0/8" in problem
    server.remove(SERVICE_CIDRS, "second")
    process.settle()
    assert not process.reconciler.problems
