"""Finds addresses of Services and nodes that lie in the pods' network: one address would have two meanings."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.addressing.plan import GATEWAY_ENDPOINT, NODE_SEGMENT, AddressPlan
from romana_ovs.model.addresses import overlap_fault
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem


def overlaps(cluster: Cluster, plan: AddressPlan) -> Iterator[Problem]:
    """A problem for each range of Services and each node's address in the pods' network, which names both.

    A node may have its own address of the plan, towards its pods, as its only one.
    """
    network = cluster.settings.network
    for name, cidr in sorted(cluster.service_cidrs.items()):
        for service_range in cidr.ranges:
            if fault := overlap_fault(network, service_range):
                yield Problem(fault, kind="ServiceCIDR", name=name, field="spec.cidrs")
    for name, node in sorted(cluster.nodes.items()):
        for address in node.addresses:
            parts = plan.split(address)
            own = parts is not None and (parts.segment, parts.endpoint) == (NODE_SEGMENT, GATEWAY_ENDPOINT)
            if address in network and not own:
                reason = (
                    f"the node's address {address} lies in the pods' network {network}: the tables take it for a "
                    "pod's. Give the setting network a range that neither nodes nor Services use, such as 100.64.0.0/10"
                )
                yield Problem(reason, kind="Node", name=name, field="status.addresses")
