"""One change after another through one cache: each answer is the one that a fresh computation gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import IdentityMatch, identity, whole_segments
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import ContainerPort, IpBlock, PolicyPeer, PolicyPort, PolicyRule
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.resolve import ResolveCache, resolve
from romana_ovs.policy.selection import sole_namespace_affected
from romana_ovs.policy.view import ClassInfo, NodeView
from tests.policy.node_views import IN, IS_WEB, OUT, WEB, client, from_pods, local_pod, normal_policy, server, view

NEW = identity(17, 7)


def start() -> NodeView:
    """Two local pods, a rule about labels for each direction, and one about an address."""
    block = PolicyRule(
        (PolicyPeer(ip_block=IpBlock(IPv4Network(local_pod("a/x").address))),), (PolicyPort(port="http"),)
    )
    return view(
        local_pod("a/x", app="web", ports=(ContainerPort(80, name="http"),)),
        local_pod("kube-system/dns"),
        policies=(
            normal_policy("a/in", from_pods(WEB), directions=frozenset({IN})),
            normal_policy("a/out", egress=(from_pods(WEB, EVERYTHING), block), directions=frozenset({OUT}), on=WEB),
            normal_policy("kube-system/all", from_pods(WEB, Selector.of({"stage": "x"}))),
        ),
    )


def with_class(old: NodeView) -> NodeView:
    return replace(old, classes={**old.classes, NEW: ClassInfo("a", {IS_WEB: True})})


def with_other_truth(old: NodeView) -> NodeView:
    return replace(old, classes={**old.classes, identity(16, 1): ClassInfo("a", {IS_WEB: True})})


def without_class(old: NodeView) -> NodeView:
    return replace(old, classes={key: info for key, info in old.classes.items() if key != identity(16, 2)})


def with_label_on_namespace(old: NodeView) -> NodeView:
    return replace(old, namespaces={**old.namespaces, "b": Labels({"stage": "x"})})


def with_segment(old: NodeView) -> NodeView:
    return replace(old, segments={**old.segments, SegmentKey("b", "new"): 33})


def with_run(old: NodeView) -> NodeView:
    return replace(old, tenants={**old.tenants, "a": (*old.tenants["a"], whole_segments(64, 1))})


def relabelled(old: NodeView) -> NodeView:
    return replace(old, pods=(replace(old.pods[0], labels=Labels({"app": "db"})), *old.pods[1:]))


def readdressed(old: NodeView) -> NodeView:
    return replace(old, pods=(replace(old.pods[0], address=IPv4Address("10.9.9.9")), *old.pods[1:]))


def one_pod_less(old: NodeView) -> NodeView:
    return replace(old, pods=old.pods[1:])


def policy_replaced(old: NodeView) -> NodeView:
    return replace(old, policies=(normal_policy("a/in", from_pods()), *old.policies[1:]))


def policy_removed(old: NodeView) -> NodeView:
    return replace(old, policies=old.policies[1:])


def other_settings(old: NodeView) -> NodeView:
    return replace(old, settings=Settings(isolation=Isolation.NONE))


CHANGES = [
    with_class,
    with_other_truth,
    without_class,
    with_label_on_namespace,
    with_segment,
    with_run,
    relabelled,
    readdressed,
    one_pod_less,
    policy_replaced,
    policy_removed,
    other_settings,
]


@pytest.mark.parametrize("second", CHANGES)
@pytest.mark.parametrize("first", CHANGES)
def test_each_change_and_its_undoing_are_seen(
    first: Callable[[NodeView], NodeView], second: Callable[[NodeView], NodeView]
) -> None:
    cache = ResolveCache()
    one = start()
    states = [one, first(one), second(first(one)), first(one), one, second(one), one]
    for position, state in enumerate(states):
        assert resolve(state, cache) == resolve(state), position
    changed = resolve(first(one), cache)
    neutral = (with_segment, with_run)  # new places that no rule of this node asks about
    assert (changed == resolve(one, cache)) == (first in neutral and changed.tenancy == resolve(one).tenancy)


def test_a_new_class_changes_only_groups_that_match_it() -> None:
    cache = ResolveCache()
    before, after = resolve(start(), cache), resolve(with_class(start()), cache)
    assert IdentityMatch(NEW) in (server(after, "a/x").ingress[0].identities or ())
    assert client(after, "a/x") is client(before, "a/x")
    assert server(after, "kube-system/dns") is server(before, "kube-system/dns")


def test_what_does_not_change_stays_the_same_object() -> None:
    cache = ResolveCache()
    first = resolve(start(), cache)
    again = resolve(start(), cache)
    assert all(one is two for one, two in zip(first.servers, again.servers, strict=True))


def test_a_policy_without_deferred_rules_has_one_namespace() -> None:
    """Elsewhere it is not looked at; tests/properties compare the results with the reference."""
    to_addresses = PolicyRule((PolicyPeer(ip_block=IpBlock(IPv4Network("192.0.2.0/24"))),), ())
    own = normal_policy("a/own", from_pods(WEB), egress=(to_addresses,), directions=frozenset({IN, OUT}))
    elsewhere = normal_policy("a/out", egress=(from_pods(WEB, EVERYTHING),), directions=frozenset({OUT}))
    assert (sole_namespace_affected(own), sole_namespace_affected(elsewhere)) == ("a", None)
    cache = ResolveCache()
    cache.update_policies((elsewhere, own))
    assert [memo.policy for memo in cache.policies_in("a")] == [elsewhere, own]
    assert [memo.policy for memo in cache.policies_in("b")] == [elsewhere]
    kept = cache.policies_in("b")
    cache.update_policies((elsewhere,))
    assert cache.policies_in("b") is kept and cache.policies_in("a") == kept
