"""Policies of one namespace do not wait for another namespace's label requirements."""

from __future__ import annotations

from dataclasses import replace

from romana_ovs.engine import offline_facts
from romana_ovs.engine.enforced import EnforcedRules
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import KubernetesPolicy
from romana_ovs.registry_types.published import ClassSet
from tests.support.builders import DEFAULTS, cluster, pod, pods, policy, rule
from tests.support.confirming_engine import ConfirmingEngine

NOBODY_ANSWERS = {"red": ClassSet("red"), "blue": ClassSet("blue")}

PODS = tuple(pod(f"red/p{at}", labels={f"k{at}": "1"}, app="x") for at in range(12)) + (
    pod("blue/b", app="b", new="1"),
    pod("blue/c", app="c"),
)


def asking(at: int) -> KubernetesPolicy:
    return policy("red/ask", ingress=[rule(pods(**{f"k{at}": "1"}))])


def at_rest(*policies: KubernetesPolicy) -> Cluster:
    return cluster(*PODS, *policies)


def in_force(engine: ConfirmingEngine, now: Cluster) -> set[str]:
    facts = offline_facts(now, now.nodes)
    return {each.key.name for each in engine.view(facts["node1"], facts).policies}


def started() -> ConfirmingEngine:
    engine = ConfirmingEngine(DEFAULTS)
    engine.update(at_rest())
    while engine.pending:
        engine.advance()
    return engine


def test_a_deny_all_is_not_delayed_by_requirements_elsewhere() -> None:
    engine, deny = started(), policy("blue/deny")
    for at in range(12):
        now = at_rest(asking(at), *([deny] if 3 <= at < 8 else []))
        engine.update(now)
        assert engine.pending, "each question splits a class"
        assert in_force(engine, now) == ({"deny"} if 3 <= at < 8 else set())
    while engine.pending:
        engine.advance()
    assert in_force(engine, at_rest(asking(11))) == {"ask"}


def test_a_namespace_waits_for_its_own_requirements() -> None:
    """One policy may take the place of another: between the two there is no gap."""
    old = policy("blue/old", ingress=[rule(pods())])
    engine = started()
    engine.update(at_rest(old))
    new = policy("blue/new", ingress=[rule(pods(new="1"))])
    now = at_rest(new, policy("red/red-deny"))
    engine.update(now)
    assert engine.pending and in_force(engine, now) == {"old", "red-deny"}
    engine.settle()
    assert in_force(engine, now) == {"new", "red-deny"}


def test_while_a_namespace_is_relabelled_all_rules_wait() -> None:
    engine = started()
    now = at_rest(asking(1), policy("blue/deny"))
    relabelled = replace(
        now,
        namespaces={
            **now.namespaces,
            "red": replace(now.namespaces["red"], labels=type(now.namespaces["red"].labels)({"a": "b"})),
        },
    )
    engine.update(relabelled)
    assert engine.pending and in_force(engine, relabelled) == set()


def test_rules_do_not_wait_for_requirements_elsewhere() -> None:
    rules, enforced = PolicyIndex(), EnforcedRules(fresh_switch=False)

    def in_force_and_waiting(now: Cluster) -> tuple[set[str], bool]:
        enforced.update(rules.update(now), NOBODY_ANSWERS, may_wait=True)
        state = enforced.state
        concerning = state.rules.concerning(("red", "blue"), ("red", "blue")) if state.rules is not None else ()
        return {each.key.name for each in concerning}, state.waiting

    assert in_force_and_waiting(at_rest()) == (set(), False)
    deny = policy("blue/deny")
    for at in range(5):
        assert in_force_and_waiting(at_rest(asking(at), deny)) == ({"deny"}, True)
    assert in_force_and_waiting(at_rest(asking(5))) == (set(), True)
    assert in_force_and_waiting(at_rest(deny)) == ({"deny"}, False)
