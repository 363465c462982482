"""One UDP port is open to the attacker: nothing else may come in beside it."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.attacks import craft
from tests.attacks.craft import FULL, MORE, UDP, Ip
from tests.attacks.frameset import Aim, FrameSet
from tests.attacks.ground import LISTEN, ONE_PORT_OPEN
from tests.support.frames import ACK, SYN

BIG = b"f" * 4000


def to_the_port(frame: bytes) -> bool:
    """Whether a frame is an IPv4 UDP datagram, whole or a fragment, which, if it has ports, is for the open one."""
    if frame[12:14] != b"\x08\x00" or frame[23] != UDP:
        return False
    later = int.from_bytes(frame[20:22], "big") & 0x1FFF
    return bool(later) or frame[36:38] == LISTEN.to_bytes(2, "big")


def _others(aim: Aim) -> Iterator[bytes]:
    """Other ports and other protocols, that port as source, and that number as port of other protocols."""
    for port in (1, 53, 80, 81, LISTEN - 1, LISTEN + 1, 65535):
        yield craft.udp(aim.attacker, aim.victim, (LISTEN, port))
    for flags in (SYN, ACK, SYN | ACK, 0):
        yield craft.tcp(aim.attacker, aim.victim, (40000, LISTEN), flags)
    yield craft.sctp(aim.attacker, aim.victim, (40000, LISTEN))
    yield craft.icmp(aim.attacker, aim.victim, 8, rest=struct.pack("!HH", LISTEN, LISTEN))
    for protocol in (0, 2, 4, 33, 47, 136, 253):
        yield craft.ip(aim.attacker, aim.victim, protocol, struct.pack("!HHHH", LISTEN, LISTEN, 8, 0))


def _fragments(aim: Aim) -> Iterator[bytes]:
    """Fragments for other ports, two firsts of one datagram, and later ones that write other ports over the first's."""
    closed = craft.udp(aim.attacker, aim.victim, (9001, 80), BIG)
    opened = craft.udp(aim.attacker, aim.victim, (9001, LISTEN), BIG)
    yield from craft.fragments(closed, (FULL, 2 * FULL), ident=1)
    yield from reversed(craft.fragments(closed, (FULL, 2 * FULL), ident=2))
    for number, (one, two) in enumerate(((opened, closed), (closed, opened)), start=3):
        yield craft.fragments(one, (FULL, 2 * FULL), ident=number)[0]
        yield from craft.fragments(two, (FULL, 2 * FULL), ident=number)
        yield from craft.fragments(two, (FULL, 2 * FULL), ident=number + 10)[1:]
    for start in (0, 8, 16):
        yield craft.fragment(opened, start, closed[34 : 34 + FULL], ident=20 + start, more=True)
        yield craft.fragment(opened, FULL + start, opened[34 + FULL :][:FULL], ident=20 + start, more=False)


def _split_headers(aim: Aim) -> Iterator[bytes]:
    """TCP whose ports are in one fragment and whose flags are in the next; an unfinished datagram's ident again."""
    whole = craft.tcp(aim.attacker, aim.victim, (40001, LISTEN), SYN, data=BIG)
    yield from craft.fragments(whole, (8, 8 + FULL, 8 + 2 * FULL), ident=31)
    head = Ip(ident=32, fragment=MORE)
    yield craft.udp(aim.attacker, aim.victim, (9001, LISTEN), b"x" * (FULL - 8), how=head)
    yield from craft.fragments(craft.udp(aim.attacker, aim.victim, (9001, 80), BIG), (FULL, 2 * FULL), ident=32)


SETS = tuple(
    FrameSet(f"one port open: {name}", frames, admits=to_the_port, duels=ONE_PORT_OPEN, short=True)
    for name, frames in (
        ("other ports and protocols", _others),
        ("fragments", _fragments),
        ("headers split over fragments", _split_headers),
    )
)
