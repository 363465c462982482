"""What one node must know to compile its tables, and what policy makes of it.

`NodeView` goes into `resolve`; `Verdicts` comes out and goes, with the view, into the pipeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import IdentityMatch
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.rules import NormalPolicy, PortRange


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a flow exists: a policy and rule (`ingress[0]`), or a feature of ours (kind and name alone)."""

    kind: str
    namespace: str = ""
    name: str = ""
    rule: str = ""

    def __str__(self) -> str:
        text = f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}".strip()
        return f"{text} {self.rule}".strip()


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A pod whose port is on this node's bridge; `mac` is `aa:bb:cc:dd:ee:ff`, `ofport` OpenFlow's number.

    `pre_restart`: it was attached before the bridge lost its connections, not long ago (`controller.pre_restart`).
    `previous_ids`: identities that it had before classes were split, while no rule in force distinguishes them.
    """

    key: PodKey
    namespace: str
    labels: Labels
    segment: SegmentKey
    identity: int
    address: IPv4Address
    mac: str
    ofport: int
    ports: tuple[ContainerPort, ...] = ()
    pre_restart: bool = False
    previous_ids: tuple[int, ...] = ()
    uid: str = ""


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """Another node: reached through the local port `ofport`, by way of `tunnel` when that is a tunnel port."""

    number: int
    name: str
    ofport: int
    tunnel: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Trunk:
    """A port to other bridges of ours. `tunnel_peers` None: a plain link; else the only senders accepted."""

    ofport: int
    tunnel_peers: tuple[IPv4Address, ...] | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """The node itself as the bridge sees it: its port, its MAC, and the addresses it originates from.

    `pre_restart`: the bridge lost its connections not long ago (`LocalPod`).
    """

    ofport: int
    mac: str
    addresses: tuple[IPv4Address, ...]
    pre_restart: bool = False


@dataclass(frozen=True, slots=True)
class ForeignRoute:
    """A remote pod whose address is not from the plan, and the number of the host it is on."""

    address: IPv4Address
    host: int


@dataclass(frozen=True, slots=True)
class Atom:
    """One question about a label: is its value among `values` (None: does the key exist)?"""

    key: str
    values: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """What holds for every pod of a class. An atom that is absent from `truths` is not known for it."""

    namespace: str
    truths: Mapping[Atom, bool]


@dataclass(frozen=True, slots=True)
class NodeView:
    """All that one node's tables are a function of. Tuples are sorted, mappings read-only.

    `host` is the node's number, `tenants` each tenant's runs of identities, `segments` each segment's
    number, `classes` every identity in use (segment and class) with what is known about it.
    `policies` are all that select a local pod or whose egress rules may admit one as destination.
    """

    settings: Settings
    node: str
    host: int
    pods: tuple[LocalPod, ...]
    tenants: Mapping[str, tuple[IdentityMatch, ...]]
    segments: Mapping[SegmentKey, int]
    classes: Mapping[int, ClassInfo]
    namespaces: Mapping[str, Labels]
    policies: tuple[NormalPolicy, ...]
    gateway: Gateway | None = None
    trunks: tuple[Trunk, ...] = ()
    hosts: tuple[RemoteHost, ...] = ()
    foreign: tuple[ForeignRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class Allow:
    """One permission: these peers on these ports. Peers None is any peer; ports None every protocol.

    `identities` and `cidrs` are alternatives; both empty admits nothing.
    """

    origin: Origin
    identities: frozenset[IdentityMatch] | None = None
    cidrs: tuple[IPv4Network, ...] = ()
    ports: tuple[PortRange, ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """Local pods that may be reached in the same way, and all that may reach them.

    `number` (1..2**32-1) is a stable hash of the rules behind it: it survives restarts, other changes and new classes.
    `ingress`: what destination ingress admits: the union of the policies that select the pods, or, when
    none does, the isolation level as permissions. Nothing in it: deny all. Tenancy is not in here.
    `deferred_egress`: for clients marked *open*, what their egress rules (selectors, named ports) admit
    towards these pods; here `identities` are those of the clients that the policy selects.
    """

    number: int
    ingress: tuple[Allow, ...]
    deferred_egress: tuple[Allow, ...]


@dataclass(frozen=True, slots=True)
class ClientGroup:
    """Local pods that some egress policy selects in the same way (pods in no group are *unselected*).

    `accepted`: permissions the source's node decides alone: any peer or CIDRs, numeric ports.
    `open`: some rule with selectors or named ports might admit more; the destination's node looks.
    """

    number: int
    accepted: tuple[Allow, ...]
    deferred: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """The groups of one local pod; `client` 0 means no egress policy selects it."""

    server: int
    client: int = 0


@dataclass(frozen=True, slots=True)
class TenantAllow:
    """Clients of `client` may be considered by servers of `server` (both identity runs); `client` None: any pod."""

    server: IdentityMatch
    client: IdentityMatch | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What policy says about one node's pods, ready to be written as flows.

    `tenancy` None: tenants do not separate (isolation none). `tenantless` are identity runs of pods without a
    tenant: they talk with their own node only (their client group, if any, admits nothing outside either).
    `over`: namespaces whose rules would take more rows than a node makes for one, and how many; `failed`: pods whose
    policies could not be worked out, and why: nothing is admitted to them, and nothing from them.
    """

    members: Mapping[PodKey, Membership]
    servers: tuple[ServerGroup, ...]
    clients: tuple[ClientGroup, ...]
    tenancy: tuple[TenantAllow, ...] | None
    tenantless: tuple[IdentityMatch, ...] = ()
    over: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
