"""Frames as bytes, right or wrong in any field, for attacks. Checksums are right unless a builder is told otherwise."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from tests.support import frames
from tests.support.frames import checksum, mac

ICMP, TCP, UDP, SCTP = 1, 6, 17, 132
IPV4, ARP, VLAN, IPV6 = 0x0800, 0x0806, 0x8100, 0x86DD
BROADCAST = "ff:ff:ff:ff:ff:ff"
MORE = 0x2000
"""More fragments follow (RFC 791)."""
FULL = 1400
"""Payload bytes of a fragment that Open vSwitch takes; it drops smaller ones (`ipf-set-min-frag`) but for the last."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a packet. Replace a field to lie about it. `hop` is the MAC that packets to it are sent to."""

    name: str
    address: IPv4Address
    mac: str
    hop: str = BROADCAST


def nobody(address: str, hop: str = "02:00:00:00:00:66") -> End:
    """An end that is no pod."""
    return End(address, IPv4Address(address), "02:00:00:00:00:66", hop)


def ether(source: str, target: str, kind: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> bytes:
    """A frame; `tags` are (ethertype, tag control information), outermost first. Not padded."""
    shims = b"".join(struct.pack("!HH", *tag) for tag in tags)
    return mac(target) + mac(source) + shims + struct.pack("!H", kind) + payload


@dataclass(frozen=True, slots=True)
class Ip:
    """The fields of an IPv4 header that attacks vary; None for what follows from the rest."""

    ttl: int = 64
    tos: int = 0
    ident: int = 1
    fragment: int = 0
    """The 16 bits of flags and offset (in units of 8 bytes)."""
    options: bytes = b""
    version: int = 4
    words: int | None = None
    total: int | None = None
    broken: bool = False
    """A wrong header checksum."""


PLAIN = Ip()


def packet(source: IPv4Address, target: IPv4Address, protocol: int, payload: bytes, how: Ip = PLAIN) -> bytes:
    """An IPv4 packet."""
    options = how.options + bytes(-len(how.options) % 4)
    words = 5 + len(options) // 4 if how.words is None else how.words
    total = 20 + len(options) + len(payload) if how.total is None else how.total
    head = (
        struct.pack(
            "!BBHHHBBH4s4s",
            how.version << 4 | words,
            how.tos,
            total,
            how.ident,
            how.fragment,
            how.ttl,
            protocol,
            0,
            source.packed,
            target.packed,
        )
        + options
    )
    value = checksum(head) ^ (0x5555 if how.broken else 0)
    return head[:10] + struct.pack("!H", value) + head[12:] + payload


def ip(a: End, b: End, protocol: int, payload: bytes = b"attack", how: Ip = PLAIN) -> bytes:
    """A frame with an IPv4 packet from `a` to `b`."""
    return ether(a.mac, b.hop, IPV4, packet(a.address, b.address, protocol, payload, how))


def udp(a: End, b: End, ports: tuple[int, int] = (7000, 7001), data: bytes = b"attack", how: Ip = PLAIN) -> bytes:
    """A UDP datagram."""
    return ip(a, b, UDP, frames.udp_payload(a.address, b.address, ports, data), how)


def tcp(
    a: End,
    b: End,
    ports: tuple[int, int],
    flags: int,
    *,
    data: bytes = b"",
    seq: int = 1000,
    ack: int = 0,
    broken: bool = False,
    how: Ip = PLAIN,
) -> bytes:
    """A TCP segment."""
    made = frames.tcp(a.address, b.address, ports, flags, eth_src=a.mac, seq=seq, ack=ack, data=data, broken=broken)
    return ip(a, b, TCP, made[34:], how)


def sctp(a: End, b: End, ports: tuple[int, int], kind: int = 1) -> bytes:
    """An SCTP packet of one chunk."""
    return ip(a, b, SCTP, frames.sctp(a.address, b.address, ports, eth_src=a.mac, kind=kind)[34:])


def icmp(a: End, b: End, kind: int, code: int = 0, rest: bytes = struct.pack("!HH", 42, 1), data: bytes = b"") -> bytes:
    """An ICMP message; `rest` are the four bytes behind its checksum."""
    body = struct.pack("!BBH", kind, code, 0) + rest + data
    return ip(a, b, ICMP, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def error(a: End, b: End, kind: int, code: int, about: bytes, *, data: bytes = b"") -> bytes:
    """An ICMP error about the packet in the frame `about`: its header, eight bytes of it, then `data`."""
    return icmp(a, b, kind, code, rest=struct.pack("!HH", 0, 1200), data=about[14 : 14 + 28] + data)


def fragments(frame: bytes, cuts: tuple[int, ...], *, ident: int = 4711) -> list[bytes]:
    """The packet of a frame without options, cut behind these payload bytes (multiples of 8)."""
    payload, places = frame[34:], (0, *cuts)
    pieces = zip(places, (*cuts, len(payload)), strict=True)
    return [fragment(frame, start, payload[start:end], ident=ident, more=end < len(payload)) for start, end in pieces]


def fragment(frame: bytes, start: int, piece: bytes, *, ident: int = 4711, more: bool) -> bytes:
    """A fragment with the frame's addresses and protocol that says it is at payload byte `start`."""
    how = Ip(ident=ident, fragment=start // 8 | (MORE if more else 0))
    return frame[:14] + packet(IPv4Address(frame[26:30]), IPv4Address(frame[30:34]), frame[23], piece, how)


def arp(
    a: End,
    operation: int,
    sender: tuple[str, IPv4Address],
    target: tuple[str, IPv4Address],
    *,
    to: str = BROADCAST,
    head: tuple[int, int, int, int] = (1, IPV4, 6, 4),
    kind: int = ARP,
) -> bytes:
    """An ARP packet; `sender` and `target` are hardware and protocol address, `head` says their kinds and sizes."""
    body = struct.pack("!HHBBH", *head, operation)
    for hardware, address in (sender, target):
        body += mac(hardware) + address.packed
    return ether(a.mac, to, kind, body)


def ipv6(a: End, mac_target: str, source: bytes, target: bytes, following: int, payload: bytes) -> bytes:
    """A frame with an IPv6 packet; checksums inside are the caller's."""
    head = struct.pack("!IHBB", 6 << 28, len(payload), following, 255)
    return ether(a.mac, mac_target, IPV6, head + source + target + payload)


def icmpv6(a: End, mac_target: str, source: bytes, target: bytes, kind: int, body: bytes) -> bytes:
    """A frame with an ICMPv6 message."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    pseudo = source + target + struct.pack("!II", len(message), 58)
    message = message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]
    return ipv6(a, mac_target, source, target, 58, message)


def tunnelled(inner: bytes, kind: str, key: int) -> bytes:
    """The UDP data of a VXLAN or Geneve packet."""
    if kind == "vxlan":
        return struct.pack("!II", 0x08000000, key << 8) + inner
    return struct.pack("!BBHI", 0, 0, 0x6558, key << 8) + inner
