"""The node part and the registry part by examples: who waits for whom, and who does not."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.kube.published import Base
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS, identity
from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Claim, Report, Stage
from romana_ovs.policy.view import Atom, ForeignRoute
from romana_ovs.world.absence import Absence
from romana_ovs.world.node import NodePart
from romana_ovs.world.registry import RegistryPart
from tests.properties.parts import Parts, objects_of, tunnelled
from tests.test_world import DEFAULTS, TINY, cluster, foreign, pod, policy

APP = Atom("app", frozenset({"web"}))
WEB = policy("web-only", PolicyPeer(pods=Selector.of({"app": "web"})))
NOT_WEB = policy("not-web", PolicyPeer(pods=Selector((Requirement("app", Operator.NOT_IN, frozenset({"web"})),))))


def settled(*pods, **other):
    parts = Parts(cluster(*pods, **other))
    parts.settle()
    return parts


def newest(parts):
    return len(parts.history) - 1


def look(parts, name, *, numbers=True, **other):
    parts.node_looks(name, newest(parts), len(parts.messages) - 1 if numbers else None, **other)


def hear(parts, name):
    """The newest numbers reach a node that has not seen the last change of the cluster."""
    parts.node_looks(name, 0, len(parts.messages) - 1)


def confirm(parts, *names):
    for name in names:
        parts.node_programs(name)
        parts.report_arrives(name)


def stages(parts, namespace="ns"):
    return dict(parts.messages[-1].namespaces[namespace].atoms)


def in_force(parts, name):
    return [each.key.name for each in parts.view(name).policies]


# What a node does alone


def test_a_node_goes_on_without_the_registry_after_a_restart_too():
    parts = settled(pod("a"), pod("b", "node2", labels={"app": "web"}), policies=[WEB])
    before = parts.view("node1")
    parts.restart_node("node1")
    parts.node_looks("node1", newest(parts), None)
    assert parts.view("node1") == before
    parts.change(parts.cluster.with_object(pod("c")).without(pod("a")))
    look(parts, "node1", numbers=False)
    (shown,) = parts.view("node1").pods
    assert shown.key == "ns/c" and shown.identity == before.pods[0].identity
    assert shown.address != before.pods[0].address


def test_a_node_without_numbers_programs_nothing():
    node = NodePart("node1", DEFAULTS)
    at = cluster(pod("a"))
    node.update(at, None)
    assert node.view(tunnelled(at, ["node1"])["node1"]) is None
    assert node.report.acknowledged == 0 and node.report.wants == {}


@pytest.mark.parametrize("change", [{"format": 2}, {"addresses": []}, {"node": "node2"}, {"worn": [["ns/a"]]}])
def test_a_state_that_is_not_this_nodes_is_refused(change):
    saved = settled(pod("a")).nodes["node1"].to_json()
    with pytest.raises(InputError):
        NodePart("node1", DEFAULTS, {**saved, **change})
    with pytest.raises(InputError):
        NodePart("node1", DEFAULTS, saved, {"allocation": {}})


def test_a_node_that_lost_the_numbers_waits_for_them_and_keeps_its_addresses():
    parts = settled(pod("a"), pod("b"), foreign("c", "192.168.5.9"))
    before = parts.view("node1").pods
    report = parts.nodes["node1"].report
    parts.nodes["node1"] = NodePart("node1", DEFAULTS, parts.nodes["node1"].to_json())
    parts.node_looks("node1", newest(parts), None)
    assert parts.view("node1") is None and parts.nodes["node1"].report == report
    look(parts, "node1")
    assert parts.view("node1").pods == before


def test_a_relabelled_pod_stays_what_it_was_over_a_restart():
    parts = settled(pod("a"), pod("other", "node2"), policies=[WEB])
    before = parts.view("node1").pods
    parts.change(parts.cluster.with_object(pod("a", labels={"app": "web"})))
    parts.restart_node("node1")
    look(parts, "node1")
    assert parts.view("node1").pods == before and parts.nodes["node1"].waiting
    parts.settle()
    assert parts.view("node1").pods != before


def test_a_state_of_another_plan_is_refused():
    parts = settled(pod("a"))
    with pytest.raises(AddressError, match="written for the plan"):
        NodePart("node1", TINY, parts.nodes["node1"].to_json())
    with pytest.raises(AddressError, match="another address plan"):
        RegistryPart(TINY, Base.of(objects_of(parts.messages[-1])), writer="x")


def test_numbers_that_are_older_or_contradict_what_pods_have_are_not_taken():
    parts = settled(pod("a"))
    node, held = parts.nodes["node1"], parts.nodes["node1"].published
    at = parts.cluster
    node.update(at, replace(held, revision=held.revision - 1, hosts={}))
    assert node.published is held and node.problems == ()
    for wrong in (
        replace(held, epoch=held.epoch - 1, revision=held.revision + 9),
        replace(held, revision=held.revision + 1, runs={}, indexes={}),
        replace(held, revision=held.revision + 1, plan=NodePart("x", TINY).plan),
    ):
        node.update(at, wrong)
        assert node.published is held and "are not taken" in str(node.problems[0])
    assert node.view(tunnelled(at, ["node1"])["node1"]).pods
    node.update(at, held)
    assert node.problems == ()


def test_an_address_whose_record_was_lost_is_foreign():
    parts = settled(pod("a"))
    address = parts.nodes["node1"].address_of("ns/a")
    lost = Parts(cluster(foreign("a", str(address)), pod("b")))
    lost.settle()
    assert lost.nodes["node1"].registry.endpoint("ns/a").foreign
    assert lost.nodes["node1"].address_of("ns/a") == address != lost.nodes["node1"].address_of("ns/b")
    assert lost.view("node2").foreign == (ForeignRoute(address, lost.messages[-1].hosts["node1"]),)


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
    assert number in parts.messages[-1].namespaces["ns"].coming


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
    assert shown.labels == Labels({"app": "web"}) and parts.view("node2").classes[shown.identity].truths == {APP: True}
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
    assert parts.nodes["node1"].report.wants == {SegmentKey("ns", "back"): 0}
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
    assert seen == [(Stage.NEW, [], True), (Stage.WORN, [], True), (Stage.SETTLED, ["not-web"], False)]


def test_rules_come_into_force_without_the_registry_when_patience_is_over_and_admit_no_unknown_class():
    parts = settled(pod("a", labels={"app": "web"}), pod("server", "node3"), policies=[policy("closed")])
    parts.change(parts.cluster.with_object(NOT_WEB))
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed"]
    look(parts, "node3", numbers=False, patience_over=True)
    assert in_force(parts, "node3") == ["closed", "not-web"] and not parts.nodes["node3"].waiting
    assert all(APP not in info.truths for info in parts.view("node3").classes.values())
    look(parts, "node3", numbers=False)
    assert in_force(parts, "node3") == ["closed", "not-web"]


def test_answers_that_may_not_be_relied_on_yet_are_not_shown_even_when_patience_is_over():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    parts.change(parts.cluster.with_object(NOT_WEB))
    for expected in (Stage.NEW, Stage.WORN):
        parts.registry_looks(newest(parts))
        assert stages(parts) == {APP: expected}
        for name in parts.nodes:
            look(parts, name, patience_over=True)
        view = parts.view("node3")
        assert in_force(parts, "node3") == ["not-web"]
        assert view.classes and all(info.truths == {} for info in view.classes.values())
        confirm(parts, *parts.nodes)
    parts.registry_looks(newest(parts))
    look(parts, "node3")
    assert {info.truths[APP] for info in parts.view("node3").classes.values()} == {True, False}


def test_who_still_goes_by_a_question_that_is_leaving_may_and_it_goes_when_nobody_does():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"), policies=[WEB])
    parts.change(parts.cluster.without(WEB))
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.LEAVING}
    for name in parts.nodes:
        hear(parts, name)
    confirm(parts, *parts.nodes)
    assert in_force(parts, "node3") == ["web-only"]
    assert any(info.truths == {APP: True} for info in parts.view("node3").classes.values())
    parts.registry_looks(newest(parts))
    assert stages(parts) == {APP: Stage.LEAVING}
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
    assert stages(parts) == {APP: Stage.SETTLED}
    look(parts, "node3")
    assert in_force(parts, "node3") == ["not-web"]


def test_a_node_whose_pod_wears_what_is_not_true_acknowledges_nothing():
    parts = settled(pod("a", labels={"app": "web"}), pod("b"))
    node = parts.nodes["node1"]
    had = node.report.acknowledged
    (classes,) = parts.messages[-1].namespaces.values()
    (number,) = classes.classes
    answering = replace(classes, atoms={APP: Stage.WORN}, classes={number: frozenset(), number + 1: frozenset({APP})},
                        coming=frozenset({number + 1}))
    node.update(parts.cluster, replace(node.published, revision=had + 1, namespaces={"ns": answering}))
    assert node.identity_of("ns/a") == number and node.promise.acknowledged == 0
    known = replace(answering, coming=frozenset())
    node.update(parts.cluster, replace(node.published, revision=had + 2, namespaces={"ns": known}))
    assert node.identity_of("ns/a") == number + 1 and node.promise.acknowledged == had + 2


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
    assert three_steps(parts, "node1", "node3", away=()) == {APP: Stage.NEW}
    assert three_steps(parts, "node1", "node3", away=["node2"]) == {APP: Stage.SETTLED}


def test_a_class_that_a_pod_of_a_node_that_is_away_may_belie_gets_another_number():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    old = parts.nodes["node1"].identity_of("ns/a")
    assert old == parts.nodes["node2"].identity_of("ns/b")
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    while stages(parts).get(APP) is not Stage.SETTLED:
        parts.registry_looks(newest(parts), away=frozenset({"node1"}))
        for name in ("node2", "node3"):
            look(parts, name)
        listed = set(parts.view("node3").classes)
        seen.append((stages(parts)[APP], old in listed, parts.nodes["node2"].identity_of("ns/b") == old))
        assert parts.nodes["node2"].identity_of("ns/b") in listed
        confirm(parts, "node2", "node3")
    assert seen == [
        (Stage.NEW, True, True),
        (Stage.WORN, True, True),
        (Stage.WORN, True, True),
        (Stage.WORN, True, False),
        (Stage.WORN, False, False),
        (Stage.SETTLED, False, False),
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
        assert stages(parts) == {APP: Stage.SETTLED}
        assert old not in parts.messages[-1].namespaces["ns"].classes
        parts.settle()


def test_a_question_does_not_leave_before_a_node_that_is_away_comes_back_or_is_deleted():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), policies=[WEB])
    parts.change(parts.cluster.without(WEB))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {APP: Stage.LEAVING}
    parts.change(parts.cluster.without(parts.cluster.nodes["node3"]))
    assert three_steps(parts, "node1", "node2", away=["node3"]) == {}


# Numbers


def test_a_host_number_is_given_again_only_when_every_node_has_let_it_go():
    names = tuple(f"node{number}" for number in range(1, 5))
    parts = settled(settings=TINY, nodes=names)
    node4 = parts.cluster.nodes["node4"]
    parts.change(parts.cluster.without(node4).with_object(replace(node4, name="late")))
    parts.registry_looks(newest(parts))
    assert "late" not in parts.messages[-1].hosts and "late" in str(parts.registry.problems[0])
    for name in names[:3]:
        look(parts, name)
    confirm(parts, "node1", "node2")
    parts.registry_looks(newest(parts))
    assert "late" not in parts.messages[-1].hosts
    confirm(parts, "node3")
    parts.registry_looks(newest(parts))
    assert parts.messages[-1].hosts["late"] == parts.messages[0].hosts["node4"] and parts.registry.problems == ()


def test_a_class_that_is_gone_is_reserved_until_every_node_has_let_it_go():
    at = cluster(pod("a"), pod("b", "node2", namespace="other"))
    parts = settled(pod("a"), pod("b", "node2", namespace="other"))
    (number,) = parts.messages[-1].namespaces["other"].classes
    parts.change(at.without(pod("b", namespace="other")).without(at.namespaces["other"]))
    parts.registry_looks(newest(parts))
    assert parts.messages[-1].namespaces["other"].retired == {number}
    for name in parts.nodes:
        look(parts, name)
    confirm(parts, "node1", "node2")
    parts.registry_looks(newest(parts))
    assert parts.messages[-1].namespaces["other"].retired == {number}
    confirm(parts, "node3")
    parts.registry_looks(newest(parts))
    assert "other" not in parts.messages[-1].namespaces


def test_a_full_segment_grows_when_its_node_asks_and_nobody_else_is_given_anything():
    crowd = [pod(f"p{number}") for number in range(5)]
    parts = Parts(cluster(*crowd, settings=TINY))
    parts.registry_looks(0)
    look(parts, "node1")
    node, segment = parts.nodes["node1"], SegmentKey("ns", "default")
    assert node.report.wants == {segment: 1} and "waits for the registry" in str(node.problems[-1])
    liar = replace(parts.nodes["node1"].report, node="node2")
    look(parts, "node2")
    parts.reports["node2"] = liar
    parts.registry_looks(0)
    assert len(parts.messages[-1].indexes[segment]) == 1
    parts.settle()
    assert len(parts.messages[-1].indexes[segment]) == 2 and node.problems == () and node.report.wants == {}
    assert all(node.address_of(each.key) is not None for each in crowd)


def test_settings_that_change_the_plan_are_refused():
    parts = settled(pod("a"))
    other = replace(parts.cluster, settings=Settings(network=IPv4Network("10.0.0.0/9"), segment_bits=11))
    for part in (parts.nodes["node1"].update, lambda at, _: parts.registry.update(at)):
        with pytest.raises(InputError, match="the address plan .* cannot change under live pods"):
            part(other, None)


# Addresses from elsewhere


def test_an_address_from_elsewhere_is_served_when_the_registry_has_routed_it():
    parts = Parts(cluster(foreign("a", "192.168.5.9"), pod("b", "node2")))
    parts.registry_looks(0)
    look(parts, "node1")
    node, address = parts.nodes["node1"], IPv4Address("192.168.5.9")
    assert node.address_of("ns/a") is None and node.report.foreign == {address}
    parts.settle()
    assert node.address_of("ns/a") == address and node.problems == ()
    assert parts.messages[-1].foreign == {address: Claim("node1", granted=True)}
    assert parts.view("node2").foreign == (ForeignRoute(address, parts.messages[-1].hosts["node1"]),)
    parts.change(parts.cluster.without(foreign("a", "192.168.5.9")))
    parts.settle()
    assert parts.messages[-1].foreign == {}


def test_only_the_node_that_may_give_an_address_can_contest_it():
    parts = Parts(cluster(foreign("b", "192.168.5.9", node="node2")))
    for name in ("node1", "node2"):
        look(parts, name, numbers=False)
    parts.reports["node1"] = replace(parts.reports["node1"], contested=frozenset({IPv4Address("192.168.5.9")}))
    parts.node_programs("node2")
    parts.report_arrives("node2")
    for _ in range(2):
        parts.registry_looks(0)
    assert parts.messages[-1].foreign == {IPv4Address("192.168.5.9"): Claim("node2", granted=True)}


def test_a_node_cannot_claim_an_address_that_no_pod_of_its_has():
    parts = settled(pod("a"), foreign("b", "192.168.5.9", node="node2"))
    stolen = frozenset(map(IPv4Address, ("8.8.8.8", "192.168.5.10", "192.168.5.9")))
    parts.reports["node1"] = replace(parts.reports["node1"], foreign=stolen)
    parts.registry_looks(newest(parts))
    assert parts.messages[-1].foreign == {IPv4Address("192.168.5.9"): Claim("node2", granted=True)}


def test_an_address_of_the_plan_that_a_pod_has_is_not_granted_to_who_comes_with_it():
    parts = settled(pod("owner", "node2"))
    address = parts.nodes["node2"].address_of("ns/owner")
    parts.change(parts.cluster.with_object(foreign("thief", str(address))))
    parts.settle()
    assert parts.nodes["node1"].address_of("ns/thief") is None
    assert "waits for the registry" in str(parts.nodes["node1"].problems[0])
    assert parts.nodes["node2"].report.contested == {address}
    assert parts.view("node3").foreign == ()
    parts.change(parts.cluster.without(pod("owner")))
    parts.settle()
    assert parts.nodes["node1"].address_of("ns/thief") == address and parts.nodes["node1"].problems == ()


def test_an_address_that_another_node_claims_is_given_to_nobody():
    free = IPv4Address("10.0.64.66")
    parts = settled(pod("a", "node2"), foreign("guest", str(free)))
    share = parts.nodes["node2"]
    assert share.plan.split(share.address_of("ns/a"))[:2] == share.plan.split(free)[:2]
    parts.change(parts.cluster.with_object(pod("b", "node2")).with_object(pod("c", "node2")))
    parts.settle()
    given = {share.address_of(f"ns/{name}") for name in "abc"}
    assert len(given) == 3 and free not in given


def test_states_are_plain_json():
    parts = settled(pod("a"), foreign("b", "192.168.5.9"), policies=[policy("p", PolicyPeer(pods=EVERYTHING))])
    for node in parts.nodes.values():
        saved = node.to_json()
        assert json.loads(json.dumps(saved)) == saved
        numbers = node.numbers_to_json()
        again = NodePart(node.node, DEFAULTS, saved, json.loads(json.dumps(numbers)))
        again.update(parts.cluster, None)
        assert again.to_json() == saved and again.published == node.published


def test_a_pod_is_known_by_its_former_number_until_rules_tell_the_two_apart():
    parts = settled(pod("a", labels={"app": "web"}), pod("b", "node2"), pod("server", "node3"))
    old = parts.nodes["node1"].identity_of("ns/a")
    parts.change(parts.cluster.with_object(NOT_WEB))
    seen = []
    for _ in range(3):
        parts.registry_looks(newest(parts))
        for name in parts.nodes:
            look(parts, name)
        (shown,) = parts.view("node1").pods
        seen.append((shown.identity == old, shown.formerly))
        confirm(parts, *parts.nodes)
    assert seen == [(True, ()), (False, (old,)), (False, ())]


# Who is away


def test_a_node_is_away_when_it_has_not_acknowledged_what_was_published_long_ago():
    absence = Absence(30)
    prompt, slow = Report("prompt"), Report("slow")
    for second in range(100):
        prompt, slow = replace(prompt, acknowledged=second), replace(slow, acknowledged=max(0, second - 20))
        stuck = Report("stuck", acknowledged=min(second, 9))
        reports = {each.node: each for each in (prompt, slow, stuck)}
        assert absence.away(second + 1, reports, 1000 + second) == ({"stuck"} if second >= 39 else set()), second
    assert absence.next_check(reports, 1099) == 10
    assert absence.away(100, {"back": Report("back", acknowledged=100)}, 5000) == frozenset()
    assert absence.next_check({"back": Report("back", acknowledged=100)}, 5000) is None
