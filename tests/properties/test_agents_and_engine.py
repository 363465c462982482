"""A node that knows little compiles what one that knows all compiles; and getting there stops and opens nothing."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    Direction,
    KubernetesPolicy,
    Namespace,
    Node,
    Pod,
    PolicyKey,
    PolicyPeer,
    PolicyRule,
    Protocol,
)
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.evaluate import Reference
from tests.properties.agreement import BEHAVIOUR
from tests.support.hypothesis_profiles import examples
from tests.support.reordered_messages import MAX_ROUNDS, AgentsSimCluster, RegistryAndAgents, tables, tunnelled
from tests.support.strategies import NODE_NAMES, clusters, labels, node_address, policies, requirements, selectors

LONG = int(os.environ.get("ROMANA_PROPERTY_EXAMPLES", "0"))
"""Examples for each property; unset: a quick, always equal choice."""


def profile(quick: int) -> settings:
    """The settings of a property: `quick` examples in `make test`."""
    return settings(
        max_examples=LONG or examples(quick),
        derandomize=not LONG,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Cluster]:
    """A cluster and what becomes of it: other policies, labels, pods that come, go, move, or end; nodes too."""
    at = draw(clusters())
    found = [at]
    for _ in range(draw(st.integers(0, 3))):
        at = draw(changed(at))
        found.append(at)
    return found


@st.composite
def changed(draw: st.DrawFn, at: Cluster) -> Cluster:
    kind = draw(st.sampled_from(("policies", "labels", "labels", "gone", "moved", "replaced", "ended", "new", "other")))
    if kind == "policies" or not at.pods:
        return replace(at, policies=draw(policies(tuple(at.namespaces))))
    if kind == "other":
        return replace(draw(clusters()), settings=at.settings)
    pod = at.pods[draw(st.sampled_from(sorted(at.pods)))]
    if kind == "labels":
        return at.with_object(replace(pod, labels=draw(labels())))
    if kind == "replaced":
        return at.with_object(replace(pod, labels=draw(labels()), uid=pod.uid + "+"))
    if kind == "moved":
        return at.with_object(replace(pod, node=draw(st.sampled_from(sorted(at.nodes))), uid=pod.uid + "+"))
    if kind == "ended":
        return at.with_object(replace(pod, finished=True))
    if kind == "new":
        return at.with_object(replace(pod, name=pod.name + "x", uid="new", address=None, has_status=False))
    return at.without(pod)


def anything_happens(data: st.DataObject, simulation: RegistryAndAgents, most: int = 12) -> None:
    """Messages arrive in any order, some doubled, some never; processes restart."""
    newest = len(simulation.history) - 1
    for _ in range(data.draw(st.integers(0, most))):
        what = data.draw(st.sampled_from(("registry", "node", "node", "program", "report", "restart", "patience")))
        name = data.draw(st.sampled_from(sorted(simulation.cluster.nodes)))
        version = data.draw(st.integers(0, newest))
        if what == "registry":
            simulation.registry_looks(version)
        elif what == "restart":
            if data.draw(st.booleans()):
                simulation.restart_registry()
            elif name in simulation.nodes:
                simulation.restart_node(name)
        elif what in ("node", "patience") or name not in simulation.nodes:
            message = data.draw(st.integers(0, len(simulation.messages) - 1)) if simulation.messages else None
            early = data.draw(earlies(simulation))
            simulation.node_looks(name, version, message, early=early, may_wait=what != "patience")
        elif what == "program":
            simulation.node_programs(name)
        else:
            simulation.report_arrives(name)


def earlies(simulation: RegistryAndAgents) -> st.SearchStrategy[frozenset[str] | None]:
    """Now and then the namespaces whose class sets come before the marker does."""
    return st.one_of(st.none(), st.frozensets(st.sampled_from(sorted(simulation.cluster.namespaces))))


def compare(simulation: RegistryAndAgents) -> None:
    engine = simulation.merged()
    facts = tunnelled(simulation.cluster, sorted(simulation.cluster.nodes))
    for name, own in facts.items():
        here, everywhere = simulation.nodes[name].view(own), engine.view(own, facts)
        assert here is not None
        for field in fields(here):
            assert getattr(here, field.name) == getattr(everywhere, field.name), f"{name}: {field.name}"
        assert tables(here) == tables(everywhere)
    names = {problem.name for problem in engine.problems}
    mine = {problem.name for node in simulation.nodes.values() for problem in node.problems}
    assert mine <= names


@given(data=st.data(), history=histories())
@profile(60)
def test_settled_parts_compile_what_one_process_for_all_compiles(data: st.DataObject, history: list[Cluster]) -> None:
    simulation = RegistryAndAgents(history[0])
    for cluster in history:
        if cluster is not history[0]:
            simulation.change(cluster)
        anything_happens(data, simulation)
        if data.draw(st.booleans()):
            simulation.settle()
            compare(simulation)
    simulation.settle()
    compare(simulation)


@st.composite
def selective(draw: st.DrawFn) -> Cluster:
    """A few pods that every policy isolates and then admits by selectors: classes decide about every pair."""
    names = ("alpha", "beta")[: draw(st.integers(1, 2))]
    nodes = {name: Node(name, addresses=(node_address(name),)) for name in NODE_NAMES}
    pods = {}
    for number in range(draw(st.integers(3, 5))):
        place = draw(st.sampled_from(names)), f"pod{number}"
        pod = Pod(*place, labels=draw(labels()), node=draw(st.sampled_from(NODE_NAMES)), uid=f"{number}")
        pods[pod.key] = pod
    return Cluster(
        settings=Settings(isolation=draw(st.sampled_from((Isolation.NONE, Isolation.TENANT))), tier_labels=()),
        namespaces={name: Namespace(name, Labels({NAME_LABEL: name})) for name in names},
        nodes=nodes,
        pods=pods,
        policies=draw(selective_policies(names)),
    )


@st.composite
def selective_policies(
    draw: st.DrawFn, names: tuple[str, ...], directions: tuple[Direction, ...] = tuple(Direction)
) -> dict[PolicyKey, KubernetesPolicy]:
    found = {}
    for number in range(draw(st.integers(1, 3))):
        peers = tuple(
            PolicyPeer(pods=Selector((draw(requirements()),)), namespaces=draw(st.sampled_from((None, EVERYTHING))))
            for _ in range(draw(st.integers(1, 2)))
        )
        direction = draw(st.sampled_from(directions))
        subject = EVERYTHING if direction is Direction.INGRESS else draw(selectors())
        rules: dict[str, Any] = {direction.value.lower(): (PolicyRule(peers=peers),)}
        policy = KubernetesPolicy(
            draw(st.sampled_from(names)), f"policy{number}", subject, frozenset({direction}), **rules
        )
        found[policy.key] = policy
    return found


def every_pair(rig: AgentsSimCluster) -> list[Connection]:
    ends = [ConnectionEnd(pod=key) for key in sorted(rig.addresses)]
    return [Connection(one, two, PortRef(Protocol.TCP, 80)) for one in ends for two in ends if one != two]


@given(data=st.data(), cluster=selective(), lagging=st.sampled_from((*(None,) * 3, *NODE_NAMES)))
@profile(50)
def test_nothing_stops_or_opens_while_messages_are_on_their_way(
    data: st.DataObject, cluster: Cluster, lagging: str | None
) -> None:
    """What old and new state allow is never dropped, what neither allows never passes, in any order of messages.

    Nor does anything pass that neither allows from or to a node that hears nothing any more; there it may be dropped.
    """
    simulation = RegistryAndAgents(cluster)
    simulation.settle()
    rig = AgentsSimCluster(simulation, behaviour=data.draw(BEHAVIOUR))
    rig.lagging = frozenset({lagging} if lagging is not None else ())
    chosen = every_pair(rig)
    for _ in range(data.draw(st.integers(1, 2))):
        before = Reference.of(simulation.cluster, rig.addresses)
        simulation.change(data.draw(other_rules_or_labels(simulation.cluster)))
        after = Reference.of(simulation.cluster, rig.addresses)
        steady = [one for one in chosen if before.allowed(one) == after.allowed(one)]
        for _ in range(data.draw(st.integers(0, 25))):
            one_thing_happens(data, rig)
            assert_as(rig, steady, before)
        while_settling(rig, steady, before)
        assert_as(rig, [one for one in chosen if not is_lagging(rig, one)], after)
        if rig.lagging:
            return


FEW_LABELS = st.fixed_dictionaries({}, optional={"app": st.just("web"), "env": st.just("prod")}).map(Labels)


@st.composite
def exclusive(draw: st.DrawFn) -> Cluster:
    """Pods of few labels, so that several are of one class, and a policy that may admit who has not some label."""
    at = draw(selective())
    pods = {key: replace(pod, namespace="alpha", labels=draw(FEW_LABELS)) for key, pod in at.pods.items()}
    return replace(at, pods={pod.key: pod for pod in pods.values()}, policies=only("app"))


def only(key: str) -> dict[PolicyKey, KubernetesPolicy]:
    """One policy that admits to every pod who has no label of this key."""
    peer = PolicyPeer(pods=Selector((Requirement(key, Operator.DOES_NOT_EXIST),)))
    policy = KubernetesPolicy(
        "alpha", "only", EVERYTHING, frozenset({Direction.INGRESS}), ingress=(PolicyRule(peers=(peer,)),)
    )
    return {policy.key: policy}


@given(data=st.data(), cluster=exclusive(), lagging=st.sampled_from(NODE_NAMES))
@profile(60)
def test_nothing_opens_to_what_a_pod_of_a_node_that_is_away_was(
    data: st.DataObject, cluster: Cluster, lagging: str
) -> None:
    """It becomes another there, or goes, and then other rules come: they admit what it was only if they say so."""
    simulation = RegistryAndAgents(cluster)
    simulation.settle()
    rig = AgentsSimCluster(simulation, behaviour=data.draw(BEHAVIOUR))
    rig.lagging = frozenset({lagging})
    theirs = sorted(key for key, pod in cluster.pods.items() if pod.node == lagging)
    if not theirs:
        return
    pod = cluster.pods[data.draw(st.sampled_from(theirs))]
    new = replace(pod, labels=data.draw(FEW_LABELS))
    elsewhere = replace(new, node=data.draw(st.sampled_from(sorted(set(NODE_NAMES) - rig.lagging))), uid="+")
    become = data.draw(st.sampled_from((None, new, elsewhere)))
    simulation.change(cluster.without(pod) if become is None else cluster.with_object(become))
    while_settling(rig, [], Reference.of(cluster, rig.addresses))
    if data.draw(st.booleans()):
        simulation.restart_registry(rig.lagging)
    simulation.change(replace(simulation.cluster, policies=only("env")))
    while_settling(rig, [], Reference.of(cluster, rig.addresses))
    seen = [replace(pods, policies=rules.policies) for pods in simulation.history for rules in simulation.history]
    references = [Reference.of(each, rig.addresses) for each in seen if pod.key in each.pods]
    sent = [one for one in every_pair(rig) if one.source.pod == pod.key]
    never = [one for one in sent if not any(reference.allowed(one) for reference in references)]
    assert_as(rig, never, references[0])


@st.composite
def other_rules_or_labels(draw: st.DrawFn, at: Cluster) -> Cluster:
    """Other ingress policies, or one pod with other labels: every packet is judged by the old state or by the new.

    Egress policies stay: both nodes of a pair have a part in them, and hear of them at different times.
    """
    alive = sorted(key for key, pod in at.pods.items() if pod.networked)
    if not alive or draw(st.booleans()):
        staying = {
            key: each
            for key, each in at.policies.items()
            if isinstance(each, KubernetesPolicy) and Direction.EGRESS in each.directions
        }
        leaving = sorted(at.policies.keys() - staying.keys())
        if bool(leaving) and draw(st.booleans()):
            return at.without(at.policies[draw(st.sampled_from(leaving))])
        other = draw(selective_policies(tuple(at.namespaces), (Direction.INGRESS,)))
        return replace(at, policies=other | staying)
    return at.with_object(replace(at.pods[draw(st.sampled_from(alive))], labels=draw(labels())))


def one_thing_happens(data: st.DataObject, rig: AgentsSimCluster) -> None:
    simulation, newest = rig.simulation, len(rig.simulation.history) - 1
    name = data.draw(st.sampled_from(sorted(simulation.nodes.keys() - rig.lagging)))
    what = data.draw(st.sampled_from(("registry", "objects", "numbers", "program", "program", "report", "restart")))
    if what == "registry":
        simulation.registry_looks(data.draw(st.integers(newest - 1, newest)), rig.lagging)
    elif what == "objects":
        simulation.node_looks(name, newest, None)
    elif what == "numbers":
        message = data.draw(st.integers(max(0, len(simulation.messages) - 4), len(simulation.messages) - 1))
        simulation.node_looks(name, 0, message, early=data.draw(earlies(simulation)))
    elif what == "program":
        rig.program_node(name)
    elif what == "restart":
        if data.draw(st.booleans()):
            simulation.restart_registry(rig.lagging)
        else:
            before = simulation.nodes[name]
            simulation.restart_node(name)
            simulation.node_looks(name, 0, None)
            if simulation.nodes[name].rules_waiting:
                # In the midst of a step it waits with what the switch has, and in the end for patience.
                simulation.nodes[name] = before
    else:
        simulation.report_arrives(name)


def while_settling(rig: AgentsSimCluster, steady: list[Connection], before: Reference) -> None:
    """As `RegistryAndAgents.settle`, with a look at every step."""
    simulation, newest = rig.simulation, len(rig.simulation.history) - 1
    for _ in range(MAX_ROUNDS):
        was = (len(simulation.messages), dict(simulation.reports))
        simulation.registry_looks(newest, rig.lagging)
        for name in sorted(simulation.nodes.keys() - rig.lagging):
            simulation.node_looks(name, newest, len(simulation.messages) - 1)
            rig.program_node(name)
            simulation.report_arrives(name)
            assert_as(rig, steady, before)
        if was == (len(simulation.messages), simulation.reports) and (rig.lagging or not simulation.registry.pending):
            return
    raise AssertionError("it does not settle")


def is_lagging(rig: AgentsSimCluster, connection: Connection) -> bool:
    ends = (connection.source.pod, connection.destination.pod)
    return any(rig.cluster.pods[pod].node in rig.lagging for pod in ends if pod is not None)


def assert_as(rig: AgentsSimCluster, connections: list[Connection], reference: Reference) -> None:
    for connection in connections:
        for switch in rig.switches.values():
            switch.conntrack.flush()
        allowed = reference.allowed(connection)
        arrived = bool(rig.send(connection, rig.opening(connection)))
        assert arrived == allowed or (allowed and is_lagging(rig, connection)), f"{connection}"
