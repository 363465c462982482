"""Assigns conntrack zones: one for each tenant with connections on a bridge, and a common one, so that limits apply.

The two ends select a zone, the same in both directions: the tenant of the only local pod; if both ends are local, the
tenant that is not shared; if a shared tenant's pod here communicates with an address of the plan on another node, the
tenant of that address (compile/shared_zones.py). The common zone is for the rest: neither end is a local pod, or both
are of shared tenants, or the other end is a node's own address in the plan. So a tenant can fill its own zones only.
Bridges of one ovs-vswitchd have one connection table and never share a zone: pods could bypass all policy
(docs/dataplane.md). A zone's number depends on the bridge's host number and the tenant's first range of segments only,
so that it survives restarts.

An address on another node shows its segment, not its tenant. Tenants own aligned blocks of segments, mostly of one size
(`default_block_size`): each such block has one index. A tenant with several blocks has a zone for each, which share its
limit.

For example, with default settings: the pods of a tenant whose first block begins at segment 8, on a node with host
number 1, are in zone 0x2008 of its bridge (slot 2, index 8); the common zone is 0x2000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import default_block_size
from romana_ovs.model.identity import ALL_BITS, CLASS_WIDTH, IdentityMatch, segment_of, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import LocalPod, NodeView

INDEX_BITS = 12
"""Bits of a zone number for the tenant. With 15 segment bits, two tenants may share a zone."""
SLOTS = 14
"""Bridges of one ovs-vswitchd have different zones if their host numbers differ by less than this."""
COMMON = ""
"""Instead of a tenant: the zone of connections that belong to no single tenant."""
COMMON_INDEX = 0
"""The index of no tenant: segment 0 has the nodes' own addresses."""
TENANT_DIVISOR, COMMON_DIVISOR = 4, 2
"""A tenant gets a fourth of a conntrack table at most, and COMMON half of it, whatever the setting says."""


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
    """Nodes whose bridges would share zones, each with the first node by name; `hosts` are of one ovs-vswitchd."""
    first: dict[int, str] = {}
    owners = {node: first.setdefault(slot(hosts[node]), node) for node in sorted(hosts)}
    return MappingProxyType({node: owner for node, owner in owners.items() if owner != node})


def common_zone(host: int) -> int:
    """The number of a bridge's common zone."""
    return zone(host, COMMON_INDEX)


def is_common(number: int) -> bool:
    """Whether the zone of this number is the common zone of a bridge."""
    return number & (1 << INDEX_BITS) - 1 == COMMON_INDEX


@dataclass(frozen=True, slots=True)
class ZoneShare:
    """The tenant of a zone (several, separated by commas, or COMMON), and what its limit is divided by there."""

    tenant: str
    divisor: int = 1
    """1: the zone has the whole limit, 2: half of it, and so on."""


@dataclass(frozen=True, slots=True)
class ZoneBlocks:
    """Maps segments to zone indexes: a block of neighbouring segments has one index.

    The lowest `bits` of a segment number count inside its block; the lowest `dropped` of these do not fit into an
    index.
    The first block is not one zone: segment 0 belongs to the nodes, and tenants get the rest of it in pieces, last.
    """

    bits: int
    dropped: int

    @classmethod
    def of(cls, plan: AddressPlan) -> ZoneBlocks:
        """Those of a plan."""
        bits = default_block_size(plan).bit_length() - 1
        return cls(bits, min(bits, max(0, plan.segment_bits - INDEX_BITS)))

    @property
    def size(self) -> int:
        """Segments in a block."""
        return 1 << self.bits

    def zone_index(self, segment: int) -> int:
        """The index of the zone of a segment."""
        first = segment >> self.bits << self.bits
        return (first or segment) >> self.dropped & (1 << INDEX_BITS) - 1

    def zone_indexes(self, blocks: Iterable[IdentityMatch]) -> Iterator[int]:
        """The indexes of all segments of these blocks; some may come twice."""
        for block in blocks:
            base, size = segment_of(block.value), (ALL_BITS & ~block.mask) + 1 >> CLASS_WIDTH
            for segment in range(base, base + size, self.size if base >= self.size else 1):
                yield self.zone_index(segment)

    def home_index(self, blocks: Iterable[IdentityMatch]) -> int:
        """The zone index of local pods of the tenant with these blocks: the first index of its own."""
        return next((index for index in self.zone_indexes(blocks) if index != COMMON_INDEX), COMMON_INDEX)


@dataclass(frozen=True, slots=True)
class NodeZones:
    """The zones of a node's bridge: that of each local pod, and the share of each zone by number."""

    pods: Mapping[PodKey, PodZone]
    shares: Mapping[int, ZoneShare]


def zone_inputs(view: NodeView) -> object:
    """The inputs of `node_zones`: while these are equal, so is the result."""
    pods = tuple((pod.key, pod.segment.tenant, segment_of(pod.identity)) for pod in view.pods)
    return pods, view.tenants, view.settings, view.host


def node_zones(view: NodeView) -> NodeZones:
    """The zones of the local pods, and every zone of the bridge.

    These are the zones of tenants with pods here and, if a shared tenant has one, those of all tenants, whose pods on
    other nodes may connect to it.

    A tenant with several zones has half of its limit in the first one, which its local pods use, and the other half in
    equal parts in the rest.
    """
    zone_blocks = ZoneBlocks.of(AddressPlan.of(view.settings))
    pods = {pod.key: _pod_zone(view, pod, zone_blocks) for pod in view.pods}
    divisors_by_index: dict[int, dict[str, int]] = {}
    for pod in view.pods:
        divisors_by_index.setdefault(pods[pod.key].index, {})[pod.segment.tenant] = 1
    for tenant, blocks in view.tenants.items() if any(place.shared for place in pods.values()) else ():
        home = zone_blocks.home_index(blocks)
        rest = set(zone_blocks.zone_indexes(blocks)) - {home, COMMON_INDEX}
        divisors_by_index.setdefault(home, {})[tenant] = 2 if rest else 1
        for index in rest:
            divisors_by_index.setdefault(index, {})[tenant] = 2 * len(rest)
    named = {
        zone(view.host, index): ZoneShare(", ".join(sorted(divisors)), min(divisors.values()))
        for index, divisors in sorted(divisors_by_index.items())
    }
    shares = {**named, common_zone(view.host): ZoneShare(COMMON)}
    return NodeZones(MappingProxyType(pods), MappingProxyType(shares))


def _pod_zone(view: NodeView, pod: LocalPod, zone_blocks: ZoneBlocks) -> PodZone:
    tenant = pod.segment.tenant
    blocks = view.tenants.get(tenant) or (whole_segments(segment_of(pod.identity), 1),)
    return PodZone(zone_blocks.home_index(blocks), tenant in view.settings.shared_tenants)
