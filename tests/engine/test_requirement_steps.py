"""The node part and the registry part by examples: who waits for whom, and who does not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from romana_ovs.engine import tombstones
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity
from romana_ovs.model.labels import Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import Pod, PodKey, PolicyPeer
from romana_ovs.policy.published import Stage
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import LabelRequirement
from tests.engine.registry_and_agents import (
    APP,
    NOT_WEB,
    WEB,
    confirm,
    hear,
    in_force,
    look,
    newest,
    rounds,
    settled,
    stages,
)
from tests.support.builders import cluster, pod, policy, rule
from tests.support.known import known
from tests.support.reordered_messages import RegistryAndAgents

WITHOUT_Z = policy("without-z", ingress=[rule(PolicyPeer(pods=Selector((Requirement("z", Operator.DOES_NOT_EXIST),))))])

# Classes


def test_a_pod_of_an_unknown_class_gets_its_segments_rules() -> None:
    parts = settled(pod("a"), pod("plain"), WEB)
    segment = parts.messages[-1].indexes[SegmentKey("ns", "default")][0]
    parts.change(parts.cluster.with_object(pod("b", app="web")))
    look(parts, "node1")
    assert parts.nodes["node1"].identity_of(PodKey("ns/b")) == identity(segment, UNKNOWN_CLASS)
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    number = parts.nodes["node1"].identity_of(PodKey("ns/b"))
    assert parts.messages[-1].namespaces["ns"].classes[known(number)] == {APP}
    assert number in parts.messages[-1].namespaces["ns"].pending


def test_a_relabelled_pod_keeps_its_class_until_all_know_the_new() -> None:
    parts = settled(pod("a"), pod("other", "node2"), WEB)
    before = known(parts.view("node1")).pods
    parts.change(parts.cluster.with_object(pod("a", app="web")))
    look(parts, "node1")
    assert known(parts.view("node1")).pods == before and parts.nodes["node1"].waiting
    parts.registry_looks(newest(parts))
    for name in parts.nodes:
        look(parts, name)
    assert known(parts.view("node1")).pods == before
    confirm(parts, "node1", "node2")
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    assert known(parts.view("node1")).pods == before, "node3 has not confirmed yet"
    confirm(parts, "node3")
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    (shown,) = known(parts.view("node1")).pods
    assert shown.labels == Labels({"app": "web"})
    assert known(parts.view("node2")).classes[shown.identity].matches == {APP: True}
    assert not parts.nodes["node1"].waiting


def test_a_relabelled_pod_does_not_wait_for_ever() -> None:
    parts = settled(pod("a", app="web"), WEB)
    parts.change(parts.cluster.with_object(pod("a", app="db")))
    look(parts, "node1", numbers=False, patience_over=True)
    (shown,) = known(parts.view("node1")).pods
    assert shown.labels == Labels({"app": "db"}) and shown.identity & CLASS_MASK == UNKNOWN_CLASS
    assert not parts.nodes["node1"].waiting


def test_a_pod_relabelled_to_an_unknown_tier_is_closed_in_time() -> None:
    parts = settled(pod("a", tier="front"))
    before = known(parts.view("node1")).pods
    parts.change(parts.cluster.with_object(pod("a", tier="back")))
    look(parts, "node1", numbers=False)
    assert known(parts.view("node1")).pods == before
    assert parts.nodes["node1"].report.exhausted == {SegmentKey("ns", "back"): 0}
    look(parts, "node1", numbers=False, patience_over=True)
    assert known(parts.view("node1")).pods == ()
    parts.settle()
    (shown,) = known(parts.view("node1")).pods
    assert shown.segment == ("ns", "back") and shown.address == before[0].address


# Questions


def test_a_rule_waits_until_its_requirement_is_active() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    for _ in rounds(parts, 3):
        seen.append((stages(parts)[APP], in_force(parts, "node3"), parts.nodes["node3"].waiting))
    assert seen == [(Stage.INTRODUCED, [], True), (Stage.ADOPTED, [], True), (Stage.ACTIVE, ["not-web"], False)]


def test_rules_without_the_registry_admit_no_unknown_class() -> None:
    parts = settled(pod("a", app="web"), pod("server", "node3"), policy("closed"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed"]
    look(parts, "node3", numbers=False, patience_over=True)
    assert in_force(parts, "node3") == ["closed", "not-web"] and not parts.nodes["node3"].waiting
    assert all(APP not in info.matches for info in known(parts.view("node3")).classes.values())
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed", "not-web"]


def test_inactive_requirements_are_never_in_a_node_view() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    for expected in (Stage.INTRODUCED, Stage.ADOPTED):
        parts.registry_looks(newest(parts))
        assert stages(parts) == {APP: expected}
        for name in parts.nodes:
            look(parts, name, patience_over=True)
        view = parts.view("node3")
        assert in_force(parts, "node3") == ["not-web"]
        assert known(view).classes and all(info.matches == {} for info in known(view).classes.values())
        confirm(parts, *parts.nodes)
    parts.registry_looks(newest(parts))
    look(parts, "node3")
    assert {info.matches[APP] for info in known(parts.view("node3")).classes.values()} == {True, False}


def test_a_retiring_requirement_goes_once_no_rule_uses_it() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"), WEB)
    parts.change(parts.cluster.without(WEB))
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.RETIRING}
    for name in parts.nodes:
        hear(parts, name)
    confirm(parts, *parts.nodes)
    assert in_force(parts, "node3") == ["web-only"]
    assert any(info.matches == {APP: True} for info in known(parts.view("node3")).classes.values())
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.RETIRING}
    for name in parts.nodes:
        look(parts, name)
    confirm(parts, *parts.nodes)
    parts.registry_looks(newest(parts))
    assert stages(parts) == {}


def test_a_retiring_requirement_may_become_active_again() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"), WEB)
    parts.change(parts.cluster.without(WEB))
    parts.registry_looks(newest(parts))
    look(parts, "node3")
    parts.change(parts.cluster.with_object(NOT_WEB))
    look(parts, "node3")
    assert in_force(parts, "node3") == [] and parts.nodes["node3"].waiting
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.ACTIVE}
    look(parts, "node3")
    assert in_force(parts, "node3") == ["not-web"]


def test_a_node_with_a_pod_of_a_wrong_class_acknowledges_nothing() -> None:
    parts = settled(pod("a", app="web"), pod("b"))
    node = parts.nodes["node1"]
    had = node.report.acknowledged
    (classes,) = parts.messages[-1].namespaces.values()
    (number,) = classes.classes
    answering = replace(
        classes,
        requirements={APP: Stage.ADOPTED},
        classes={number: frozenset(), number + 1: frozenset({APP})},
        pending=frozenset({number + 1}),
    )
    node.update(parts.cluster, replace(known(node.published), revision=had + 1, namespaces={"ns": answering}))
    assert (node.identity_of(PodKey("ns/a")), node.waiting, node.acknowledgement.acknowledged) == (number, True, 0)
    node.update(parts.cluster, None, patience_over=True)
    assert node.identity_of(PodKey("ns/a")) == number + 1 and not node.waiting
    assert node.acknowledgement.acknowledged == had + 1
    settled_classes = replace(answering, pending=frozenset())
    node.update(parts.cluster, replace(known(node.published), revision=had + 2, namespaces={"ns": settled_classes}))
    assert node.identity_of(PodKey("ns/a")) == number + 1 and node.acknowledgement.acknowledged == had + 2


# Nodes that are away


def three_steps(parts: RegistryAndAgents, *here: str, away: Iterable[str]) -> dict[LabelRequirement, Stage]:
    for _ in range(4):
        parts.registry_looks(newest(parts), away=frozenset(away))
        for name in here:
            look(parts, name)
        confirm(parts, *here)
    return stages(parts)


def test_a_node_that_is_away_is_not_waited_for() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    assert three_steps(parts, "node1", "node3", away=()) == {APP: Stage.INTRODUCED}
    assert three_steps(parts, "node1", "node3", away=["node2"]) == {APP: Stage.ACTIVE}


def test_a_class_that_an_away_node_may_misuse_is_renumbered() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    old = parts.nodes["node1"].identity_of(PodKey("ns/a"))
    assert old == parts.nodes["node2"].identity_of(PodKey("ns/b"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    while stages(parts).get(APP) is not Stage.ACTIVE:
        parts.registry_looks(newest(parts), away=frozenset({"node1"}))
        for name in ("node2", "node3"):
            look(parts, name)
        listed = set(known(parts.view("node3")).classes)
        seen.append((stages(parts)[APP], old in listed, parts.nodes["node2"].identity_of(PodKey("ns/b")) == old))
        assert parts.nodes["node2"].identity_of(PodKey("ns/b")) in listed
        confirm(parts, "node2", "node3")
    assert seen == [
        (Stage.INTRODUCED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, False),
        (Stage.ADOPTED, False, False),
        (Stage.ACTIVE, False, False),
    ]
    assert parts.nodes["node1"].identity_of(PodKey("ns/a")) == old and in_force(parts, "node3") == ["not-web"]
    assert old in parts.messages[-1].namespaces["ns"].retired
    parts.settle()
    assert parts.messages[-1].namespaces["ns"].classes[known(parts.nodes["node1"].identity_of(PodKey("ns/a")))] == {APP}
    assert parts.messages[-1].namespaces["ns"].retired == frozenset()


def test_a_restarted_registry_goes_on_with_renumbering() -> None:
    for moment in range(1, 6):
        parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
        old = parts.nodes["node1"].identity_of(PodKey("ns/a"))
        parts.change(parts.cluster.with_object(NOT_WEB))
        for turn in range(12):
            if turn == moment:
                parts.restart_registry()
            parts.registry_looks(newest(parts), away=frozenset({"node1"}))
            for name in ("node2", "node3"):
                look(parts, name)
            assert parts.nodes["node2"].identity_of(PodKey("ns/b")) in known(parts.view("node3")).classes
            confirm(parts, "node2", "node3")
        assert stages(parts) == {APP: Stage.ACTIVE}
        assert old not in parts.messages[-1].namespaces["ns"].classes
        parts.settle()


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
    parts = settled(pod("a", app="web", z="1"), *stays, WEB)
    old = parts.nodes["node1"].identity_of(PodKey("ns/a"))
    parts.change(cluster(*became, *stays, WEB))
    three_steps(parts, "node2", "node3", away=["node1"])
    if new_term:
        parts.restart_registry(frozenset({"node1"}))
    parts.change(cluster(*became, *stays, WITHOUT_Z))
    for _ in range(4):
        three_steps(parts, "node2", "node3", away=["node1"])
    assert in_force(parts, "node3") == ["without-z"]
    (server,) = resolve(known(parts.view("node3"))).servers
    admitted = [match for allow in server.ingress for match in known(allow.identities)]
    assert any(match.covers(known(parts.nodes["node2"].identity_of(PodKey("ns/b")))) for match in admitted)
    assert not any(match.covers(known(old)) for match in admitted)


def test_a_class_deleted_while_it_is_renumbered_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tombstones, "MAX_TOMBSTONES", 0)
    parts = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    away = frozenset({"node1"})
    parts.registry_looks(newest(parts), away)
    look(parts, "node2")
    look(parts, "node3")
    confirm(parts, "node2", "node3")
    parts.registry_looks(newest(parts), away)
    assert stages(parts) == {APP: Stage.ADOPTED}
    parts.change(cluster(pod("a", app="web"), NOT_WEB))
    look(parts, "node2")
    look(parts, "node3")
    confirm(parts, "node2", "node3")
    parts.registry_looks(newest(parts), away)
    parts.settle()


def test_a_requirement_stays_while_a_node_is_away() -> None:
    parts = settled(pod("a", app="web"), pod("b", "node2"), WEB)
    parts.change(parts.cluster.without(WEB))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {APP: Stage.RETIRING}
    parts.change(parts.cluster.without(parts.cluster.nodes["node3"]))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {}
