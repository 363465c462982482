"""IPv4 headers that are wrong or rare, and fragments that do not fit."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.attacks import craft
from tests.attacks.craft import FULL, MORE, End, Ip
from tests.attacks.frameset import Aim, FrameSet
from tests.support.frames import ACK, SYN

BIG = b"f" * 4000


def _each(aim: Aim, how: Ip) -> Iterator[bytes]:
    yield craft.udp(aim.attacker, aim.victim, (9000, 9000), how=how)
    yield craft.tcp(aim.attacker, aim.victim, (9000, 80), SYN, how=how)
    yield craft.ip(aim.attacker, aim.victim, 253, how=how)


def _options(aim: Aim) -> Iterator[bytes]:
    """No-ops, record route, timestamps, router alert, source routes by the nodes and by the ally."""
    hops = b"".join(end.address.packed for end in (*aim.nodes, aim.ally))
    routes = [bytes([kind, 3 + len(hops), pointer]) + hops for kind in (131, 137, 7) for pointer in (4, 8, 40)]
    for options in (
        b"\x01" * 4,
        b"\x01" * 40,
        b"\x44\x0c\x05\x01" + bytes(8),
        b"\x94\x04\0\0",
        b"\x82\x0b" + bytes(9),
        b"\x07\xff\x04",
        b"\x83\x00\x00",
        *routes,
    ):
        yield from _each(aim, Ip(options=options))
    for hop in (*aim.nodes, aim.ally):
        via = replace(hop, hop=aim.victim.hop)
        option = b"\x83\x07\x04" + aim.victim.address.packed
        if hop is not aim.ally:
            yield craft.udp(aim.attacker, via, (9000, 9000), how=Ip(options=option))


def _hops(aim: Aim) -> Iterator[bytes]:
    for ttl in (0, 1, 2, 255):
        for tos in (0, 1, 2, 3, 0x10, 0xB8, 0xFF):
            yield from _each(aim, Ip(ttl=ttl, tos=tos))


def _headers(aim: Aim) -> Iterator[bytes]:
    """Wrong version, header length, total length, checksum; the reserved flag."""
    for how in (
        *(Ip(version=version) for version in (0, 3, 5, 6, 15)),
        *(Ip(words=words) for words in (0, 4, 6, 15)),
        *(Ip(total=total) for total in (0, 19, 20, 21, 27, 1500, 65535)),
        Ip(broken=True),
        Ip(fragment=0x8000),
        Ip(fragment=0x4000),
        Ip(fragment=0xC000),
    ):
        yield from _each(aim, how)


def _transport(aim: Aim) -> Iterator[bytes]:
    """Wrong checksums and lengths of UDP and TCP, and headers that end early; ICMPv6 in IPv4."""
    for flags in (SYN, ACK, 0):
        yield craft.tcp(aim.attacker, aim.victim, (9000, 80), flags, broken=True)
    for length in (0, 7, 8, 9, 100, 65535):
        yield craft.ip(aim.attacker, aim.victim, 17, struct.pack("!HHHH", 9000, 9000, length, 0) + b"attack")
    for head in range(0, 16):
        yield craft.ip(aim.attacker, aim.victim, 6, struct.pack("!HHIIHHHH", 9000, 80, 1, 1, head << 12 | SYN, 9, 0, 0))
    for protocol in (1, 6, 17, 58, 132):
        for size in range(0, 12):
            yield craft.ip(aim.attacker, aim.victim, protocol, b"\x23\x28\x23\x28"[:size].ljust(size, b"\0"))


def _is_complete(aim: Aim, source: End | None = None) -> bytes:
    return craft.udp(source or aim.attacker, aim.victim, (9000, 9000), BIG)


def _in_order(aim: Aim) -> Iterator[bytes]:
    yield from craft.fragments(_is_complete(aim), (FULL, 2 * FULL))


def _last_first(aim: Aim) -> Iterator[bytes]:
    yield from reversed(craft.fragments(_is_complete(aim), (FULL, 2 * FULL)))


def _tiny(aim: Aim) -> Iterator[bytes]:
    """First fragments that hold no whole header, as of old against filters; UDP and TCP."""
    for whole in (_is_complete(aim), craft.tcp(aim.attacker, aim.victim, (9000, 80), SYN, data=BIG)):
        for first in (8, 16, 24, 64, 512):
            yield from craft.fragments(whole, (first, first + FULL, first + 2 * FULL), ident=first)


def _teardrop(aim: Aim) -> Iterator[bytes]:
    """Overlaps: inside, before, the same again with other ports, and past 65,535 bytes."""
    whole = _is_complete(aim)
    other = craft.udp(aim.attacker, aim.victim, (9000, 80), BIG)
    yield craft.fragment(whole, 0, whole[34 : 34 + FULL], more=True)
    yield craft.fragment(whole, 8, whole[42 : 42 + 24], more=False)
    for start in (0, 8, FULL - 8):
        yield craft.fragment(whole, 0, whole[34 : 34 + FULL], ident=start + 1, more=True)
        yield craft.fragment(other, start, other[34 : 34 + FULL], ident=start + 1, more=True)
        yield craft.fragment(whole, FULL, whole[34 + FULL : 34 + 2 * FULL], ident=start + 1, more=False)
    for start in (65528, 65528 - FULL, 64000):
        yield craft.fragment(whole, 0, whole[34 : 34 + FULL], ident=start, more=True)
        yield craft.fragment(whole, start, b"d" * FULL, ident=start, more=False)


def _only_later(aim: Aim) -> Iterator[bytes]:
    """Later fragments without a first one, in the middle and at the end, of every protocol that has ports."""
    for protocol in (1, 6, 17, 132, 253):
        for start in (8, 1480, 4000, 65000):
            for more in (0, MORE):
                how = Ip(ident=start & 0xFFFF, fragment=start // 8 | more)
                yield craft.ip(aim.attacker, aim.victim, protocol, b"x" * 1200, how)


def _joined_to_a_friends(aim: Aim) -> Iterator[bytes]:
    """The friend's address in the first, or in the later, fragments; the attacker's in the others."""
    friends, own = _is_complete(aim, aim.friend), _is_complete(aim)
    as_friend = replace(aim.friend, mac=aim.attacker.mac)
    lied = _is_complete(aim, as_friend)
    for first, rest in ((friends, own), (own, friends), (lied, own), (own, lied), (lied, lied)):
        yield craft.fragments(first, (FULL, 2 * FULL))[0]
        yield from craft.fragments(rest, (FULL, 2 * FULL))[1:]


_FRAGMENTS: tuple[tuple[str, Callable[[Aim], Iterator[bytes]], bool], ...] = (
    ("in order", _in_order, True),
    ("the last first", _last_first, True),
    ("tiny", _tiny, False),
    ("overlapping, teardrop, ping of death", _teardrop, False),
    ("later ones alone", _only_later, False),
    ("joined to a friend's", _joined_to_a_friends, False),
)
SETS = (
    FrameSet("odd: IP options and source routes", _options, short=True),
    FrameSet("odd: TTL and TOS", _hops),
    FrameSet("odd: wrong IP headers", _headers, short=True),
    FrameSet("odd: wrong UDP and TCP headers", _transport),
    *(FrameSet(f"fragments: {name}", frames, works=works, short=True) for name, frames, works in _FRAGMENTS),
)
