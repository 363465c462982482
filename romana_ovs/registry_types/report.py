"""Defines what a node agent reports to the registry (`Report`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.cluster import SegmentKey


@dataclass(frozen=True, slots=True)
class Observed:
    """What a node agent observed of its switch.

    `sctp_ports`: whether it tracks SCTP by ports, None while that is not known. `tenants_at_limit`: the tenants that
    have as many connections there as they may have.
    """

    sctp_ports: bool | None = None
    tenants_at_limit: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """What one node agent reports to the registry.

    `acknowledged`: its switch has the classes of this revision, and its pods use them. `released`: its tables rely on
    no requirement that is retiring in this revision. `exhausted_segments`: those without a free address on this node,
    with the number of indexes that it knows. `foreign`: addresses of its pods that the address plan did not give.
    `conflicting`: addresses of its pods that other nodes claim. `policies` is the digest of the versions of all
    policies that its tables are made of.
    """

    node: str
    acknowledged: int = 0
    released: int = 0
    exhausted_segments: Mapping[SegmentKey, int] = field(default_factory=lambda: MappingProxyType({}))
    foreign: frozenset[IPv4Address] = frozenset()
    conflicting: frozenset[IPv4Address] = frozenset()
    policies: str = ""
    observed: Observed = Observed()
