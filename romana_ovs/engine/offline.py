"""Makes up bridges for a cluster without switches, always the same, so that all offline commands agree.

The node's own port is LOCAL (0xfffe). Pods are numbered from 1 in the order of their names, on each node for itself.
The bridges are linked as a chain, in the order of the nodes' names, and the port towards the i-th node (from 0) is
0x7000 + i: so pods that are added or deleted change no port of a link.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from romana_ovs.engine.engine import Engine
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey

LOCAL_PORT = 0xFFFE
"""OFPP_LOCAL as Open vSwitch numbers it (ovs-fields(7), in_port)."""
FIRST_POD_PORT = 1
FIRST_LINK_PORT = 0x7000


def offline_facts(cluster: Cluster, nodes: Iterable[str]) -> Mapping[str, BridgeFacts]:
    """Made-up bridges for `nodes`, with a port for every pod of `cluster` that is an endpoint on one of them."""
    names = sorted(nodes)
    pods: dict[str, list[PodKey]] = {name: [] for name in names}
    for key in sorted(cluster.pods):
        pod = cluster.pods[key]
        if pod.networked and pod.node in pods:
            pods[pod.node].append(key)
    facts = {}
    for index, name in enumerate(names):
        neighbours = [other for other in (index - 1, index + 1) if 0 <= other < len(names)]
        facts[name] = BridgeFacts(
            node=name,
            pod_ports=MappingProxyType({key: PodPort(port) for port, key in enumerate(pods[name], FIRST_POD_PORT)}),
            gateway_port=LOCAL_PORT,
            links=MappingProxyType({names[other]: FIRST_LINK_PORT + other for other in neighbours}),
        )
    return MappingProxyType(facts)


def offline(cluster: Cluster, state: Mapping[str, Any] | None = None) -> tuple[Engine, Mapping[str, BridgeFacts]]:
    """A settled engine with `cluster` and the numbers of `state`, and made-up bridges for each of its nodes.

    Raises AddressError and InputError as `Engine` does.
    """
    engine = Engine(cluster.settings, state)
    engine.step(cluster)
    return engine, offline_facts(cluster, engine.registry.published.hosts)
