"""Defines the normal form of policies, which every kind of policy is converted to before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import Direction, PolicyKey, Protocol


@dataclass(frozen=True, slots=True)
class Scope:
    """Selects pods by namespace, tenant and labels.

    `namespace` names exactly one; if None, `namespaces` selects by label (EVERYTHING: all). `tenant` None: pods of
    any tenant.
    """

    namespace: str | None = None
    namespaces: Selector = EVERYTHING
    pods: Selector = EVERYTHING
    tenant: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class PortRange:
    """Destination ports `low` to `high`, both included."""

    protocol: Protocol
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port by name, resolved on each destination pod among its ports of this protocol."""

    protocol: Protocol
    name: str


@dataclass(frozen=True, slots=True)
class NormalRule:
    """One rule. It admits peers in any of `scopes` or `cidrs`, or all peers if `any_peer`.

    Without scope, CIDR and `any_peer` it admits none. The exceptions of `cidrs` are subtracted. `ports` None: every
    port of every protocol; an empty tuple: no port.
    """

    direction: Direction
    index: int
    any_peer: bool = False
    scopes: tuple[Scope, ...] = ()
    cidrs: tuple[IPv4Network, ...] = ()
    ports: tuple[PortRange | NamedPort, ...] | None = None


@dataclass(frozen=True, slots=True)
class NormalPolicy:
    """A policy of any kind: the pods that it selects (`subject`), its directions and its rules."""

    key: PolicyKey
    subject: Scope
    directions: frozenset[Direction]
    rules: tuple[NormalRule, ...] = ()
