"""Runs a registry and node agents with their messages late, doubled or overtaken, in any order."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from romana_ovs.engine import offline_facts
from romana_ovs.engine.node_agent import NodeAgent, PendingAck
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.published import (
    COMPLETE_MARKER,
    PublishedObjects,
    PublishedReader,
    TermBase,
    allocation_object,
    class_set_object,
    decode_report,
    marker_object,
    published_to_json,
    report_object,
)
from romana_ovs.model.bridge import BridgeFacts, TunnelPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.view import NodeView
from romana_ovs.registry_types.published import Published
from romana_ovs.registry_types.report import Report
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.conntrack_behaviour import NETDEV, ConntrackBehaviour
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.network import Network, Wiring
from tests.support.confirming_engine import ConfirmingEngine
from tests.support.merged_state import merged_state
from tests.support.simulated_cluster import SimCluster

TUNNEL_PORT = 0x7FFF
MAX_ROUNDS = 60
PATIENT_ROUNDS = 20


def objects_of(published: Published) -> PublishedObjects:
    """What the API server would have of `published`, by way of its JSON."""
    sets = {name: class_set_object(each) for name, each in published.class_sets.items()}
    plain = json.loads(json.dumps([allocation_object(published), {**sets, COMPLETE_MARKER: marker_object(published)}]))
    return PublishedObjects(*plain)


def tunnelled(cluster: Cluster, nodes: list[str]) -> Mapping[str, BridgeFacts]:
    """Bridges joined by tunnels between the nodes' own addresses."""
    facts = offline_facts(cluster, nodes)
    return MappingProxyType(
        {
            name: replace(own, links={}, tunnel=TunnelPort(TUNNEL_PORT, cluster.nodes[name].addresses[0]))
            for name, own in facts.items()
        }
    )


def tables(view: NodeView) -> dict[FlowKey, Flow]:
    """The flows of a view."""
    return compile_node(view, resolve(view)).flows


def partly(before: Published, after: Published, early: frozenset[str]) -> Published:
    """What a node sees while `after` is being written: class sets one by one, the marker not yet."""
    sets = dict(before.class_sets)
    for name in early:
        sets.pop(name, None)
        if name in after.class_sets:
            sets[name] = after.class_sets[name]
    return replace(after, revision=before.revision, class_sets=MappingProxyType(dict(sorted(sets.items()))))


class RegistryAndAgents:
    """One registry, and nodes that hear of everything whenever the test says so."""

    def __init__(self, cluster: Cluster) -> None:
        self.settings = cluster.settings
        self.history = [cluster]
        self.registry = Registry(cluster.settings, None, writer="r1")
        self.messages: list[Published] = []
        self.reports: dict[str, Report] = {}
        self.nodes: dict[str, NodeAgent] = {}
        self.seen: dict[str, int] = {}
        self.sent: dict[str, list[Report]] = {}
        self.programmed: dict[str, PendingAck] = {}

    @property
    def cluster(self) -> Cluster:
        return self.history[-1]

    def change(self, cluster: Cluster) -> None:
        """The cluster is another; nobody knows yet."""
        self.history.append(cluster)

    def registry_looks(self, version: int, lagging: frozenset[str] = frozenset()) -> None:
        """The registry sees a version of the cluster, not older than the last, and the reports that arrived."""
        version = self.seen["registry"] = max(version, self.seen.get("registry", 0))
        published = self.registry.update(self.history[version], dict(self.reports), lagging=lagging)
        if not self.messages or published is not self.messages[-1]:
            assert not self.messages or published.revision > self.messages[-1].revision
            decoded, problems = PublishedReader().read(objects_of(published))
            assert decoded == published and not problems
            self.messages.append(published)

    def node_looks(
        self,
        name: str,
        version: int,
        message: int | None,
        *,
        early: frozenset[str] | None = None,
        may_wait: bool = True,
    ) -> None:
        """A node sees a version of the cluster, not older than the last, and maybe a message, newer or older.

        `early` (not None): the Allocation and the class sets of these namespaces are those of the message after it.
        """
        if name not in self.nodes:
            self.nodes[name] = NodeAgent(name, self.settings)
            self.reports[name] = self.nodes[name].report
        version = self.seen[name] = max(version, self.seen.get(name, 0))
        at = self.history[version]
        own = {key: pod for key, pod in at.pods.items() if pod.node == name}
        published = self.messages[message] if message is not None and self.messages else None
        if published is not None and message is not None and early is not None and message + 1 < len(self.messages):
            published = partly(published, self.messages[message + 1], early)
        self.nodes[name].update(replace(at, pods=own), published, may_wait=may_wait)

    def node_programs(self, name: str) -> None:
        """The switch of a node gets its view and confirms it; the report is on its way."""
        node = self.nodes[name]
        promise = node.pending_ack
        if self.view(name) is not None:
            node.on_programmed(promise)
        report = decode_report(json.loads(json.dumps(report_object(node.report))))
        assert report == node.report
        self.sent.setdefault(name, []).append(report)

    def report_arrives(self, name: str) -> None:
        """The newest report of a node reaches the registry."""
        if self.sent.get(name):
            self.reports[name] = self.sent[name][-1]

    def restart_node(self, name: str) -> None:
        """A node's process begins again from its state file."""
        node = self.nodes[name]
        numbers = published_to_json(node.published) if node.published is not None else None
        saved = json.loads(json.dumps([node.to_json(), numbers]))
        self.nodes[name] = NodeAgent(name, self.settings, *saved)

    def restart_registry(self, lagging: frozenset[str] = frozenset()) -> None:
        """Another process goes on from the objects."""
        if self.messages:
            objects = objects_of(self.messages[-1])
            self.registry = Registry(self.settings, TermBase.of(objects), writer="r2")
            self.registry_looks(self.seen["registry"], lagging)

    def view(self, name: str) -> NodeView | None:
        facts = self.facts(name)
        return self.nodes[name].view(facts) if facts is not None else None

    def facts(self, name: str) -> BridgeFacts | None:
        """The bridge of a node has the ports of the pods that it knows of."""
        at = self.history[self.seen[name]]
        return tunnelled(at, [name])[name] if name in at.nodes else None

    def settle(self) -> None:
        """Everything that is on its way arrives, until nothing changes any more."""
        newest = len(self.history) - 1
        for number in range(MAX_ROUNDS):
            before = (len(self.messages), dict(self.reports))
            self.registry_looks(newest)
            for name in sorted(self.cluster.nodes):
                # A node that restarted in the midst of a step waits for nothing else.
                may_wait = number <= PATIENT_ROUNDS or not self.nodes[name].rules_waiting
                self.node_looks(name, newest, len(self.messages) - 1, may_wait=may_wait)
                self.node_programs(name)
                self.report_arrives(name)
            for name in self.nodes.keys() - self.cluster.nodes.keys():
                del self.nodes[name]
                self.reports.pop(name, None)
            if before == (len(self.messages), self.reports) and not self.registry.pending:
                return
        last = self.messages[-1]
        raise AssertionError(
            f"it does not settle: {last} {self.reports} {[n.rules_waiting for n in self.nodes.values()]}"
        )

    def merged(self) -> ConfirmingEngine:
        """One process that goes on from where all are now."""
        state = json.loads(json.dumps(merged_state(self.messages[-1], self.nodes.values())))
        engine = ConfirmingEngine(self.settings, state)
        engine.update(self.cluster)
        while engine.pending:
            engine.advance()
        return engine


class AgentsSimCluster(SimCluster):
    """The switches of node agents, each programmed when the test says so."""

    def __init__(self, simulation: RegistryAndAgents, *, behaviour: ConntrackBehaviour = NETDEV) -> None:
        self.simulation = simulation
        self.behaviour = behaviour
        self.lagging: frozenset[str] = frozenset()
        self.cluster = simulation.cluster
        self.switches = {}
        self.facts = dict(tunnelled(simulation.cluster, sorted(simulation.cluster.nodes)))
        for name in self.facts:
            self.program_node(name)
        self.addresses = {
            key: address
            for name, own in self.facts.items()
            for key in own.pod_ports
            if (address := simulation.nodes[name].address_of(key)) is not None
        }

    def program_node(self, name: str) -> None:
        """The switch of a node gets its tables, and the node's report is on its way."""
        view = self.simulation.view(name)
        if view is not None:
            flows = tables(view).values()
            if name in self.switches:
                self.switches[name].program(flows)
            else:
                self.switches[name] = Switch(flows, conntrack=Conntrack(self.behaviour))
        self.simulation.node_programs(name)
        if self.switches.keys() >= self.facts.keys():
            self.network = Network(self.switches, Wiring.of(self.facts))
