"""Runs the node agents of the nodes that this process drives."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import WAITS_FOR_REGISTRY
from romana_ovs.engine.enforced import SharedAgentCache
from romana_ovs.engine.node_agent import NodeAgent, PendingAck
from romana_ovs.engine.pods_by_node import PodsByNode
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.kube.published import (
    PublishedJson,
    Verb,
    Write,
    published_from_json,
    published_to_json,
    report_object,
)
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import DerivedMap, LastInputs
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import NodeView
from romana_ovs.registry_types.published import Published
from romana_ovs.registry_types.report import Observed, Report
from romana_ovs.state import Encoded

FORMAT = 1
"""Version of what `to_json` gives."""


class NodeAgents:
    """One `NodeAgent` for each node that is driven.

    Before each `update` set `published` (None: nothing new), `stored`, the nodes whose reports the API server has, and
    `may_wait`, whether the timeout for the registry has not passed. Only nodes in `stored` use published numbers: from
    then on the registry waits for them.
    """

    def __init__(
        self,
        settings: Settings,
        state: Mapping[str, Any] | None = None,
        *,
        exhaustion_reason: str = WAITS_FOR_REGISTRY,
    ) -> None:
        """The agents of `state`. Raises AddressError and InputError as `NodeAgent` does.

        `exhaustion_reason` is why a full segment gets no further range, as their problems have it (`SegmentTable`).
        """
        self.plan = AddressPlan.of(settings)
        self._settings = settings
        self._agents: dict[str, NodeAgent] = {}
        self.reports: Mapping[str, Report] = MappingProxyType({})
        """The report of every node that has an agent: the identical mapping until one of them changes."""
        self._pods = PodsByNode()
        self._membership_changes = 0
        self._policies: dict[str, str] = {}
        self.observed: Mapping[str, Observed] = MappingProxyType({})
        """What was measured of the switches of our nodes."""
        self.published: Published | None = None
        self.stored: frozenset[str] = frozenset()
        self.may_wait = True
        self._text = PublishedJson(lambda value: Encoded.of(value).text)
        self._shared = SharedAgentCache(exhaustion_reason)
        self._inputs = LastInputs()
        """What was the same for all agents in the last update."""
        self._rules: RuleSet | None = None
        """The rules of the last update."""
        self._unconfirmed: set[str] = set()
        """The nodes whose agents were updated since they last counted as programmed."""
        self._needing_registry: frozenset[str] = frozenset()
        """The nodes whose agents need the registry."""
        self._timed_out: frozenset[str] = frozenset()
        """Those of them that were updated after the timeout for the registry."""
        self._agent_texts: DerivedMap[str, str] = DerivedMap(by_value=True)
        """Each agent's state as text, by the agent's count of changes."""
        if state is not None:
            self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        parts = state.get("parts")
        if state.get("format") != FORMAT or not isinstance(parts, Mapping):
            raise InputError.because(f"the saved state is not of format {FORMAT} and of nodes", field="format")
        if state.get("published") is not None:
            self.published = published_from_json(state["published"])
        for node, saved in parts.items():
            self._agents[node] = NodeAgent(node, self._settings, saved, self.published, self._shared)
        self._collect(parts)

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that have an agent."""
        return frozenset(self._agents)

    def ensure(self, nodes: Iterable[str]) -> None:
        """Make an agent for each of `nodes` that has none."""
        added = sorted(set(nodes) - self._agents.keys())
        for node in added:
            self._agents[node] = NodeAgent(node, self._settings, shared=self._shared)
        self._membership_changes += len(added)
        self._collect(added)

    @property
    def state_version(self) -> int:
        """Grows with every change of `to_json`."""
        return self._membership_changes + sum(agent.changes for agent in self._agents.values())

    @property
    def awaits_registry(self) -> bool:
        """Whether an agent needs the registry, and its timeout has not passed."""
        return self.may_wait and self.needs_registry

    @property
    def needs_registry(self) -> bool:
        """Whether an agent needs the registry: for rules, relabelled pods, or pods without an address."""
        return bool(self._needing_registry)

    @property
    def endpoints(self) -> Mapping[PodKey, Endpoint]:
        """The endpoint of every pod that has one."""
        return {key: end for agent in self._agents.values() for key, end in agent.allocator.endpoints.items()}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of all agents, each once."""
        return tuple(dict.fromkeys(problem for agent in self._agents.values() for problem in agent.problems))

    def retain(self, nodes: Collection[str]) -> None:
        """Removes the agents of all nodes but these."""
        removed = self._agents.keys() - set(nodes)
        if not removed:
            return
        for node in removed:
            # Its changes stay part of the sum, which only grows.
            self._membership_changes += 1 + self._agents.pop(node).changes
            self._policies.pop(node, None)
        self._needing_registry -= removed
        self._unconfirmed -= removed
        self.reports = MappingProxyType({node: self.reports[node] for node in self._agents})
        self._agent_texts.retain(self._agents)

    def update(self, cluster: Cluster, rules: RuleSet, changed: Collection[PodKey] | None = None) -> None:
        """Updates the agents for which an input is new.

        `changed` are the pods that changed since the last update, if that is known.
        """
        outdated = set(self._pods.update(cluster.pods, self._agents, changed))
        of_all = (cluster.nodes, cluster.namespaces, cluster.service_cidrs, cluster.frontends, cluster.settings)
        if self._inputs.replace((self.published, self.stored, *of_all)):
            outdated.update(self._agents)
        timed_out = frozenset(() if self.may_wait else self._needing_registry)
        outdated |= timed_out ^ self._timed_out
        try:
            updated = self._update_agents(outdated & self._agents.keys(), timed_out, cluster, rules)
        except Exception:
            # The next update is of all agents.
            self._inputs = LastInputs()
            raise
        self._rules, self._timed_out = rules, timed_out
        self._unconfirmed |= updated
        self._collect(updated)

    def _update_agents(self, outdated: Set[str], timed_out: Set[str], cluster: Cluster, rules: RuleSet) -> set[str]:
        """Updates the `outdated` agents, and the rules of the others; returns those that may report something new."""
        for node in sorted(outdated):
            published = self.published if node in self.stored else None
            self._agents[node].update(
                cluster, published, rules, pods=self._pods.of(node), may_wait=node not in timed_out
            )
        if rules is self._rules:
            return set(outdated)
        return {
            node
            for node, agent in self._agents.items()
            if node in outdated or agent.update_rules(rules, may_wait=node not in timed_out)
        }

    def acknowledge(self, nodes: Iterable[str]) -> None:
        """Counts the views of these nodes as programmed."""
        acknowledging = self._unconfirmed.intersection(nodes)
        for node in acknowledging:
            agent = self._agents[node]
            agent.on_programmed(agent.pending_ack)
        self._unconfirmed -= acknowledging
        self._collect(acknowledging)

    def _collect(self, nodes: Iterable[str]) -> None:
        """Collects the reports of these agents, and which of them need the registry."""
        agents = {node: self._agents[node] for node in nodes}
        needing = {node for node, agent in agents.items() if agent.needs_registry}
        self._needing_registry = (self._needing_registry - agents.keys()) | needing
        changed = {node: agent.report for node, agent in agents.items() if agent.report is not self.reports.get(node)}
        if changed:
            self.reports = MappingProxyType({**self.reports, **changed})

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts]) -> NodeView | None:
        """The view of the node of `facts`, as `NodeAgent.view`; None for a node without an agent, too."""
        agent = self._agents.get(facts.node)
        return agent.view(facts, all_facts) if agent is not None else None

    def pending_ack(self, node: str, policies: str) -> PendingAck | None:
        """What `node` may report once its switch has the present view, made from `policies` (a digest)."""
        agent = self._agents.get(node)
        if agent is None:
            return None
        return replace(agent.pending_ack, policies_digest="" if agent.rules_waiting else policies)

    def can_acknowledge(self, node: str) -> bool:
        """Whether the view of `node` acknowledges what is published: no pod has a class that it does not match."""
        agent = self._agents[node]
        return agent.pending_ack.revision >= agent.revision

    def on_programmed(self, node: str, ack: PendingAck) -> bool:
        """Records that the switch of `node` has the view of `ack`; returns whether the node's report changes."""
        agent = self._agents.get(node)
        if agent is None:
            return False
        self._policies[node] = ack.policies_digest
        changed = agent.on_programmed(ack)
        if changed:
            self._collect((node,))
        return changed

    def report_writes(
        self, stored: Mapping[str, Report], versions: Mapping[str, str], *, policies_too: bool = True
    ) -> Iterator[Write]:
        """The writes that bring the `stored` reports of our nodes, of these resourceVersions, up to date.

        Without `policies_too` a report in which only the policies changed is not written.
        """
        for node, agent in self._agents.items():
            observed, stored_report = self.observed.get(node, Observed()), stored.get(node)
            if observed.sctp_ports is None and stored_report is not None:
                # A switch that is not connected is most likely the same one as before.
                observed = replace(observed, sctp_ports=stored_report.observed.sctp_ports)
            report = replace(agent.report, policies=self._policies.get(node, ""), observed=observed)
            if stored_report is not None and not policies_too:
                report = replace(report, policies=stored_report.policies)
            if stored_report == report and node in versions:
                continue
            desired = report_object(report)
            if node not in versions:
                yield Write(Verb.CREATE, desired["kind"], node, desired)
            else:
                metadata = {"name": node, "resourceVersion": versions[node]}
                yield Write(Verb.UPDATE, desired["kind"], node, {**desired, "metadata": metadata})

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of `pod`, or None while it has none here."""
        agent = self._agent_of(pod)
        return agent.address_of(pod) if agent is not None else None

    def uid_of(self, pod: PodKey) -> str:
        """The UID of the pod that has the address of `pod` here; empty when it is unknown, or there is none."""
        agent = self._agent_of(pod)
        return agent.uid_of(pod) if agent is not None else ""

    def mac_of(self, pod: PodKey) -> str | None:
        """The MAC that goes with the address of `pod`, or None while it has none here."""
        address = self.address_of(pod)
        return self.plan.mac(address) if address is not None else None

    def node_of(self, pod: PodKey) -> str | None:
        """The node that `pod` has its address on, or None."""
        agent = self._agent_of(pod)
        return agent.node if agent is not None and agent.address_of(pod) is not None else None

    def identity_of(self, pod: PodKey) -> int | None:
        """The identity of `pod` now, or None while it has no address here."""
        agent = self._agent_of(pod)
        return agent.identity_of(pod) if agent is not None else None

    def host_number(self, node: str) -> int | None:
        """The host number of `node`, or None."""
        return self.published.hosts.get(node) if self.published is not None else None

    def to_json(self) -> dict[str, Any]:
        """All that must survive a restart, as plain values of JSON; the published numbers are in it once."""
        newest = self._newest()
        return {
            "format": FORMAT,
            "parts": {node: agent.to_json() for node, agent in self._agents.items()},
            "published": published_to_json(newest) if newest is not None else None,
        }

    def to_save(self) -> dict[str, Any]:
        """`to_json` for a StateFile: only changed agents are encoded again."""
        newest = self._newest()
        return {**self.parts_to_save(), "published": Encoded(self._text.of(newest)) if newest is not None else None}

    def parts_to_save(self) -> dict[str, Any]:
        """`to_save` without the published numbers."""
        parts = ",".join(f"{json.dumps(node)}:{self._agent_text(node)}" for node in sorted(self._agents))
        return {"format": FORMAT, "parts": Encoded("{" + parts + "}")}

    def _agent_text(self, node: str) -> str:
        """One agent's state as JSON text."""
        agent = self._agents[node]
        return self._agent_texts.get(node, (agent.changes,), lambda _: Encoded.of(agent.to_json()).text)

    def _newest(self) -> Published | None:
        published = (agent.published for agent in self._agents.values() if agent.published is not None)
        return max(published, key=lambda numbers: numbers.revision, default=None)

    def _agent_of(self, pod: PodKey) -> NodeAgent | None:
        present = self._pods.get(pod)
        return self._agents.get(present.node) if present is not None else None
