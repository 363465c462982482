"""What a change on one node costs the others, in flow-mods over random clusters: nothing, whatever the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from hypothesis import assume, event, given
from hypothesis import strategies as st

from romana_ovs.engine import offline_facts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import (
    ContainerPort,
    Direction,
    KubernetesPolicy,
    Node,
    Pod,
    Policy,
    PolicyKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
)
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.resolve import ResolveCache, resolve
from romana_ovs.policy.rules import Scope
from romana_ovs.policy.selection import selects
from romana_ovs.sync.diff import FlowDiff, flow_diff
from romana_ovs.sync.meters import MeterDiff, meter_diff
from tests.support.confirming_engine import ConfirmingEngine
from tests.support.strategies import (
    FOREIGN_ADDRESSES,
    NODE_NAMES,
    PORT_NAMES,
    PORT_NUMBERS,
    clusters,
    kubernetes_policies,
    labels,
    node_address,
)

Programs = Mapping[str, Program]
NOTHING = Program({}, {})
NEW = "newcomer"


@dataclass
class Counter:
    """A followed cluster: its engine, and each node's flows and meters as they would be in its switch."""

    cluster: Cluster
    engine: ConfirmingEngine
    programs: Programs
    caches: dict[str, tuple[ResolveCache, CompileCache]]

    @classmethod
    def of(cls, cluster: Cluster) -> Counter:
        counter = cls(cluster, ConfirmingEngine(cluster.settings), {}, {})
        counter.follow(cluster)
        return counter

    def follow(self, cluster: Cluster) -> dict[str, FlowDiff]:
        """What every node is sent, over all steps of the change, to follow `cluster`."""
        self.engine.update(cluster)
        plans: dict[str, list[FlowDiff]] = {node: [] for node in cluster.nodes}
        self._step(cluster, plans)
        while self.engine.pending:
            self.engine.advance()
            self._step(cluster, plans)
        self.cluster = cluster
        return {node: _joined(steps) for node, steps in plans.items()}

    def _step(self, cluster: Cluster, plans: dict[str, list[FlowDiff]]) -> None:
        facts = offline_facts(cluster, self.engine.registry.hosts)
        programs = {}
        for node, own in facts.items():
            resolving, compiling = self.caches.setdefault(node, (ResolveCache(), CompileCache()))
            view = self.engine.view(own, facts)
            program = programs[node] = compile_node(view, resolve(view, resolving), compiling)
            before = self.programs.get(node, NOTHING)
            if node in plans:
                meters = meter_diff(program.meters, before.meters)
                plans[node].append(replace(flow_diff(program.flows, before.flows), meters=meters))
        self.programs = programs


def _joined(steps: list[FlowDiff]) -> FlowDiff:
    changes = tuple(change for step in steps for change in (*step.meters.before, *step.meters.after))
    return FlowDiff(
        add=tuple(flow for step in steps for flow in step.add),
        modify=tuple(flow for step in steps for flow in step.modify),
        delete=tuple(flow for step in steps for flow in step.delete),
        meters=MeterDiff(changes),
    )


def sent_elsewhere(plans: Mapping[str, FlowDiff], *homes: str) -> dict[str, list[str]]:
    """The flow-mods and meter-mods to all nodes but `homes`, as text; empty when there are none."""
    return {
        node: [
            *(f"{change.value} {flow.table} {flow.match_text()} ({flow.origin})" for change, flow in each.ordered()),
            *(f"{change.value} {meter.text()} ({meter.origin})" for change, meter in each.meters.before),
        ]
        for node, each in plans.items()
        if node not in homes and each.size
    }


@st.composite
def settled(draw: st.DrawFn) -> tuple[Counter, Pod]:
    """A followed cluster of at least two nodes, and one of its pods that has an address of the plan."""
    cluster = draw(clusters())
    cluster = replace(cluster, nodes={name: Node(name, addresses=(node_address(name),)) for name in NODE_NAMES})
    own = [pod for pod in cluster.pods.values() if pod.networked and pod.address is None]
    assume(own)
    return Counter.of(cluster), draw(st.sampled_from(own))


def other(node: str) -> str:
    return next(name for name in NODE_NAMES if name != node)


def named_ports() -> st.SearchStrategy[tuple[ContainerPort, ...]]:
    port = st.builds(ContainerPort, number=st.sampled_from(PORT_NUMBERS), name=st.sampled_from(PORT_NAMES))
    return st.lists(port, min_size=1, max_size=2).map(tuple)


@given(settled(), named_ports(), st.data())
def test_pods_of_a_known_class_change_no_other_node(
    one: tuple[Counter, Pod], ports: tuple[ContainerPort, ...], data: st.DataObject
) -> None:
    counter, model = one
    start = counter.cluster
    twin = replace(model, name=NEW, uid="new", node=data.draw(st.sampled_from(NODE_NAMES)))
    assert not sent_elsewhere(counter.follow(start.with_object(twin)), twin.node), "it comes"
    served = replace(twin, ports=ports)
    assert not sent_elsewhere(counter.follow(start.with_object(served)), twin.node), "its ports have names"
    unasked = replace(served, labels=Labels({**served.labels, "note": "unasked", "rank": "1"}))
    assert not sent_elsewhere(counter.follow(start.with_object(unasked)), twin.node), "labels that nobody asks about"
    moved = replace(unasked, node=other(twin.node), uid="moved")
    assert not sent_elsewhere(counter.follow(start.with_object(moved)), twin.node, moved.node), "it moves"
    assert not sent_elsewhere(counter.follow(start), moved.node), "it goes"


@given(settled(), labels(), st.sampled_from(NODE_NAMES))
def test_relabelling_to_a_known_class_changes_no_other_node(one: tuple[Counter, Pod], some: Labels, node: str) -> None:
    counter, pod = one
    model = replace(pod, name="model", uid="model", labels=some, node=node)
    counter.follow(counter.cluster.with_object(model))
    event("another label" if model.labels != pod.labels else "the same labels")
    tiers = {pod.labels.get(key) == model.labels.get(key) for key in counter.cluster.settings.tier_labels}
    event("another tier" if False in tiers else "the same tier")
    changed = replace(pod, labels=Labels({**model.labels, "note": "x"}))
    assert not sent_elsewhere(counter.follow(counter.cluster.with_object(changed)), pod.node)
    assert not sent_elsewhere(counter.follow(counter.cluster.with_object(pod)), pod.node), "and back"


@given(settled(), labels(), st.booleans(), st.sampled_from(NODE_NAMES), st.booleans())
def test_pods_without_an_endpoint_change_no_node(
    one: tuple[Counter, Pod], some: Labels, host: bool, node: str, addressed: bool
) -> None:
    counter, model = one
    address = node_address(node) if host else IPv4Address("192.168.9.9") if addressed else None
    silent = Pod(
        model.namespace,
        NEW,
        labels=some,
        node=node,
        address=address,
        uid="new",
        has_status=host or addressed,
        host_network=host,
        finished=not host,
    )
    start = counter.cluster
    assert not sent_elsewhere(counter.follow(start.with_object(silent)))
    assert not sent_elsewhere(counter.follow(start.with_object(replace(silent, labels=Labels({"app": "changed"})))))
    assert not sent_elsewhere(counter.follow(start))


@given(settled())
def test_a_pod_that_finishes_is_gone_for_its_own_node_alone(one: tuple[Counter, Pod]) -> None:
    counter, pod = one
    done = replace(pod, finished=True)
    assert not sent_elsewhere(counter.follow(counter.cluster.with_object(done)), pod.node)


@given(settled(), st.sampled_from(NODE_NAMES))
def test_a_foreign_address_adds_only_a_route_elsewhere(one: tuple[Counter, Pod], node: str) -> None:
    counter, model = one
    free = set(FOREIGN_ADDRESSES) - {pod.address for pod in counter.cluster.pods.values()}
    address = min(free - set(map(counter.engine.address_of, counter.cluster.pods)))
    guest = replace(model, name=NEW, uid="new", node=node, address=address, has_status=True)
    for plans in (counter.follow(counter.cluster.with_object(guest)), counter.follow(counter.cluster.without(guest))):
        for name, each in plans.items():
            if name != node:
                assert all(str(address) in flow.match_text() for _, flow in each.ordered())
                assert each.size <= 2 * 2


@given(settled(), labels(), st.data())
def test_a_new_class_adds_only_flows_of_rules_that_match_it(
    one: tuple[Counter, Pod], some: Labels, data: st.DataObject
) -> None:
    counter, model = one
    node = data.draw(st.sampled_from(NODE_NAMES))
    newcomer = replace(model, name=NEW, uid="new", labels=some, node=node, ports=())
    asks = data.draw(kubernetes_policies(model.namespace, "asks"))
    local = replace(model, name="local", uid="local", node=other(node))
    start = counter.cluster.with_object(asks).with_object(local)
    counter.follow(start)
    naming = {key for key, policy in start.policies.items() if _names(policy, newcomer, start)}
    tenant = start.tenant_of(newcomer)
    for cluster in (start.with_object(newcomer), start):
        known = tenant in {start.tenant_of(pod) for pod in start.pods.values() if pod.networked}
        for name, each in counter.follow(cluster).items():
            if name == node:
                continue
            for change, flow in each.ordered():
                origin = flow.origin
                event(f"{origin.kind}")
                if not known and not origin.rule:
                    continue  # The first pod of a tenant (or of none) gives that its run, which is nobody's rule.
                key = PolicyKey(origin.kind, origin.namespace, origin.name)
                assert key in naming, f"{name}: {change.value} {flow.table} {flow.match_text()} of {origin}"


def _names(policy: Policy, pod: Pod, cluster: Cluster) -> bool:
    """Whether a rule of `policy` has `pod` as a peer by selectors, or an egress rule of it speaks for the pod."""
    normal = normalise(policy, cluster)

    def within(scope: Scope) -> bool:
        return selects(
            scope,
            pod.labels,
            namespace=pod.namespace,
            namespace_labels=cluster.namespace_labels(pod.namespace),
            tenant=cluster.tenant_of(pod),
        )

    incoming = [rule for rule in normal.rules if rule.direction is Direction.INGRESS]
    ingress = any(within(scope) for rule in incoming for scope in rule.scopes)
    speaks = within(normal.subject) and any(rule.direction is Direction.EGRESS for rule in normal.rules)
    return ingress or speaks


def _asks(name: str, peer: dict[str, str], port: int) -> KubernetesPolicy:
    rule = PolicyRule(peers=(PolicyPeer(pods=Selector.of(peer)),), ports=(PolicyPort(port=port),))
    return KubernetesPolicy("alpha", name, Selector.of({"app": "db"}), frozenset({Direction.INGRESS}), ingress=(rule,))


def _alpha(name: str, node: str, **labels: str) -> Pod:
    return Pod("alpha", name, labels=Labels(labels), node=node, uid=name)


def test_only_policies_that_match_a_new_class_send_flows() -> None:
    by_app, by_env = _asks("by-app", {"app": "web"}, 80), _asks("by-env", {"env": "prod"}, 81)
    policies = [by_app, by_env, _asks("by-rank", {"rank": "1"}, 82)]
    pods = [_alpha("server", "node2", app="db"), _alpha("web", "node1", app="web"), _alpha("prod", "node3", env="prod")]
    start = Cluster(
        nodes={name: Node(name, addresses=(node_address(name),)) for name in NODE_NAMES},
        pods={pod.key: pod for pod in pods},
        policies={policy.key: policy for policy in policies},
    )
    counter = Counter.of(start)
    newcomer = _alpha("newcomer", "node1", app="web", rank="1")
    plans = counter.follow(start.with_object(newcomer))
    assert plans["node3"].size == 0, "no pod of node3 is selected"
    assert {flow.origin.name for flow in plans["node2"].add} == {"by-app", "by-rank"}
    assert plans["node2"].modify == plans["node2"].delete == ()
    # Each rule: originals by destination port, replies by source port, errors by that of their connection; later
    # fragments, which have none, once.
    assert len(plans["node2"].add) == 2 * 3 + 1
    assert not sent_elsewhere(counter.follow(start), "node1"), "its class stays known"
    assert not sent_elsewhere(counter.follow(start.with_object(newcomer)), "node1")


def test_a_class_that_a_large_rule_names_is_one_more_clause() -> None:
    peers = tuple(PolicyPeer(pods=Selector.of({"app": f"app{number}"})) for number in range(9))
    ports = tuple(PolicyPort(port=port) for port in (80, 443, 8080, 9000))
    rule = PolicyRule(peers, ports)
    large = KubernetesPolicy(
        "alpha", "large", Selector.of({"app": "db"}), frozenset({Direction.INGRESS}), ingress=(rule,)
    )
    clients = [_alpha(f"c{number}", "node1", app=f"app{number}") for number in range(8)]
    pods = {pod.key: pod for pod in [*clients, _alpha("server", "node2", app="db")]}
    nodes = {name: Node(name, addresses=(node_address(name),)) for name in NODE_NAMES}
    counter = Counter.of(Cluster(nodes=nodes, pods=pods, policies={large.key: large}))
    plans = counter.follow(counter.cluster.with_object(_alpha("c8", "node3", app="app8")))
    (clause,) = plans["node2"].add
    assert "conjunction(" in clause.actions_text({})
    assert plans["node2"].modify == plans["node2"].delete == ()
    assert plans["node1"].size == 0
