"""Allocates the addresses of one node in the ranges that the registry published.

Each (segment, host) belongs to one node, so the node allocates endpoint numbers in it without coordination.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from typing import Any

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import SegmentTable, named
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.objects import PodKey, same_uid


def no_host_number(node: str) -> str:
    """Why pods on `node` have no address, while the registry has not numbered it."""
    return f"node {node} has no host number yet: it waits for the registry"


class NodeAllocator(Allocator):
    """The endpoints of one node. Call `follow` first: without it no segment and no node has a number."""

    def __init__(self, plan: AddressPlan, node: str) -> None:
        super().__init__(plan)
        self.node = node
        self._segments = SegmentTable(plan, {}, {})
        self._elsewhere: frozenset[IPv4Address] = frozenset()
        self._granted: frozenset[IPv4Address] = frozenset()
        self._brought: frozenset[IPv4Address] = frozenset()

    def keep_free(self, addresses: Iterable[IPv4Address]) -> None:
        """Replaces the addresses that are not allocated because pods of this node already have them, served or not."""
        self._brought = frozenset(addresses)

    def follow(
        self, segments: SegmentTable, hosts: Mapping[str, int], foreign: Mapping[IPv4Address, tuple[str, bool]]
    ) -> None:
        """Applies the registry's numbers. `foreign`: by address, the claiming node, and whether the claim is granted.

        Raises InputError, and changes nothing, when a local pod's address would be in no range of its segment.
        """
        for endpoint in self._endpoints.values():
            segment, parts = endpoint.segment, self.plan.split(endpoint.address)
            if segment is not None and (parts is None or parts.segment not in segments.indexes(segment)):
                raise InputError.because(
                    f"the address {endpoint.address} of pod {endpoint.pod} is in no range of {named(segment)}",
                    field="published numbers",
                )
        self._segments = segments
        self._frozen_hosts = hosts
        self._elsewhere = frozenset(address for address, (node, _) in foreign.items() if node != self.node)
        self._granted = frozenset(
            address for address, (node, granted) in foreign.items() if node == self.node and granted
        )
        self.freed += 1

    def host(self, node: str) -> int:
        """The host number of `node`. Raises AddressError until the registry has published one."""
        number = self.hosts.get(node)
        if number is None:
            raise AddressError(no_host_number(node))
        return number

    def forget_host(self, node: str) -> None:
        """Does nothing: only the registry frees host numbers."""

    def claim(self, pod: PodKey, *, uid: str, node: str, address: IPv4Address) -> Endpoint:
        """As `Allocator.claim`. Raises AddressError too until the registry has granted a foreign address.

        An address that was already served needs no grant.
        """
        current = self._endpoints.get(pod)
        ours = current is not None and same_uid(current.uid, uid) and (current.node, current.address) == (node, address)
        if not ours and (fault := self.fault(address)):
            # Reported at once, as this address is never going to be routed.
            raise AddressError(fault)
        if not ours and address not in self._granted:
            raise AddressError(f"address {address} is not from here: it waits for the registry to route it")
        return super().claim(pod, uid=uid, node=node, address=address)

    def conflicting(self) -> frozenset[IPv4Address]:
        """Addresses of pods here that other nodes claim."""
        return frozenset(address for address in self._elsewhere if int(address) in self._pod_by_address)

    def to_json(self) -> dict[str, Any]:
        """The state of this node as JSON values: endpoints, and the free numbers of each share."""
        return self._allocations_to_json()

    @classmethod
    def restored(cls, data: Mapping[str, Any], plan: AddressPlan, node: str) -> NodeAllocator:
        """The allocator of `to_json`. Raises AddressError and InputError as `Allocator.from_json`."""
        allocator = cls(plan, node)
        whole = {"runs": {}, "segments": [], "hosts": {}, "host_numbers": [0], "leaving": [], **data}
        saved = Allocator.from_json(whole, plan)
        allocator.freed = saved.freed
        allocator._endpoints, allocator._pod_by_address, allocator._on_node = (
            saved._endpoints,
            saved._pod_by_address,
            saved._on_node,
        )
        allocator._shares, allocator._reserved = saved._shares, saved._reserved
        return allocator

    def _free_position(self, segment: SegmentKey, host: int, position: int) -> bool:
        if self._elsewhere or self._brought:
            address = IPv4Address(self._value(segment, host, position))
            if address in self._elsewhere or address in self._brought:
                return False
        return super()._free_position(segment, host, position)

    def _owning_node(self, address: IPv4Address) -> str | None:
        if address in self._elsewhere:
            return "another node's pod"
        return super()._owning_node(address)
