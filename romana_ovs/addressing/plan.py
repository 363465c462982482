"""Defines the address plan: the meaning of the bits of a pod address (docs/design.md section 3).

An address is `network prefix | segment index | host | endpoint`. Segment index 0 belongs to the nodes themselves; the
first and the last address of the network are never used.

Host and endpoint are not prefixes, so netaddr cannot express them; they are computed with bits. A MAC is formatted
here, for each pod: `netaddr.EUI` takes twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.settings import Settings

NODE_SEGMENT = 0
"""The segment index of the nodes' own addresses."""
GATEWAY_ENDPOINT = 1
"""The endpoint number of a node's own address on its host."""
LARGEST_FIELD = 15
"""In bits: identities have 16 for a segment (0xffff is reserved) and for a node."""
SMALLEST_ENDPOINT_FIELD = 2
MAC_PREFIX = 0x0A58 << 32
"""The first two bytes of every MAC that is derived from an address."""


class AddressParts(NamedTuple):
    """The numbers in an address of the plan: segment index, host number and endpoint number."""

    segment: int
    host: int
    endpoint: int


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """The network and the widths of the three fields, in bits.

    Raises AddressError, with the arithmetic, when the widths do not add up to what the network's prefix leaves.
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
    def of(cls, settings: Settings) -> AddressPlan:
        """The plan of `settings`; raises AddressError as the constructor does.

        If the widths need less than the network has, the plan is its first part of that size.
        """
        used = settings.segment_bits + settings.host_bits + settings.endpoint_bits
        network = settings.network
        if network.prefixlen < 32 - used <= 32:
            network = IPv4Network((network.network_address, 32 - used))
        return cls(network, settings.segment_bits, settings.host_bits, settings.endpoint_bits)

    def require_same(self, settings: Settings) -> None:
        """Raises InputError when this is not the plan of `settings`, AddressError when these have none."""
        if AddressPlan.of(settings) != self:
            raise InputError.because(
                "the address plan (network, segment_bits, host_bits, endpoint_bits) cannot change under live pods"
            )

    @property
    def segments(self) -> int:
        """The number of segment indexes, including that of the nodes."""
        return 1 << self.segment_bits

    @property
    def hosts(self) -> int:
        """The number of host numbers, from 0."""
        return 1 << self.host_bits

    @property
    def endpoints(self) -> int:
        """The number of endpoint numbers of one segment index on one host, from 0."""
        return 1 << self.endpoint_bits

    def address(self, segment: int, host: int, endpoint: int) -> IPv4Address:
        """The address with these numbers; raises AddressError when one is out of range or the address is not usable."""
        fields = (("segment index", segment, self.segments), ("host", host, self.hosts))
        for name, number, count in (*fields, ("endpoint", endpoint, self.endpoints)):
            if not 0 <= number < count:
                raise AddressError(f"{name} {number} is out of range: network {self.network} has 0 to {count - 1}")
        value = self._value(segment, host, endpoint)
        if not self.usable(value):
            raise AddressError(f"{IPv4Address(value)} is the first or last address of network {self.network}")
        return IPv4Address(value)

    def usable(self, value: int) -> bool:
        """Whether the 32-bit number is an address of the network, and neither its first nor its last one."""
        return int(self.network.network_address) < value < int(self.network.broadcast_address)

    def address_fault(self, address: IPv4Address) -> str:
        """The reason why this plan excludes `address`, as a sentence, or empty; addresses of nodes are not checked."""
        if address not in self.network or self.usable(int(address)):
            return ""
        kind = "first" if address == self.network.network_address else "last"
        return f"{address} is the {kind} address of the network {self.network}, which no pod and no node can have"

    def split(self, address: IPv4Address) -> AddressParts | None:
        """The numbers in `address`, or None if it is outside the network."""
        if address not in self.network:
            return None
        value = int(address)
        return AddressParts(
            value >> self.endpoint_bits + self.host_bits & self.segments - 1,
            value >> self.endpoint_bits & self.hosts - 1,
            value & self.endpoints - 1,
        )

    def segment_cidr(self, index: int) -> IPv4Network:
        """The range of one segment index."""
        return self.block_cidr(index, 1)

    def block_cidr(self, base: int, size: int) -> IPv4Network:
        """The range of the aligned power-of-two block of `size` segment indexes from `base`.

        Raises AddressError when the block is not aligned, not a power of two, or out of range.
        """
        if size < 1 or size & size - 1 or base % size or not 0 <= base <= self.segments - size:
            indexes = f"segment indexes {base} to {base + size - 1}"
            raise AddressError(f"{indexes} are not an aligned block of network {self.network}")
        length = self.network.prefixlen + self.segment_bits - (size.bit_length() - 1)
        return IPv4Network((self._value(base, 0, 0), length))

    def host_match(self, host: int) -> tuple[int, int]:
        """(value, mask), 32 bits each, of all addresses on `host`, of any segment and endpoint."""
        field = self.hosts - 1 << self.endpoint_bits
        return self._value(0, host, 0), int(self.network.netmask) | field

    def is_on(self, host: int, address: IPv4Address) -> bool:
        """Whether `address` is in this host's share of the network."""
        parts = self.split(address)
        return parts is not None and parts.host == host

    def gateway(self, host: int) -> IPv4Address:
        """The node's own address on its bridge."""
        return self.address(NODE_SEGMENT, host, GATEWAY_ENDPOINT)

    def node_addresses(self) -> IPv4Network:
        """The range of all nodes' own addresses."""
        return self.segment_cidr(NODE_SEGMENT)

    def mac(self, address: IPv4Address) -> str:
        """The MAC derived from an address, of the plan or not: `0a:58` and its 32 bits."""
        text = f"{MAC_PREFIX | int(address):012x}"
        return ":".join(text[at : at + 2] for at in range(0, 12, 2))

    def _value(self, segment: int, host: int, endpoint: int) -> int:
        numbers = (segment << self.host_bits | host) << self.endpoint_bits | endpoint
        return int(self.network.network_address) | numbers
