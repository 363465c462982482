"""Permissions as products of peers and ports, such that no flow of them has more clauses than a message has room for.

Allows of the same ports are one product: thousands of rules that differ in their peers alone (a rule to cluster DNS in
each namespace) are one conjunction, not thousands. Flows of one match are one flow, so a match that is part of many
products carries a clause for each of them. Where those are too many it leaves the smallest of them: peers times ports
are then as many plain flows for that match, and the rest of the product stays as it is. The meaning is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from romana_ovs.pipeline.tables import Condition
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Origin

Alternative = tuple[Condition, ...]
"""Conditions that belong together; an empty one is always met."""
Side = dict[Alternative, Origin]
"""Alternatives, each with the first rule that names it."""
Pair = tuple[Alternative, Alternative]
"""A peer and a port."""

MOST_CLAUSES = 2000
"""Clauses that one flow carries at most: 32,000 of the 65,535 bytes that an OpenFlow message can have."""


@dataclass(frozen=True, slots=True)
class Product:
    """Every peer on every port, for `origin` first of all; `text` names the ports, and no other product of a place."""

    text: str
    origin: Origin
    peers: Side
    ports: Side


def joined(
    asked: Iterable[tuple[tuple[PortRange, ...] | None, Iterable[Alternative], Origin]],
    alternatives: Callable[[tuple[PortRange, ...] | None], Iterable[Alternative]],
) -> list[Product]:
    """One product for each set of ports that is asked for; a peer that is any peer stands for all others of it."""
    found: dict[tuple[PortRange, ...] | None, Product] = {}
    for ports, peers, origin in asked:
        product = found.get(ports)
        if product is None:
            product = found[ports] = Product(str(ports), origin, {}, dict.fromkeys(alternatives(ports), origin))
        for peer in peers:
            product.peers.setdefault(peer, origin)
    for product in found.values():
        if () in product.peers:
            anyone = product.peers[()]
            product.peers.clear()
            product.peers[()] = anyone
    return list(found.values())


def fitted(products: Iterable[Product], most: int = MOST_CLAUSES) -> tuple[list[Product], dict[Pair, Origin]]:
    """The products, none of whose alternatives is part of more than `most`, and pairs that are written out instead."""
    kept = [Product(each.text, each.origin, dict(each.peers), dict(each.ports)) for each in products]
    apart: dict[Pair, Origin] = {}
    for port, crowd in _crowds([product.ports for product in kept], [product.peers for product in kept], most):
        for at in crowd:
            del kept[at].ports[port]
            for peer, origin in kept[at].peers.items():
                apart.setdefault((peer, port), origin)
    for peer, crowd in _crowds([product.peers for product in kept], [product.ports for product in kept], most):
        for at in crowd:
            origin = kept[at].peers.pop(peer)
            for port in kept[at].ports:
                apart.setdefault((peer, port), origin)
    return [product for product in kept if product.peers and product.ports], apart


def _crowds(sides: list[Side], others: list[Side], most: int) -> list[tuple[Alternative, list[int]]]:
    """Every alternative that more than `most` of `sides` have, with the ones to leave: where it costs fewest flows."""
    if len(sides) <= most:
        return []
    holders: dict[Alternative, list[int]] = {}
    for at, side in enumerate(sides):
        for alternative in side:
            holders.setdefault(alternative, []).append(at)
    return [
        (alternative, sorted(held, key=lambda at: (len(others[at]), at))[:-most])
        for alternative, held in holders.items()
        if len(held) > most
    ]
