"""Arbitrates nodes' claims to pod addresses that no node agent allocated.

A claim is granted to the first node that makes it. One to an address inside the plan's network is granted once the node
that could allocate that address has acknowledged the claim, and so will not.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.addresses import address_fault
from romana_ovs.model.derived import Derived, LastInputs
from romana_ovs.registry_types.published import Claim, Published
from romana_ovs.registry_types.report import Report


class ForeignAddresses:
    """The claims of all nodes. The first node that claims an address has it for as long as it claims it."""

    def __init__(self, published: Published, revision: int) -> None:
        """Begins with what was `published`; claims not granted then count as published in `revision`."""
        self._plan = published.plan
        self._claims = dict(published.foreign)
        self._since = dict.fromkeys(self._claims, revision)
        self._waiting = False
        self._inputs = LastInputs()
        self._gateways: Derived[frozenset[IPv4Address]] = Derived()
        self._frozen: Mapping[IPv4Address, Claim] = MappingProxyType(dict(sorted(self._claims.items())))

    @property
    def claims(self) -> Mapping[IPv4Address, Claim]:
        """Each address with its claim: the identical mapping until one changes."""
        return self._frozen

    @property
    def pending(self) -> bool:
        """Whether a claim waits for the node that could have allocated the address itself."""
        return self._waiting

    def update(
        self,
        reports: Mapping[str, Report],
        hosts: Mapping[str, int],
        *,
        node_addresses: Set[IPv4Address],
        revision: int,
    ) -> None:
        """Updates the claims to `reports`, by node; `node_addresses` and the gateways of `hosts` are rejected.

        An address of the plan is granted when the node in whose share it is has acknowledged the claim and does
        not have it in conflict, or when there is no such node. `reports` that are the identical mapping have not
        changed.
        """
        if not self._inputs.replace((reports, hosts, node_addresses)):
            return
        node_by_host_number = {number: name for name, number in hosts.items()}
        conflicting = {
            address
            for name, report in reports.items()
            for address in report.conflicting
            if self._allocating_node(address, node_by_host_number) == name
        }
        ended = [
            address
            for address, claim in self._claims.items()
            # What has become a node's address is not routed to a pod any more.
            if address in node_addresses
            or self._is_unusable(address)
            or not _still_claimed(address, claim, reports, hosts)
        ]
        for address in ended:
            del self._claims[address], self._since[address]
        gateways = self._gateways_of(hosts)
        for name in sorted(reports):
            for address in sorted(reports[name].foreign):
                taken = address in self._claims or address in gateways or address in node_addresses
                if name in hosts and not taken and not self._is_unusable(address):
                    self._claims[address], self._since[address] = Claim(name, granted=False), revision
        for address, claim in self._claims.items():
            # A conflicting claim stays published, so that the node that has the address can report it.
            if (
                not claim.granted
                and address not in conflicting
                and self._may_be_granted(address, claim, node_by_host_number, reports)
            ):
                self._claims[address] = Claim(claim.node, granted=True)
        self._waiting = any(not claim.granted and each not in conflicting for each, claim in self._claims.items())
        if self._claims != self._frozen:
            self._frozen = MappingProxyType(dict(sorted(self._claims.items())))

    def _allocating_node(self, address: IPv4Address, node_by_host_number: Mapping[int, str]) -> str | None:
        """The node that may allocate `address` for a pod of its own."""
        place = self._plan.split(address)
        return node_by_host_number.get(place.host) if place is not None else None

    def _is_unusable(self, address: IPv4Address) -> bool:
        """Whether no pod may have `address`, by its kind or by the address plan."""
        return bool(address_fault(address) or self._plan.address_fault(address))

    def _gateways_of(self, hosts: Mapping[str, int]) -> frozenset[IPv4Address]:
        """The gateway addresses of hosts, computed once for one mapping."""
        return self._gateways.get((hosts,), lambda hosts: frozenset(map(self._plan.gateway, hosts.values())))

    def _may_be_granted(
        self,
        address: IPv4Address,
        claim: Claim,
        node_by_host_number: Mapping[int, str],
        reports: Mapping[str, Report],
    ) -> bool:
        """Whether no other node can allocate `address`, or the one that could has acknowledged the claim."""
        node = self._allocating_node(address, node_by_host_number)
        if node is None or node == claim.node:
            return True
        return node in reports and self._since[address] <= reports[node].acknowledged


def _still_claimed(address: IPv4Address, claim: Claim, reports: Mapping[str, Report], hosts: Mapping[str, int]) -> bool:
    """Whether the node still claims it. A node whose report is missing has not withdrawn its claim."""
    return claim.node in hosts and (claim.node not in reports or address in reports[claim.node].foreign)
