"""What is wrapped around, or stands in the place of, an ordinary frame."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from tests.attacks import craft
from tests.attacks.craft import ARP, BROADCAST, IPV4, VLAN
from tests.attacks.frameset import Aim, FrameSet
from tests.support.frames import SYN, mac

TPIDS = (0x8100, 0x88A8, 0x9100)
ETHERTYPES = (
    0x0000,
    0x0027,
    0x0600,
    0x0801,
    0x0842,
    0x22F3,
    0x6003,
    0x6558,
    0x809B,
    0x8137,
    0x880B,
    0x8863,
    0x8864,
    0x888E,
    0x88B5,
    0x88CC,
    0x88E5,
    0x88F7,
    0x8902,
    0x8906,
    0x894F,
    0xFFFF,
)
RESERVED = (
    "01:80:c2:00:00:00",
    "01:80:c2:00:00:03",
    "01:80:c2:00:00:0e",
    "01:00:0c:cc:cc:cc",
    "33:33:00:00:00:01",
    "01:00:5e:00:00:fb",
    BROADCAST,
)


def _inside(aim: Aim) -> tuple[bytes, ...]:
    """The packets that are wrapped, from their IP header on."""
    return tuple(
        frame[14:]
        for frame in (
            craft.udp(aim.attacker, aim.victim, (9000, 9000)),
            craft.udp(aim.friend, aim.victim, (9000, 9000)),
            craft.tcp(aim.attacker, aim.victim, (9000, 80), SYN),
            craft.icmp(aim.attacker, aim.victim, 8),
        )
    )


def _wrap(aim: Aim, kind: int, payload: bytes, tags: tuple[tuple[int, int], ...] = ()) -> Iterator[bytes]:
    for target in (aim.victim.hop, BROADCAST):
        yield craft.ether(aim.attacker.mac, target, kind, payload, tags)


def _tags(aim: Aim) -> Iterator[bytes]:
    """One tag: of priority alone, of ordinary and of reserved VLANs."""
    for inside in _inside(aim):
        for tpid in TPIDS:
            for control in (0x0000, 0xE000, 0x1000, 1, 5, 4094, 4095):
                yield from _wrap(aim, IPV4, inside, ((tpid, control),))


def _stacks(aim: Aim) -> Iterator[bytes]:
    """Two and three tags."""
    for inside in _inside(aim):
        for outer in TPIDS:
            yield from _wrap(aim, IPV4, inside, ((outer, 0), (VLAN, 0)))
            yield from _wrap(aim, IPV4, inside, ((outer, 5), (VLAN, 7)))
            yield from _wrap(aim, IPV4, inside, ((outer, 5), (0x88A8, 0), (VLAN, 7)))
            yield from _wrap(aim, IPV4, b"", ((outer, 5), (VLAN, 7)))


def _mpls(aim: Aim) -> Iterator[bytes]:
    for inside in _inside(aim):
        for kind in (0x8847, 0x8848):
            for label in (0, 3, 16, 0xFFFFF):
                yield from _wrap(aim, kind, struct.pack("!I", label << 12 | 1 << 8 | 64) + inside)
                yield from _wrap(aim, kind, struct.pack("!II", label << 12 | 64, 16 << 12 | 1 << 8 | 64) + inside)


def _llc(aim: Aim) -> Iterator[bytes]:
    """802.3 frames: LLC, SNAP with IPv4 and ARP inside, raw 802.3; the length right, short and long."""
    for inside in _inside(aim):
        for head in (
            b"\xaa\xaa\x03\0\0\0\x08\0",
            b"\xaa\xaa\x03\0\0\xf8\x08\0",
            b"\x42\x42\x03",
            b"\x06\x06\x03",
            b"\xff\xff",
            b"\xaa\xaa\x03\0\0\0\x08\x06",
            b"\xaa\xaa\x03\x01\0\x0c\x20\0",
        ):
            payload = head + inside
            for length in (len(payload), 3, 1500):
                yield from _wrap(aim, length, payload)


def _ethertypes(aim: Aim) -> Iterator[bytes]:
    for inside in _inside(aim):
        for kind in ETHERTYPES:
            yield from _wrap(aim, kind, inside)


def _multicast(aim: Aim) -> Iterator[bytes]:
    for inside in _inside(aim):
        for target in RESERVED:
            for kind in (IPV4, ARP, 0x88CC, 0x0027, 0x8809):
                yield craft.ether(aim.attacker.mac, target, kind, inside)


def _runts(aim: Aim) -> Iterator[bytes]:
    """Frames that end anywhere in their headers."""
    for whole in (
        craft.udp(aim.attacker, aim.victim, (9000, 9000)),
        craft.udp(aim.friend, aim.victim, (9000, 9000)),
        craft.tcp(aim.attacker, aim.victim, (9000, 80), SYN),
    ):
        yield from (whole[:length] for length in range(14, 42))
        tagged = craft.ether(aim.attacker.mac, aim.victim.hop, IPV4, whole[14:], ((VLAN, 0),))
        yield from (tagged[:length] for length in range(14, 40))


def _nested(aim: Aim) -> Iterator[bytes]:
    """A frame of the friend's inside a frame of the attacker's."""
    inner = craft.udp(replace(aim.friend, mac=aim.wire), aim.victim, (9000, 9000))
    for kind in (0x6558, 0x88E7, 0x8847, 0x8926):
        yield from _wrap(aim, kind, inner)
        yield from _wrap(aim, kind, bytes(4) + inner)
        yield craft.ether(aim.attacker.mac, aim.victim.hop, kind, bytes(18) + mac(aim.wire) + inner)


SETS = (
    FrameSet("layer 2: one tag", _tags, short=True, to_tables=True),
    FrameSet("layer 2: QinQ and three tags", _stacks, short=True, to_tables=True),
    FrameSet("layer 2: MPLS", _mpls, to_tables=True),
    FrameSet("layer 2: LLC and SNAP", _llc, short=True, to_tables=True),
    FrameSet("layer 2: ethertypes", _ethertypes, to_tables=True),
    FrameSet("layer 2: reserved multicast", _multicast, to_tables=True),
    FrameSet("layer 2: runts", _runts, to_tables=True),
    FrameSet("layer 2: a frame in a frame", _nested, to_tables=True),
)
