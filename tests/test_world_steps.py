"""Make before break: rules that split classes come into force step by step, as switches confirm."""

from __future__ import annotations

from romana_ovs.model.identity import segment_of
from romana_ovs.model.labels import EVERYTHING, Operator, Requirement, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.policy.view import Atom
from tests.test_world import cluster, follow, pod, policy, views


def test_a_rule_that_splits_classes_comes_into_force_in_three_steps():
    before = cluster(pod("client", labels={"app": "web"}), pod("plain"), pod("server", "node2"))
    world = follow(before)
    shared = world.identity_of("ns/client")
    assert shared == world.identity_of("ns/plain")
    rule = policy("p", PolicyPeer(pods=Selector.of({"app": "web"})), selector=EVERYTHING)
    after = before.with_object(rule)

    world.update(after)
    assert world.pending
    first = views(world, after)["node2"]
    (new,) = first.classes.keys() - {shared}
    assert world.identity_of("ns/client") == shared and first.policies == ()

    world.advance()
    second = views(world, after)["node2"]
    assert world.pending and second.classes.keys() >= {shared, new} and second.policies == ()
    assert world.identity_of("ns/client") == new and world.identity_of("ns/plain") == shared

    world.advance()
    third = views(world, after)["node2"]
    assert not world.pending and len(third.policies) == 1
    assert third.classes[new].truths == {Atom("app", frozenset({"web"})): True}


def test_a_rule_that_splits_nothing_is_in_force_at_once():
    before = cluster(pod("client", labels={"app": "web"}), pod("server", "node2", labels={"app": "web"}))
    world = follow(before)
    after = before.with_object(policy("p", PolicyPeer(pods=Selector.of({"app": "web"}))))
    world.update(after)
    assert not world.pending and len(views(world, after)["node2"].policies) == 1


def test_while_a_split_is_pending_newer_rules_and_pods_are_followed():
    before = cluster(pod("client", labels={"app": "web"}), pod("plain"), pod("gone"))
    world = follow(before)
    old = world.identity_of("ns/plain")
    web = policy("p", PolicyPeer(pods=Selector.of({"app": "web"})))
    expression = Selector((Requirement("app", Operator.DOES_NOT_EXIST),))
    world.update(before.with_object(web))
    after = before.with_object(policy("q", PolicyPeer(pods=expression)))
    after = after.with_object(pod("new", labels={"app": "db"})).without(pod("gone"))
    after = after.with_object(pod("plain", labels={"tier": "front"}))
    world.update(after)
    assert world.pending
    assert segment_of(world.identity_of("ns/plain")) != segment_of(old)
    while world.pending:
        world.advance()
    view = views(world, after)["node1"]
    exists = Atom("app", None)
    assert [each.key.name for each in view.policies] == ["q"]
    assert {key: view.classes[world.identity_of(key)].truths for key in ("ns/client", "ns/plain", "ns/new")} == {
        "ns/client": {exists: True}, "ns/plain": {exists: False}, "ns/new": {exists: True},
    }
