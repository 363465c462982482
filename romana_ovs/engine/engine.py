"""Computes numbers and views of all nodes with the published numbers in memory: an API server that accepts at once.

                        Cluster (folder of manifests, or API server)
                           |
                  PolicyIndex.update ------------ rules, normalised once for all nodes
                           |
        +------------------+-----------------------------+
        v                                                v
    Registry.update                                  NodeAgent.update, for each node
      ranges, segments, host numbers, classes;         own pods: address, identity; rules in force
      takes the steps of make-before-break                     |
        |        ^                                             v
        |        |                                         NodeAgent.view -> resolve -> compile_node -> switch
        |        +---- Reports, once switches confirm <-----------------------------------+
        +----> Published: numbers --------------------------> NodeAgent.update

    Published and Reports are       with a folder                    with an API server
      kept in                       memory (here)                    Allocation, ClassSets, NodeReports
      accepted                      at once, in `Engine.step`        when written and read back (`ApiReconciler.step`)
      durable in                    the state file                   etcd

Registry and node agents are the same in both cases. This file adds the loop: both are updated until neither changes
unless switches confirm something.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.node_allocator import no_host_number
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import all_indexes_owned
from romana_ovs.addressing.usage import AllocatedNumbers, Usage, usage_of
from romana_ovs.engine.changes import changed_keys
from romana_ovs.engine.endpoints import needs_endpoint
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.engine.policy_index import PolicyIndex, RuleSet
from romana_ovs.engine.registry import Registry
from romana_ovs.engine.saved_state import current_state
from romana_ovs.kube.published import PublishedJson, TermBase, published_to_json
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import Derived, keep_equal
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Node, Pod, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.state import Encoded

MAX_ROUNDS = 10_000
"""Of registry and agents in one step: a segment takes one further index in each. More is an internal error."""
WRITER = "this process"


class Engine:
    """The registry and the agents of all nodes of one cluster, with the published numbers in memory.

    After each `step` that moved `revision`, save `to_save()`: numbers must be durable before flows use them. Then
    program the views. When a switch has confirmed one, call `on_programmed`, and `step` again if it says so.
    """

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        """An engine without pods, with the numbers of `state`.

        Raises AddressError when the plan of `settings` is invalid, or not the one that `state` was saved under;
        InputError when `state` is not what was saved.
        """
        self.plan = AddressPlan.of(settings)
        self.agents = NodeAgents(
            settings,
            current_state(state, self.plan) if state is not None else None,
            # A segment that is full after a step is so because its registry has nothing left, not because it is late.
            exhaustion_reason=all_indexes_owned(self.plan),
        )
        before = self.agents.published
        base = TermBase(before, MappingProxyType({})) if before is not None else None
        self.registry = Registry(settings, base, writer=WRITER)
        self.policies = PolicyIndex()
        self._text = PublishedJson(lambda value: Encoded.of(value).text)
        self._first_step = True
        self._awaited: frozenset[str] = frozenset()
        self._pods: Mapping[PodKey, Pod] = MappingProxyType({})
        self._nodes: Mapping[str, Node] = MappingProxyType({})
        self._implied_nodes: Mapping[str, Node] = {}
        self._all_nodes: Derived[Mapping[str, Node]] = Derived(by_value=True)

    def step(self, cluster: Cluster, awaited: Collection[str] = ()) -> None:
        """Computes numbers and views of `cluster`, up to the step of make-before-break that must be confirmed next.

        The switches of the `awaited` nodes must confirm it; the views of other nodes count as programmed. So do all in
        the first step, before anything is programmed. Raises InputError, and changes nothing, when the settings ask for
        another address plan.
        """
        self.plan.require_same(cluster.settings)
        changed = changed_keys(self._pods, cluster.pods)
        cluster = self._with_nodes(cluster, changed)
        rules = self.policies.update(cluster, changed)
        self.agents.retain(cluster.nodes)
        self.agents.ensure(cluster.nodes)
        self.agents.stored = keep_equal(self.agents.stored, frozenset(cluster.nodes))
        self.agents.may_wait = True
        self._awaited = frozenset(awaited)
        unawaited = [node for node in cluster.nodes if self._first_step or node not in awaited]
        if self._first_step:
            self._allocate_first(cluster, rules, changed)
        unnumbered: Collection[PodKey] = () if self._first_step else changed
        for _ in range(MAX_ROUNDS):
            if not self._round(cluster, rules, unawaited, changed, unnumbered):
                break
            changed, unnumbered = set(), ()
        else:
            raise RuntimeError("registry and node agents do not come to an end")
        self._pods = cluster.pods
        self._first_step = False

    def _allocate_first(self, cluster: Cluster, rules: RuleSet, changed: Collection[PodKey]) -> None:
        """Allocates all numbers that need no report, before agents are updated: so each pod is processed once."""
        before = None
        while (published := self.registry.update(cluster, {}, rules, pods=changed)) is not before:
            before, changed = published, ()

    def _round(
        self,
        cluster: Cluster,
        rules: RuleSet,
        unawaited: Collection[str],
        changed: Collection[PodKey],
        unnumbered: Collection[PodKey],
    ) -> bool:
        """One exchange between registry and agents; returns whether another one may change anything.

        `changed` are the pods that changed since the last update of the agents, `unnumbered` since the registry's.
        """
        reports = self.agents.reports
        published = self.registry.update(cluster, reports, rules, pods=unnumbered)
        same = published is self.agents.published
        self.agents.published = published
        self.agents.update(cluster, rules, changed)
        self.agents.acknowledge(unawaited)
        if not same or self.agents.reports is not reports:
            return True
        stuck = not self.unsettled or self._all_acknowledged()
        if stuck and self.agents.needs_registry and self.agents.may_wait:
            # No further step can bring what agents wait for.
            self.agents.may_wait = False
            return True
        return False

    @property
    def unsettled(self) -> bool:
        """Whether a step of make-before-break waits for switches to confirm."""
        return self.registry.pending or bool(self.registry.published.retired_hosts)

    def on_programmed(self, node: str, ack: PendingAck) -> bool:
        """Records that the switch of `node` has the view of `ack`; returns whether another `step` is due."""
        return self.agents.on_programmed(node, ack) and self.unsettled and self._all_acknowledged()

    def _all_acknowledged(self) -> bool:
        """Whether every awaited node has acknowledged the published numbers, as far as it can."""
        revision, reports = self.registry.published.revision, self.agents.reports
        return all(
            reports[node].acknowledged >= revision or not self.agents.can_acknowledge(node)
            for node in self._awaited & reports.keys()
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each pod or node that gets no number, and each namespace with too many requirements; sorted."""
        nodes = {problem.name: problem.reason for problem in self.registry.problems if problem.kind == "Node"}
        # A tenant's problem is in those of its pods (`exhaustion_reason`).
        others = [problem for problem in self.registry.problems if problem.kind != "Tenant"]
        pods = [self._with_node_reason(problem, nodes) for problem in self.agents.problems if problem.kind == "Pod"]
        problems = {*others, *pods, *self.policies.problems}
        return tuple(sorted(problems, key=lambda problem: (problem.kind, problem.name, problem.reason)))

    def _with_node_reason(self, problem: Problem, nodes: Mapping[str, str]) -> Problem:
        """An agent's problem of a pod; when its node has no host number, with the reason for that (`nodes`)."""
        pod = self._pods.get(PodKey(problem.name))
        if pod is not None and pod.node in nodes and problem.reason == no_host_number(pod.node):
            return replace(problem, reason=nodes[pod.node])
        return problem

    @property
    def hosts(self) -> Mapping[str, int]:
        """The host number of every node that has one."""
        return self.registry.published.hosts

    @property
    def usage(self) -> Usage:
        """The use of the address plan."""
        published = self.registry.published
        endpoints, reserved = tuple(self.agents.endpoints.values()), self.registry.node_addresses
        return usage_of(
            AllocatedNumbers(self.plan, published.blocks, published.indexes, published.hosts, endpoints, reserved)
        )

    @property
    def state_version(self) -> int:
        """Grows with every change of `to_json`."""
        return self.agents.state_version + self.registry.published.revision

    def to_json(self) -> dict[str, Any]:
        """All numbers that must survive a restart, in plain values of JSON."""
        return {**self.agents.to_json(), "published": published_to_json(self.registry.published)}

    def to_save(self) -> dict[str, Any]:
        """`to_json` for a StateFile: only changed parts are encoded again."""
        return {**self.agents.parts_to_save(), "published": Encoded(self._text.of(self.registry.published))}

    def _with_nodes(self, cluster: Cluster, changed: Collection[PodKey]) -> Cluster:
        """`cluster` with a Node for every name that pods are bound to and that has none."""
        nodes = cluster.nodes
        nodes_of_changed = (pod.node for key in changed if (pod := cluster.pods.get(key)) is not None)
        if self._implied_nodes or nodes is not self._nodes or any(node not in nodes for node in nodes_of_changed):
            named = {pod.node for pod in cluster.pods.values() if needs_endpoint(pod) is not None}
            self._implied_nodes = {name: Node(name) for name in sorted(named - nodes.keys())}
            self._nodes = nodes
        if not self._implied_nodes:
            return cluster
        all_nodes = self._all_nodes.get(
            (nodes, self._implied_nodes), lambda declared, implied: MappingProxyType({**declared, **implied})
        )
        return replace(cluster, nodes=all_nodes)
