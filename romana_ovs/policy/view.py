"""Defines the input of `resolve`, a node's view, and its output, the permissions of the node's pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from types import MappingProxyType

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import IdentityMatch
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, PodKey
from romana_ovs.model.services import ServiceFrontend
from romana_ovs.model.settings import Settings
from romana_ovs.policy.rules import NormalPolicy, PortRange


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a flow exists: a policy and rule (`ingress[0]`), or a feature of the pipeline (kind and name only)."""

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

    `pre_restart`: attached before the bridge last lost its conntrack entries, recently (`controller.pre_restart`).
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
    """Another node, reached by the local port `ofport`, and by underlay address `tunnel` if that is a tunnel port."""

    number: int
    name: str
    ofport: int
    tunnel: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Uplink:
    """An uplink to other bridges. `tunnel_peers` None: a plain link; else the only accepted senders."""

    ofport: int
    tunnel_peers: tuple[IPv4Address, ...] | None = None


@dataclass(frozen=True, slots=True)
class Gateway:
    """The node itself: its port on the bridge, its MAC and its addresses.

    `pre_restart`: the bridge lost its conntrack entries recently (`LocalPod`).
    """

    ofport: int
    mac: str
    addresses: tuple[IPv4Address, ...]
    pre_restart: bool = False


@dataclass(frozen=True, slots=True)
class ForeignRoute:
    """A remote pod with a foreign address, and its host number."""

    address: IPv4Address
    host: int


@dataclass(frozen=True, slots=True)
class LabelRequirement:
    """A label requirement without its negation: `In` with `values`, or `Exists` if these are None."""

    key: str
    values: frozenset[str] | None = None

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` satisfy it. An absent key satisfies neither kind."""
        value = labels.get(self.key)
        return value is not None and (self.values is None or value in self.values)


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """What is common to the pods of a class. `matches` has the label requirements whose match is known."""

    namespace: str
    matches: Mapping[LabelRequirement, bool]


@dataclass(frozen=True, slots=True)
class NodeView:
    """The input of one node's tables. Tuples are sorted, mappings read-only.

    `host` is the host number, `tenants` has the identity blocks of each tenant, `segments` the number of each
    segment, `classes` every identity in use with its class. `policies` are all that select a local pod or whose
    deferred egress rules may admit one as server. `frontends` are those of Services with backends that are no pods.
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
    uplinks: tuple[Uplink, ...] = ()
    hosts: tuple[RemoteHost, ...] = ()
    foreign: tuple[ForeignRoute, ...] = ()
    service_ranges: tuple[IPv4Network, ...] = ()
    frontends: tuple[ServiceFrontend, ...] = ()


@dataclass(frozen=True, slots=True)
class Allow:
    """One permission: these peers on these ports. `identities` None: any peer; `ports` None: every protocol.

    A peer matches `identities` or `cidrs`; if both are empty, none does.
    """

    origin: Origin
    identities: frozenset[IdentityMatch] | None = None
    cidrs: tuple[IPv4Network, ...] = ()
    ports: tuple[PortRange, ...] | None = None


@dataclass(frozen=True, slots=True)
class ServerGroup:
    """Local pods with equal permissions as servers.

    `number` (1..2**32-1) is a stable hash of the rules: it survives restarts, other changes and new classes.
    `ingress`: the union of the policies that select the pods or, if none does, the isolation level as permissions. If
    it is empty, it denies all. It does not contain tenancy.
    `deferred_egress`: deferred rules that admit connections to these pods; their `identities` are clients that the
    policy selects.
    """

    number: int
    ingress: tuple[Allow, ...]
    deferred_egress: tuple[Allow, ...]


@dataclass(frozen=True, slots=True)
class ClientGroup:
    """Local pods with equal permissions as clients (pods in no client group are *unselected*).

    `local_egress`: permissions that the client's node decides alone: any peer or CIDRs, with numeric ports.
    `deferred`: they have deferred rules, which the server's node decides.
    """

    number: int
    local_egress: tuple[Allow, ...]
    deferred: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """The group numbers of one local pod; `client` 0: no egress policy selects it."""

    server: int
    client: int = 0


@dataclass(frozen=True, slots=True)
class TenantAllow:
    """Admits clients of `client` to the ingress rules of servers of `server` (identity blocks); `client` None: all."""

    server: IdentityMatch
    client: IdentityMatch | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class NodePermissions:
    """What policies permit one node's pods as servers and as clients, ready to be compiled to flows.

    `tenancy` None: tenants are not separated (isolation none). `tenantless` are identity blocks of pods without tenant,
    which communicate with their own node only (their client group, if any, admits nothing outside either).
    `over_limit`: namespaces whose rules take more rows than the limit, and how many; `failed`: pods whose policies
    could not be resolved, and why: they may neither send nor receive.
    """

    members: Mapping[PodKey, Membership]
    servers: tuple[ServerGroup, ...]
    clients: tuple[ClientGroup, ...]
    tenancy: tuple[TenantAllow, ...] | None
    tenantless: tuple[IdentityMatch, ...] = ()
    over_limit: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    failed: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
