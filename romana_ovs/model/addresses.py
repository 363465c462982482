"""Checks for addresses that no pod and no node can have.

Sources: RFC 6890 (special-purpose addresses), RFC 1112 (multicast, class E), RFC 919 (limited broadcast), RFC 4291
(IPv6). A kubelet refuses most of them as a node's own (validateNodeIP), an API server as that of an endpoint
(ValidateNonSpecialIP).
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_KINDS_4 = (
    ("the unspecified address", IPv4Network("0.0.0.0/32")),
    ('an address of "this network" (0.0.0.0/8)', IPv4Network("0.0.0.0/8")),
    ("a loopback address", IPv4Network("127.0.0.0/8")),
    ("a link-local address", IPv4Network("169.254.0.0/16")),
    ("a multicast address", IPv4Network("224.0.0.0/4")),
    ("the broadcast address", IPv4Network("255.255.255.255/32")),
    ("a reserved address (240.0.0.0/4)", IPv4Network("240.0.0.0/4")),
)
_KINDS_6 = (
    ("the unspecified address", IPv6Network("::/128")),
    ("the loopback address", IPv6Network("::1/128")),
    ("a link-local address", IPv6Network("fe80::/10")),
    ("a multicast address", IPv6Network("ff00::/8")),
)


def overlap_fault(network: IPv4Network, services: IPv4Network) -> str:
    """The reason why pods cannot have `network` while Services have `services`, or empty when they do not overlap."""
    if not network.overlaps(services):
        return ""
    return (
        f"the Services' range {services} overlaps the pods' network {network}: one address would be both a pod's and a "
        "Service's. Give the setting network a range that neither nodes nor Services use, such as 100.64.0.0/10"
    )


@lru_cache(maxsize=4096)
def address_fault(address: IPv4Address | IPv6Address) -> str:
    """The reason why no pod or node can have `address`, as a sentence that begins with it, or empty."""
    kind: str | None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address_fault(address.ipv4_mapped)
        kind = next((name for name, network in _KINDS_6 if address in network), None)
    else:
        kind = next((name for name, network in _KINDS_4 if address in network), None)
    return f"{address} is {kind}, which no pod and no node can have" if kind is not None else ""


def network_fault(network: IPv4Network) -> str:
    """The reason why pods cannot have the addresses of `network`, as a sentence that begins with it, or empty."""
    special = next((candidate for _, candidate in _KINDS_4 if candidate.overlaps(network)), None)
    if special is None:
        return ""
    return f"{network} holds addresses of {special}, which no pod and no node can have"
