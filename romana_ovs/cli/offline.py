"""Allocates addresses and compiles tables without switches, for `flows`, `diff`, `ipam` and the generated docs."""

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


def offline_world(cluster: Cluster, state: Mapping[str, Any] | None) -> tuple[World, Mapping[str, BridgeFacts]]:
    """A world of `cluster` with all numbers allocated, and made-up bridges.

    A pod or node without an address or number is a warning on stderr. `state` is that of `saved_state`.

    Raises AddressError when the address plan is invalid, InputError when the state cannot be used.
    """
    world, facts = offline(cluster, state)
    for problem in world.problems:
        print(f"warning: {problem}", file=sys.stderr)
    return world, facts


def compile_node_tables(
    world: World, facts: Mapping[str, BridgeFacts], node: str, cache: CompileCache | None = None
) -> Program:
    """The compiled tables of `node`. Raises InputError, which names the nodes, when there is no such node."""
    if node not in facts:
        known = ", ".join(sorted(facts)) or "none"
        raise InputError(Problem(f"there is no such node; the nodes are: {known}", kind="Node", name=node))
    view = world.view(facts[node], facts)
    return compile_node(view, resolve(view), cache)
