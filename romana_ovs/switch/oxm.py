"""Encodes and decodes OpenFlow 1.5 match fields.

Ryu's OFPMatch is not used, for three reasons: Open vSwitch needs prerequisites before the fields that depend on them,
while Ryu sorts by class and number; a decoded match must equal the match that was sent; and every length in data from
the network must be checked (docs/hazards.md D12).
Sources: OpenFlow 1.5.1 section 7.2.3, ovs-fields(7).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.fields import FIELDS, VLAN_PRESENT
from romana_ovs.pipeline.flow import FieldMatch, Match, canonical

NXM_0 = 0x0000
NXM_1 = 0x0001
BASIC = 0x8000
HEADER = struct.Struct("!I")
MATCH_HEAD = struct.Struct("!HH")
MATCH_OXM = 1
"""ofp_match.type: OXM."""
UNKNOWN = "oxm:"
"""Prefix of the name of an unknown field; its header in hexadecimal follows."""

PORT_FIRST_RESERVED = 0xFF00
PORT_WIDE = 0xFFFF0000
"""Reserved ports have 16 bits in ovs-ofctl's syntax and in registers, 32 on the wire (OpenFlow 1.5.1 section 7.2.1)."""

_NUMBERS: dict[str, tuple[int, int]] = {
    "in_port": (BASIC, 0),
    "eth_dst": (BASIC, 3),
    "eth_src": (BASIC, 4),
    "eth_type": (BASIC, 5),
    "nw_proto": (BASIC, 10),
    "nw_src": (BASIC, 11),
    "nw_dst": (BASIC, 12),
    "tcp_src": (BASIC, 13),
    "tcp_dst": (BASIC, 14),
    "udp_src": (BASIC, 15),
    "udp_dst": (BASIC, 16),
    "sctp_src": (BASIC, 17),
    "sctp_dst": (BASIC, 18),
    "icmp_type": (BASIC, 19),
    "icmp_code": (BASIC, 20),
    "arp_op": (BASIC, 21),
    "arp_spa": (BASIC, 22),
    "arp_tpa": (BASIC, 23),
    "arp_sha": (BASIC, 24),
    "arp_tha": (BASIC, 25),
    "tcp_flags": (BASIC, 42),
    "vlan_tci": (NXM_0, 4),
    "nw_frag": (NXM_1, 26),
    "tun_src": (NXM_1, 31),
    "tun_dst": (NXM_1, 32),
    "conj_id": (NXM_1, 37),
    "ct_state": (NXM_1, 105),
    "ct_zone": (NXM_1, 106),
    "ct_mark": (NXM_1, 107),
    "ct_label": (NXM_1, 108),
    "ct_nw_proto": (NXM_1, 119),
    "ct_nw_src": (NXM_1, 120),
    "ct_nw_dst": (NXM_1, 121),
    "ct_tp_src": (NXM_1, 124),
    "ct_tp_dst": (NXM_1, 125),
    **{f"reg{number}": (NXM_1, number) for number in range(16)},
}
_VLAN_VID = (BASIC, 6)
_VID_BITS = 0x1FFF
PACKET_REGISTERS = 0x8001
"""Class of 64-bit registers, two of ours in each: how Open vSwitch shows register matches to OpenFlow 1.5."""


@dataclass(frozen=True, slots=True)
class _Wire:
    """The encoding of one field: its bytes, its width in bits, its headers without and with a mask."""

    size: int
    ones: int
    exact: bytes
    masked: bytes
    port: bool = False


def _wire(name: str, number: tuple[int, int]) -> _Wire:
    declared = FIELDS[name]
    size = (declared.width + 7) // 8
    top = number[0] << 16 | number[1] << 9
    exact, masked = HEADER.pack(top | size), HEADER.pack(top | 0x100 | 2 * size)
    return _Wire(size, declared.ones, exact, masked, name == "in_port")


_WIRE = {name: _wire(name, number) for name, number in _NUMBERS.items()}
_NAMES = {number: name for name, number in _NUMBERS.items()}


def wide_port(port: int) -> int:
    """The 32-bit number of a port with a 16-bit number (0xfffe is LOCAL)."""
    return port | PORT_WIDE if port >= PORT_FIRST_RESERVED else port


def narrow_port(port: int) -> int:
    """The 16-bit number of a port with a 32-bit number."""
    return port & 0xFFFF if port >= PORT_WIDE | PORT_FIRST_RESERVED else port


def header_of(name: str) -> bytes:
    """The OXM header of a field without a value, for copies and register outputs."""
    return _WIRE[name].exact


def field_bytes(name: str, value: int, mask: int) -> bytes:
    """One field with its value, and its mask unless that is all ones."""
    wire = _WIRE.get(name)
    if wire is None:
        return _unknown_bytes(name, value, mask)
    if wire.port:
        value = wide_port(value)
    if mask == wire.ones:
        return wire.exact + value.to_bytes(wire.size, "big")
    return wire.masked + value.to_bytes(wire.size, "big") + mask.to_bytes(wire.size, "big")


def _unknown_bytes(name: str, value: int, mask: int) -> bytes:
    header = int(name.removeprefix(UNKNOWN), 16)
    size, has_mask = header & 0xFF, header & 0x100
    if has_mask:
        return HEADER.pack(header) + value.to_bytes(size // 2, "big") + mask.to_bytes(size // 2, "big")
    return HEADER.pack(header) + value.to_bytes(size, "big")


def match_bytes(match: Match) -> bytes:
    """A whole ofp_match, padded to eight bytes."""
    body = b"".join([field_bytes(name, value, mask) for name, value, mask in match])
    length = MATCH_HEAD.size + len(body)
    return MATCH_HEAD.pack(MATCH_OXM, length) + body + bytes(-length % 8)


def read_field(data: memoryview, at: int) -> tuple[str, int, int, int]:
    """(name, value, mask, next offset) of the field at `at`. Raises SwitchError when it does not fit `data`."""
    header, value, mask, size, end = _raw_field(data, at)
    name, value, mask = _flow_field(header, value, mask, size)
    return name, value, mask, end


def _raw_field(data: memoryview, at: int) -> tuple[int, int, int, int, int]:
    if at + 4 > len(data):
        raise SwitchError("a match field from the switch is cut short")
    (header,) = HEADER.unpack_from(data, at)
    length = header & 0xFF
    end = at + 4 + length
    has_mask = bool(header & 0x100)
    if end > len(data) or length == 0 or (has_mask and length % 2):
        raise SwitchError(f"a match field from the switch has the impossible length {length}")
    size = length // 2 if has_mask else length
    value = int.from_bytes(data[at + 4 : at + 4 + size], "big")
    mask = int.from_bytes(data[at + 4 + size : end], "big") if has_mask else (1 << 8 * size) - 1
    return header, value, mask, size, end


def _flow_field(header: int, value: int, mask: int, size: int) -> tuple[str, int, int]:
    number = (header >> 16, header >> 9 & 0x7F)
    # Open vSwitch shows any match on the VLAN word as VLAN_VID to OpenFlow 1.2 and later; none at all is 0.
    if number == _VLAN_VID and value == 0 and mask & _VID_BITS == _VID_BITS:
        return "vlan_tci", 0, FIELDS["vlan_tci"].ones
    if number == _VLAN_VID and value == 0 and mask & _VID_BITS == VLAN_PRESENT:
        return "vlan_tci", 0, VLAN_PRESENT
    name = _NAMES.get(number)
    wire = _WIRE[name] if name is not None else None
    if name is None or wire is None or wire.size != size:
        return f"{UNKNOWN}{header:08x}", value, mask
    if wire.port:
        value = narrow_port(value)
    return name, value & wire.ones, mask & wire.ones


def read_match(data: memoryview, at: int) -> tuple[Match, int]:
    """The ofp_match at `at`, and the offset after its padding. Raises SwitchError when it does not fit `data`.

    Unknown fields have their header as name, so that such a flow can still be shown and deleted.
    """
    if at + MATCH_HEAD.size > len(data):
        raise SwitchError("a match from the switch is cut short")
    kind, length = MATCH_HEAD.unpack_from(data, at)
    end = at + length
    if kind != MATCH_OXM or length < MATCH_HEAD.size or end > len(data):
        raise SwitchError(f"a match from the switch has type {kind} and length {length}")
    known: dict[str, tuple[int, int]] = {}
    foreign: list[FieldMatch] = []
    position = at + MATCH_HEAD.size
    inside = data[:end]
    while position < end:
        header, value, mask, size, position = _raw_field(inside, position)
        if header >> 16 == PACKET_REGISTERS and size == 8:
            first = 2 * (header >> 9 & 0x7F)
            known[f"reg{first}"] = (value >> 32, mask >> 32)
            known[f"reg{first + 1}"] = (value & 0xFFFFFFFF, mask & 0xFFFFFFFF)
            continue
        name, value, mask = _flow_field(header, value, mask, size)
        if name.startswith(UNKNOWN):
            foreign.append(FieldMatch(name, value, mask))
        else:
            known[name] = (value, mask)
    return (*canonical(known), *sorted(foreign)), end + -length % 8
