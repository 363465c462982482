"""Ethernet frames as bytes, with right checksums, for tests that hand packets to a real switch."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Frame:
    """An IPv4 packet in Ethernet; `payload` is the whole transport part."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    payload: bytes
    eth_src: str
    eth_dst: str = "0a:58:00:00:00:01"
    fragment: int = 0
    """The 16 bits of flags and offset."""
    ident: int = 1

    def bytes(self) -> bytes:
        """On the wire."""
        total = 20 + len(self.payload)
        head = struct.pack(
            "!BBHHHBBH4s4s",
            0x45,
            0,
            total,
            self.ident,
            self.fragment,
            64,
            self.protocol,
            0,
            self.source.packed,
            self.destination.packed,
        )
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
        return mac(self.eth_dst) + mac(self.eth_src) + b"\x08\x00" + head + self.payload


def mac(text: str) -> bytes:
    """The six bytes of a MAC address."""
    return bytes.fromhex(text.replace(":", ""))


def _pseudo(source: IPv4Address, destination: IPv4Address, protocol: int, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack("!BBH", 0, protocol, length)


def tcp(
    source: IPv4Address,
    destination: IPv4Address,
    ports: tuple[int, int],
    flags: int,
    *,
    eth_src: str,
    seq: int = 1000,
    ack: int = 0,
    data: bytes = b"",
    broken: bool = False,
) -> bytes:
    """A TCP segment; `broken` gives it a wrong checksum, which conntrack calls invalid."""
    head = struct.pack("!HHIIBBHHH", *ports, seq, ack, 5 << 4, flags, 65535, 0, 0)
    length = len(head) + len(data)
    value = checksum(_pseudo(source, destination, 6, length) + head + data)
    head = head[:16] + struct.pack("!H", value ^ (0x5555 if broken else 0)) + head[18:]
    return Frame(source, destination, 6, head + data, eth_src).bytes()


def udp(
    source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], *, eth_src: str, data: bytes = b"x"
) -> bytes:
    """A UDP datagram."""
    return Frame(source, destination, 17, udp_payload(source, destination, ports, data), eth_src).bytes()


def udp_payload(source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], data: bytes) -> bytes:
    """UDP header and data, with checksum."""
    head = struct.pack("!HHHH", *ports, 8 + len(data), 0)
    value = checksum(_pseudo(source, destination, 17, 8 + len(data)) + head + data) or 0xFFFF
    return head[:6] + struct.pack("!H", value) + data


def udp_fragments(
    source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], *, eth_src: str, size: int = 4000
) -> list[bytes]:
    """A datagram of `size` data bytes in fragments of 1400: Open vSwitch refuses less than 1200, but for the last."""
    whole = udp_payload(source, destination, ports, b"f" * size)
    pieces = [whole[start : start + 1400] for start in range(0, len(whole), 1400)]
    more = 0x2000
    return [
        Frame(
            source,
            destination,
            17,
            piece,
            eth_src,
            fragment=(number * 1400 // 8) | (more if number < len(pieces) - 1 else 0),
            ident=77,
        ).bytes()
        for number, piece in enumerate(pieces)
    ]


def sctp(
    source: IPv4Address, destination: IPv4Address, ports: tuple[int, int], *, eth_src: str, kind: int = 1
) -> bytes:
    """An SCTP packet of one chunk (0 DATA, 1 INIT, 2 INIT ACK, 10 COOKIE ECHO, 11 COOKIE ACK)."""
    return Frame(source, destination, 132, sctp_payload(ports, kind), eth_src).bytes()


def sctp_payload(ports: tuple[int, int], kind: int) -> bytes:
    """SCTP header and one chunk, with CRC32c. Every end asks for verification tag 7, which an INIT cannot have yet."""
    chunk = {
        0: struct.pack("!BBHIHHI4s", 0, 3, 20, 1, 0, 0, 0, b"data"),
        10: struct.pack("!BBH4s", 10, 0, 8, b"cook"),
        11: struct.pack("!BBH", 11, 0, 4),
    }.get(kind, struct.pack("!BBHIIHHI", kind, 0, 20, 7, 65535, 1, 1, 1))
    head = struct.pack("!HHII", *ports, 0 if kind == 1 else 7, 0)
    return head[:8] + struct.pack("<I", crc32c(head + chunk)) + chunk


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as SCTP wants it (RFC 9260 appendix A)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def icmp_error(router: IPv4Address, about: bytes, *, eth_src: str, code: int = 4, mtu: int = 1200) -> bytes:
    """Destination unreachable (fragmentation needed) from `router` about the frame `about`."""
    inner = about[14 : 14 + 28]
    body = struct.pack("!BBHHH", 3, code, 0, 0, mtu) + inner
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    target = IPv4Address(about[26:30])
    return Frame(router, target, 1, body, eth_src).bytes()


def echo(source: IPv4Address, destination: IPv4Address, *, eth_src: str, kind: int = 8) -> bytes:
    """An ICMP echo request (8) or reply (0)."""
    body = struct.pack("!BBHHH", kind, 0, 0, 42, 1)
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    return Frame(source, destination, 1, body, eth_src).bytes()


def arp(
    sender: IPv4Address, target: IPv4Address, *, eth_src: str, operation: int = 1, sender_mac: str | None = None
) -> bytes:
    """An ARP packet."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac(sender_mac or eth_src) + sender.packed
    return mac("ff:ff:ff:ff:ff:ff") + mac(eth_src) + b"\x08\x06" + body + b"\0" * 6 + target.packed


def ports_of(frame: bytes) -> tuple[int, int]:
    """Source and destination port of an unfragmented TCP, UDP or SCTP frame."""
    return struct.unpack("!HH", frame[34:38])


def source_of(frame: bytes) -> str:
    """The source address of an IPv4 frame."""
    return socket.inet_ntoa(frame[26:30])


def udp_hex(source: str, target: str) -> str:
    """A UDP packet as ovs-ofctl takes it, in hexadecimal."""
    ends = b"".join(IPv4Address(address).packed for address in (source, target))
    words = struct.unpack("!9H", bytes.fromhex("4500001c000000004011") + ends)
    checksum = 0xFFFF - (sum(words) % 0xFFFF)
    return f"0a58000000020a580000000108004500001c000000004011{checksum:04x}{ends.hex()}0064006500080000"
