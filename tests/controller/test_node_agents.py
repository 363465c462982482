"""The node agents of one process: what they keep over a restart, and which reports they write."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from romana_ovs.engine import offline_facts
from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.kube.api.resources import NODE_REPORTS
from romana_ovs.kube.published import Verb, decode_report
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.registry_types.report import Observed, Report
from tests.support.builders import cluster, pod, policy
from tests.support.confirming_engine import follow
from tests.support.in_memory_server import ControllerProcess, MemoryServer, put_pod, server_with_pods

A, B = PodKey("shop/a"), PodKey("shop/b")


def driven(server: MemoryServer) -> ControllerProcess:
    process = ControllerProcess(server, nodes=("n1", "n2"))
    process.start()
    process.lead()
    process.settle()
    return process


def cluster_of(process: ControllerProcess) -> Cluster:
    assert process.reconciler.snapshot is not None
    return process.reconciler.snapshot.cluster


def saved(agents: NodeAgents) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(json.dumps(agents.to_json()))
    return state


def test_a_restart_without_the_api_server_changes_nothing() -> None:
    process = driven(server_with_pods("a@n1", "b@n2"))
    before, cluster = process.agents, cluster_of(process)
    state = saved(before)
    again = NodeAgents(Settings(), state)
    again.stored = frozenset({"n1", "n2"})
    again.update(cluster, PolicyIndex().update(cluster))
    assert again.nodes == {"n1", "n2"} and saved(again) == state
    facts = offline_facts(cluster, ["n1", "n2"])
    for key, node in ((A, "n1"), (B, "n2")):
        assert again.address_of(key) == before.address_of(key) is not None
        assert again.mac_of(key) == before.mac_of(key) is not None
        assert again.node_of(key) == node
        assert again.host_number(node) == before.host_number(node) is not None
        assert again.view(facts[node], facts) == before.view(facts[node], facts) is not None


def test_what_was_published_stands_in_the_state_once() -> None:
    state = saved(driven(server_with_pods("a@n1", "b@n2")).agents)
    assert state["published"] is not None
    assert not any("published" in agent for agent in state["parts"].values())


@pytest.mark.parametrize("change", [{"format": 2}, {"parts": None}, {"parts": {"n1": {"format": 9}}}])
def test_a_state_that_is_not_ours_is_refused(change: dict[str, Any]) -> None:
    state = saved(driven(server_with_pods("a@n1")).agents)
    with pytest.raises(InputError):
        NodeAgents(Settings(), {**state, **change})


def test_a_state_of_another_plan_is_refused() -> None:
    state = saved(driven(server_with_pods("a@n1")).agents)
    with pytest.raises((AddressError, InputError), match="plan"):
        NodeAgents(replace(Settings(), segment_bits=11, host_bits=7), state)


def test_the_revision_moves_with_what_must_be_saved() -> None:
    server = server_with_pods("a@n1")
    process = driven(server)
    before, state = process.agents.state_version, saved(process.agents)
    at = cluster_of(process)
    process.agents.update(at, PolicyIndex().update(at))
    assert process.agents.state_version == before
    put_pod(server, "b", "n2")
    process.settle()
    assert process.agents.state_version > before and saved(process.agents) != state


def test_the_revision_grows_when_an_agent_goes() -> None:
    """Otherwise a later change could have the number of the last saved state, and would not be saved."""
    agents = driven(server_with_pods("a@n1", "b@n2")).agents
    before = agents.state_version
    agents.retain({"n1"})
    assert agents.state_version > before


def test_of_a_node_that_nobody_drives_nothing_is_known() -> None:
    server = server_with_pods("a@n1", "b@n2")
    process = driven(server)
    agents = NodeAgents(Settings())
    agents.ensure(["n1"])
    agents.ensure(["n1"])
    agents.published, agents.stored = process.agents.published, frozenset({"n1"})
    agents.update(cluster_of(process), PolicyIndex().update(cluster_of(process)))
    facts = offline_facts(cluster_of(process), ["n1", "n2"])
    assert agents.nodes == {"n1"}
    assert agents.address_of(A) is not None
    assert (agents.address_of(B), agents.mac_of(B), agents.node_of(B)) == (None, None, None)
    assert agents.view(facts["n2"], facts) is None and agents.pending_ack("n2", "x") is None


def test_the_pods_of_other_nodes_are_no_change() -> None:
    server = server_with_pods("a@n1", "b@n2")
    process = driven(server)
    facts = offline_facts(cluster_of(process), ["n1", "n2"])
    view = process.agents.view(facts["n1"], facts)
    put_pod(server, "c", "n2")
    process.settle()
    assert view is not None and process.agents.view(facts["n1"], facts) is view


def reporting() -> tuple[NodeAgents, dict[str, Report], dict[str, str]]:
    """Agents whose reports are stored, these reports, and their resourceVersions."""
    server = server_with_pods("a@n1")
    process = driven(server)
    process.wait(10)
    stored = {name: decode_report(server.of(NODE_REPORTS, name)) for name in ("n1", "n2")}
    return process.agents, stored, {"n1": "5", "n2": "6"}


def test_what_a_switch_showed_is_reported_while_it_is_away() -> None:
    agents, stored, versions = reporting()
    agents.observed = {"n1": Observed(sctp_ports=False, tenants_at_limit=frozenset({"red"}))}
    [write] = agents.report_writes(stored, versions, policies_too=False)
    assert write.body is not None and write.name == "n1"
    assert (write.body["status"]["sctpTracking"], write.body["status"]["tenantsAtConnectionLimit"]) == (
        "Addresses",
        ["red"],
    )
    stored["n1"] = decode_report(write.body)
    assert list(agents.report_writes(stored, versions)) == []
    agents.observed = {}
    [write] = agents.report_writes(stored, versions)
    assert write.body is not None
    assert (write.body["status"]["sctpTracking"], write.body["status"]["tenantsAtConnectionLimit"]) == ("Addresses", [])


def test_reports_are_created_replaced_or_left() -> None:
    agents, stored, versions = reporting()
    made = [(write.verb, write.name) for write in agents.report_writes({}, {})]
    assert made == [(Verb.CREATE, "n1"), (Verb.CREATE, "n2")]
    assert list(agents.report_writes(stored, versions)) == []
    [write] = agents.report_writes({**stored, "n1": Report("n1")}, versions, policies_too=False)
    assert (write.verb, write.kind, write.name) == (Verb.UPDATE, "NodeReport", "n1")
    assert write.body is not None and write.body["metadata"]["resourceVersion"] == "5"
    other = {**stored, "n1": replace(stored["n1"], policies="other")}
    assert list(agents.report_writes(other, versions, policies_too=False)) == []
    assert [write.name for write in agents.report_writes(other, versions)] == ["n1"]


def test_a_change_updates_the_agents_that_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    updated: list[str] = []
    update = NodeAgent.update

    def recorded(agent: NodeAgent, *args: Any, **kwargs: Any) -> None:
        updated.append(agent.node)
        update(agent, *args, **kwargs)

    monkeypatch.setattr(NodeAgent, "update", recorded)
    before = cluster(pod("a", "node1"), pod("b", "node2"), pod("c", "node3"))
    engine = follow(before)
    reports = engine.agents.reports
    updated.clear()
    renewed = before.with_object(pod("b", "node2", uid="2", unasked="x"))
    engine.update(renewed)
    assert set(updated) == {"node2"}
    updated.clear()
    engine.update(renewed.with_object(policy("p")))
    assert not updated, "their rules alone were"
    assert engine.agents.reports is reports


def test_after_an_internal_error_all_agents_are_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cluster(pod("a", "node1"), pod("b", "node2"), pod("c", "node3"))
    engine, update = follow(before), NodeAgent.update
    changed = before.with_object(pod("a", "node1", uid="2", x="y")).with_object(pod("c", "node3", uid="2", x="y"))

    def failing(agent: NodeAgent, *args: Any, **kwargs: Any) -> None:
        if agent.node == "node1":
            raise ZeroDivisionError
        update(agent, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(NodeAgent, "update", failing)
        with pytest.raises(ZeroDivisionError):
            engine.update(changed)
    engine.update(changed)
    assert [engine.agents.uid_of(pod(name).key) for name in "abc"] == ["2", "1", "2"]
