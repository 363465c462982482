"""Probes whether a switch tracks SCTP by ports, with three packets in a conntrack zone of their own.

Open vSwitch 3.2 has an SCTP tracker in its userspace datapath, the kernel always had one; older userspace datapaths
track all associations between two addresses as one connection. The probe commits a connection whose source address is
translated, and sends two packets the other way, to the translated address: one with the ports of the connection, which
shows that it exists, and one with other ports. A packet whose address is translated back was tracked as a reply. The
packets come from the controller and return to it: nothing is forwarded, and no flow is needed.

Sources: OpenFlow 1.5.1 sections 7.3.6 and 7.4.1; ovs-actions(7), ct; nicira-ext.h and ofp-actions.c of Open vSwitch
for the bytes of `nat`; RFC 9260 sections 3.1, 3.3.2 and appendix A.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from romana_ovs.switch.action_wire import CT, CT_COMMIT, EXPERIMENTER, NICIRA, NO_TABLE, OUTPUT
from romana_ovs.switch.wire import NO_BUFFER, message

PROBE_PACKETS = 3
PROBE_ZONE = 0xFFFF
"""The conntrack zone of these packets; no packet of a pod is ever in it."""
_CLIENT, _TRANSLATED, _SERVER = (IPv4Address(f"192.0.2.{number}") for number in (1, 2, 3))
"""Addresses for documentation (RFC 5737), which no host has."""
_CONNECTION, _OTHER = (0x5243, 0x524F), (0x5253, 0x5256)
"""Ports of the client and the server: of the connection, and others."""

_PACKET_OUT = 13
_CONTROLLER = 0xFFFFFFFD
_IN_PORT = struct.pack("!HHII4x", 1, 12, 0x80000004, _CONTROLLER)
_ALL_OF_IT = 0xFFE5
_NAT, _NAT_SOURCE, _NAT_IPV4 = 36, 1, 1
_SCTP = 132
_INIT, _INIT_ACK = 1, 2
_TAG, _WINDOW = 0x524F4D41, 0x10000
_ETHERNET = bytes.fromhex("0a58000000020a58000000010800")
_PACKET_IN_HEAD = 16
"""Bytes of a packet-in before its match: buffer, length, reason, table, cookie."""


def probe_messages(first_xid: int) -> tuple[bytes, ...]:
    """The three packets, as packet-out messages with xids from `first_xid`."""
    translate = _ct(CT_COMMIT, _nat(_NAT_SOURCE, _TRANSLATED))
    look = _ct(0, _nat(0, None)) + _to_controller()
    # The entry times out by itself; a repeated probe may find it still there.
    packets = (
        (_packet(_CLIENT, _SERVER, _chunk(_INIT, *_CONNECTION)), translate),
        (_packet(_SERVER, _TRANSLATED, _chunk(_INIT_ACK, *reversed(_CONNECTION))), look),
        (_packet(_SERVER, _TRANSLATED, _chunk(_INIT, *reversed(_OTHER))), look),
    )
    return tuple(_packet_out(packet, actions, xid) for xid, (packet, actions) in enumerate(packets, first_xid))


def seen_in(body: memoryview) -> tuple[bool, bool] | None:
    """Of a packet-in of the probe: whether it has the ports of the connection, and whether it was tracked as a reply.
    None for any other packet.
    """
    at = _PACKET_IN_HEAD
    if len(body) < at + 4:
        return None
    length = int.from_bytes(body[at + 2 : at + 4], "big")
    packet = bytes(body[at + length + -length % 8 + 2 :])
    ip = packet[14:]
    if len(ip) < 24 or packet[12:14] != b"\x08\x00" or ip[0] != 0x45 or ip[9] != _SCTP:
        return None
    source, destination = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    ports = struct.unpack_from("!HH", ip, 20)
    if source != _SERVER or destination not in (_CLIENT, _TRANSLATED):
        return None
    if ports not in (_CONNECTION[::-1], _OTHER[::-1]):
        return None
    return ports == _CONNECTION[::-1], destination == _CLIENT


def tracks_ports(seen: dict[bool, bool]) -> bool | None:
    """Whether the switch tracks ports; None when a packet is missing, or when there was no connection at all.

    `seen`: by whether a packet had the ports of the connection, whether it was tracked as a reply.
    """
    if len(seen) < 2 or not seen[True]:
        return None
    return not seen[False]


def _packet_out(packet: bytes, actions: bytes, xid: int) -> bytes:
    return message(_PACKET_OUT, xid, struct.pack("!IHxx", NO_BUFFER, len(actions)) + _IN_PORT + actions + packet)


def _ct(flags: int, nested: bytes) -> bytes:
    length = 24 + len(nested)
    return struct.pack("!HHIHHIHB3xH", EXPERIMENTER, length, NICIRA, CT, flags, 0, PROBE_ZONE, NO_TABLE, 0) + nested


def _nat(flags: int, address: IPv4Address | None) -> bytes:
    body = address.packed if address is not None else b""
    length = 16 + len(body)
    full = length + -length % 8
    head = struct.pack("!HHIH2xHH", EXPERIMENTER, full, NICIRA, _NAT, flags, _NAT_IPV4 if body else 0)
    return (head + body).ljust(full, b"\0")


def _to_controller() -> bytes:
    return struct.pack("!HHIH6x", OUTPUT, 16, _CONTROLLER, _ALL_OF_IT)


def _packet(source: IPv4Address, destination: IPv4Address, sctp: bytes) -> bytes:
    """An Ethernet frame."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(sctp), 0, 0, 64, _SCTP, 0) + source.packed + destination.packed
    head = head[:10] + struct.pack("!H", _internet_checksum(head)) + head[12:]
    return _ETHERNET + head + sctp


def _chunk(kind: int, source_port: int, destination_port: int) -> bytes:
    """An SCTP packet with nothing but this chunk; an INIT goes without verification tag, what answers it has one."""
    chunk = struct.pack("!BBHIIHHI", kind, 0, 20, _TAG, _WINDOW, 1, 1, 1)
    head = struct.pack("!HHI", source_port, destination_port, _TAG if kind == _INIT_ACK else 0)
    return head + struct.pack("<I", crc32c(head + bytes(4) + chunk)) + chunk


def _internet_checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def crc32c(data: bytes) -> int:
    """The checksum of SCTP (RFC 9260, appendix A); on the wire its lowest byte comes first."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF
