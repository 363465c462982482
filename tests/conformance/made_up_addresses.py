"""Addresses of the base without a controller that allocates them."""

from __future__ import annotations

from ipaddress import IPv4Address

from tests.conformance.words import BASE_NODES

NODES = {f"node{number}": IPv4Address("10.255.255.0") + number for number in (1, 2, 3)}
ADDRESSES = {name: IPv4Address("10.0.0.1") + number for number, name in enumerate(BASE_NODES)}
OTHERS = IPv4Address("10.0.1.1")


def address(name: str) -> IPv4Address:
    """A made-up address of a pod of the base, or of a node."""
    return NODES[name] if name in NODES else ADDRESSES[name]
