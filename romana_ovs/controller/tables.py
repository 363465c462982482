"""The tables of the nodes, each with what is remembered of it from one computation to the next."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from romana_ovs.controller.following import Following
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.resolve_cache import ResolveCache
from romana_ovs.policy.view import LocalPod
from romana_ovs.sync.endpoints import Owners

LOG = logging.getLogger("romana_ovs")


class Tables:
    """One node's trouble is not the others'; `failures` are sentences about those of the last computation, by node.

    `owners` tells of each node whose pods the addresses in its tables are, by name and UID.
    """

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}
        self.owners: dict[str, Owners] = {}
        self._pods: dict[str, tuple[LocalPod, ...]] = {}
        self._caches: dict[str, tuple[ResolveCache, CompileCache]] = {}

    def make(self, world: Following, nodes: Iterable[str], facts: Mapping[str, BridgeFacts]) -> dict[str, Program]:
        """The tables of those of `nodes` whose tables can be said; the switches of the others keep what they have."""
        made = {node: self._one(world, facts[node], facts) for node in nodes}
        return {node: program for node, program in made.items() if program is not None}

    def _one(self, world: Following, facts: BridgeFacts, everywhere: Mapping[str, BridgeFacts]) -> Program | None:
        resolving, compiling = self._caches.setdefault(facts.node, (ResolveCache(), CompileCache()))
        try:
            view = world.view(facts, everywhere)
            if view is None:
                return None
            program = compile_node(view, resolve(view, resolving), compiling)
        except Exception as error:  # A mistake of ours there must not open or close a path, nor end the process.
            LOG.exception("node %s: its tables cannot be made; what is programmed stays", facts.node)
            self._caches.pop(facts.node)
            self.failures[facts.node] = f"node {facts.node}: {error}"
            return None
        if self._pods.get(facts.node) is not view.pods:
            self._pods[facts.node] = view.pods
            self.owners[facts.node] = MappingProxyType({pod.address: (pod.key, pod.uid) for pod in view.pods})
        return program
