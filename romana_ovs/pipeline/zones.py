"""Conntrack zones: one for each tenant with connections on a bridge, and a common one, so that limits are its own.

A zone is chosen by the ends, the same in both directions: the tenant of the one local pod; where both ends are local,
the tenant of the one that is not shared; where a shared tenant's pod has to do with an address of the plan on another
node, the tenant whose address that is (compile/shared.py); the common zone where no end is a pod here, or both are and
both are shared, and for the nodes' own addresses of the plan. So what one tenant fills is its own. Zones are never
shared between bridges of one ovs-vswitchd, whose table is one: pods could bypass all policy (docs/dataplane.md). A
number follows from the bridge's host number and the tenant's first range of segments, so that it survives restarts.

What an address on another node tells is its segment, not its tenant. Tenants own aligned runs of segments, mostly of
one size (`usual_run`): each such block has one index. A tenant with more has a zone for each; together they may have
what one tenant may.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from romana_ovs.addressing.plan import Plan
from romana_ovs.addressing.tenants import usual_run
from romana_ovs.model.identity import ALL_BITS, CLASS_WIDTH, IdentityMatch, segment_of, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import LocalPod, NodeView

INDEX_BITS = 12
"""Bits of a zone's number that tell tenants apart. With 15 segment bits, tenants may come to share a zone."""
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


@dataclass(frozen=True, slots=True)
class Share:
    """Whose a zone is: a tenant's (several with commas between them, or COMMON), and which part of what it may have."""

    tenant: str
    part: int = 1
    """1 is all of it, 2 half of it, and so on."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How segments make indexes of zones: a block of neighbours has one.

    `bits` of a segment's number count inside its block; the lowest `lost` of them have no room in an index. The first
    block is none: segment 0 is the nodes', and what is left of it is given out in pieces, at the very last.
    """

    bits: int
    lost: int

    @classmethod
    def of(cls, plan: Plan) -> Blocks:
        """Those of a plan."""
        bits = usual_run(plan).bit_length() - 1
        return cls(bits, min(bits, max(0, plan.segment_bits - INDEX_BITS)))

    @property
    def size(self) -> int:
        """Segments in a block."""
        return 1 << self.bits

    def index(self, segment: int) -> int:
        """The index of the zone of a segment."""
        first = segment >> self.bits << self.bits
        return (first or segment) >> self.lost & (1 << INDEX_BITS) - 1

    def indexes(self, runs: Iterable[IdentityMatch]) -> Iterator[int]:
        """The indexes of all segments of these runs; some may come twice."""
        for run in runs:
            base, size = segment_of(run.value), (ALL_BITS & ~run.mask) + 1 >> CLASS_WIDTH
            for segment in range(base, base + size, self.size if base >= self.size else 1):
                yield self.index(segment)

    def home(self, runs: Iterable[IdentityMatch]) -> int:
        """The index of the zone that the local pods of the tenant with these runs have: its first own one."""
        return next((index for index in self.indexes(runs) if index != COMMON_INDEX), COMMON_INDEX)


@dataclass(frozen=True, slots=True)
class NodeZones:
    """The zones of a node's bridge: that of each local pod, and of each zone, by number, whose it is."""

    pods: Mapping[PodKey, PodZone]
    shares: Mapping[int, Share]


def zone_inputs(view: NodeView) -> object:
    """What `node_zones` depends on; as long as this is equal, so is that."""
    pods = tuple((pod.key, pod.segment.tenant, segment_of(pod.identity)) for pod in view.pods)
    return pods, view.tenants, view.settings, view.host


def node_zones(view: NodeView) -> NodeZones:
    """Where the connections of local pods are, and every zone of the bridge.

    The zones are those of tenants with pods here and, where a shared tenant has one, those of all tenants: their pods
    elsewhere may have connections with it.

    A tenant with several zones may have half of what it may have in the first one, which its pods here use, and the
    other half in equal parts in the others.
    """
    blocks = Blocks.of(Plan.of(view.settings))
    pods = {pod.key: _pod_zone(view, pod, blocks) for pod in view.pods}
    found: dict[int, dict[str, int]] = {}
    for pod in view.pods:
        found.setdefault(pods[pod.key].index, {})[pod.segment.tenant] = 1
    for tenant, runs in view.tenants.items() if any(place.shared for place in pods.values()) else ():
        home = blocks.home(runs)
        others = set(blocks.indexes(runs)) - {home, COMMON_INDEX}
        found.setdefault(home, {})[tenant] = 2 if others else 1
        for index in others:
            found.setdefault(index, {})[tenant] = 2 * len(others)
    named = {
        zone(view.host, index): Share(", ".join(sorted(parts)), min(parts.values()))
        for index, parts in sorted(found.items())
    }
    shares = {**named, common_zone(view.host): Share(COMMON)}
    return NodeZones(MappingProxyType(pods), MappingProxyType(shares))


def _pod_zone(view: NodeView, pod: LocalPod, blocks: Blocks) -> PodZone:
    tenant = pod.segment.tenant
    runs = view.tenants.get(tenant) or (whole_segments(segment_of(pod.identity), 1),)
    return PodZone(blocks.home(runs), tenant in view.settings.shared_tenants)
