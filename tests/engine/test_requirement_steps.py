"""The node part and the registry part by examples: who waits for whom, and who does not."""

from __future__ import annotations

# mypy: ignore-errors
from dataclasses import replace

import pytest

from romana_ovs.engine import tombstones
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity
from romana_ovs.model.labels import Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.policy.published import Stage
from romana_ovs.policy.resolve import resolve
from tests.engine.registry_and_agents import APP, NOT_WEB, WEB, confirm, hear, in_force, look, newest, settled, stages
from tests.support.cluster_objects import cluster, pod, policy

WITHOUT_Z = policy("without-z", PolicyPeer(pods=Selector((Requirement("z", Operator.DOES_NOT_EXIST),))))

# Classes


def test_a_pod_of_a_new_combination_gets_what_its_segment_gets_until_the_registry_has_seen_it():
    parts = settled(pod("a"), pod("plain"), policies=[WEB])
    segment = parts.messages[-1].indexes["ns", "default"][0]
    parts.change(parts.cluster.with_object(pod("b", labels={"app": "web"})))
    look(parts, "node1")
    assert parts.nodes["node1"].identity_of("ns/b") == identity(segment, UNKNOWN_CLASS)
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    number = parts.nodes["node1"].identity_of("ns/b")
    assert parts.messages[-1].namespaces["ns"].classes[number] == {APP}
    assert number in parts.messages[-1].namespaces["ns"].pending


def test_a_relabelled_pod_stays_what_it_was_until_every_node_knows_its_class():
    parts = settled(pod("a"), pod("other", "node2"), policies=[WEB])
    before = parts.view("node1").pods
    parts.change(parts.cluster.with_object(pod("a", labels={"app": "web"})))
    look(parts, "node1")
    assert parts.view("node1").pods == before and parts.nodes["node1"].waiting
    parts.registry_looks(newest(parts))
    for name in parts.nodes:
        look(parts, name)
    assert parts.view("node1").pods == before
    confirm(parts, "node1", "node2")
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    assert parts.view("node1").pods == before, "node3 has not confirmed yet"
    confirm(parts, "node3")
    parts.registry_looks(newest(parts))
    look(parts, "node1")
    (shown,) = parts.view("node1").pods
    assert shown.labels == Labels({"app": "web"}) and parts.view("node2").classes[shown.identity].matches == {APP: True}
    assert not parts.nodes["node1"].waiting


def test_a_relabelled_pod_does_not_wait_for_ever():
    parts = settled(pod("a", labels={"app": "web"}), policies=[WEB])
    parts.change(parts.cluster.with_object(pod("a", labels={"app": "db"})))
    look(parts, "node1", numbers=False, patience_over=True)
    (shown,) = parts.view("node1").pods
    assert shown.labels == Labels({"app": "db"}) and shown.identity & CLASS_MASK == UNKNOWN_CLASS
    assert not parts.nodes["node1"].waiting


def test_a_pod_that_was_relabelled_to_a_tier_that_nobody_knows_stays_and_then_is_closed():
    parts = settled(pod("a", labels={"tier": "front"}))
    before = parts.view("node1").pods
    parts.change(parts.cluster.with_object(pod("a", labels={"tier": "back"})))
    look(parts, "node1", numbers=False)
    assert parts.view("node1").pods == before
    assert parts.nodes["node1"].report.exhausted == {SegmentKey("ns", "back"): 0}
    look(parts, "node1", numbers=False, patience_over=True)
    assert parts.view("node1").pods == ()
    parts.settle()
    (shown,) = parts.view("node1").pods
    assert shown.segment == ("ns", "back") and shown.address == before[0].address


# Questions


def test_a_rule_that_asks_something_new_waits_until_its_answer_may_be_relied_on_everywhere():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    for _ in range(3):
        parts.registry_looks(newest(parts))
        for name in parts.nodes:
            look(parts, name)
        seen.append((stages(parts)[APP], in_force(parts, "node3"), parts.nodes["node3"].waiting))
        confirm(parts, *parts.nodes)
    assert seen == [(Stage.INTRODUCED, [], True), (Stage.ADOPTED, [], True), (Stage.ACTIVE, ["not-web"], False)]


def test_rules_come_into_force_without_the_registry_when_patience_is_over_and_admit_no_unknown_class():
    parts = settled(pod("a", labels={"app": "web"}), pod("server", "node3"), policies=[policy("closed")])
    parts.change(parts.cluster.with_object(NOT_WEB))
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed"]
    look(parts, "node3", numbers=False, patience_over=True)
    assert in_force(parts, "node3") == ["closed", "not-web"] and not parts.nodes["node3"].waiting
    assert all(APP not in info.matches for info in parts.view("node3").classes.values())
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed", "not-web"]


def test_answers_that_may_not_be_relied_on_yet_are_not_shown_even_when_patience_is_over():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    for expected in (Stage.INTRODUCED, Stage.ADOPTED):
        parts.registry_looks(newest(parts))
        assert stages(parts) == {APP: expected}
        for name in parts.nodes:
            look(parts, name, patience_over=True)
        view = parts.view("node3")
        assert in_force(parts, "node3") == ["not-web"]
        assert view.classes and all(info.matches == {} for info in view.classes.values())
        confirm(parts, *parts.nodes)
    parts.registry_looks(newest(parts))
    look(parts, "node3")
    assert {info.matches[APP] for info in parts.view("node3").classes.values()} == {True, False}


def test_who_still_goes_by_a_question_that_is_leaving_may_and_it_goes_when_nobody_does():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"), policies=[WEB])
    parts.change(parts.cluster.without(WEB))
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.RETIRING}
    for name in parts.nodes:
        hear(parts, name)
    confirm(parts, *parts.nodes)
    assert in_force(parts, "node3") == ["web-only"]
    assert any(info.matches == {APP: True} for info in parts.view("node3").classes.values())
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.RETIRING}
    for name in parts.nodes:
        look(parts, name)
    confirm(parts, *parts.nodes)
    parts.registry_looks(newest(parts))
    assert stages(parts) == {}


def test_a_question_that_is_leaving_is_not_relied_on_anew_and_comes_back_at_once():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"), policies=[WEB])
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


def test_a_node_whose_pod_wears_what_is_not_true_acknowledges_nothing():
    parts = settled(pod("a", labels={"app": "web"}), pod("b"))
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
    node.update(parts.cluster, replace(node.published, revision=had + 1, namespaces={"ns": answering}))
    assert node.identity_of("ns/a") == number and node.acknowledgement.acknowledged == 0 and node.waiting
    node.update(parts.cluster, None, patience_over=True)
    assert node.identity_of("ns/a") == number + 1 and node.acknowledgement.acknowledged == had + 1 and not node.waiting
    known = replace(answering, pending=frozenset())
    node.update(parts.cluster, replace(node.published, revision=had + 2, namespaces={"ns": known}))
    assert node.identity_of("ns/a") == number + 1 and node.acknowledgement.acknowledged == had + 2


# Nodes that are away


def three_steps(parts, *here, away):
    for _ in range(4):
        parts.registry_looks(newest(parts), away=frozenset(away))
        for name in here:
            look(parts, name)
        confirm(parts, *here)
    return stages(parts)


def test_a_node_that_is_away_is_not_waited_for():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    assert three_steps(parts, "node1", "node3", away=()) == {APP: Stage.INTRODUCED}
    assert three_steps(parts, "node1", "node3", away=["node2"]) == {APP: Stage.ACTIVE}


def test_a_class_that_a_pod_of_a_node_that_is_away_may_belie_gets_another_number():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    old = parts.nodes["node1"].identity_of("ns/a")
    assert old == parts.nodes["node2"].identity_of("ns/b")
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    while stages(parts).get(APP) is not Stage.ACTIVE:
        parts.registry_looks(newest(parts), away=frozenset({"node1"}))
        for name in ("node2", "node3"):
            look(parts, name)
        listed = set(parts.view("node3").classes)
        seen.append((stages(parts)[APP], old in listed, parts.nodes["node2"].identity_of("ns/b") == old))
        assert parts.nodes["node2"].identity_of("ns/b") in listed
        confirm(parts, "node2", "node3")
    assert seen == [
        (Stage.INTRODUCED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, True),
        (Stage.ADOPTED, True, False),
        (Stage.ADOPTED, False, False),
        (Stage.ACTIVE, False, False),
    ]
    assert parts.nodes["node1"].identity_of("ns/a") == old and in_force(parts, "node3") == ["not-web"]
    assert old in parts.messages[-1].namespaces["ns"].retired
    parts.settle()
    assert parts.messages[-1].namespaces["ns"].classes[parts.nodes["node1"].identity_of("ns/a")] == {APP}
    assert parts.messages[-1].namespaces["ns"].retired == frozenset()


def test_a_registry_that_restarts_while_a_class_gets_another_number_goes_on():
    for moment in range(1, 6):
        parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
        old = parts.nodes["node1"].identity_of("ns/a")
        parts.change(parts.cluster.with_object(NOT_WEB))
        for turn in range(12):
            if turn == moment:
                parts.restart_registry()
            parts.registry_looks(newest(parts), away=frozenset({"node1"}))
            for name in ("node2", "node3"):
                look(parts, name)
            assert parts.nodes["node2"].identity_of("ns/b") in parts.view("node3").classes
            confirm(parts, "node2", "node3")
        assert stages(parts) == {APP: Stage.ACTIVE}
        assert old not in parts.messages[-1].namespaces["ns"].classes
        parts.settle()


@pytest.mark.parametrize("new_term", [False, True])
@pytest.mark.parametrize(
    "became",
    [
        (pod("a", labels={"app": "db", "z": "1"}),),
        (pod("a", "node2", uid="2", labels={"app": "web", "z": "1"}),),
        (),
    ],
)
def test_nothing_opens_to_what_a_pod_of_a_node_that_is_away_was_before(became, new_term):
    stays = pod("b", "node2", labels={"app": "web"}), pod("server", "node3")
    parts = settled(pod("a", labels={"app": "web", "z": "1"}), *stays, policies=[WEB])
    old = parts.nodes["node1"].identity_of("ns/a")
    parts.change(cluster(*became, *stays, policies=[WEB]))
    three_steps(parts, "node2", "node3", away=["node1"])
    if new_term:
        parts.restart_registry(frozenset({"node1"}))
    parts.change(cluster(*became, *stays, policies=[WITHOUT_Z]))
    for _ in range(4):
        three_steps(parts, "node2", "node3", away=["node1"])
    assert in_force(parts, "node3") == ["without-z"]
    (server,) = resolve(parts.view("node3")).servers
    admitted = [match for allow in server.ingress for match in allow.identities]
    assert any(match.covers(parts.nodes["node2"].identity_of("ns/b")) for match in admitted)
    assert not any(match.covers(old) for match in admitted)


def test_a_class_that_goes_while_it_is_about_to_get_another_number_just_goes(monkeypatch):
    monkeypatch.setattr(tombstones, "MAX_TOMBSTONES", 0)
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    away = frozenset({"node1"})
    parts.registry_looks(newest(parts), away)
    look(parts, "node2")
    look(parts, "node3")
    confirm(parts, "node2", "node3")
    parts.registry_looks(newest(parts), away)
    assert stages(parts) == {APP: Stage.ADOPTED}
    parts.change(cluster(pod("a", labels={"app": "web"}), policies=[NOT_WEB]))
    look(parts, "node2")
    look(parts, "node3")
    confirm(parts, "node2", "node3")
    parts.registry_looks(newest(parts), away)
    parts.settle()


def test_a_question_does_not_leave_before_a_node_that_is_away_comes_back_or_is_deleted():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), policies=[WEB])
    parts.change(parts.cluster.without(WEB))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {APP: Stage.RETIRING}
    parts.change(parts.cluster.without(parts.cluster.nodes["node3"]))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {}
