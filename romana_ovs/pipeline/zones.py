"""Conntrack zones: one for each tenant with pods on a bridge, and a common one, so that limits are a tenant's own.

A zone is chosen by the local end, the same in both directions: the tenant of the one local pod; where both ends are
local, the tenant of the one that is not shared; the common zone where no end is a pod here or both are shared. So what
one tenant fills is its own. Zones are never shared between bridges of one ovs-vswitchd, whose table is one: pods could
bypass all policy (docs/dataplane.md). A number follows from the bridge's host number and the tenant's first range of
segments, so that it survives restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.policy.view import LocalPod, NodeView

INDEX_BITS = 12
"""Bits of a zone's number that tell tenants apart. With more segment bits, tenants may come to share a zone."""
SLOTS = 14
"""Bridges of one ovs-vswitchd whose zones are apart: those whose host numbers differ by less than this, at least."""
COMMON = ""
"""In the place of a tenant: the zone of connections that are no single tenant's."""
COMMON_INDEX = 0
"""No tenant's: segment index 0 holds the nodes' own addresses."""


@dataclass(frozen=True, slots=True)
class PodZone:
    """The index of a local pod's zone, and whether its tenant is shared."""

    index: int
    shared: bool


def slot(host: int) -> int:
    """The upper bits of the zones of a host's bridge: never 0, where the host's own zone is, nor all ones."""
    return 1 + host % SLOTS


def zone(host: int, index: int) -> int:
    """The number of a bridge's zone."""
    return slot(host) << INDEX_BITS | index


def colliding(hosts: Mapping[str, int]) -> Mapping[str, str]:
    """Nodes whose bridges would share zones, each with the first by name that has them; `hosts` are of one vswitchd."""
    first: dict[int, str] = {}
    owners = {node: first.setdefault(slot(hosts[node]), node) for node in sorted(hosts)}
    return MappingProxyType({node: owner for node, owner in owners.items() if owner != node})


def common_zone(host: int) -> int:
    """The number of a bridge's common zone."""
    return zone(host, COMMON_INDEX)


def pod_zone(view: NodeView, pod: LocalPod) -> PodZone:
    """Where the connections of a local pod are."""
    tenant = pod.segment.tenant
    runs = view.tenants.get(tenant)
    segment = (runs[0].value if runs else pod.identity) >> 16
    return PodZone(segment & (1 << INDEX_BITS) - 1, tenant in view.settings.shared_tenants)


def zones(view: NodeView) -> Mapping[int, str]:
    """Every zone of a node's bridge with its tenant, or COMMON; tenants that share one are named together."""
    tenants: dict[int, set[str]] = {}
    for pod in view.pods:
        tenants.setdefault(pod_zone(view, pod).index, set()).add(pod.segment.tenant)
    named = {zone(view.host, index): ", ".join(sorted(names)) for index, names in sorted(tenants.items())}
    return MappingProxyType({**named, common_zone(view.host): COMMON})
