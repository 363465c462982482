"""Registry and node agents by examples: nodes without a registry, and nodes that are lagging."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from romana_ovs.engine.lagging_nodes import AckLag
from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.published import TermBase
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.identity import UNKNOWN_CLASS, identity, segment_of
from romana_ovs.model.labels import Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import NAME_LABEL, Namespace, PodKey, PolicyPeer
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import ForeignRoute
from romana_ovs.registry_types.report import Report
from tests.engine.registry_and_agents import WEB, newest, settled, update_agent, update_numbers
from tests.support.builders import DEFAULTS, TINY, cluster, pod, policy, rule
from tests.support.known import known
from tests.support.reordered_messages import RegistryAndAgents, objects_of, tunnelled

# What a node does alone


def test_a_node_goes_on_without_the_registry_after_a_restart_too() -> None:
    simulation = settled(pod("a"), pod("b", "node2", app="web"), WEB)
    before = simulation.view("node1")
    simulation.restart_node("node1")
    simulation.node_looks("node1", newest(simulation), None)
    assert simulation.view("node1") == before
    simulation.change(simulation.cluster.with_object(pod("c")).without(pod("a")))
    update_agent(simulation, "node1", numbers=False)
    (shown,) = known(simulation.view("node1")).pods
    assert shown.key == "ns/c" and shown.identity == known(before).pods[0].identity
    assert shown.address != known(before).pods[0].address


def test_a_node_without_numbers_programs_nothing() -> None:
    node = NodeAgent("node1", DEFAULTS)
    at = cluster(pod("a"))
    node.update(at, None)
    assert node.view(tunnelled(at, ["node1"])["node1"]) is None
    assert node.report.acknowledged == 0 and node.report.exhausted_segments == {}


@pytest.mark.parametrize("change", [{"format": 2}, {"addresses": []}, {"node": "node2"}, {"worn": [["ns/a"]]}])
def test_a_state_that_is_not_this_nodes_is_refused(change: dict[str, Any]) -> None:
    saved = settled(pod("a")).nodes["node1"].to_json()
    with pytest.raises(InputError):
        NodeAgent("node1", DEFAULTS, {**saved, **change})
    with pytest.raises(InputError):
        NodeAgent("node1", DEFAULTS, saved, {"allocation": {}})


def test_a_node_without_published_numbers_keeps_its_addresses() -> None:
    simulation = settled(pod("a"), pod("b"), pod("c", address="192.168.5.9"))
    before = known(simulation.view("node1")).pods
    report = simulation.nodes["node1"].report
    simulation.nodes["node1"] = NodeAgent("node1", DEFAULTS, simulation.nodes["node1"].to_json())
    simulation.node_looks("node1", newest(simulation), None)
    assert simulation.view("node1") is None and simulation.nodes["node1"].report == report
    update_agent(simulation, "node1")
    assert known(simulation.view("node1")).pods == before


def test_a_relabelled_pod_stays_what_it_was_over_a_restart() -> None:
    simulation = settled(pod("a"), pod("other", "node2"), WEB)
    before = known(simulation.view("node1")).pods
    simulation.change(simulation.cluster.with_object(pod("a", app="web")))
    simulation.restart_node("node1")
    update_agent(simulation, "node1")
    assert known(simulation.view("node1")).pods == before and simulation.nodes["node1"].rules_waiting
    simulation.settle()
    assert known(simulation.view("node1")).pods != before


def test_a_pod_that_reused_a_name_over_a_restart_is_another() -> None:
    simulation = settled(pod("a", app="web"), WEB)
    was = simulation.nodes["node1"].identity_of(PodKey("ns/a"))
    simulation.change(simulation.cluster.with_object(pod("a", uid="2", app="db")))
    simulation.restart_node("node1")
    update_agent(simulation, "node1", numbers=False)
    node = simulation.nodes["node1"]
    assert (
        node.identity_of(PodKey("ns/a")) == identity(segment_of(known(was)), UNKNOWN_CLASS) and not node.rules_waiting
    )
    assert [dict(each.labels) for each in known(simulation.view("node1")).pods] == [{"app": "db"}]


@pytest.mark.parametrize("source", [TenantSource.NAMESPACE, TenantSource.POD_LABEL])
def test_an_unknown_namespace_lacks_no_label_for_sure(source: TenantSource) -> None:
    plain = Settings(isolation=Isolation.NONE, tenant_source=source, tenant_key="owner")
    untainted = Selector((Requirement("tainted", Operator.DOES_NOT_EXIST),))
    simulation = settled(pod("server"), policy("p", ingress=[rule(PolicyPeer(namespaces=untainted))]), settings=plain)
    for name, tainted in (("late", {"tainted": "yes"}), ("fine", {})):
        simulation.change(simulation.cluster.with_object(Namespace(name, Labels({NAME_LABEL: name, **tainted}))))
        simulation.change(simulation.cluster.with_object(pod(f"{name}/client", "node2")))
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node2")
    clients = [simulation.nodes["node2"].identity_of(PodKey(f"{name}/client")) for name in ("late", "fine")]

    def admitted() -> list[bool]:
        (server,) = resolve(known(simulation.view("node1"))).servers
        return [
            any(match.covers(known(one)) for allow in server.ingress for match in known(allow.identities))
            for one in clients
        ]

    update_numbers(simulation, "node1")
    assert admitted() == [False, False]
    simulation.settle()
    clients = [simulation.nodes["node2"].identity_of(PodKey(f"{name}/client")) for name in ("late", "fine")]
    assert admitted() == [False, True]


def test_a_state_of_another_plan_is_refused() -> None:
    simulation = settled(pod("a"))
    with pytest.raises(AddressError, match="written for the plan"):
        NodeAgent("node1", TINY, simulation.nodes["node1"].to_json())
    with pytest.raises(AddressError, match="another address plan"):
        Registry(TINY, TermBase.of(objects_of(simulation.messages[-1])), writer="x")


def test_older_or_contradictory_numbers_are_refused() -> None:
    simulation = settled(pod("a"))
    node, published = simulation.nodes["node1"], known(simulation.nodes["node1"].published)
    at = simulation.cluster
    node.update(at, replace(published, revision=published.revision - 1, hosts={}))
    assert node.published is published and list(node.problems) == []
    for wrong in (
        replace(published, epoch=published.epoch - 1, revision=published.revision + 9),
        replace(published, revision=published.revision + 1, blocks={}, indexes={}),
        replace(published, revision=published.revision + 1, plan=NodeAgent("x", TINY).plan),
    ):
        node.update(at, wrong)
        assert node.published is published and "are not taken" in str(node.problems[0])
    assert known(node.view(tunnelled(at, ["node1"])["node1"])).pods
    node.update(at, published)
    assert node.problems == ()


def test_an_address_whose_record_was_lost_is_foreign() -> None:
    simulation = settled(pod("a"))
    address = simulation.nodes["node1"].address_of(PodKey("ns/a"))
    lost = RegistryAndAgents(cluster(pod("a", address=str(address)), pod("b")))
    lost.settle()
    assert known(lost.nodes["node1"].allocator.endpoint(PodKey("ns/a"))).foreign
    assert lost.nodes["node1"].address_of(PodKey("ns/a")) == address != lost.nodes["node1"].address_of(PodKey("ns/b"))
    assert known(lost.view("node2")).foreign == (ForeignRoute(known(address), lost.messages[-1].hosts["node1"]),)


# Who is lagging


def test_a_node_that_does_not_acknowledge_is_lagging() -> None:
    absence = AckLag(30)
    prompt, slow = Report("prompt"), Report("slow")
    for second in range(100):
        prompt, slow = replace(prompt, acknowledged=second), replace(slow, acknowledged=max(0, second - 20))
        stuck = Report("stuck", acknowledged=min(second, 9))
        reports = {each.node: each for each in (prompt, slow, stuck)}
        assert absence.lagging(second + 1, reports, 1000 + second) == ({"stuck"} if second >= 39 else set()), second
    assert absence.next_check(reports, 1099) == 10
    assert absence.lagging(100, {"back": Report("back", acknowledged=100)}, 5000) == frozenset()
    assert absence.next_check({"back": Report("back", acknowledged=100)}, 5000) is None
