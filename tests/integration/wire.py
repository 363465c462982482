"""Packets of the interpreter as bytes of Ethernet frames, and back."""

from __future__ import annotations

import struct
from dataclasses import replace

from romana_ovs.pipeline.fields import ETH_ARP, ETH_IP, ICMP, SCTP, TCP, UDP
from romana_ovs.simulator.packet import FRAG_FIRST, FRAG_LATER, Packet
from tests.support.frames import sctp_payload

MARKER = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
"""A frame of the local experimental type, sent after another one to see that that one is done."""
FRAGMENT_PAYLOAD = 1304
"""Open vSwitch takes smaller first fragments for an attack (`ipf-set-min-frag`, 1200 bytes)."""
WINDOW = 0x2000
SEQUENCE = 1000


def frame(packet: Packet) -> bytes:
    """The frame of `packet`. TCP segments carry no data and sequence 1000, unless out of window."""
    head = packet.eth_dst.to_bytes(6, "big") + packet.eth_src.to_bytes(6, "big")
    if packet.vlan_tci:
        head += struct.pack("!HH", 0x8100, packet.vlan_tci & 0x0FFF)
    head += struct.pack("!H", packet.eth_type)
    if packet.eth_type == ETH_ARP:
        body = struct.pack("!HHBBH", 1, ETH_IP, 6, 4, packet.arp_op)
        body += packet.arp_sha.to_bytes(6, "big") + packet.arp_spa.to_bytes(4, "big")
        body += packet.arp_tha.to_bytes(6, "big") + packet.arp_tpa.to_bytes(4, "big")
    else:
        body = ip_datagram(packet)
    return (head + body).ljust(60, b"\0")


def ip_datagram(packet: Packet) -> bytes:
    """The IPv4 datagram; a fragment is half of the payload `FRAGMENT_PAYLOAD` behind its header."""
    offset = 0
    whole = _segment(packet)
    if packet.nw_frag == FRAG_LATER:
        offset, whole = FRAGMENT_PAYLOAD // 8, b"\xaa" * FRAGMENT_PAYLOAD
    elif packet.nw_frag == FRAG_FIRST:
        offset, whole = 0x2000, whole[:FRAGMENT_PAYLOAD]
    total = 20 + len(whole)
    head = struct.pack("!BBHHHBBH", 0x45, 0, total, packet.ip_id, offset, 64, packet.nw_proto, 0)
    ends = packet.nw_src.to_bytes(4, "big") + packet.nw_dst.to_bytes(4, "big")
    head += ends
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + whole


def _segment(packet: Packet) -> bytes:
    ends = packet.nw_src.to_bytes(4, "big") + packet.nw_dst.to_bytes(4, "big")
    data = b"\xaa" * (2 * FRAGMENT_PAYLOAD - 8) if packet.nw_frag else b""
    if packet.nw_proto == TCP:
        sequence = SEQUENCE if packet.in_window else 0x7FFF0000
        segment = struct.pack(
            "!HHIIHHHH", packet.tp_src, packet.tp_dst, sequence, SEQUENCE, 5 << 12 | packet.tcp_flags, WINDOW, 0, 0
        )
        segment += b"" if packet.in_window else b"\xaa" * 8
        return _with_checksum(segment, 16, ends + struct.pack("!HH", TCP, len(segment)))
    if packet.nw_proto == UDP:
        # A checksum of 0 says that there is none, so fragments need not agree on it (RFC 768).
        return struct.pack("!HHHH", packet.tp_src, packet.tp_dst, 8 + len(data), 0) + data
    if packet.nw_proto == SCTP:
        return sctp_payload((packet.tp_src, packet.tp_dst), packet.sctp_chunk)
    if packet.nw_proto == ICMP:
        rest = struct.pack("!HH", packet.icmp_id, 0)
        if packet.inner is not None:
            rest = bytes(4) + ip_datagram(packet.inner)[:28]
        return _with_checksum(struct.pack("!BBH", packet.icmp_type, packet.icmp_code, 0) + rest, 2, b"")
    return bytes(20)


def _with_checksum(segment: bytes, place: int, pseudo: bytes) -> bytes:
    return segment[:place] + struct.pack("!H", _checksum(pseudo + segment)) + segment[place + 2 :]


def _checksum(data: bytes) -> int:
    padded = data + bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def packet_of(data: bytes, like: Packet) -> Packet:
    """The packet that `data` is; what a frame does not show (payload, window, id) is taken from `like`."""
    found = replace(
        like,
        eth_dst=int.from_bytes(data[:6], "big"),
        eth_src=int.from_bytes(data[6:12], "big"),
        vlan_tci=0,
        tun_src=0,
        tun_dst=0,
    )
    position = 12
    if data[12:14] == b"\x81\x00":
        found = replace(found, vlan_tci=0x1000 | int.from_bytes(data[14:16], "big"))
        position = 16
    kind = int.from_bytes(data[position : position + 2], "big")
    body = data[position + 2 :]
    if kind == ETH_ARP:
        return replace(
            found,
            eth_type=kind,
            arp_op=int.from_bytes(body[6:8], "big"),
            arp_sha=int.from_bytes(body[8:14], "big"),
            arp_spa=int.from_bytes(body[14:18], "big"),
            arp_tha=int.from_bytes(body[18:24], "big"),
            arp_tpa=int.from_bytes(body[24:28], "big"),
        )
    return _ip_of(replace(found, eth_type=kind), body)


def _ip_of(found: Packet, body: bytes) -> Packet:
    flags = int.from_bytes(body[6:8], "big")
    fragment = FRAG_LATER if flags & 0x1FFF else FRAG_FIRST if flags & 0x2000 else 0
    found = replace(
        found,
        nw_src=int.from_bytes(body[12:16], "big"),
        nw_dst=int.from_bytes(body[16:20], "big"),
        nw_proto=body[9],
        nw_frag=fragment,
    )
    if fragment == FRAG_LATER:
        return replace(found, tp_src=0, tp_dst=0, tcp_flags=0, icmp_type=0, icmp_code=0)
    if found.nw_proto == ICMP:
        return replace(found, icmp_type=body[20], icmp_code=body[21])
    if found.nw_proto not in (TCP, UDP, SCTP):
        return found
    source, target = struct.unpack_from("!HH", body, 20)
    flags = struct.unpack_from("!H", body, 32)[0] & 0x0FFF if found.nw_proto == TCP else 0
    return replace(found, tp_src=source, tp_dst=target, tcp_flags=flags)
