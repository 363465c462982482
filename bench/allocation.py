"""Measures how long address and identity allocation of a large cluster takes: `python bench/allocation.py [PODS]`.

Prints one line for each figure.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import MappingProxyType

from romana_ovs.engine import Engine, offline_facts
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    ContainerPort,
    Direction,
    KubernetesPolicy,
    Namespace,
    Node,
    Pod,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
)
from romana_ovs.model.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
TIERS = 4
PODS_PER_NODE = 50
SIZES = {100: 5, 1_000: 25, 10_000: 250}
"""Tenants by number of pods."""
PLAN = Settings(network=IPv4Network("10.0.0.0/8"), segment_bits=11, host_bits=8, endpoint_bits=5)


def large_cluster(pods: int, tenants: int | None = None) -> Cluster:
    """`pods` pods, 50 on a node, in `tenants` namespaces of 4 tiers; tier i + 1 accepts TCP/80 from tier i.

    The hard case: the pods of one node are of as many tenants as there are, and of all tiers.
    """
    tenants = SIZES[pods] if tenants is None else tenants
    count = max(1, pods // PODS_PER_NODE)
    nodes = {
        name: Node(name, addresses=(IPv4Address("172.16.0.0") + index,))
        for index, name in enumerate((f"node{index:03}" for index in range(1, count + 1)), 1)
    }
    names = [f"tenant{index:03}" for index in range(tenants)]
    made = (_pod(index, names, list(nodes)) for index in range(pods))
    policies = (into_tier(name, tier) for name in names for tier in range(1, TIERS))
    return Cluster(
        settings=PLAN,
        namespaces=MappingProxyType({name: Namespace(name, Labels({NAME_LABEL: name})) for name in names}),
        nodes=MappingProxyType(nodes),
        pods=MappingProxyType({pod.key: pod for pod in made}),
        policies=MappingProxyType({policy.key: policy for policy in policies}),
    )


def _pod(index: int, tenants: list[str], nodes: list[str]) -> Pod:
    turn, tenant = divmod(index, len(tenants))
    return Pod(
        namespace=tenants[tenant],
        name=f"pod{index:05}",
        labels=Labels({"tier": f"tier{(turn + tenant) % TIERS}", "app": f"app{index % 7}"}),
        node=nodes[min(index // PODS_PER_NODE, len(nodes) - 1)],
        ports=(ContainerPort(80),),
        uid=f"uid{index}",
    )


def into_tier(namespace: str, tier: int) -> KubernetesPolicy:
    """The policy by which a tier accepts TCP/80 from the tier before it."""
    peer = PolicyPeer(pods=Selector.of({"tier": f"tier{tier - 1}"}))
    return KubernetesPolicy(
        namespace=namespace,
        name=f"into-tier{tier}",
        selector=Selector.of({"tier": f"tier{tier}"}),
        directions=frozenset({Direction.INGRESS}),
        ingress=(PolicyRule(peers=(peer,), ports=(PolicyPort(port=80),)),),
    )


def milliseconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


class Follower:
    """An engine with a cluster, and the views of one node of it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.engine = Engine(cluster.settings)
        self.first = milliseconds(lambda: self.engine.step(cluster))
        self.facts = offline_facts(cluster, cluster.nodes)
        self.node = min(cluster.nodes)
        self.first_view = milliseconds(self.look)

    def look(self) -> None:
        """Makes the node's view."""
        self.engine.agents.view(self.facts[self.node], self.facts)

    def step(self, cluster: Cluster, facts: BridgeFacts | None = None) -> float:
        """Milliseconds from a new cluster (and, when given, new facts of the node) to the node's view, settled."""
        if facts is not None:
            self.facts = MappingProxyType({**self.facts, self.node: facts})

        def work() -> None:
            self.engine.step(cluster, cluster.nodes)
            self.look()
            while self.engine.unsettled:
                self.engine.agents.acknowledge(cluster.nodes)
                self.engine.step(cluster, cluster.nodes)
                self.look()

        self.cluster = cluster
        return milliseconds(work)


def measure(pods: int, rounds: int = 15) -> Mapping[str, float]:
    """Milliseconds by name: the first update and view, and medians of single changes up to the node's view."""
    follower = Follower(large_cluster(pods))
    taken: dict[str, list[float]] = {}

    def noted(name: str, cluster: Cluster, facts: BridgeFacts | None = None) -> None:
        taken.setdefault(name, []).append(follower.step(cluster, facts))

    far = max(follower.cluster.nodes)
    for index in range(rounds):
        some = next(pod for pod in follower.cluster.pods.values() if pod.node == follower.node)
        for place, node in (("remote", far), ("local", follower.node)):
            added = replace(some, name=f"extra{index}", uid=f"extra{index}", node=node)
            grown = follower.cluster.with_object(added)
            noted(f"{place} pod added", grown, offline_facts(grown, grown.nodes)[follower.node])
            other = replace(added, labels=Labels({**added.labels, "tier": "tier1" if index % 2 else "tier2"}))
            noted(f"{place} pod relabelled", follower.cluster.with_object(other))
            less = follower.cluster.without(added)
            noted(f"{place} pod removed", less, offline_facts(less, less.nodes)[follower.node])
        policy = replace(into_tier(some.namespace, 1), name=f"extra{index}")
        noted("policy added", follower.cluster.with_object(policy))
        noted("policy removed", follower.cluster.without(policy))
        finer = replace(
            policy,
            selector=Selector.of({"app": f"app{index % 7}"}),
            ingress=(PolicyRule(peers=(PolicyPeer(pods=Selector.of({"app": f"app{(index + 1) % 7}"})),)),),
        )
        noted("policy that splits classes added", follower.cluster.with_object(finer))
        noted("policy that splits classes removed", follower.cluster.without(finer))
    idle = [milliseconds(follower.look) for _ in range(rounds)]
    medians = {name: statistics.median(found) for name, found in taken.items()}
    first = {"first update": follower.first, "first view": follower.first_view}
    return {**first, **medians, "view unchanged": statistics.median(idle)}


def main() -> None:
    """Prints the figures for the number of pods on the command line, 10,000 without one."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for name, value in measure(pods).items():
        print(f"{pods:>6} pods  {name:<40} {value:10.3f} ms")


if __name__ == "__main__":
    main()
