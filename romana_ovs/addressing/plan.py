"""The address plan: what the bits of a pod address mean (docs/design.md section 3).

An address is `network prefix | segment index | host | endpoint`. Segment index 0 belongs to the nodes
themselves; the first and the last address of the network are never used.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from romana_ovs.model.errors import AddressError
from romana_ovs.model.settings import Settings

NODE_SEGMENT = 0
"""The segment index of the nodes' own addresses."""
GATEWAY_ENDPOINT = 1
"""The endpoint number of a node's own address on its host."""
LARGEST_FIELD = 15
"""Bits: identities have 16 for a segment (0xffff is reserved) and for a node."""
SMALLEST_ENDPOINT_FIELD = 2
MAC_PREFIX = 0x0A58 << 32
"""The first two bytes of every MAC that is made from an address."""


class Place(NamedTuple):
    """What an address of the plan says: the segment index, the host number and the endpoint number."""

    segment: int
    host: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The widths of the three fields, in bits, and the network they divide.

    Raises AddressError, with the arithmetic, when they do not add up to what the network leaves.
    """

    network: IPv4Network
    segment_bits: int
    host_bits: int
    endpoint_bits: int

    def __post_init__(self) -> None:
        widths = f"segment_bits {self.segment_bits} + host_bits {self.host_bits} + endpoint_bits {self.endpoint_bits}"
        for name, bits in (("segment_bits", self.segment_bits), ("host_bits", self.host_bits)):
            if not 1 <= bits <= LARGEST_FIELD:
                raise AddressError(f"{name} is {bits}; it must be from 1 to {LARGEST_FIELD}")
        if self.endpoint_bits < SMALLEST_ENDPOINT_FIELD:
            raise AddressError(f"endpoint_bits is {self.endpoint_bits}; it must be at least {SMALLEST_ENDPOINT_FIELD}")
        left = 32 - self.network.prefixlen
        total = self.segment_bits + self.host_bits + self.endpoint_bits
        if total != left:
            given = f"network {self.network} leaves 32 - {self.network.prefixlen} = {left} bits"
            raise AddressError(f"{given}, but {widths} = {total}")

    @classmethod
    def of(cls, settings: Settings) -> Plan:
        """The plan that `settings` describe; raises AddressError as the constructor does.

        Widths that need less than the network leaves use its first part of that size.
        """
        used = settings.segment_bits + settings.host_bits + settings.endpoint_bits
        network = settings.network
        if network.prefixlen < 32 - used <= 32:
            network = IPv4Network((network.network_address, 32 - used))
        return cls(network, settings.segment_bits, settings.host_bits, settings.endpoint_bits)

    @property
    def segments(self) -> int:
        """How many segment indexes there are, the nodes' one included."""
        return 1 << self.segment_bits

    @property
    def hosts(self) -> int:
        """How many host numbers there are, from 0."""
        return 1 << self.host_bits

    @property
    def endpoints(self) -> int:
        """How many endpoint numbers one segment index has on one host, from 0."""
        return 1 << self.endpoint_bits

    def address(self, segment: int, host: int, endpoint: int) -> IPv4Address:
        """The address of these numbers; raises AddressError when one is out of range or the address is not usable."""
        fields = (("segment index", segment, self.segments), ("host", host, self.hosts))
        for name, number, count in (*fields, ("endpoint", endpoint, self.endpoints)):
            if not 0 <= number < count:
                raise AddressError(f"{name} {number} is out of range: network {self.network} has 0 to {count - 1}")
        value = self._value(segment, host, endpoint)
        if not self.usable(value):
            raise AddressError(f"{IPv4Address(value)} is the first or last address of network {self.network}")
        return IPv4Address(value)

    def usable(self, value: int) -> bool:
        """Whether the 32-bit number is an address of the network but neither its first nor its last one."""
        return int(self.network.network_address) < value < int(self.network.broadcast_address)

    def address_fault(self, address: IPv4Address) -> str:
        """Why by this plan nobody can have `address`, in a sentence that begins with it, or empty.

        It says nothing of nodes' own addresses: only whoever numbers the nodes knows which these are.
        """
        if address not in self.network or self.usable(int(address)):
            return ""
        kind = "first" if address == self.network.network_address else "last"
        return f"{address} is the {kind} address of the network {self.network}, which no pod and no node can have"

    def split(self, address: IPv4Address) -> Place | None:
        """The numbers in `address`, or None when it lies outside the network."""
        if address not in self.network:
            return None
        value = int(address)
        return Place(
            value >> self.endpoint_bits + self.host_bits & self.segments - 1,
            value >> self.endpoint_bits & self.hosts - 1,
            value & self.endpoints - 1,
        )

    def segment_cidr(self, index: int) -> IPv4Network:
        """The range of one segment index."""
        return self.run_cidr(index, 1)

    def run_cidr(self, base: int, size: int) -> IPv4Network:
        """The range of the aligned power-of-two run of `size` segment indexes from `base`.

        Raises AddressError when the run is not aligned, no power of two, or out of range.
        """
        if size < 1 or size & size - 1 or base % size or not 0 <= base <= self.segments - size:
            indexes = f"segment indexes {base} to {base + size - 1}"
            raise AddressError(f"{indexes} are no aligned run of network {self.network}")
        length = self.network.prefixlen + self.segment_bits - (size.bit_length() - 1)
        return IPv4Network((self._value(base, 0, 0), length))

    def host_match(self, host: int) -> tuple[int, int]:
        """(value, mask), 32 bits each: everything on `host`, whatever its segment and endpoint."""
        field = self.hosts - 1 << self.endpoint_bits
        return self._value(0, host, 0), int(self.network.netmask) | field

    def is_on(self, host: int, address: IPv4Address) -> bool:
        """Whether `address` is of this host's share of the network."""
        place = self.split(address)
        return place is not None and place.host == host

    def gateway(self, host: int) -> IPv4Address:
        """The node's own address towards its pods."""
        return self.address(NODE_SEGMENT, host, GATEWAY_ENDPOINT)

    def node_addresses(self) -> IPv4Network:
        """The range that holds every node's own address."""
        return self.segment_cidr(NODE_SEGMENT)

    def mac(self, address: IPv4Address) -> str:
        """The MAC that goes with an address, of the plan or not: `0a:58` and its 32 bits."""
        text = f"{MAC_PREFIX | int(address):012x}"
        return ":".join(text[at : at + 2] for at in range(0, 12, 2))

    def _value(self, segment: int, host: int, endpoint: int) -> int:
        numbers = (segment << self.host_bits | host) << self.endpoint_bits | endpoint
        return int(self.network.network_address) | numbers
