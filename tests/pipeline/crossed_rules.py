"""Rules whose peers and ports overlap, more of them than one flow has room for."""

from __future__ import annotations

from romana_ovs.model.identity import IdentityMatch, identity
from romana_ovs.model.objects import Protocol
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, Origin

WHY = Origin("NetworkPolicy", "red", "p")
LARGEST = 0xFFFF


def tcp_port(*numbers: int) -> tuple[PortRange, ...]:
    """TCP ports, each a range of its own."""
    return tuple(PortRange(Protocol.TCP, number, number) for number in numbers)


def peer(number: int) -> IdentityMatch:
    """One of very many classes."""
    return IdentityMatch(identity(1 + number // 50_000, 1 + number % 50_000))


def crossed(count: int) -> list[Allow]:
    """Every policy has one peer and one port of its own, and one of each that all have."""
    return [
        Allow(
            Origin("NetworkPolicy", "red", f"p{at}"),
            frozenset({peer(1), peer(2 + at)}),
            ports=tcp_port(80, 1000 + 2 * at),
        )
        for at in range(count)
    ]


MANY = 4200
