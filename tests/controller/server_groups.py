"""Permission groups of as many rows as a test asks for."""

from __future__ import annotations

from romana_ovs.model.identity import IdentityMatch, identity
from romana_ovs.policy.view import Allow, Origin, ServerGroup

WHY = Origin("NetworkPolicy", "red", "p")


def server(number: int, rows: int = 1, first: int = 1) -> ServerGroup:
    """A group of this number whose rows admit one class each."""
    peers = frozenset(IdentityMatch(identity(1, first + at)) for at in range(rows))
    return ServerGroup(number, (Allow(WHY, peers),), ())
