"""Allocates addresses and compiles tables without switches, for `flows`, `diff`, `ipam` and the generated docs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from romana_ovs.engine import Engine, offline
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.policy.resolve import resolve


def offline_engine(cluster: Cluster, state: Mapping[str, Any] | None) -> tuple[Engine, Mapping[str, BridgeFacts]]:
    """An engine that has allocated all numbers of `cluster`, and the facts of made-up bridges by node.

    Prints a warning to stderr for each pod or node that got no address or number. `state` is that of `saved_state`.

    Raises AddressError when the address plan is invalid, InputError when the state cannot be used.
    """
    engine, facts = offline(cluster, state)
    for problem in engine.problems:
        print(f"warning: {problem}", file=sys.stderr)
    return engine, facts


def compile_node_tables(
    engine: Engine, facts: Mapping[str, BridgeFacts], node: str, cache: CompileCache | None = None
) -> Program:
    """The compiled tables of `node`. Raises InputError, which names the nodes, when there is no such node."""
    if node not in facts:
        known = ", ".join(sorted(facts)) or "none"
        raise InputError(Problem(f"there is no such node; the nodes are: {known}", kind="Node", name=node))
    view = engine.agents.view(facts[node], facts)
    if view is None:
        raise InputError(Problem("it has no view: it got no host number", kind="Node", name=node))
    return compile_node(view, resolve(view), cache)
