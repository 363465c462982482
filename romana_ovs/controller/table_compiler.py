"""Compiles the tables of each node, and keeps what the next compilation can reuse."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.controller.group_chunks import PIECE, GroupChunks, Incoming
from romana_ovs.controller.group_queue import GroupQueue, Name
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.errors import Problem
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node, group_entries
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.resolve_cache import ResolveCache
from romana_ovs.policy.view import LocalPod, NodeView, Verdicts
from romana_ovs.sync.attached_pods import Owners

LOG = logging.getLogger("romana_ovs")
STAYS = "node %s: its tables cannot be made; what is programmed stays"


@dataclass(frozen=True, slots=True)
class Compiled:
    """TableCompiler of a node. `current` is the last round that they have completely, `owners` the pods by address."""

    program: Program
    current: int
    owners: Owners


@dataclass(slots=True)
class _Node:
    """What is remembered of one node. `last` is what its tables were made from, and in which round."""

    resolving: ResolveCache = field(default_factory=ResolveCache)
    compiling: CompileCache = field(default_factory=CompileCache)
    queue: GroupQueue = field(default_factory=GroupQueue)
    chunks: GroupChunks = field(default_factory=GroupChunks)
    last: tuple[NodeView, Verdicts, int] | None = None
    _pods: tuple[LocalPod, ...] | None = None
    _owners: Owners = field(default_factory=lambda: MappingProxyType({}))

    def owners(self, pods: tuple[LocalPod, ...]) -> Owners:
        """The pods by their addresses."""
        if self._pods is not pods:
            self._pods = pods
            self._owners = MappingProxyType({pod.address: (pod.key, pod.uid) for pod in pods})
        return self._owners

    @property
    def busy(self) -> bool:
        """Whether something is put off, or still to come or to go."""
        return bool(self.queue.put_off) or self.chunks.busy


class TableCompiler:
    """One node's trouble is not the others'; `failures` are sentences about those of the last computation, by node.

    `owners` tells of each node whose pods the addresses in its tables are, by name and UID.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self._nodes: dict[str, _Node] = {}
        self._closed: dict[str, tuple[str, ...]] = {}
        self._over: dict[str, Mapping[str, int]] = {}
        self._served = ""

    @property
    def closed(self) -> tuple[str, ...]:
        """Sentences about the pods and groups that are closed because their tables cannot be made."""
        return tuple(text for _, texts in sorted(self._closed.items()) for text in texts)

    @property
    def over(self) -> tuple[Problem, ...]:
        """The namespaces whose rules would take more flows on some node than it makes for one."""
        most: dict[str, tuple[int, str]] = {}
        for node, namespaces in self._over.items():
            for name, rows in namespaces.items():
                most[name] = max(most.get(name, (0, "")), (rows, node))
        return tuple(
            Problem(
                f"its policies would take about {rows} flows on node {node}, which is more than the namespace_flows "
                "that a node makes: on the pods for which they take the most they allow nothing",
                kind="Namespace",
                name=name,
            )
            for name, (rows, node) in sorted(most.items())
        )

    @property
    def busy(self) -> frozenset[str]:
        """The nodes with groups that wait for a turn of their own, or are still to come or to go."""
        return frozenset(name for name, node in self._nodes.items() if node.busy)

    def keep(self, nodes: Collection[str]) -> None:
        """Forget every node but these."""
        for node in self._nodes.keys() - set(nodes):
            del self._nodes[node]
        self._closed = {node: texts for node, texts in self._closed.items() if node in nodes}
        self._over = {node: namespaces for node, namespaces in self._over.items() if node in nodes}

    def compile(
        self, agents: NodeAgents, facts: BridgeFacts, everywhere: Mapping[str, BridgeFacts], number: int
    ) -> Compiled | None:
        """The tables of a node in round `number`, but for groups that are put off.

        None while they cannot be said: its switch keeps what it has.
        """
        node = self._nodes.setdefault(facts.node, _Node())
        try:
            view = agents.view(facts, everywhere)
            if view is None:
                return None
            node.last = (view, resolve(view, node.resolving), number)
            return self._compiled(facts.node, node)
        except Exception as error:  # An internal error must not open or close a path, nor end the process.
            LOG.exception(STAYS, facts.node)
            self._failed(facts.node, error)
            return None

    def compile_deferred(self, nodes: Collection[str]) -> tuple[str, Compiled | None] | None:
        """One of `nodes` whose turn it is, and its tables with one piece more of what was put off; None without any."""
        waiting = sorted(name for name, node in self._nodes.items() if node.busy and name in nodes)
        if not waiting:
            return None
        # The node after the one that was served last.
        self._served = next((name for name in waiting if name > self._served), waiting[0])
        node = self._nodes[self._served]
        try:
            return self._served, self._piece(self._served, node)
        except Exception as error:  # As above.
            LOG.exception(STAYS, self._served)
            self._failed(self._served, error)
            return self._served, None

    def _piece(self, name: str, node: _Node) -> Compiled | None:
        """A piece more of the group that is on its way; of the next one, or a piece less of what goes, when none is."""
        following = node.queue.next() if node.chunks.rising is None else None
        group = node.queue.waiting(following) if following is not None else None
        if following is not None and group is not None and node.last is not None:
            rising = Incoming(following, group, node.queue.pods_of(following), node.last[2], group_entries(group))
            if len(rising.rows) <= PIECE or node.queue.stands(following):
                node.compiling.put(rising.entries)
                return self._compiled(name, node, following)
            node.chunks.rising = rising
        node.chunks.step()
        risen = node.chunks.rising
        if risen is not None and not node.queue.awaited(risen.name, risen.pods):
            node.chunks.drop()
        elif risen is not None and risen.there >= len(risen.rows):
            # It may be another by now; who changes all the time is to be served too.
            node.chunks.rising = None
            node.compiling.put(risen.entries)
            node.queue.adopt(risen.name, risen.group, risen.pods, risen.number)
        return self._compiled(name, node)

    def _compiled(self, name: str, node: _Node, extra: Name | None = None) -> Compiled | None:
        if node.last is None:
            return None
        view, verdicts, number = node.last
        program = compile_node(view, node.queue.take(view, verdicts, number, extra=extra), node.compiling)
        failed = tuple(
            f"pod {pod} is closed, as its policies are not understood: {why}" for pod, why in verdicts.failed.items()
        )
        self._note(name, tuple(f"node {name}: {text}" for text in (*failed, *program.failures)))
        if verdicts.over.keys() - self._over.get(name, {}).keys():
            LOG.warning("node %s: more than namespace_flows for %s: what is beyond is left out", name, [*verdicts.over])
        self._over[name] = verdicts.over
        return Compiled(node.chunks.shown(program), node.queue.current(number), node.owners(view.pods))

    def _note(self, node: str, texts: tuple[str, ...]) -> None:
        for text in texts:
            if text not in self._closed.get(node, ()):
                LOG.error("%s", text)
        self._closed[node] = texts

    def _failed(self, node: str, error: Exception) -> None:
        self._nodes.pop(node, None)
        self.failures[node] = f"node {node}: {error}"
