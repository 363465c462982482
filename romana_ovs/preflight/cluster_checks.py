"""Judges this host against the cluster: ranges of Services, addresses of nodes, and of this node's tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from romana_ovs.addressing.overlaps import overlaps
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.errors import AddressError, Severity
from romana_ovs.model.settings import Settings
from romana_ovs.preflight.facts import HostFacts, UnreadFact, known
from romana_ovs.preflight.findings import Finding


def check_cluster_addresses(facts: HostFacts, settings: Settings) -> Iterator[Finding]:
    """Whether Services or nodes have addresses of the pods' network. Raises UnreadFact."""
    if facts.cluster is None:
        return
    cluster = replace(known(facts.cluster), settings=settings)
    try:
        plan = AddressPlan.of(settings)
    except AddressError as error:
        raise UnreadFact(str(error)) from error
    for problem in overlaps(cluster, plan):
        reason, _, action = problem.reason.partition(". ")
        yield Finding("cluster-addresses", Severity.ERROR, f"{problem.kind} {problem.name}", reason, f"{action}.")


def check_node(facts: HostFacts, _settings: Settings) -> Iterator[Finding]:
    """Whether the cluster has this node, with the address that its tunnel has. Raises UnreadFact."""
    bridge = facts.bridge
    if facts.cluster is None or bridge is None or not bridge.node:
        return
    node = known(facts.cluster).nodes.get(bridge.node)
    tunnel = facts.tunnel.local_address if facts.tunnel is not None else None
    if node is None:
        yield Finding(
            "node",
            Severity.ERROR,
            f"node {bridge.node}",
            f"the cluster has no Node of this name, which bridge {bridge.name} has in external_ids:romana-node",
            "Give the bridge, and romana-ovs controller --node, the name under which kubelet registers this host.",
        )
    elif tunnel is not None and node.addresses and tunnel not in node.addresses:
        addresses = ", ".join(map(str, node.addresses))
        yield Finding(
            "node",
            Severity.ERROR,
            f"tunnel of {bridge.name}",
            f"it has the address {tunnel}, and the Node {node.name} {addresses}: other nodes send to the latter and "
            "accept packets from it only",
            "Give the tunnel the Node's address, or kubelet --node-ip the tunnel's.",
        )
