"""Measures how many flows one node has, and the time and memory to compile them: `python -m bench.flows PODS CASE`.

Run as a process of its own for each case, so that memory is of that case alone; prints JSON.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

from bench.allocation import into_tier, large_cluster, milliseconds
from bench.memory import resident_mib
from bench.nodes import dns_cluster, facts_of, tier_cluster
from romana_ovs.engine import Engine
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Selector
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.resolve_cache import ResolveCache

CASES: dict[str, Callable[[int], Cluster]] = {"tenant": large_cluster, "tier": tier_cluster, "dns": dns_cluster}
"""Clusters by name: tenants as namespaces with each isolation level, and the one whose rules all name one node."""
ROUNDS = 11


@dataclass(frozen=True, slots=True)
class Figures:
    """One node's flows by kind, milliseconds, and MiB: of the program alone, of the cluster's objects, of all."""

    case: str
    pods: int
    nodes: int
    flows: dict[str, int]
    engine_ms: float
    full_ms: float
    change_ms: float
    base_mib: float
    cluster_mib: float
    process_mib: float


class Node:
    """The first node of a cluster, compiled as its controller does it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = min(cluster.nodes)
        self.facts = facts_of(cluster, self.name)
        self.engine = Engine(cluster.settings)
        self.engine_ms = milliseconds(lambda: self.engine.step(cluster))
        self._resolving, self._compiling = ResolveCache(), CompileCache()

    def program(self) -> Program:
        """Its tables as of now."""
        view = self.engine.agents.view(self.facts, {self.name: self.facts})
        assert view is not None
        return compile_node(view, resolve(view, self._resolving), self._compiling)

    def forget(self) -> None:
        """Drop what was remembered: the next program is made in full."""
        self._resolving, self._compiling = ResolveCache(), CompileCache()

    def follow(self, cluster: Cluster) -> None:
        """From a new cluster to its tables, all steps of it."""
        self.cluster = cluster
        self.engine.step(cluster, [self.name])
        self.program()
        while self.engine.unsettled:
            self.engine.agents.acknowledge([self.name])
            self.engine.step(cluster, [self.name])
            self.program()


def measure(pods: int, case: str, rounds: int = ROUNDS) -> Figures:
    """The figures of the first node of a cluster; medians of `rounds`."""
    base = resident_mib()
    cluster = CASES[case](pods)
    gc.collect()
    loaded = resident_mib()
    node = Node(cluster)
    full = []
    for _ in range(rounds):
        node.forget()
        full.append(milliseconds(node.program))
    changes = []
    some = next(pod.namespace for pod in cluster.pods.values() if pod.node == node.name and "tier" in pod.labels)
    for index in range(rounds):
        policy = replace(into_tier(some, 1), name=f"extra{index}", selector=Selector.of({"tier": "tier2"}))
        changes.append(milliseconds(partial(node.follow, cluster.with_object(policy))))
        changes.append(milliseconds(partial(node.follow, cluster)))
    gc.collect()
    return Figures(
        case=case,
        pods=pods,
        nodes=len(cluster.nodes),
        flows=node.program().counts(),
        engine_ms=node.engine_ms,
        full_ms=statistics.median(full),
        change_ms=statistics.median(changes),
        base_mib=base,
        cluster_mib=loaded - base,
        process_mib=resident_mib(),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(measure(int(sys.argv[1]), sys.argv[2]))))
