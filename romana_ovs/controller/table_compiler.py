"""Compiles the tables of each node, and keeps what the next compilation can reuse."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from types import MappingProxyType

from romana_ovs.addressing.cidrs import merge_cidrs
from romana_ovs.controller.group_chunks import CHUNK_ROWS, GroupChunks, IncomingGroup
from romana_ovs.controller.group_queue import GroupKey, GroupQueue
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.derived import Derived
from romana_ovs.model.errors import Problem
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node, group_entries
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.resolve_cache import ResolveCache
from romana_ovs.policy.view import LocalPod, NodePermissions, NodeView, Uplink
from romana_ovs.sync.attached_pods import PodByAddress

LOG = logging.getLogger("romana_ovs")
UNCHANGED = "node %s: its tables cannot be made; what is programmed stays"


@dataclass(frozen=True, slots=True)
class Compiled:
    """The tables of a node, the last round that they have completely, and the pods by address (`pod_by_address`).

    `tunnel_peers` are the addresses that it accepts tunnelled packets from, `service_ranges` those of Services.
    """

    program: Program
    completed_round: int
    pod_by_address: PodByAddress
    tunnel_peers: tuple[IPv4Network, ...] = ()
    service_ranges: tuple[IPv4Network, ...] = ()


@dataclass(slots=True)
class _Node:
    """The caches of one node. `last` are the view and the permissions of its tables, and their round."""

    resolve_cache: ResolveCache = field(default_factory=ResolveCache)
    compile_cache: CompileCache = field(default_factory=CompileCache)
    queue: GroupQueue = field(default_factory=GroupQueue)
    chunks: GroupChunks = field(default_factory=GroupChunks)
    permissions: Derived[NodePermissions] = field(default_factory=Derived)
    program: Derived[Program] = field(default_factory=Derived)
    last: tuple[NodeView, NodePermissions, int] | None = None
    pod_by_address: Derived[PodByAddress] = field(default_factory=Derived)
    tunnel_peers: Derived[tuple[IPv4Network, ...]] = field(default_factory=Derived)

    @property
    def has_postponed(self) -> bool:
        """Whether a group is postponed, or has chunks to add or to remove."""
        return bool(self.queue.postponed) or self.chunks.busy


class TableCompiler:
    """Compiles each node by itself; `failures` are sentences about the last compilation, by node that failed."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self._nodes: dict[str, _Node] = {}
        self._closed: dict[str, tuple[str, ...]] = {}
        self._over_limit: dict[str, Mapping[str, int]] = {}
        self._last_served = ""

    @property
    def closed(self) -> tuple[str, ...]:
        """Sentences about the pods and groups that are closed as their flows cannot be made."""
        return tuple(text for _, texts in sorted(self._closed.items()) for text in texts)

    @property
    def over_limit(self) -> tuple[Problem, ...]:
        """One for each namespace whose policies need more flows than `namespace_flows` on some node."""
        largest: dict[str, tuple[int, str]] = {}
        for node, namespaces in self._over_limit.items():
            for name, rows in namespaces.items():
                largest[name] = max(largest.get(name, (0, "")), (rows, node))
        return tuple(
            Problem(
                f"its policies would take about {rows} flows on node {node}, which is more than the namespace_flows "
                "that a node makes: on the pods for which they take the most they allow nothing",
                kind="Namespace",
                name=name,
            )
            for name, (rows, node) in sorted(largest.items())
        )

    @property
    def nodes_with_postponed(self) -> frozenset[str]:
        """The nodes with postponed groups, or with chunks to add or to remove."""
        return frozenset(name for name, node in self._nodes.items() if node.has_postponed)

    def retain(self, nodes: Collection[str]) -> None:
        """Forget all nodes but these."""
        for node in self._nodes.keys() - set(nodes):
            del self._nodes[node]
        self._closed = {node: texts for node, texts in self._closed.items() if node in nodes}
        self._over_limit = {node: namespaces for node, namespaces in self._over_limit.items() if node in nodes}

    def compile(
        self, agents: NodeAgents, facts: BridgeFacts, everywhere: Mapping[str, BridgeFacts], number: int
    ) -> Compiled | None:
        """The tables of a node in round `number`, with postponed groups in their previous version.

        None when there is no view, or after an internal error: the switch keeps its tables.
        """
        node = self._nodes.setdefault(facts.node, _Node())
        try:
            view = agents.view(facts, everywhere)
            if view is None:
                return None
            node.last = (view, node.permissions.get((view,), lambda view: resolve(view, node.resolve_cache)), number)
            return self._compiled(facts.node, node)
        except Exception as error:  # An internal error must not open or close a path, nor end the process.
            LOG.exception(UNCHANGED, facts.node)
            self._set_failed(facts.node, error)
            return None

    def compile_postponed(self, nodes: Collection[str]) -> tuple[str, Compiled | None] | None:
        """The next of `nodes` with postponed groups, and its tables with one chunk more; None when there is none."""
        waiting = sorted(name for name, node in self._nodes.items() if node.has_postponed and name in nodes)
        if not waiting:
            return None
        # The node after the last one.
        self._last_served = next((name for name in waiting if name > self._last_served), waiting[0])
        node = self._nodes[self._last_served]
        try:
            return self._last_served, self._compile_chunk(self._last_served, node)
        except Exception as error:  # As above.
            LOG.exception(UNCHANGED, self._last_served)
            self._set_failed(self._last_served, error)
            return self._last_served, None

    def _compile_chunk(self, name: str, node: _Node) -> Compiled | None:
        """Add a chunk of the incoming group, begin the next postponed one, or remove a chunk of outgoing groups."""
        postponed_key = node.queue.next_postponed() if node.chunks.incoming is None else None
        group = node.queue.postponed_group(postponed_key) if postponed_key is not None else None
        if postponed_key is not None and group is not None and node.last is not None:
            begun = IncomingGroup(
                postponed_key, group, node.queue.pods_of(postponed_key), node.last[2], group_entries(group)
            )
            if len(begun.rows) <= CHUNK_ROWS or node.queue.is_installed(postponed_key):
                node.compile_cache.put(begun.entries)
                return self._compiled(name, node, postponed_key)
            node.chunks.incoming = begun
        node.chunks.advance()
        incoming = node.chunks.incoming
        if incoming is not None and not node.queue.still_needs(incoming.name, incoming.pods):
            node.chunks.cancel()
        elif incoming is not None and incoming.sent_rows >= len(incoming.rows):
            # The desired group may have changed meanwhile: a group that changes all the time is installed, too.
            node.chunks.incoming = None
            node.compile_cache.put(incoming.entries)
            node.queue.mark_installed(incoming.name, incoming.group, incoming.pods, incoming.desired_in)
        return self._compiled(name, node)

    def _compiled(self, name: str, node: _Node, extra: GroupKey | None = None) -> Compiled | None:
        if node.last is None:
            return None
        view, permissions, number = node.last
        program = node.program.get(
            (view, node.queue.select(view, permissions, number, extra=extra)),
            lambda view, selected: compile_node(view, selected, node.compile_cache),
        )
        failed = tuple(
            f"pod {pod} is closed, as its policies are not understood: {why}" for pod, why in permissions.failed.items()
        )
        self._set_closed(name, tuple(f"node {name}: {text}" for text in (*failed, *program.failures)))
        if failed or program.failures:
            # The next round tries again, even if nothing is new.
            node.permissions, node.program = Derived(), Derived()
        if permissions.over_limit.keys() - self._over_limit.get(name, {}).keys():
            LOG.warning(
                "node %s: more than namespace_flows for %s: what is beyond is left out", name, [*permissions.over_limit]
            )
        self._over_limit[name] = permissions.over_limit
        pod_by_address = node.pod_by_address.get((view.pods,), _pod_by_address)
        tunnel_peers = node.tunnel_peers.get((view.uplinks,), _tunnel_peers)
        completed_round = node.queue.completed_round(number)
        return Compiled(
            node.chunks.with_chunks(program), completed_round, pod_by_address, tunnel_peers, view.service_ranges
        )

    def _set_closed(self, node: str, texts: tuple[str, ...]) -> None:
        for text in texts:
            if text not in self._closed.get(node, ()):
                LOG.error("%s", text)
        self._closed[node] = texts

    def _set_failed(self, node: str, error: Exception) -> None:
        self._nodes.pop(node, None)
        self.failures[node] = f"node {node}: {error}"


def _pod_by_address(pods: tuple[LocalPod, ...]) -> PodByAddress:
    """The name and UID of the pod of each address."""
    return MappingProxyType({pod.address: (pod.key, pod.uid) for pod in pods})


def _tunnel_peers(uplinks: tuple[Uplink, ...]) -> tuple[IPv4Network, ...]:
    return merge_cidrs(IPv4Network(peer) for uplink in uplinks for peer in uplink.tunnel_peers or ())
