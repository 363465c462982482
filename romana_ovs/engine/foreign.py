"""Grants routes to pod addresses that our address plan did not give.

An address of the plan is granted once the node that could give it to a pod has acknowledged that it will not.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.addresses import address_fault
from romana_ovs.policy.published import Claim, Published, Report


class ForeignAddresses:
    """The claims of all nodes. The first to claim an address has it for as long as he claims it."""

    def __init__(self, published: Published, now: int) -> None:
        """Those that were `published`; what was not granted then has been known since revision `now`."""
        self._plan = published.plan
        self._claims = dict(published.foreign)
        self._since = dict.fromkeys(self._claims, now)
        self._waiting = False
        self._gateways: tuple[Mapping[str, int], frozenset[IPv4Address]] = ({}, frozenset())
        self._frozen: Mapping[IPv4Address, Claim] = MappingProxyType(dict(sorted(self._claims.items())))

    @property
    def claims(self) -> Mapping[IPv4Address, Claim]:
        """Each address with who claims it: the same frozen object until it changes."""
        return self._frozen

    @property
    def pending(self) -> bool:
        """Whether a claim waits for the node that might have given the address itself."""
        return self._waiting

    def update(
        self,
        reports: Mapping[str, Report],
        hosts: Mapping[str, int],
        *,
        nodes: Set[IPv4Address],
        now: int,
    ) -> None:
        """Follows `reports`, by node. Addresses of `nodes`, and towards pods those of `hosts`, are nobody else's.

        An address of the plan is granted when the node whose share it lies in has acknowledged the claim and does
        not contest it, or when there is no such node.
        """
        names = {number: name for name, number in hosts.items()}
        contested = {
            address
            for name, report in reports.items()
            for address in report.conflicting
            if self._owner(address, names) == name
        }
        for address in [each for each, claim in self._claims.items() if not _still(each, claim, reports, hosts)]:
            del self._claims[address], self._since[address]
        for address in self._claims.keys() & nodes:
            # A node has got it since: nobody routes it to a pod any more.
            del self._claims[address], self._since[address]
        for address in [each for each in self._claims if self._nobodys(each)]:
            del self._claims[address], self._since[address]
        gateways = self._gateways_of(hosts)
        for name in sorted(reports):
            for address in sorted(reports[name].foreign):
                taken = address in self._claims or address in gateways or address in nodes
                if name in hosts and not taken and not self._nobodys(address):
                    self._claims[address], self._since[address] = Claim(name, granted=False), now
        for address, claim in self._claims.items():
            # What is contested stays known, so that who contests it can say so.
            if not claim.granted and address not in contested and self._is_free(address, claim, names, reports):
                self._claims[address] = Claim(claim.node, granted=True)
        self._waiting = any(not claim.granted and each not in contested for each, claim in self._claims.items())
        if self._claims != self._frozen:
            self._frozen = MappingProxyType(dict(sorted(self._claims.items())))

    def _owner(self, address: IPv4Address, names: Mapping[int, str]) -> str | None:
        """The node that may give `address` to a pod of its own."""
        place = self._plan.split(address)
        return names.get(place.host) if place is not None else None

    def _nobodys(self, address: IPv4Address) -> bool:
        """Whether no pod can have `address`, whoever says so."""
        return bool(address_fault(address) or self._plan.address_fault(address))

    def _gateways_of(self, hosts: Mapping[str, int]) -> frozenset[IPv4Address]:
        """The addresses of hosts towards their pods, worked out once for one frozen mapping."""
        if self._gateways[0] is not hosts:
            self._gateways = (hosts, frozenset(self._plan.gateway(number) for number in hosts.values()))
        return self._gateways[1]

    def _is_free(
        self, address: IPv4Address, claim: Claim, names: Mapping[int, str], reports: Mapping[str, Report]
    ) -> bool:
        owner = self._owner(address, names)
        if owner is None or owner == claim.node:
            return True
        return owner in reports and self._since[address] <= reports[owner].acknowledged


def _still(address: IPv4Address, claim: Claim, reports: Mapping[str, Report], hosts: Mapping[str, int]) -> bool:
    """Whether who claims it still does. A node whose report is missing has not taken it back."""
    return claim.node in hosts and (claim.node not in reports or address in reports[claim.node].foreign)
