"""IPv6, which pods do not have: none of it may go anywhere."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

from tests.attacks import craft
from tests.attacks.craft import BROADCAST, End
from tests.attacks.frameset import Aim, FrameSet
from tests.support.frames import mac

ALL_NODES, ALL_ROUTERS = IPv6Address("ff02::1").packed, IPv6Address("ff02::2").packed
EXTENSIONS = (0, 43, 44, 51, 60, 135, 139, 140)
"""Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, shim6."""


def _local(end: End) -> bytes:
    """The link-local address that follows from a MAC."""
    m = mac(end.mac)
    return IPv6Address("fe80::").packed[:8] + bytes([m[0] ^ 2]) + m[1:3] + b"\xff\xfe" + m[3:]


def _mapped(end: End, prefix: str) -> bytes:
    return IPv6Address(int(IPv6Address(prefix)) | int(end.address)).packed


def _ways(aim: Aim) -> Iterator[tuple[str, bytes, bytes]]:
    """Destination MAC, source and destination addresses."""
    for sender in (aim.attacker, aim.friend):
        yield aim.victim.hop, _local(sender), _local(aim.victim)
        yield "33:33:00:00:00:01", _local(sender), ALL_NODES
        yield BROADCAST, _local(sender), ALL_NODES
        for prefix in ("::ffff:0:0", "64:ff9b::", "2002::", "fd00::"):
            yield aim.victim.hop, _mapped(sender, prefix), _mapped(aim.victim, prefix)


def _neighbours(aim: Aim) -> Iterator[bytes]:
    """Solicitations, advertisements, redirects, echo, listeners."""
    option = b"\x02\x01" + mac(aim.attacker.mac)
    for to, source, target in _ways(aim):
        for kind in (128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 143, 1, 2, 3, 4):
            body = struct.pack("!I", 0x60000000) + target + source + option
            yield craft.icmpv6(aim.attacker, to, source, target, kind, body)


def _transport(aim: Aim) -> Iterator[bytes]:
    for to, source, target in _ways(aim):
        for protocol in (6, 17, 132, 4, 41, 47, 50, 58, 59):
            yield craft.ipv6(aim.attacker, to, source, target, protocol, struct.pack("!HH", 9000, 9000) + bytes(36))


def _extensions(aim: Aim) -> Iterator[bytes]:
    for to, source, target in _ways(aim):
        for kind in EXTENSIONS:
            for following in (17, 58, kind):
                payload = bytes([following, 0]) + bytes(6) + struct.pack("!HHHH", 9000, 9000, 8, 0)
                yield craft.ipv6(aim.attacker, to, source, target, kind, payload)
            yield craft.ipv6(aim.attacker, to, source, target, kind, b"")


SETS = (
    FrameSet("IPv6: neighbours, routers, echo, listeners", _neighbours, short=True, to_tables=True),
    FrameSet("IPv6: transport", _transport, to_tables=True),
    FrameSet("IPv6: extension headers", _extensions, to_tables=True),
)
