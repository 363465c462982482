"""Provides the engine of a whole cluster whose switches confirm at a call: `update`, and `advance` while `pending`."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.usage import Usage
from romana_ovs.engine import Engine, offline_facts
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import NodeView


class ConfirmingEngine:
    """An `Engine` of which every node has a switch; all have confirmed the views up to the last `advance`."""

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        self.engine = Engine(settings, state)
        self.plan = self.engine.plan
        self._cluster = Cluster(settings=settings)

    def update(self, cluster: Cluster) -> None:
        """Step to `cluster`; no switch has confirmed the new views yet."""
        self._cluster = cluster
        self.engine.step(cluster, self.agents.nodes | cluster.nodes.keys())

    def advance(self) -> None:
        """Have every switch confirm its view, and step again."""
        self.agents.acknowledge(self.agents.nodes)
        self.engine.step(self._cluster, self.agents.nodes)

    def settle(self) -> None:
        """Advance until no step waits for switches."""
        while self.pending:
            self.advance()

    @property
    def agents(self) -> NodeAgents:
        return self.engine.agents

    @property
    def pending(self) -> bool:
        return self.engine.unsettled

    @property
    def registry(self) -> Numbers:
        """The published numbers, and the endpoints."""
        return Numbers(self.engine)

    @property
    def usage(self) -> Usage:
        return self.engine.usage

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.engine.problems

    @property
    def revision(self) -> int:
        return self.agents.state_version

    @property
    def hosts(self) -> Mapping[str, int]:
        return self.engine.registry.published.hosts

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts]) -> NodeView:
        view = self.agents.view(facts, all_facts)
        if view is None:
            raise InputError.because(f"there is no view of node {facts.node}")
        return view

    def views(self, cluster: Cluster, **bridges: BridgeFacts) -> dict[str, NodeView]:
        """The views of all nodes; `bridges` are those that are not as offline."""
        facts = {**offline_facts(cluster, cluster.nodes), **bridges}
        return {node: self.view(facts[node], facts) for node in facts}

    def address_of(self, pod: str) -> IPv4Address | None:
        return self.agents.address_of(PodKey(pod))

    def mac_of(self, pod: str) -> str | None:
        return self.agents.mac_of(PodKey(pod))

    def node_of(self, pod: str) -> str | None:
        return self.agents.node_of(PodKey(pod))

    def uid_of(self, pod: str) -> str:
        return self.agents.uid_of(PodKey(pod))

    def identity_of(self, pod: str) -> int | None:
        return self.agents.identity_of(PodKey(pod))

    def host_number(self, node: str) -> int | None:
        return self.agents.host_number(node)

    def to_json(self) -> dict[str, Any]:
        return self.agents.to_json()

    def to_save(self) -> dict[str, Any]:
        return self.agents.to_save()


class Numbers:
    """What is published, and the endpoints of all nodes."""

    def __init__(self, engine: Engine) -> None:
        self.published = engine.registry.published
        self.hosts, self.tenants = self.published.hosts, self.published.blocks
        self.segments = {key: indexes[0] for key, indexes in self.published.indexes.items()}
        self.endpoints = engine.agents.endpoints

    def number(self, segment: tuple[str, str]) -> int:
        """The first index of a tenant's tier."""
        return self.published.indexes[SegmentKey(*segment)][0]

    def indexes(self, segment: tuple[str, str]) -> tuple[int, ...]:
        """All indexes of a tenant's tier."""
        return self.published.indexes.get(SegmentKey(*segment), ())

    def endpoint(self, pod: str) -> Endpoint:
        """The endpoint of a pod that has one."""
        return self.endpoints[PodKey(pod)]


def follow(cluster: Cluster) -> ConfirmingEngine:
    """A engine at its first cluster."""
    engine = ConfirmingEngine(cluster.settings)
    engine.update(cluster)
    return engine
