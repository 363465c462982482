"""Represents the objects of a cluster, reduced to the fields that decide about packets.

Sources: Kubernetes core/v1 Pod, Namespace and Node; networking.k8s.io/v1 NetworkPolicy;
Romana's NetworkPolicy (docs/design.md section 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from typing import NewType

from romana_ovs.model.labels import NO_LABELS, Labels, Selector

PodKey = NewType("PodKey", str)
"""The key of a pod: `namespace/name`."""

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label that the API server gives every namespace, with the namespace's own name."""


class Protocol(Enum):
    """A transport protocol of the Kubernetes API; the value is its name in JSON and ports (`80/tcp`)."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The IP protocol number (IANA)."""
        return {"tcp": 6, "udp": 17, "sctp": 132}[self.value]


class Direction(Enum):
    """A direction as seen from the pod that a policy selects."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """One declared port of a container; `name` is empty when it has none."""

    number: int
    protocol: Protocol = Protocol.TCP
    name: str = ""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace; its labels always hold `NAME_LABEL`."""

    name: str
    labels: Labels = NO_LABELS


@dataclass(frozen=True, slots=True)
class Node:
    """A node; `addresses` are its InternalIP (and other IPv4) addresses from status, maybe none."""

    name: str
    labels: Labels = NO_LABELS
    addresses: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, reduced to its network.

    `uid` distinguishes it from earlier and later pods of its name; empty if unknown.
    `node` is empty until it is bound. `address` is its status.podIP, allocated by another IPAM or earlier by this
    controller; None if there is no status (`has_status`) or no podIP in it.
    """

    namespace: str
    name: str
    labels: Labels = NO_LABELS
    node: str = ""
    address: IPv4Address | None = None
    ports: tuple[ContainerPort, ...] = ()
    uid: str = ""
    has_status: bool = False
    finished: bool = False
    """Phase Succeeded or Failed: no policy selects or matches it."""
    host_network: bool = False
    """It has its node's address: no policy selects it, and no selector matches it as peer."""

    @property
    def key(self) -> PodKey:
        """`namespace/name`."""
        return PodKey(f"{self.namespace}/{self.name}")

    @property
    def networked(self) -> bool:
        """Whether it has a port on its node's bridge: running, with an address of its own, or one to be allocated."""
        return not self.finished and not self.host_network and not (self.has_status and self.address is None)


def same_uid(left: str, right: str) -> bool:
    """Whether two UIDs may be of the same object: they are equal, or one is unknown (empty)."""
    return not left or not right or left == right


@dataclass(frozen=True, slots=True)
class IpBlock:
    """`cidr` without `except_cidrs` (NetworkPolicy ipBlock); host bits of the text are masked off."""

    cidr: IPv4Network
    except_cidrs: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """One entry of `ports`: a number, a range to `end`, a name, or (None) every port of the protocol."""

    protocol: Protocol = Protocol.TCP
    port: int | str | None = None
    end: int | None = None

    def covers(self, port: int | str) -> bool:
        """Whether this is `port` (a number or a name), or a range with it. Without a port it covers every one."""
        if isinstance(self.port, int) and isinstance(port, int):
            return self.port <= port <= (self.port if self.end is None else self.end)
        return self.port is None or self.port == port


@dataclass(frozen=True, slots=True)
class PolicyPeer:
    """One entry of `from` or `to`: an ipBlock alone, or selectors (at least one of the two).

    With `pods` alone it is the policy's own namespace; with `namespaces` alone all pods of those.
    All three None (invalid, but possible by way of a CRD) matches nothing.
    """

    pods: Selector | None = None
    namespaces: Selector | None = None
    ip_block: IpBlock | None = None


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """One ingress or egress rule; empty `peers` is any peer at all, empty `ports` every port of every protocol."""

    peers: tuple[PolicyPeer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


@dataclass(frozen=True, slots=True)
class KubernetesPolicy:
    """A networking.k8s.io/v1 NetworkPolicy; `directions` is policyTypes with its defaults applied.

    `creation_timestamp` is in RFC 3339, so that texts sort by time; empty when unknown.
    """

    namespace: str
    name: str
    selector: Selector
    directions: frozenset[Direction]
    ingress: tuple[PolicyRule, ...] = ()
    egress: tuple[PolicyRule, ...] = ()
    creation_timestamp: str = ""

    @property
    def key(self) -> PolicyKey:
        """Its identifier."""
        return PolicyKey("NetworkPolicy", self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class RomanaRule:
    """One `allowIncoming` rule: `sources` are selectors of pods of the same tenant in any namespace.

    Empty `sources` is any source, empty `ports` every port of every protocol.
    """

    sources: tuple[Selector, ...] = ()
    ports: tuple[PolicyPort, ...] = ()

    @property
    def peers(self) -> tuple[PolicyPeer, ...]:
        """The sources as peers with a podSelector alone, which here is not limited to a namespace."""
        return tuple(PolicyPeer(pods=source) for source in self.sources)


@dataclass(frozen=True, slots=True)
class RomanaPolicy:
    """A romana.io NetworkPolicy: ingress of the pods of its own namespace and tenant.

    `labels` are the policy's own: with tenant_source pod-label:KEY they name its tenant. `creation_timestamp` as above.
    """

    namespace: str
    name: str
    labels: Labels
    selector: Selector
    rules: tuple[RomanaRule, ...] = ()
    creation_timestamp: str = ""

    @property
    def key(self) -> PolicyKey:
        """Its identifier."""
        return PolicyKey("RomanaNetworkPolicy", self.namespace, self.name)


@dataclass(frozen=True, slots=True, order=True)
class PolicyKey:
    """A policy's identifier; `kind` is `NetworkPolicy` or `RomanaNetworkPolicy`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


Policy = KubernetesPolicy | RomanaPolicy


def names_sctp(policy: Policy) -> bool:
    """Whether any of a policy's rules names ports of SCTP."""
    rules = policy.rules if isinstance(policy, RomanaPolicy) else (*policy.ingress, *policy.egress)
    return any(port.protocol is Protocol.SCTP for rule in rules for port in rule.ports)
