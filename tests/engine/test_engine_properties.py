"""The engine over random histories: equal to one restarted from its state; views have every policy that matters."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.engine import offline_facts
from romana_ovs.model.bridge import BridgeFacts, TunnelPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.identity import whole_segments
from romana_ovs.model.objects import Node
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import NodeView
from tests.support.confirming_engine import ConfirmingEngine
from tests.support.hypothesis_profiles import examples
from tests.support.known import known
from tests.support.strategies import clusters


def views_of(engine: ConfirmingEngine, cluster: Cluster) -> dict[str, NodeView]:
    facts = offline_facts(cluster, engine.registry.hosts)
    return {node: engine.view(facts[node], facts) for node in facts}


def lasting(state: object) -> object:
    """A state without what every process counts from the start: terms, revisions, and acknowledgements."""
    if isinstance(state, dict):
        passing = ("epoch", "revision", "acknowledged", "released", "freed")
        return {key: lasting(value) for key, value in state.items() if key not in passing}
    return [lasting(value) for value in state] if isinstance(state, list) else state


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(clusters(), min_size=2, max_size=5))
def test_a_followed_world_is_what_a_restart_makes_of_its_state(history: list[Cluster]) -> None:
    engine = ConfirmingEngine(history[0].settings)
    for cluster in history:
        engine.update(cluster)
        engine.settle()
        saved = json.loads(json.dumps(engine.to_json()))
        again = ConfirmingEngine(cluster.settings, saved)
        again.update(cluster)
        again.settle()
        assert views_of(again, cluster) == views_of(engine, cluster)
        assert lasting(again.to_json()) == lasting(saved)
        assert again.problems == engine.problems


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(clusters(), min_size=1, max_size=3))
def test_what_a_view_leaves_out_changes_no_verdict(history: list[Cluster]) -> None:
    engine = ConfirmingEngine(history[0].settings)
    for cluster in history:
        engine.update(cluster)
        engine.settle()
    policies = tuple(normalise(policy, cluster) for _, policy in sorted(cluster.policies.items()))
    tenants = {tenant: tuple(whole_segments(*run) for run in runs) for tenant, runs in engine.registry.tenants.items()}
    for view in views_of(engine, cluster).values():
        assert resolve(replace(view, policies=policies)) == resolve(view)
        more, less = resolve(replace(view, policies=policies, tenants=tenants)), resolve(view)
        assert more.members == less.members and more.servers == less.servers and more.clients == less.clients
        assert more.tenantless == less.tenantless
        local = {match for pod in view.pods for match in tenants[pod.segment.tenant]}
        assert {each for each in more.tenancy or () if each.server in local} == {
            each for each in less.tenancy or () if each.server in local
        }


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(clusters(), min_size=1, max_size=3))
def test_every_pod_has_an_address_or_a_problem(history: list[Cluster]) -> None:
    engine = ConfirmingEngine(history[0].settings)
    for cluster in history:
        engine.update(cluster)
        named = {problem.name for problem in engine.problems}
        for key, pod in cluster.pods.items():
            if not pod.networked:
                assert engine.address_of(key) is None and engine.identity_of(key) is None
            elif key not in named:
                assert engine.address_of(key) is not None and engine.node_of(key) == pod.node
                assert pod.address in (None, engine.address_of(key))
                number = known(engine.identity_of(key))
                info = engine.view(offline_facts(cluster, [pod.node])[pod.node], {}).classes[number]
                assert info.namespace == pod.namespace


@st.composite
def wirings(draw: st.DrawFn) -> dict[str, BridgeFacts]:
    """Bridges with any links among them, some one-sided, some with tunnels, some of unknown nodes."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 7)))]
    pairs = [(one, two) for one in names for two in names if one != two]
    both = draw(st.lists(st.sampled_from(pairs), max_size=10)) if pairs else []
    single = draw(st.lists(st.sampled_from(pairs), max_size=2)) if pairs else []
    joined = {*both, *((two, one) for one, two in both), *single}
    facts = {}
    for position, name in enumerate(names):
        links = {other: 100 + names.index(other) for one, other in joined if one == name}
        links |= {"stranger": 99} if draw(st.booleans()) else {}
        tunnel = TunnelPort(90, IPv4Address("172.16.0.0") + position) if draw(st.booleans()) else None
        facts[name] = BridgeFacts(name, links=links, tunnel=tunnel)
    return facts


@settings(max_examples=examples(150), deadline=None)
@given(wirings())
def test_every_packet_arrives_and_none_goes_in_circles(facts: dict[str, BridgeFacts]) -> None:
    nodes = {name: Node(name) for name in facts}
    engine = ConfirmingEngine(Cluster().settings)
    engine.update(Cluster(nodes=nodes))
    views = {name: engine.view(facts[name], facts) for name in facts}
    tunnels = {own.tunnel.address: name for name, own in facts.items() if own.tunnel is not None}
    for source, view in views.items():
        uplinks = {uplink.ofport: uplink for uplink in view.uplinks}
        for target in view.hosts:
            here, seen = source, set()
            while here != target.name:
                assert here not in seen
                seen.add(here)
                step = next(host for host in views[here].hosts if host.name == target.name)
                if step.tunnel is not None:
                    assert here == source
                    assert known(facts[here].tunnel).address in uplink_peers(views[tunnels[step.tunnel]], facts)
                    here = tunnels[step.tunnel]
                else:
                    before, here = here, next(name for name, port in facts[here].links.items() if port == step.ofport)
                    assert facts[here].links[before] in {uplink.ofport for uplink in views[here].uplinks}
        assert {target.ofport for target in view.hosts} <= uplinks.keys()


def uplink_peers(view: NodeView, facts: dict[str, BridgeFacts]) -> tuple[IPv4Address, ...]:
    """The senders that a node accepts from its tunnel."""
    port = known(facts[view.node].tunnel).ofport
    return known(next(uplink.tunnel_peers for uplink in view.uplinks if uplink.ofport == port))


@settings(max_examples=examples(80), deadline=None)
@given(wirings())
def test_links_in_use_form_no_circle_and_leave_nobody_out(facts: dict[str, BridgeFacts]) -> None:
    engine = ConfirmingEngine(Cluster().settings)
    engine.update(Cluster(nodes={name: Node(name) for name in facts}))
    edges, groups = set(), {name: {name} for name in facts}
    for name, own in facts.items():
        used = {uplink.ofport for uplink in engine.view(own, facts).uplinks}
        edges |= {frozenset((name, other)) for other, port in own.links.items() if port in used}
        for other in own.links:
            if other in facts and name in facts[other].links and groups[name] is not groups[other]:
                joined = groups[name] | groups[other]
                groups.update((member, joined) for member in joined)
    parts = {frozenset(group) for group in groups.values()}
    assert len(edges) == len(facts) - len(parts)
