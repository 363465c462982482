"""Compiling without switches: what `flows`, `diff` and the generated docs have in common."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from romana_ovs.engine import World, offline
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.policy.resolve import resolve


def settled(cluster: Cluster, state: Mapping[str, Any] | None) -> tuple[World, Mapping[str, BridgeFacts]]:
    """A settled world of `cluster` and made-up bridges; what could not be given to a pod is a warning on stderr.

    Raises AddressError and InputError when the plan or the state cannot be used.
    """
    world, facts = offline(cluster, state)
    for problem in world.problems:
        print(f"warning: {problem}", file=sys.stderr)
    return world, facts


def compiled(world: World, facts: Mapping[str, BridgeFacts], node: str, cache: CompileCache | None = None) -> Program:
    """The tables of `node`. Raises InputError, naming the nodes there are, when it is none of them."""
    if node not in facts:
        known = ", ".join(sorted(facts)) or "none"
        raise InputError(Problem(f"there is no such node; the nodes are: {known}", kind="Node", name=node))
    view = world.view(facts[node], facts)
    return compile_node(view, resolve(view), cache)
