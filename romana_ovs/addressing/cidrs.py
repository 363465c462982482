"""Merges, subtracts and converts IPv4 networks: the only module that imports netaddr.

Elsewhere networks and addresses are those of the standard library's `ipaddress`: they are hashed, compared and tested
for each pod, where they are faster, and its parser is stricter (`10.0.0.0/255.0.0.0` is a network for netaddr).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from netaddr import IPNetwork, IPSet, cidr_merge


def merge_cidrs(networks: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The fewest networks that cover exactly the same addresses, sorted."""
    return tuple(map(_from_netaddr, cidr_merge([_to_netaddr(network) for network in networks])))


def subtract_cidrs(network: IPv4Network, excepts: Iterable[IPv4Network]) -> tuple[IPv4Network, ...]:
    """The fewest networks that cover exactly `network` without `excepts`, sorted."""
    return tuple(CidrSet([network], excepts))


class CidrSet:
    """A set of addresses, stored as the fewest networks that cover it."""

    def __init__(self, networks: Iterable[IPv4Network], excepts: Iterable[IPv4Network] = ()) -> None:
        """The addresses of `networks` without those of `excepts`."""
        self._set = IPSet(map(_to_netaddr, networks)) - IPSet(map(_to_netaddr, excepts))

    def __iter__(self) -> Iterator[IPv4Network]:
        """The networks, sorted."""
        return map(_from_netaddr, self._set.iter_cidrs())

    def remove(self, network: IPv4Network) -> None:
        """Takes all addresses of `network` out of the set."""
        self._set.remove(_to_netaddr(network))


def _to_netaddr(network: IPv4Network) -> IPNetwork:
    return IPNetwork((int(network.network_address), network.prefixlen))


def _from_netaddr(network: IPNetwork) -> IPv4Network:
    return IPv4Network((network.first, network.prefixlen))
