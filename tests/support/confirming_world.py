"""An engine whose switches confirm when a test says so: `update`, and `advance` while `pending`."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from romana_ovs.engine import Engine
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import NodeView


class World:
    """Every node has a switch, which has confirmed all views up to the last `advance`."""

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        self.engine = Engine(settings, state)
        self.plan = self.engine.plan
        self._cluster = Cluster(settings=settings)

    def update(self, cluster: Cluster) -> None:
        """The cluster is another; no switch has confirmed anything yet."""
        self._cluster = cluster
        self.engine.step(cluster, self.agents.nodes | cluster.nodes.keys())

    def advance(self) -> None:
        """Every switch has confirmed its view."""
        self.agents.acknowledge(self.agents.nodes)
        self.engine.step(self._cluster, self.agents.nodes)

    def settle(self) -> None:
        """Every switch confirms until nothing waits for it."""
        while self.pending:
            self.advance()

    @property
    def agents(self):  # type: ignore[no-untyped-def]
        return self.engine.agents

    @property
    def pending(self) -> bool:
        return self.engine.unsettled

    @property
    def registry(self):  # type: ignore[no-untyped-def]
        """The numbers that are given."""
        return _Numbers(self.engine)

    @property
    def problems(self) -> tuple[Problem, ...]:
        return self.engine.problems

    @property
    def revision(self) -> int:
        return int(self.agents.revision)

    @property
    def hosts(self) -> Mapping[str, int]:
        return self.engine.registry.published.hosts

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts]) -> NodeView:
        found: NodeView | None = self.agents.view(facts, all_facts)
        if found is None:
            raise InputError.because(f"there is no view of node {facts.node}")
        return found

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        found: IPv4Address | None = self.agents.address_of(pod)
        return found

    def mac_of(self, pod: PodKey) -> str | None:
        found: str | None = self.agents.mac_of(pod)
        return found

    def node_of(self, pod: PodKey) -> str | None:
        found: str | None = self.agents.node_of(pod)
        return found

    def uid_of(self, pod: PodKey) -> str:
        return str(self.agents.uid_of(pod))

    def identity_of(self, pod: PodKey) -> int | None:
        found: int | None = self.agents.identity_of(pod)
        return found

    def host_number(self, node: str) -> int | None:
        found: int | None = self.agents.host_number(node)
        return found

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = self.agents.to_json()
        return found

    def to_save(self) -> dict[str, Any]:
        found: dict[str, Any] = self.agents.to_save()
        return found


class _Numbers:
    """What is published, and the endpoints of all nodes."""

    def __init__(self, engine: Engine) -> None:
        self.published = engine.registry.published
        self.hosts, self.tenants = self.published.hosts, self.published.blocks
        self.segments = {key: indexes[0] for key, indexes in self.published.indexes.items()}
        self.endpoints = engine.agents.endpoints

    def number(self, segment):  # type: ignore[no-untyped-def]
        return self.published.indexes[segment][0]

    def indexes(self, segment):  # type: ignore[no-untyped-def]
        return self.published.indexes.get(segment, ())

    def endpoint(self, pod: PodKey):  # type: ignore[no-untyped-def]
        return self.endpoints.get(pod)
