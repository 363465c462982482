"""The one form that every kind of policy is brought into before it is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network

from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import Direction, PolicyKey, Protocol


@dataclass(frozen=True, slots=True)
class Scope:
    """Which pods: those in the named (or selected) namespaces, of `tenant`, that `pods` selects.

    `namespace` names exactly one; else `namespaces` selects by label (EVERYTHING: all of them).
    `tenant` None means that the scope itself asks for no tenant.
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
    """One rule. It admits peers in any of `scopes` or `cidrs`, or all when `any_peer`.

    No scope, no CIDR and not `any_peer` admits nothing. `cidrs` have their exceptions subtracted.
    `ports` None is every port of every protocol; an empty tuple is none at all.
    """

    direction: Direction
    index: int
    any_peer: bool = False
    scopes: tuple[Scope, ...] = ()
    cidrs: tuple[IPv4Network, ...] = ()
    ports: tuple[PortRange | NamedPort, ...] | None = None


@dataclass(frozen=True, slots=True)
class NormalPolicy:
    """A policy of any kind: whom it selects, in which directions, and what it allows there."""

    key: PolicyKey
    subject: Scope
    directions: frozenset[Direction]
    rules: tuple[NormalRule, ...] = ()
