"""PolicyIndex of one namespace do not wait for another namespace's label requirements."""

from __future__ import annotations

# mypy: ignore-errors
from dataclasses import replace

from romana_ovs.engine import offline_facts
from romana_ovs.engine.enforced import EnforcedRules
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import PolicyPeer
from romana_ovs.policy.published import ClassSet
from tests.support.cluster_objects import DEFAULTS, cluster, pod, policy
from tests.support.confirming_world import World

NOBODY_ANSWERS = {"red": ClassSet("red"), "blue": ClassSet("blue")}

PODS = tuple(pod(f"p{at}", labels={f"k{at}": "1", "app": "x"}, namespace="red") for at in range(12)) + (
    pod("b", namespace="blue", labels={"app": "b", "new": "1"}),
    pod("c", namespace="blue", labels={"app": "c"}),
)


def asking(at: int):
    return policy("ask", PolicyPeer(pods=Selector.of({f"k{at}": "1"})), namespace="red")


def at_rest(*policies):
    return cluster(*PODS, settings=DEFAULTS, policies=policies, namespaces=("red", "blue"))


def in_force(world: World, now) -> set[str]:
    facts = offline_facts(now, now.nodes)
    return {each.key.name for each in world.view(facts["node1"], facts).policies}


def started() -> World:
    world = World(DEFAULTS)
    world.update(at_rest())
    while world.pending:
        world.advance()
    return world


def test_a_deny_all_is_in_force_while_another_namespace_asks_and_asks() -> None:
    world, deny = started(), policy("deny", namespace="blue")
    for at in range(12):
        now = at_rest(asking(at), *([deny] if 3 <= at < 8 else []))
        world.update(now)
        assert world.pending, "each question splits a class"
        assert in_force(world, now) == ({"deny"} if 3 <= at < 8 else set())
    while world.pending:
        world.advance()
    assert in_force(world, at_rest(asking(11))) == {"ask"}


def test_what_asks_something_itself_waits_with_all_of_its_namespace() -> None:
    """One policy may take the place of another: between the two there is no gap."""
    old = policy("old", PolicyPeer(pods=EVERYTHING), namespace="blue")
    world = started()
    world.update(at_rest(old))
    new = policy("new", PolicyPeer(pods=Selector.of({"new": "1"})), namespace="blue")
    now = at_rest(new, policy("red-deny", namespace="red"))
    world.update(now)
    assert world.pending and in_force(world, now) == {"old", "red-deny"}
    while world.pending:
        world.advance()
    assert in_force(world, now) == {"new", "red-deny"}


def test_while_a_namespace_is_relabelled_all_rules_wait() -> None:
    world = started()
    now = at_rest(asking(1), policy("deny", namespace="blue"))
    relabelled = replace(
        now,
        namespaces={
            **now.namespaces,
            "red": replace(now.namespaces["red"], labels=type(now.namespaces["red"].labels)({"a": "b"})),
        },
    )
    world.update(relabelled)
    assert world.pending and in_force(world, relabelled) == set()


def test_a_node_puts_rules_in_force_while_the_registry_is_asked_something_by_another_namespace() -> None:
    rules, enforced = PolicyIndex(), EnforcedRules(fresh_switch=False)

    def told(now) -> tuple[set[str], bool]:
        enforced.update(rules.follow(now), NOBODY_ANSWERS, patient=True)
        state = enforced.state
        concerning = state.rules.concerning(("red", "blue"), ("red", "blue")) if state.rules is not None else ()
        return {each.key.name for each in concerning}, state.waiting

    assert told(at_rest()) == (set(), False)
    deny = policy("deny", namespace="blue")
    for at in range(5):
        assert told(at_rest(asking(at), deny)) == ({"deny"}, True)
    assert told(at_rest(asking(5))) == (set(), True)
    assert told(at_rest(deny)) == ({"deny"}, False)
