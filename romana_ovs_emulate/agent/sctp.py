"""Encodes and decodes INIT and INIT ACK, which is enough SCTP to probe a port and to answer (RFC 9260).

Many kernels have no SCTP; raw sockets do. The answer's State Cookie, which only its sender understands,
carries the pod's name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PROTOCOL = 132
INIT = 1
INIT_ACK = 2
_COOKIE = 7
_WINDOW = 65536
_STREAMS = 1
_HEADER = struct.Struct("!HHII")
_CHUNK = struct.Struct("!BBHIIHHI")
_PARAMETER = struct.Struct("!HH")


def _table() -> tuple[int, ...]:
    """The byte table of CRC32c, reflected polynomial 0x82f63b78 (RFC 9260 appendix A)."""
    result = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        result.append(value)
    return tuple(result)


_CRC = _table()


@dataclass(frozen=True, slots=True)
class Message:
    """An INIT or INIT ACK. `tag` is the verification tag (0 in an INIT), `initiate` the sender's own."""

    source: int
    destination: int
    tag: int
    kind: int
    initiate: int
    cookie: bytes = b""


def crc32c(data: bytes) -> int:
    """The CRC32c of `data`."""
    value = 0xFFFFFFFF
    for byte in data:
        value = _CRC[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def encode(message: Message) -> bytes:
    """The SCTP packet (without IP header), its checksum set."""
    parameter = b""
    if message.cookie:
        parameter = _PARAMETER.pack(_COOKIE, _PARAMETER.size + len(message.cookie)) + message.cookie
    length = _CHUNK.size + len(parameter)
    chunk = _CHUNK.pack(message.kind, 0, length, message.initiate, _WINDOW, _STREAMS, _STREAMS, message.initiate)
    body = chunk + parameter + bytes(-len(parameter) % 4)
    head = _HEADER.pack(message.source, message.destination, message.tag, 0)
    checksum = struct.pack("<I", crc32c(head + body))
    return head[:8] + checksum + body


def decode(packet: bytes) -> Message | None:
    """The INIT or INIT ACK in an SCTP packet (without IP header), or None when it holds something else."""
    if len(packet) < _HEADER.size + _CHUNK.size:
        return None
    source, destination, tag, _ = _HEADER.unpack_from(packet)
    if struct.pack("<I", crc32c(packet[:8] + bytes(4) + packet[12:])) != packet[8:12]:
        return None
    kind, _, length, initiate, *_ = _CHUNK.unpack_from(packet, _HEADER.size)
    if kind not in (INIT, INIT_ACK):
        return None
    return Message(source, destination, tag, kind, initiate, _cookie(packet[_HEADER.size :][_CHUNK.size : length]))


def payload(datagram: bytes) -> bytes:
    """What follows the IPv4 header, of a datagram as a raw socket delivers it."""
    return datagram[(datagram[0] & 0xF) * 4 :]


def _cookie(parameters: bytes) -> bytes:
    while len(parameters) >= _PARAMETER.size:
        kind, length = _PARAMETER.unpack_from(parameters)
        if kind == _COOKIE:
            return parameters[_PARAMETER.size : length]
        parameters = parameters[max(4, length + -length % 4) :]
    return b""
