"""Packets that pretend to belong to a connection."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from tests.attacks import craft
from tests.attacks.frameset import Aim, FrameSet
from tests.attacks.ground import LISTEN, POLICY, SEND, SHARED, TENANT
from tests.support.frames import ACK, FIN, PSH, RST, SYN

EVERYBODY = TENANT + POLICY + SHARED
MIXES = tuple(
    sorted(
        {
            0,
            FIN,
            RST,
            ACK,
            PSH | ACK,
            FIN | ACK,
            RST | ACK,
            SYN | ACK,
            SYN | FIN,
            SYN | RST,
            SYN | FIN | RST | ACK,
            PSH,
            FIN | PSH | 0x20,
            0x20,
            0x3F,
            0xFF,
            SYN | 0xC0,
            ACK | 0x40,
        }
    )
)


def _flags(aim: Aim) -> Iterator[bytes]:
    """Every mix of flags but a SYN alone, first on its ports."""
    for number, flags in enumerate(MIXES):
        for port in (80, 9000):
            yield craft.tcp(aim.attacker, aim.victim, (20000 + number, port), flags, seq=5000, ack=6000, data=b"attack")


def _middle(aim: Aim) -> Iterator[bytes]:
    """SYN, then what would follow if it had been let in; then data on fixed ports at both ends."""
    ports = (21000, 80)
    yield craft.tcp(aim.attacker, aim.victim, ports, SYN, seq=1000)
    for step in range(4):
        yield craft.tcp(aim.attacker, aim.victim, ports, ACK, seq=1001 + step, ack=1, data=b"attack")
    for port in (80, 9000, 21001):
        for flags in (SYN | ACK, ACK, PSH | ACK, FIN | ACK, RST):
            yield craft.tcp(aim.attacker, aim.victim, (port, port), flags, seq=1, ack=1, data=b"attack")


def _answers_first(aim: Aim) -> Iterator[bytes]:
    """SYN+ACK and data from well-known ports to ports of clients, as a server answers."""
    for source in (53, 80, 81, 443, 9000):
        for target in (32768, 40000, 60999, 9000):
            yield craft.tcp(aim.attacker, aim.victim, (source, target), SYN | ACK, seq=1, ack=1001)
            yield craft.tcp(aim.attacker, aim.victim, (source, target), ACK, seq=2, ack=1001, data=b"attack")
            yield craft.udp(aim.attacker, aim.victim, (source, target))


def _icmp(aim: Aim) -> Iterator[bytes]:
    """Every ICMP type, replies without their questions too."""
    for kind in range(256):
        for code in (0, 1, 13):
            yield craft.icmp(aim.attacker, aim.victim, kind, code, data=b"attack" * 8)


def _sctp(aim: Aim) -> Iterator[bytes]:
    """Every kind of chunk."""
    for kind in (*range(20), 64, 128, 130, 192, 193, 255):
        for ports in ((80, 9999), (40000, 80), (9000, 9000)):
            yield craft.sctp(aim.attacker, aim.victim, ports, kind)


def _dhcp(aim: Aim) -> Iterator[bytes]:
    """Offers and discoveries, to the victim and to everybody."""
    everybody = craft.nobody("255.255.255.255", craft.BROADCAST)
    for operation in (1, 2):
        body = struct.pack("!BBBBI", operation, 1, 6, 0, 7) + bytes(228) + b"\x63\x82\x53\x63\x35\x01\x02\xff"
        for ports in ((67, 68), (68, 67)):
            for source in (aim.attacker, replace(aim.attacker, address=craft.nobody("0.0.0.0").address)):
                yield craft.udp(source, aim.victim, ports, body)
                yield craft.udp(source, everybody, ports, body)


def _live(aim: Aim) -> Iterator[bytes]:
    """Data and resets on the ports of a connection that the victim has with its friend, as the attacker and as it."""
    for source in (aim.attacker, replace(aim.attacker, address=aim.friend.address), aim.friend):
        yield craft.udp(source, aim.victim, (SEND, LISTEN))
        for flags in (RST, RST | ACK, ACK, FIN | ACK, SYN):
            yield craft.tcp(source, aim.victim, (SEND, LISTEN), flags, seq=1, ack=1)


SETS = (
    FrameSet("connections: flags", _flags, duels=EVERYBODY, short=True),
    FrameSet("connections: in the middle", _middle, duels=EVERYBODY, short=True),
    FrameSet("connections: answers first", _answers_first, duels=TENANT + POLICY),
    FrameSet("connections: ICMP types", _icmp, duels=EVERYBODY, short=True),
    FrameSet("connections: SCTP chunks", _sctp, duels=EVERYBODY),
    FrameSet("connections: DHCP", _dhcp),
    FrameSet("connections: on a friend's live ports", _live, short=True),
)
