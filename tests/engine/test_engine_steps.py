"""Make before break: rules that split classes come into force step by step, as switches confirm."""

from __future__ import annotations

import pytest

from romana_ovs.engine import offline_facts
from romana_ovs.engine.registry import Registry
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.policy import classes
from romana_ovs.policy.view import LabelRequirement
from tests.support.builders import DEFAULTS, cluster, pod, pods, policy, rule
from tests.support.confirming_engine import ConfirmingEngine, follow
from tests.support.known import known


def test_a_rule_that_splits_a_class_takes_three_steps() -> None:
    before = cluster(pod("client", app="web"), pod("plain"), pod("server", "node2"))
    engine = follow(before)
    shared = engine.identity_of("ns/client")
    assert shared == engine.identity_of("ns/plain")
    after = before.with_object(policy("p", ingress=[rule(pods(app="web"))]))

    engine.update(after)
    first = engine.views(after)["node2"]
    (new,) = first.classes.keys() - {shared}
    assert (engine.pending, engine.identity_of("ns/client"), first.policies) == (True, shared, ())

    engine.advance()
    second = engine.views(after)["node2"]
    assert (engine.pending, second.policies) == (True, ()) and second.classes.keys() >= {shared, new}
    assert engine.identity_of("ns/client") == new and engine.identity_of("ns/plain") == shared

    engine.advance()
    third = engine.views(after)["node2"]
    assert (engine.pending, len(third.policies)) == (False, 1)
    assert third.classes[new].matches == {LabelRequirement("app", frozenset({"web"})): True}


def previous_ids(engine: ConfirmingEngine, at: Cluster, key: str = "ns/client") -> tuple[int, ...]:
    """The previous identities of the pod in its node's view."""
    node = at.pods[PodKey(key)].node
    return next(each.previous_ids for each in engine.views(at)[node].pods if each.key == key)


def test_a_former_class_counts_until_a_rule_distinguishes_it() -> None:
    before = cluster(pod("client", app="web"), pod("plain"), pod("server", "node2"))
    engine = follow(before)
    shared = engine.identity_of("ns/client")
    after = before.with_object(policy("p", ingress=[rule(pods(app="web"))]))
    engine.update(after)
    assert previous_ids(engine, after) == ()
    engine.advance()
    assert previous_ids(engine, after) == (shared,) and previous_ids(engine, after, "ns/plain") == ()
    engine.advance()
    assert previous_ids(engine, after) == ()


def test_a_split_during_a_split_adds_former_numbers() -> None:
    client = pod("client", app="web", env="prod")
    before = cluster(client, pod("two", app="web"), pod("plain"))
    engine = follow(before)
    shared = engine.identity_of("ns/client")
    after = before.with_object(policy("p", ingress=[rule(pods(app="web"))]))
    engine.update(after)
    engine.advance()
    second = engine.identity_of("ns/client")
    assert second == engine.identity_of("ns/two") != shared
    after = after.with_object(policy("q", ingress=[rule(pods(env="prod"))]))
    engine.update(after)
    assert previous_ids(engine, after) == (shared,)
    engine.advance()
    assert engine.identity_of("ns/client") not in (shared, second)
    assert previous_ids(engine, after) == (shared, second) and previous_ids(engine, after, "ns/two") == (shared,)
    engine.advance()
    assert not engine.pending and previous_ids(engine, after) == ()


def test_a_relabelled_pod_has_no_former_number() -> None:
    before = cluster(pod("client", app="web"), pod("plain"))
    engine = follow(before)
    after = before.with_object(policy("p", ingress=[rule(pods(app="web"))]))
    engine.update(after)
    engine.advance()
    assert previous_ids(engine, after) != ()
    after = after.with_object(pod("client"))
    engine.update(after)
    assert engine.pending and engine.identity_of("ns/client") == engine.identity_of("ns/plain")
    assert previous_ids(engine, after) == ()


@pytest.mark.parametrize("kind", ["engine", "registry"])
@pytest.mark.parametrize("pods_first", [False, True])
def test_a_segment_without_classes_affects_its_own_pods_only(
    monkeypatch: pytest.MonkeyPatch, kind: str, pods_first: bool
) -> None:
    monkeypatch.setattr(classes, "CLASS_MASK", 3)
    subsets = [[key for bit, key in enumerate("abc") if number >> bit & 1] for number in range(8)]
    crowd = [pod("p" + "".join(keys), labels=dict.fromkeys(keys, "1")) for keys in subsets]
    asks = [policy(f"asks-{key}", ingress=[rule(pods(**{key: "1"}))]) for key in "abc"]
    allocating: ConfirmingEngine | Registry = (
        ConfirmingEngine(DEFAULTS) if kind == "engine" else Registry(DEFAULTS, None, writer="r")
    )
    allocating.update(cluster(*crowd) if pods_first else cluster(*asks))
    at = cluster(*crowd, pod("other/other"), *asks)
    for _ in range(9):
        allocating.update(at)
        if isinstance(allocating, ConfirmingEngine):
            allocating.advance()
    assert len(allocating.problems) == 5 and all(
        "has all of its 3 classes in use" in each.reason for each in allocating.problems
    )
    if isinstance(allocating, ConfirmingEngine):
        refused = {problem.name for problem in allocating.problems}
        for each in crowd:
            number = allocating.identity_of(each.key)
            info = allocating.view(offline_facts(at, at.nodes)["node1"], {}).classes.get(known(number))
            answers = (
                {requirement.key for requirement, yes in info.matches.items() if yes} if info is not None else None
            )
            assert answers == (None if each.key in refused else set(each.labels))
    kept = [each for each in crowd if each.key not in {problem.name for problem in allocating.problems}]
    allocating.update(cluster(*kept, *asks))
    assert not list(allocating.problems)
