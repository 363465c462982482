"""The engine by examples: what does not change, what does, and the problems when numbers run out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from bench.allocation import large_cluster, measure
from romana_ovs.engine import offline, offline_facts
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.identity import IdentityMatch, segment_of
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    Namespace,
    Node,
    PodKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
)
from romana_ovs.model.settings import Settings, TenantSource
from romana_ovs.policy.resolve import resolve
from tests.support.builders import DEFAULTS, EGRESS, NODES, TINY, cluster, pod, pods, policy, rule
from tests.support.confirming_engine import ConfirmingEngine, follow
from tests.support.known import known

# What does not change


def test_an_unrelated_pod_elsewhere_leaves_the_very_same_view() -> None:
    before = cluster(pod("a"), pod("b", "node2"))
    engine = follow(before)
    facts = offline_facts(before, before.nodes)
    first = engine.view(facts["node1"], facts)
    for changed in (
        before.with_object(pod("c", "node2")),
        before.without(pod("b", "node2")),
        before.with_object(pod("b", "node3")),
        before.with_object(pod("b", "node2", uid="2", unasked="x")),
    ):
        engine.update(changed)
        assert engine.view(facts["node1"], offline_facts(changed, changed.nodes)) is first


def test_a_repeated_list_of_equal_objects_changes_nothing() -> None:
    """docs/hazards.md C5."""
    engine = follow(cluster(pod("a"), pod("b", "node2"), policy("p", ingress=[rule(pods())])))
    at = cluster(pod("a"), pod("b", "node2"), policy("p", ingress=[rule(pods())]))
    first, revision = engine.views(at), engine.revision
    engine.update(at)
    again = engine.views(at)
    assert engine.revision == revision
    assert all(again[node] is first[node] for node in NODES)


def test_a_new_class_changes_only_classes_of_other_views() -> None:
    asks = policy("p", ingress=[rule(pods(app="web"))])
    before = cluster(pod("a"), pod("b", "node2"), asks)
    engine = follow(before)
    first = engine.views(before)["node1"]
    after = before.with_object(pod("c", "node2", app="web"))
    engine.update(after)
    second = engine.views(after)["node1"]
    assert second == replace(first, classes=second.classes) and second.classes != first.classes


def test_a_large_cluster_is_followed_fast_enough() -> None:
    figures = dict(measure(10_000, rounds=5))
    assert figures.pop("first update") + figures.pop("first view") < 6000
    # Every node is another switch: a policy that splits classes takes all of them three steps.
    steps = [figures.pop(f"policy that splits classes {what}") for what in ("added", "removed")]
    assert max(figures.values()) < 40 and max(steps) < 2000, figures


@pytest.mark.parametrize("label", ["unasked", "app", "tier", "owner"])
def test_the_last_pod_of_a_class_changes_no_other_view(label: str) -> None:
    asks = [policy(f"asks-{name}", ingress=[rule(pods(**{name: "x"}))]) for name in ("app", "tier")]
    only = pod("only", "node2", labels={label: "x"})
    at = cluster(pod("a"), only, *asks, settings=Settings(tier_labels=("tier", "owner")))
    engine = follow(at)
    first, identity = engine.views(at)["node1"], engine.identity_of("ns/only")
    for changed in (
        at.without(only),
        at.with_object(replace(only, uid="2", node="node3")),
        at.with_object(replace(only, labels=Labels({}))),
        at.without(only),
        at,
    ):
        engine.update(changed)
        assert engine.views(changed)["node1"] is first
        again = ConfirmingEngine(at.settings, engine.to_json())
        again.update(changed)
        assert again.views(changed)["node1"] == first
    assert engine.identity_of("ns/only") == identity


def test_what_classes_leave_behind_goes_with_their_namespace() -> None:
    asks = policy("p", ingress=[rule(PolicyPeer(namespaces=EVERYTHING, pods=Selector.of({"app": "x"})))])
    only = pod("other/only", app="x")
    at = cluster(pod("a"), only, asks, settings=Settings(shared_tenants=frozenset({"ns"})))
    engine = follow(at)
    assert len(engine.views(at.without(only))["node1"].classes) == 2
    engine.update(at.without(only))
    assert len(engine.views(at.without(only))["node1"].classes) == 2
    less = at.without(only).without(at.namespaces["other"])
    engine.update(less)
    assert len(engine.views(less)["node1"].classes) == 1


# Local pods


def test_a_local_pod_has_the_port_and_mac_of_its_bridge() -> None:
    at = cluster(pod("a", tier="web"), pod("b"))
    engine = follow(at)
    key, other = PodKey("ns/a"), PodKey("ns/b")
    ports = {key: PodPort(7, mac="02:00:00:00:00:07", pre_restart=True), PodKey("ns/stranger"): PodPort(9)}
    facts = BridgeFacts("node1", pod_ports=ports)
    (shown,) = engine.view(facts, {"node1": facts}).pods
    assert (shown.key, shown.ofport, shown.mac, shown.pre_restart) == (key, 7, "02:00:00:00:00:07", True)
    assert (shown.address, shown.identity) == (engine.address_of(key), engine.identity_of(key))
    assert shown.segment == ("ns", "web")
    facts = BridgeFacts("node1", pod_ports={other: PodPort(8)})
    (shown,) = engine.view(facts, {"node1": facts}).pods
    assert shown.mac == engine.mac_of(other) == engine.plan.mac(known(engine.address_of(other)))


def test_a_port_of_a_pod_that_is_on_another_node_is_nobody_s() -> None:
    engine = follow(cluster(pod("a", "node2")))
    facts = BridgeFacts("node1", pod_ports={PodKey("ns/a"): PodPort(7)})
    assert engine.view(facts, {}).pods == ()


def test_a_node_that_the_cluster_does_not_have_has_no_view() -> None:
    with pytest.raises(InputError, match="node nowhere"):
        follow(cluster()).view(BridgeFacts("nowhere"), {})


# Relabelling, finishing, reuse (hazards A1 and A24)


def test_a_relabelled_pod_changes_identity_but_no_address() -> None:
    before = cluster(pod("a", tier="web"), pod("b", tier="web"))
    engine = follow(before)
    address, identity = engine.address_of("ns/a"), engine.identity_of("ns/a")
    assert identity == engine.identity_of("ns/b")
    engine.update(before.with_object(pod("a", tier="db")))
    engine.settle()
    assert engine.address_of("ns/a") == address
    assert segment_of(known(engine.identity_of("ns/a"))) == engine.registry.number(("ns", "db"))
    engine.update(before)
    engine.settle()
    assert (engine.address_of("ns/a"), engine.identity_of("ns/a")) == (address, identity)


def test_a_relabelled_namespace_moves_its_pods_between_tenants() -> None:
    settings = Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="owner")
    before = cluster(pod("a"), settings=settings)
    owned = before.with_object(Namespace("ns", Labels({NAME_LABEL: "ns", "owner": "t1"})))
    engine = follow(before)
    nobody = engine.identity_of("ns/a")
    assert segment_of(known(nobody)) == engine.registry.number(("", "default"))
    engine.update(owned)
    engine.settle()
    assert segment_of(known(engine.identity_of("ns/a"))) == engine.registry.number(("t1", "default"))
    engine.update(before)
    engine.settle()
    assert engine.identity_of("ns/a") == nobody


def test_namespace_labels_decide_when_they_come_and_go() -> None:
    peer = PolicyPeer(namespaces=Selector.of({"env": "prod"}))
    settings = Settings(shared_tenants=frozenset({"ns"}))
    before = cluster(pod("a"), pod("other/b", "node2"), policy("p", ingress=[rule(peer)]), settings=settings)
    engine = follow(before)

    def admitted(at: Cluster) -> bool:
        view = engine.views(at)["node1"]
        permissions = resolve(view)
        group = next(each for each in permissions.servers if each.number == permissions.members[PodKey("ns/a")].server)
        peers = frozenset[IdentityMatch]().union(*(known(allow.identities) for allow in group.ingress))
        return any(match.covers(known(engine.identity_of("other/b"))) for match in peers)

    prod = before.with_object(Namespace("other", Labels({NAME_LABEL: "other", "env": "prod"})))
    for at, expected in ((before, False), (prod, True), (before, False)):
        engine.update(at)
        while engine.pending:
            engine.advance()
        assert admitted(at) == expected


def test_late_events_of_a_finished_pod_evict_nobody() -> None:
    address = "192.168.5.5"
    job = pod("job", address=address, uid="old")
    engine = follow(cluster(job))
    assert engine.address_of("ns/job") == IPv4Address(address)
    done = replace(job, finished=True)
    heir = pod("zz-heir", address=address, node="node2", uid="new")
    engine.update(cluster(done, heir))
    assert engine.address_of("ns/job") is None and engine.identity_of("ns/job") is None
    assert engine.address_of("ns/zz-heir") == IPv4Address(address)
    engine.update(cluster(job, heir))
    assert engine.address_of("ns/zz-heir") == IPv4Address(address) and engine.address_of("ns/job") is None
    assert [str(problem) for problem in engine.problems] == [
        "Pod ns/job: address 192.168.5.5 is that of another node's pod"
    ]
    engine.update(cluster(job))
    assert engine.address_of("ns/job") == IPv4Address(address) and engine.problems == ()


def test_the_first_node_keeps_an_address_that_two_pods_came_with() -> None:
    engine = follow(cluster(pod("b", address="192.168.5.5"), pod("a", address="192.168.5.5", node="node2")))
    assert engine.node_of("ns/b") == "node1" and engine.address_of("ns/a") is None
    assert [problem.name for problem in engine.problems] == ["ns/a"]


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("172.16.0.2", "that of a node"),
        ("10.0.0.65", "that of node node2 on its own bridge"),
        ("224.0.0.1", "a multicast address, which no pod and no node can have"),
        ("10.255.255.255", "the last address of the network 10.0.0.0/8, which no pod and no node can have"),
    ],
)
def test_an_impossible_address_is_refused_and_the_old_one_stays(address: str, whose: str) -> None:
    """Whichever comes first, pod or node; pods on their node's network are no subjects and are fine."""
    on_host = pod("host", address=address, node="node2", host_network=True)
    engine = follow(cluster(pod("thief", address=address), on_host, pod("b", "node2")))
    assert engine.registry.hosts == {"node1": 0, "node2": 1, "node3": 2}
    assert engine.address_of("ns/thief") is None and engine.identity_of("ns/thief") is None
    assert [str(problem) for problem in engine.problems] == [f"Pod ns/thief: address {address} is {whose}"]
    at = cluster(pod("thief", address="192.168.5.5", uid="2"), pod("b", "node2"), pod("c"))
    engine.update(at)
    kept, given = engine.address_of("ns/thief"), engine.address_of("ns/c")
    assert (engine.problems, kept) == ((), IPv4Address("192.168.5.5"))
    engine.update(at.with_object(pod("thief", address=address, uid="2")).with_object(pod("c", address=address)))
    assert (engine.address_of("ns/thief"), engine.address_of("ns/c")) == (kept, given)
    assert [str(problem) for problem in engine.problems] == [
        f"Pod ns/c: address {address} is {whose}; it keeps {given}",
        f"Pod ns/thief: address {address} is {whose}; it keeps {kept}",
    ]
    engine.update(at)
    assert engine.problems == () and engine.address_of("ns/c") == given


def test_one_update_hands_an_address_from_one_pod_to_another() -> None:
    engine = follow(cluster(pod("z", address="192.168.5.5")))
    engine.update(cluster(pod("a", address="192.168.5.5"), pod("z", address="192.168.5.6")))
    assert engine.problems == ()
    assert engine.address_of("ns/a") == IPv4Address("192.168.5.5")


def test_our_address_in_a_status_is_not_foreign() -> None:
    engine = follow(cluster(pod("a")))
    address = engine.address_of("ns/a")
    again = pod("a", address=str(address))
    engine.update(cluster(again))
    assert not engine.registry.endpoint("ns/a").foreign and engine.address_of("ns/a") == address
    afresh = follow(cluster(again))
    assert afresh.registry.endpoint("ns/a").foreign


# Running out (docs/hazards.md E9)


def test_a_tenant_that_runs_out_hurts_nobody_else_and_recovers() -> None:
    crowd = [pod(f"p{number:02}") for number in range(70)]
    guest = pod("other/guest")
    engine = follow(cluster(guest, settings=TINY))
    engine.update(cluster(guest, *crowd, settings=TINY))
    assert engine.address_of("other/guest") is not None
    refused = [problem for problem in engine.problems if problem.kind == "Pod"]
    assert len(refused) == 70 - 14 * 4
    assert "Pod ns/p56: no address is left for tenant 'ns'" in str(refused[0])
    more = [pod(f"other/guest{number}") for number in range(3)]
    engine.update(cluster(guest, *more, *crowd, settings=TINY))
    assert all(engine.address_of(each.key) for each in more)
    engine.update(cluster(guest, *more, *crowd[1:], settings=TINY))
    assert len([problem for problem in engine.problems if problem.kind == "Pod"]) == 70 - 14 * 4 - 1
    engine.update(cluster(guest, *more, *crowd[20:], settings=TINY))
    assert engine.problems == ()
    assert all(engine.address_of(each.key) for each in crowd[20:])


def test_a_pod_that_crashes_again_and_again_leaks_nothing() -> None:
    engine = follow(cluster(pod("a"), settings=TINY))
    for number in range(200):
        engine.update(cluster(pod("a", uid=str(number)), settings=TINY))
        assert engine.problems == ()
    assert len(engine.registry.endpoints) == 1
    assert len(engine.registry.indexes(("ns", "default"))) == 1


def test_a_node_without_a_host_number_gets_the_next_free_one() -> None:
    names = tuple(f"node{number}" for number in range(1, 6))
    engine = follow(cluster(pod("a", "node5"), settings=TINY, nodes=names))
    assert {(problem.kind, problem.name) for problem in engine.problems} == {("Node", "node5"), ("Pod", "ns/a")}
    engine.update(cluster(pod("a", "node5"), settings=TINY, nodes=names[1:]))
    engine.settle()
    assert engine.problems == () and engine.address_of("ns/a") is not None


def test_a_node_that_comes_back_keeps_its_number() -> None:
    engine = follow(cluster(pod("a", "node2")))
    number = engine.host_number("node2")
    engine.update(cluster(pod("a", "node2"), nodes=("node1", "node3")))
    engine.update(cluster(pod("a", "node2")))
    engine.update(cluster())
    assert engine.host_number("node2") == number


# Which policies a node hears of


def test_a_view_has_only_policies_that_concern_its_pods() -> None:
    far = PolicyPeer(namespaces=Selector.of({NAME_LABEL: "ns"}))
    listed = [
        policy("here"),
        policy("other/elsewhere"),
        policy("other/out-by-selector", egress=[rule(far)], directions=[EGRESS]),
        policy("other/out-to-itself", egress=[rule(pods())], directions=[EGRESS]),
        replace(
            policy("other/out-by-name", directions=[EGRESS]),
            egress=(PolicyRule(ports=(PolicyPort(port="http"),)),),
        ),
    ]
    at = cluster(pod("a"), pod("other/b", "node2"), *listed)
    engine, facts = offline(at)
    agents = engine.agents
    assert [each.key.name for each in known(agents.view(facts["node1"], facts)).policies] == [
        "here",
        "out-by-name",
        "out-by-selector",
    ]
    assert [each.key.name for each in known(agents.view(facts["node2"], facts)).policies] == [
        "elsewhere",
        "out-by-name",
        "out-by-selector",
        "out-to-itself",
    ]
    assert known(agents.view(facts["node3"], facts)).policies == ()


def test_policies_reach_a_namespace_that_comes_later() -> None:
    at = cluster(policy("other/p", egress=[rule(PolicyPeer(namespaces=EVERYTHING))], directions=[EGRESS]))
    engine = follow(at)
    late = at.with_object(Namespace("late", Labels({NAME_LABEL: "late"}))).with_object(pod("late/x"))
    engine.update(late)
    assert [each.key.name for each in engine.views(late)["node1"].policies] == ["p"]


# Routes


# State and settings


def test_settings_that_change_the_plan_are_refused() -> None:
    at = cluster(pod("a"))
    engine = follow(at)
    with pytest.raises(InputError, match="the address plan .* cannot change under live pods"):
        engine.update(replace(at, settings=TINY))
    with pytest.raises(AddressError, match="= 24 bits"):
        engine.update(replace(at, settings=Settings(host_bits=7)))
    assert engine.address_of("ns/a") is not None
    engine.update(replace(at, settings=Settings(tier_labels=("app",))))
    assert engine.views(at)["node1"].settings.tier_labels == ("app",)


@pytest.mark.parametrize("state", [{}, {"format": 1}, {"format": 2, "addresses": {}, "identities": {}}])
def test_a_state_that_is_none_is_refused(state: Any) -> None:
    with pytest.raises(InputError):
        ConfirmingEngine(Settings(), state)


def test_pods_deleted_meanwhile_return_their_addresses() -> None:
    engine = follow(cluster(pod("a"), pod("b")))
    again = ConfirmingEngine(Settings(), engine.to_json())
    again.update(cluster(pod("b")))
    assert again.address_of("ns/b") == engine.address_of("ns/b")
    assert list(again.registry.endpoints) == ["ns/b"]


def test_the_revision_changes_with_the_state() -> None:
    at = cluster(pod("a"))
    engine = follow(at)
    for change in (at.with_object(pod("b")), at.with_object(pod("b")), at.with_object(Node("node9")), at):
        saved, revision = engine.to_json(), engine.revision
        engine.update(change)
        assert (engine.to_json() == saved) == (engine.revision == revision)


# Offline


def test_a_node_that_only_pods_name_lives_as_long_as_they() -> None:
    engine, facts = offline(cluster(pod("a", "elsewhere")))
    assert "elsewhere" in facts and "elsewhere" in engine.hosts
    engine.step(cluster())
    assert "elsewhere" not in engine.hosts


def test_the_large_cluster_fits_its_plan() -> None:
    engine, facts = offline(large_cluster(1_000))
    assert engine.problems == () and len(facts) == 20


def test_a_namespace_with_too_many_requirements_is_a_problem() -> None:
    peers = tuple(PolicyPeer(pods=Selector.of({"app": f"web-{number}"})) for number in range(2100))
    asks = replace(policy("asks"), ingress=(PolicyRule(peers=peers),))
    engine = ConfirmingEngine(DEFAULTS)
    engine.update(cluster(pod("a"), asks))
    (problem,) = engine.problems
    assert str(problem).startswith("Namespace ns: policies use 2100 label requirements on its pods, of which 2048 fit")
    engine.update(cluster(pod("a")))
    assert engine.problems == ()
