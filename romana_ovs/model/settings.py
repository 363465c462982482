"""Defines the settings of a cluster; `config.py` reads them from files.

The defaults are those of docs/design.md section 8 and are part of the stable interface.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network


class Isolation(Enum):
    """What a pod may receive from other pods when no policy selects it for ingress."""

    TIER = "tier"
    TENANT = "tenant"
    NONE = "none"


class TenantSource(Enum):
    """Where a pod's tenant is read from."""

    NAMESPACE = "namespace"
    NAMESPACE_LABEL = "namespace-label"
    POD_LABEL = "pod-label"


@dataclass(frozen=True, slots=True)
class Settings:
    """One cluster's settings; `tenant_key` is the label key for the two label sources, else empty.

    `new_connections` (a second): what one pod may open towards other nodes and outside; 0 is without limit.
    `tenant_connections`: how many one tenant may have on one node; 0 is without limit.
    `fragments` (a second): how many pieces of IP packets one pod may send; 0 is without limit.
    `tenant_fragments` (a second): how many the pods of one tenant on one node may send together; 0 is without limit.
    `namespace_terms` are the peers and ports that the policies of one namespace may have, `namespace_flows` the policy
    flows that a node makes for them; 0 is without limit.
    `service_ranges` are ranges of cluster addresses of Services beside those of ServiceCIDR objects; the host's proxy
    translates packets to them.
    """

    isolation: Isolation = Isolation.TENANT
    tenant_source: TenantSource = TenantSource.NAMESPACE
    tenant_key: str = ""
    shared_tenants: frozenset[str] = frozenset({"kube-system"})
    tier_labels: tuple[str, ...] = ("tier",)
    network: IPv4Network = IPv4Network("10.0.0.0/8")
    segment_bits: int = 12
    host_bits: int = 6
    endpoint_bits: int = 6
    new_connections: int = 1000
    tenant_connections: int = 250_000
    fragments: int = 50
    tenant_fragments: int = 100
    namespace_terms: int = 10_000
    namespace_flows: int = 25_000
    service_ranges: tuple[IPv4Network, ...] = ()
