"""Clusters as model objects on three nodes, for tests of numbers and of what follows from changes."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    Direction,
    KubernetesPolicy,
    Namespace,
    Node,
    Pod,
    PolicyPeer,
    PolicyRule,
)
from romana_ovs.model.settings import Settings

UNDERLAY = IPv4Address("172.16.0.0")
NODES = ("node1", "node2", "node3")
DEFAULTS = Settings()
TINY = Settings(network=IPv4Network("10.9.0.0/24"), segment_bits=4, host_bits=2, endpoint_bits=2)
"""15 segment indexes for tenants, 4 hosts, 4 endpoints each."""


def pod(name: str, node: str = "node1", *, namespace: str = "ns", uid: str = "1", **other: Any) -> Pod:
    """A pod whose address we give."""
    labels = Labels(other.pop("labels", {}))
    return Pod(namespace=namespace, name=name, labels=labels, node=node, uid=uid, **other)


def foreign(name: str, address: str, **other: Any) -> Pod:
    """A pod with an address that somebody else gave."""
    return pod(name, address=IPv4Address(address), has_status=True, **other)


def cluster(
    *pods: Pod,
    settings: Settings = DEFAULTS,
    policies: Iterable[Any] = (),
    nodes: Iterable[str] = NODES,
    namespaces: Iterable[str] = ("ns", "other"),
) -> Cluster:
    """A cluster of these objects; namespaces have the label of their name only."""
    return Cluster(
        settings=settings,
        namespaces={name: Namespace(name, Labels({NAME_LABEL: name})) for name in namespaces},
        nodes={name: Node(name, addresses=(UNDERLAY + number,)) for number, name in enumerate(nodes, 1)},
        pods={each.key: each for each in pods},
        policies={each.key: each for each in policies},
    )


def policy(
    name: str,
    peer: PolicyPeer | None = None,
    *,
    selector: Selector = EVERYTHING,
    namespace: str = "ns",
    egress: bool = False,
) -> KubernetesPolicy:
    """A policy of one direction that allows `peer`, nobody if there is none."""
    rules = (PolicyRule(peers=(peer,)),) if peer is not None else ()
    if egress:
        return KubernetesPolicy(namespace, name, selector, frozenset({Direction.EGRESS}), egress=rules)
    return KubernetesPolicy(namespace, name, selector, frozenset({Direction.INGRESS}), ingress=rules)
