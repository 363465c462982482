"""Declares the match fields in use, with the names and sizes of Open vSwitch. Source: ovs-fields(7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address


class Shape(Enum):
    """How a field's value is written in ovs-ofctl's syntax."""

    DECIMAL = "decimal"
    HEX = "hex"
    IPV4 = "ipv4"
    MAC = "mac"
    CT_STATE = "ct_state"
    TCP_FLAGS = "tcp_flags"
    FRAGMENT = "fragment"


@dataclass(frozen=True, slots=True)
class Field:
    """A field: ovs-ofctl's name, width in bits, whether it takes a mask, and the fields it presupposes.

    `needs` is a tuple of (field name, value) that must be matched exactly for this one to be legal.
    """

    name: str
    width: int
    shape: Shape
    maskable: bool = True
    needs: tuple[tuple[str, int], ...] = ()

    @property
    def ones(self) -> int:
        """The mask of an exact match."""
        return (1 << self.width) - 1


ETH_IP = 0x0800
ETH_ARP = 0x0806
ICMP, TCP, UDP, SCTP = 1, 6, 17, 132
"""IP protocol numbers (IANA)."""
VLAN_PRESENT = 0x1000
"""The bit of vlan_tci that is set in every tagged frame (ovs-fields(7))."""
_IP = (("eth_type", ETH_IP),)
_ARP = (("eth_type", ETH_ARP),)


def _transport(number: int) -> tuple[tuple[str, int], ...]:
    return (*_IP, ("nw_proto", number))


_DECLARED = (
    Field("in_port", 32, Shape.DECIMAL, maskable=False),
    Field("conj_id", 32, Shape.DECIMAL, maskable=False),
    Field("tun_src", 32, Shape.IPV4),
    Field("tun_dst", 32, Shape.IPV4),
    Field("eth_type", 16, Shape.HEX, maskable=False),
    Field("eth_src", 48, Shape.MAC),
    Field("eth_dst", 48, Shape.MAC),
    Field("vlan_tci", 16, Shape.HEX),
    Field("nw_src", 32, Shape.IPV4, needs=_IP),
    Field("nw_dst", 32, Shape.IPV4, needs=_IP),
    Field("nw_proto", 8, Shape.DECIMAL, maskable=False, needs=_IP),
    Field("nw_frag", 2, Shape.FRAGMENT, needs=_IP),
    Field("icmp_type", 8, Shape.DECIMAL, maskable=False, needs=_transport(ICMP)),
    Field("icmp_code", 8, Shape.DECIMAL, maskable=False, needs=_transport(ICMP)),
    Field("tcp_src", 16, Shape.DECIMAL, needs=_transport(TCP)),
    Field("tcp_dst", 16, Shape.DECIMAL, needs=_transport(TCP)),
    Field("tcp_flags", 12, Shape.TCP_FLAGS, needs=_transport(TCP)),
    Field("udp_src", 16, Shape.DECIMAL, needs=_transport(UDP)),
    Field("udp_dst", 16, Shape.DECIMAL, needs=_transport(UDP)),
    Field("sctp_src", 16, Shape.DECIMAL, needs=_transport(SCTP)),
    Field("sctp_dst", 16, Shape.DECIMAL, needs=_transport(SCTP)),
    Field("arp_op", 16, Shape.DECIMAL, maskable=False, needs=_ARP),
    Field("arp_spa", 32, Shape.IPV4, needs=_ARP),
    Field("arp_tpa", 32, Shape.IPV4, needs=_ARP),
    Field("arp_sha", 48, Shape.MAC, needs=_ARP),
    Field("arp_tha", 48, Shape.MAC, needs=_ARP),
    Field("ct_state", 32, Shape.CT_STATE),
    Field("ct_zone", 16, Shape.HEX, maskable=False),
    Field("ct_mark", 32, Shape.HEX),
    Field("ct_label", 128, Shape.HEX),
    Field("ct_nw_src", 32, Shape.IPV4, needs=_IP),
    Field("ct_nw_dst", 32, Shape.IPV4, needs=_IP),
    # Without ct_nw_proto, and a ct_state that implies an entry, ovs-ofctl silently drops a match on the ports.
    Field("ct_nw_proto", 8, Shape.DECIMAL, maskable=False, needs=_IP),
    Field("ct_tp_src", 16, Shape.DECIMAL, needs=_IP),
    Field("ct_tp_dst", 16, Shape.DECIMAL, needs=_IP),
    *(Field(f"reg{number}", 32, Shape.HEX) for number in range(16)),
)

FIELDS: dict[str, Field] = {field.name: field for field in _DECLARED}

CT_STATE_BITS = {"new": 0x01, "est": 0x02, "rel": 0x04, "rpl": 0x08, "inv": 0x10, "trk": 0x20}
TCP_FLAG_BITS = {"fin": 0x001, "syn": 0x002, "rst": 0x004, "psh": 0x008, "ack": 0x010, "urg": 0x020}
LOCAL_PORT = 0xFFFE
"""The bridge's own port, as 16-bit registers and our flows number it (OpenFlow 1.5 itself: 0xfffffffe)."""
FRAG_ANY = 0b01
FRAG_LATER = 0b10
"""nw_frag bits (ovs-fields(7)): no=0, first=1, later=3; `later` bit set means offset > 0."""


def ct_state(text: str) -> tuple[int, int]:
    """Value and mask of a conntrack state such as `+trk+est-rpl`."""
    return _signed(text, CT_STATE_BITS)


def tcp_flags(text: str) -> tuple[int, int]:
    """Value and mask of TCP flags such as `+syn-ack`."""
    return _signed(text, TCP_FLAG_BITS)


def _signed(text: str, bits: dict[str, int]) -> tuple[int, int]:
    value = mask = 0
    for sign, word in zip(text[::4], (text[i + 1 : i + 4] for i in range(0, len(text), 4)), strict=True):
        mask |= bits[word]
        value |= bits[word] if sign == "+" else 0
    return value, mask


def written(field: Field, value: int, mask: int) -> str:
    """One match in ovs-ofctl's syntax, such as `nw_src=10.0.0.0/8` or `ct_state=+trk-new`."""
    exact = mask == field.ones
    if field.name == "in_port" and value == LOCAL_PORT:
        return "in_port=LOCAL"
    if field.shape is Shape.CT_STATE:
        return f"{field.name}={_unsigned(value, mask, CT_STATE_BITS)}"
    if field.shape is Shape.TCP_FLAGS:
        return f"{field.name}={_unsigned(value, mask, TCP_FLAG_BITS)}"
    if field.shape is Shape.FRAGMENT:
        return f"nw_frag={_fragment(value, mask)}"
    if field.shape is Shape.IPV4:
        return f"{field.name}={IPv4Address(value)}" + ("" if exact else f"/{_netmask(mask)}")
    text = _mac if field.shape is Shape.MAC else (str if field.shape is Shape.DECIMAL and exact else hex)
    return f"{field.name}={text(value)}" + ("" if exact else f"/{text(mask)}")


def _unsigned(value: int, mask: int, bits: dict[str, int]) -> str:
    return "".join(("+" if value & bit else "-") + word for word, bit in bits.items() if mask & bit)


def _fragment(value: int, mask: int) -> str:
    words = {(0, 3): "no", (1, 1): "yes", (1, 3): "first", (3, 3): "later", (2, 2): "later", (0, 2): "not_later"}
    return words[value, mask]


def _netmask(mask: int) -> str:
    length = mask.bit_count()
    contiguous = mask == ((1 << length) - 1) << (32 - length)
    return str(length) if contiguous else str(IPv4Address(mask))


def _mac(value: int) -> str:
    return ":".join(f"{value >> shift & 0xFF:02x}" for shift in range(40, -8, -8))


def mac_number(text: str) -> int:
    """The 48 bits of `aa:bb:cc:dd:ee:ff`."""
    return int(text.replace(":", ""), 16)
