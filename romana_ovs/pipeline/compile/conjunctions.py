"""Groups permissions into products of peers and ports, with a bounded number of clauses for each flow.

Permissions with the same ports are one product: thousands of rules that differ only in their peers (a rule to cluster
DNS in each namespace) are one conjunction. Flows of equal match are one flow, so a match that is in many products
carries a clause for each of them. If those are too many for one message, the match leaves the smallest products and
gets plain flows for them; the rest of each product stays. The meaning is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from romana_ovs.pipeline.tables import Condition
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Origin

Alternative = tuple[Condition, ...]
"""Conditions that must hold together; an empty one always holds."""
Side = dict[Alternative, Origin]
"""Alternatives, each with the first rule that has it."""
Pair = tuple[Alternative, Alternative]
"""A peer and a port."""

MAX_CLAUSES = 2000
"""Limit of clauses in one flow: 32,000 of the 65,535 bytes of an OpenFlow message."""


@dataclass(frozen=True, slots=True)
class Product:
    """Every peer on every port. `origin` is the first rule; `text` names the ports and is unique in a rule table."""

    text: str
    origin: Origin
    peers: Side
    ports: Side


def products_of(
    permissions: Iterable[tuple[tuple[PortRange, ...] | None, Iterable[Alternative], Origin]],
    alternatives: Callable[[tuple[PortRange, ...] | None], Iterable[Alternative]],
) -> list[Product]:
    """One product for each set of ports. In a product with any peer that replaces all others."""
    by_ports: dict[tuple[PortRange, ...] | None, Product] = {}
    for ports, peers, origin in permissions:
        product = by_ports.get(ports)
        if product is None:
            product = by_ports[ports] = Product(str(ports), origin, {}, dict.fromkeys(alternatives(ports), origin))
        for peer in peers:
            product.peers.setdefault(peer, origin)
    for product in by_ports.values():
        if () in product.peers:
            anyone = product.peers[()]
            product.peers.clear()
            product.peers[()] = anyone
    return list(by_ports.values())


def bounded_products(products: Iterable[Product], most: int = MAX_CLAUSES) -> tuple[list[Product], dict[Pair, Origin]]:
    """The products, with no alternative in more than `most` of them, and pairs to write as plain flows instead."""
    kept = [Product(each.text, each.origin, dict(each.peers), dict(each.ports)) for each in products]
    apart: dict[Pair, Origin] = {}
    for port, crowd in _over_limit([product.ports for product in kept], [product.peers for product in kept], most):
        for at in crowd:
            del kept[at].ports[port]
            for peer, origin in kept[at].peers.items():
                apart.setdefault((peer, port), origin)
    for peer, crowd in _over_limit([product.peers for product in kept], [product.ports for product in kept], most):
        for at in crowd:
            origin = kept[at].peers.pop(peer)
            for port in kept[at].ports:
                apart.setdefault((peer, port), origin)
    return [product for product in kept if product.peers and product.ports], apart


def _over_limit(sides: list[Side], other_sides: list[Side], most: int) -> list[tuple[Alternative, list[int]]]:
    """Every alternative that is in more than `most` of `sides`, with those it leaves, which cost the fewest flows."""
    if len(sides) <= most:
        return []
    holders: dict[Alternative, list[int]] = {}
    for at, side in enumerate(sides):
        for alternative in side:
            holders.setdefault(alternative, []).append(at)
    return [
        (alternative, sorted(products, key=lambda at: (len(other_sides[at]), at))[:-most])
        for alternative, products in holders.items()
        if len(products) > most
    ]
