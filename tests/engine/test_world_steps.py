"""Make before break: rules that split classes come into force step by step, as switches confirm."""

from __future__ import annotations

# mypy: ignore-errors
import pytest

from romana_ovs.engine import offline_facts
from romana_ovs.engine.registry import Registry
from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.policy import classes
from romana_ovs.policy.view import LabelRequirement
from tests.engine.test_world import follow, views
from tests.support.cluster_objects import DEFAULTS, cluster, pod, policy
from tests.support.confirming_world import World


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
    assert third.classes[new].matches == {LabelRequirement("app", frozenset({"web"})): True}


def formerly(world, found, key="ns/client"):
    """The former identities that the view of the pod's node shows."""
    node = found.pods[key].node
    return next(each.previous_ids for each in views(world, found)[node].pods if each.key == key)


def test_a_number_is_a_former_one_while_no_rule_in_force_tells_it_from_the_new_one():
    before = cluster(pod("client", labels={"app": "web"}), pod("plain"), pod("server", "node2"))
    world = follow(before)
    shared = world.identity_of("ns/client")
    after = before.with_object(policy("p", PolicyPeer(pods=Selector.of({"app": "web"})), selector=EVERYTHING))
    world.update(after)
    assert formerly(world, after) == ()
    world.advance()
    assert formerly(world, after) == (shared,) and formerly(world, after, "ns/plain") == ()
    world.advance()
    assert formerly(world, after) == ()


def test_a_split_during_a_split_adds_former_numbers():
    client = pod("client", labels={"app": "web", "env": "prod"})
    before = cluster(client, pod("two", labels={"app": "web"}), pod("plain"))
    world = follow(before)
    shared = world.identity_of("ns/client")
    after = before.with_object(policy("p", PolicyPeer(pods=Selector.of({"app": "web"}))))
    world.update(after)
    world.advance()
    second = world.identity_of("ns/client")
    assert second == world.identity_of("ns/two") != shared
    after = after.with_object(policy("q", PolicyPeer(pods=Selector.of({"env": "prod"}))))
    world.update(after)
    assert formerly(world, after) == (shared,)
    world.advance()
    assert world.identity_of("ns/client") not in (shared, second)
    assert formerly(world, after) == (shared, second) and formerly(world, after, "ns/two") == (shared,)
    world.advance()
    assert not world.pending and formerly(world, after) == ()


def test_a_relabelled_pod_has_no_former_number():
    before = cluster(pod("client", labels={"app": "web"}), pod("plain"))
    world = follow(before)
    after = before.with_object(policy("p", PolicyPeer(pods=Selector.of({"app": "web"}))))
    world.update(after)
    world.advance()
    assert formerly(world, after) != ()
    after = after.with_object(pod("client"))
    world.update(after)
    assert world.pending and world.identity_of("ns/client") == world.identity_of("ns/plain")
    assert formerly(world, after) == ()


@pytest.mark.parametrize("kind", ["world", "registry"])
@pytest.mark.parametrize("pods_first", [False, True])
def test_a_segment_without_classes_hurts_its_own_pods_alone_and_recovers(monkeypatch, kind, pods_first):
    monkeypatch.setattr(classes, "CLASS_MASK", 3)
    subsets = [[key for bit, key in enumerate("abc") if number >> bit & 1] for number in range(8)]
    crowd = [pod("p" + "".join(keys), labels=dict.fromkeys(keys, "1")) for keys in subsets]
    asks = [policy(f"asks-{key}", PolicyPeer(pods=Selector.of({key: "1"}))) for key in "abc"]
    part = World(DEFAULTS) if kind == "world" else Registry(DEFAULTS, None, writer="r")
    part.update(cluster(*crowd) if pods_first else cluster(policies=asks))
    at = cluster(*crowd, pod("other", namespace="other"), policies=asks)
    for _ in range(9):
        part.update(at)
        if kind == "world":
            part.advance()
    assert len(part.problems) == 5 and all("has all of its 3 classes in use" in each.reason for each in part.problems)
    if kind == "world":
        refused = {problem.name for problem in part.problems}
        for each in crowd:
            number = part.identity_of(each.key)
            known = part.view(offline_facts(at, at.nodes)["node1"], {}).classes.get(number)
            answers = (
                {requirement.key for requirement, yes in known.matches.items() if yes} if known is not None else None
            )
            assert answers == (None if each.key in refused else set(each.labels))
    kept = [each for each in crowd if each.key not in {problem.name for problem in part.problems}]
    part.update(cluster(*kept, policies=asks))
    assert part.problems == ()
