"""Registry and node agents by examples: which steps of label requirements wait for which nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from romana_ovs.engine import tombstones
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity
from romana_ovs.model.labels import Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import Pod, PodKey, PolicyPeer
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Stage
from tests.engine.registry_and_agents import (
    APP,
    NOT_WEB,
    WEB,
    confirm,
    in_force,
    newest,
    rounds,
    settled,
    stages,
    update_agent,
    update_numbers,
)
from tests.support.builders import cluster, pod, policy, rule
from tests.support.known import known
from tests.support.reordered_messages import RegistryAndAgents

WITHOUT_Z = policy("without-z", ingress=[rule(PolicyPeer(pods=Selector((Requirement("z", Operator.DOES_NOT_EXIST),))))])

# Classes


def test_a_pod_of_an_unknown_class_gets_its_segments_rules() -> None:
    simulation = settled(pod("a"), pod("plain"), WEB)
    segment = simulation.messages[-1].indexes[SegmentKey("ns", "default")][0]
    simulation.change(simulation.cluster.with_object(pod("b", app="web")))
    update_agent(simulation, "node1")
    assert simulation.nodes["node1"].identity_of(PodKey("ns/b")) == identity(segment, UNKNOWN_CLASS)
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node1")
    number = simulation.nodes["node1"].identity_of(PodKey("ns/b"))
    assert simulation.messages[-1].class_sets["ns"].classes[known(number)] == {APP}
    assert number in simulation.messages[-1].class_sets["ns"].pending


def test_a_relabelled_pod_keeps_its_class_until_all_know_the_new() -> None:
    simulation = settled(pod("a"), pod("other", "node2"), WEB)
    before = known(simulation.view("node1")).pods
    simulation.change(simulation.cluster.with_object(pod("a", app="web")))
    update_agent(simulation, "node1")
    assert known(simulation.view("node1")).pods == before and simulation.nodes["node1"].rules_waiting
    simulation.registry_looks(newest(simulation))
    for name in simulation.nodes:
        update_agent(simulation, name)
    assert known(simulation.view("node1")).pods == before
    confirm(simulation, "node1", "node2")
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node1")
    assert known(simulation.view("node1")).pods == before, "node3 has not confirmed yet"
    confirm(simulation, "node3")
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node1")
    (shown,) = known(simulation.view("node1")).pods
    assert shown.labels == Labels({"app": "web"})
    assert known(simulation.view("node2")).classes[shown.identity].matches == {APP: True}
    assert not simulation.nodes["node1"].rules_waiting


def test_a_relabelled_pod_does_not_wait_for_ever() -> None:
    simulation = settled(pod("a", app="web"), WEB)
    simulation.change(simulation.cluster.with_object(pod("a", app="db")))
    update_agent(simulation, "node1", numbers=False, may_wait=False)
    (shown,) = known(simulation.view("node1")).pods
    assert shown.labels == Labels({"app": "db"}) and shown.identity & CLASS_MASK == UNKNOWN_CLASS
    assert not simulation.nodes["node1"].rules_waiting


def test_a_pod_relabelled_to_an_unknown_tier_is_closed_in_time() -> None:
    simulation = settled(pod("a", tier="front"))
    before = known(simulation.view("node1")).pods
    simulation.change(simulation.cluster.with_object(pod("a", tier="back")))
    update_agent(simulation, "node1", numbers=False)
    assert known(simulation.view("node1")).pods == before
    assert simulation.nodes["node1"].report.exhausted_segments == {SegmentKey("ns", "back"): 0}
    update_agent(simulation, "node1", numbers=False, may_wait=False)
    assert known(simulation.view("node1")).pods == ()
    simulation.settle()
    (shown,) = known(simulation.view("node1")).pods
    assert shown.segment == ("ns", "back") and shown.address == before[0].address


# Questions


def test_a_rule_waits_until_its_requirement_is_active() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    seen = []
    for _ in rounds(simulation, 3):
        seen.append((stages(simulation)[APP], in_force(simulation, "node3"), simulation.nodes["node3"].rules_waiting))
    assert seen == [(Stage.INTRODUCED, [], True), (Stage.ADOPTED, [], True), (Stage.ACTIVE, ["not-web"], False)]


def test_rules_without_the_registry_admit_no_unknown_class() -> None:
    simulation = settled(pod("a", app="web"), pod("server", "node3"), policy("closed"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    update_agent(simulation, "node3", numbers=False)
    assert in_force(simulation, "node3") == ["closed"]
    update_agent(simulation, "node3", numbers=False, may_wait=False)
    assert in_force(simulation, "node3") == ["closed", "not-web"] and not simulation.nodes["node3"].rules_waiting
    assert all(APP not in info.matches for info in known(simulation.view("node3")).classes.values())
    update_agent(simulation, "node3", numbers=False)
    assert in_force(simulation, "node3") == ["closed", "not-web"]


def test_inactive_requirements_are_never_in_a_node_view() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    for expected in (Stage.INTRODUCED, Stage.ADOPTED):
        simulation.registry_looks(newest(simulation))
        assert stages(simulation) == {APP: expected}
        for name in simulation.nodes:
            update_agent(simulation, name, may_wait=False)
        view = simulation.view("node3")
        assert in_force(simulation, "node3") == ["not-web"]
        assert known(view).classes and all(info.matches == {} for info in known(view).classes.values())
        confirm(simulation, *simulation.nodes)
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node3")
    assert {info.matches[APP] for info in known(simulation.view("node3")).classes.values()} == {True, False}


def test_a_retiring_requirement_goes_once_no_rule_uses_it() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"), WEB)
    simulation.change(simulation.cluster.without(WEB))
    simulation.registry_looks(newest(simulation))
    assert stages(simulation) == {APP: Stage.RETIRING}
    for name in simulation.nodes:
        update_numbers(simulation, name)
    confirm(simulation, *simulation.nodes)
    assert in_force(simulation, "node3") == ["web-only"]
    assert any(info.matches == {APP: True} for info in known(simulation.view("node3")).classes.values())
    simulation.registry_looks(newest(simulation))
    assert stages(simulation) == {APP: Stage.RETIRING}
    for name in simulation.nodes:
        update_agent(simulation, name)
    confirm(simulation, *simulation.nodes)
    simulation.registry_looks(newest(simulation))
    assert stages(simulation) == {}


def test_a_retiring_requirement_may_become_active_again() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"), WEB)
    simulation.change(simulation.cluster.without(WEB))
    simulation.registry_looks(newest(simulation))
    update_agent(simulation, "node3")
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    update_agent(simulation, "node3")
    assert in_force(simulation, "node3") == [] and simulation.nodes["node3"].rules_waiting
    simulation.registry_looks(newest(simulation))
    assert stages(simulation) == {APP: Stage.ACTIVE}
    update_agent(simulation, "node3")
    assert in_force(simulation, "node3") == ["not-web"]


def test_a_node_with_a_pod_of_a_wrong_class_acknowledges_nothing() -> None:
    simulation = settled(pod("a", app="web"), pod("b"))
    node = simulation.nodes["node1"]
    had = node.report.acknowledged
    (classes,) = simulation.messages[-1].class_sets.values()
    (number,) = classes.classes
    answering = replace(
        classes,
        requirements={APP: Stage.ADOPTED},
        classes={number: frozenset(), number + 1: frozenset({APP})},
        pending=frozenset({number + 1}),
    )
    node.update(simulation.cluster, replace(known(node.published), revision=had + 1, class_sets={"ns": answering}))
    assert (node.identity_of(PodKey("ns/a")), node.rules_waiting, node.pending_ack.revision) == (number, True, 0)
    node.update(simulation.cluster, None, may_wait=False)
    assert node.identity_of(PodKey("ns/a")) == number + 1 and not node.rules_waiting
    assert node.pending_ack.revision == had + 1
    settled_classes = replace(answering, pending=frozenset())
    node.update(
        simulation.cluster, replace(known(node.published), revision=had + 2, class_sets={"ns": settled_classes})
    )
    assert node.identity_of(PodKey("ns/a")) == number + 1 and node.pending_ack.revision == had + 2


# Nodes that are lagging


def three_steps(simulation: RegistryAndAgents, *here: str, lagging: Iterable[str]) -> dict[LabelRequirement, Stage]:
    for _ in range(4):
        simulation.registry_looks(newest(simulation), lagging=frozenset(lagging))
        for name in here:
            update_agent(simulation, name)
        confirm(simulation, *here)
    return stages(simulation)


def test_a_node_that_is_away_is_not_waited_for() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    assert three_steps(simulation, "node1", "node3", lagging=()) == {APP: Stage.INTRODUCED}
    assert three_steps(simulation, "node1", "node3", lagging=["node2"]) == {APP: Stage.ACTIVE}


def test_a_class_that_an_away_node_may_misuse_is_renumbered() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    old = simulation.nodes["node1"].identity_of(PodKey("ns/a"))
    assert old == simulation.nodes["node2"].identity_of(PodKey("ns/b"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    seen = []
    while stages(simulation).get(APP) is not Stage.ACTIVE:
        simulation.registry_looks(newest(simulation), lagging=frozenset({"node1"}))
        for name in ("node2", "node3"):
            update_agent(simulation, name)
        listed = set(known(simulation.view("node3")).classes)
        seen.append(
            (stages(simulation)[APP], old in listed, simulation.nodes["node2"].identity_of(PodKey("ns/b")) == old)
        )
        assert simulation.nodes["node2"].identity_of(PodKey("ns/b")) in listed
        confirm(simulation, "node2", "node3")
    assert seen == [
        (Stage.INTRODUCED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, False),
        (Stage.ADOPTED, False, False),
        (Stage.ACTIVE, False, False),
    ]
    assert simulation.nodes["node1"].identity_of(PodKey("ns/a")) == old and in_force(simulation, "node3") == ["not-web"]
    assert old in simulation.messages[-1].class_sets["ns"].retired
    simulation.settle()
    assert simulation.messages[-1].class_sets["ns"].classes[
        known(simulation.nodes["node1"].identity_of(PodKey("ns/a")))
    ] == {APP}
    assert simulation.messages[-1].class_sets["ns"].retired == frozenset()


def test_a_restarted_registry_goes_on_with_renumbering() -> None:
    for moment in range(1, 6):
        simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
        old = simulation.nodes["node1"].identity_of(PodKey("ns/a"))
        simulation.change(simulation.cluster.with_object(NOT_WEB))
        for turn in range(12):
            if turn == moment:
                simulation.restart_registry()
            simulation.registry_looks(newest(simulation), lagging=frozenset({"node1"}))
            for name in ("node2", "node3"):
                update_agent(simulation, name)
            assert simulation.nodes["node2"].identity_of(PodKey("ns/b")) in known(simulation.view("node3")).classes
            confirm(simulation, "node2", "node3")
        assert stages(simulation) == {APP: Stage.ACTIVE}
        assert old not in simulation.messages[-1].class_sets["ns"].classes
        simulation.settle()


@pytest.mark.parametrize("new_term", [False, True])
@pytest.mark.parametrize(
    "became",
    [
        (pod("a", app="db", z="1"),),
        (pod("a", "node2", uid="2", app="web", z="1"),),
        (),
    ],
)
def test_nothing_opens_to_former_classes_of_an_away_node(became: tuple[Pod, ...], new_term: bool) -> None:
    stays = pod("b", "node2", app="web"), pod("server", "node3")
    simulation = settled(pod("a", app="web", z="1"), *stays, WEB)
    old = simulation.nodes["node1"].identity_of(PodKey("ns/a"))
    simulation.change(cluster(*became, *stays, WEB))
    three_steps(simulation, "node2", "node3", lagging=["node1"])
    if new_term:
        simulation.restart_registry(frozenset({"node1"}))
    simulation.change(cluster(*became, *stays, WITHOUT_Z))
    for _ in range(4):
        three_steps(simulation, "node2", "node3", lagging=["node1"])
    assert in_force(simulation, "node3") == ["without-z"]
    (server,) = resolve(known(simulation.view("node3"))).servers
    admitted = [match for allow in server.ingress for match in known(allow.identities)]
    assert any(match.covers(known(simulation.nodes["node2"].identity_of(PodKey("ns/b")))) for match in admitted)
    assert not any(match.covers(known(old)) for match in admitted)


def test_a_class_deleted_while_it_is_renumbered_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "MAX_TOMBSTONES", 0)
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    lagging = frozenset({"node1"})
    simulation.registry_looks(newest(simulation), lagging)
    update_agent(simulation, "node2")
    update_agent(simulation, "node3")
    confirm(simulation, "node2", "node3")
    simulation.registry_looks(newest(simulation), lagging)
    assert stages(simulation) == {APP: Stage.ADOPTED}
    simulation.change(cluster(pod("a", app="web"), NOT_WEB))
    update_agent(simulation, "node2")
    update_agent(simulation, "node3")
    confirm(simulation, "node2", "node3")
    simulation.registry_looks(newest(simulation), lagging)
    simulation.settle()


def test_a_requirement_stays_while_a_node_is_lagging() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), WEB)
    simulation.change(simulation.cluster.without(WEB))
    assert three_steps(simulation, "node1", "node2", lagging=["node3"]) == {APP: Stage.RETIRING}
    simulation.change(simulation.cluster.without(simulation.cluster.nodes["node3"]))
    assert three_steps(simulation, "node1", "node2", lagging=["node3"]) == {}
