"""Addresses, MACs and identities of others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

from tests.attacks import craft
from tests.attacks.craft import BROADCAST, End, nobody
from tests.attacks.frameset import Aim, FrameSet
from tests.support.frames import ACK, SYN

OUTSIDE = nobody("203.0.113.5")
SPECIAL = tuple(
    nobody(text)
    for text in (
        "0.0.0.0",
        "255.255.255.255",
        "127.0.0.1",
        "127.0.0.53",
        "224.0.0.1",
        "10.0.0.0",
        "10.255.255.255",
        "169.254.1.1",
        "172.31.0.1",
        "172.31.0.2",
        "198.51.100.7",
    )
)
CONSTANT = "0a:58:00:00:00:01"
"""The source MAC of everything that a switch of ours delivers."""


def _somebody(aim: Aim) -> tuple[End, ...]:
    return (*aim.others, *aim.nodes, OUTSIDE, *SPECIAL)


def _each(aim: Aim, source: End) -> Iterator[bytes]:
    """One packet of each kind from `source` to the victim."""
    yield craft.udp(source, aim.victim, (9000, 9000))
    yield craft.tcp(source, aim.victim, (9000, 80), SYN)
    yield craft.tcp(source, aim.victim, (9000, 80), ACK, data=b"x")
    yield craft.icmp(source, aim.victim, 8)
    yield craft.sctp(source, aim.victim, (9000, 80))
    yield craft.ip(source, aim.victim, 253)


def _addresses(aim: Aim) -> Iterator[bytes]:
    for other in _somebody(aim):
        yield from _each(aim, replace(aim.attacker, address=other.address))


def _macs(aim: Aim) -> Iterator[bytes]:
    hardware = (*(other.mac for other in _somebody(aim)), CONSTANT, BROADCAST, "01:00:5e:00:00:01", "00:00:00:00:00:00")
    for one in hardware:
        yield from _each(aim, replace(aim.attacker, mac=one))


def _both(aim: Aim) -> Iterator[bytes]:
    for other in _somebody(aim):
        yield from _each(aim, other)


def _to_macs(aim: Aim) -> Iterator[bytes]:
    for one in (*(other.mac for other in _somebody(aim)), CONSTANT, BROADCAST, "01:00:5e:00:00:01", aim.wire):
        yield from _each(replace(aim, victim=replace(aim.victim, hop=one)), aim.attacker)


def _special_targets(aim: Aim) -> Iterator[bytes]:
    for other in SPECIAL:
        for one in (aim.victim.hop, BROADCAST, other.hop):
            target = replace(other, hop=one)
            yield craft.udp(aim.attacker, target, (9000, 9000))
            yield craft.icmp(aim.attacker, target, 8)


def _marks(aim: Aim, source: End) -> Iterator[bytes]:
    """Packets with the friend's identity in the source MAC, behind each of the 256 bytes of marks."""
    number = aim.wire[6:]
    for mark in range(256):
        spoofed = replace(source, mac=f"0a:{mark:02x}:{number}")
        yield craft.udp(spoofed, aim.victim, (9000, 9000))
        yield craft.tcp(spoofed, aim.victim, (9000, 80), ACK, data=b"x")


def _own_with_marks(aim: Aim) -> Iterator[bytes]:
    return _marks(aim, aim.attacker)


def _friend_with_marks(aim: Aim) -> Iterator[bytes]:
    return _marks(aim, replace(aim.attacker, address=aim.friend.address))


def _numbers(aim: Aim) -> Iterator[bytes]:
    """Identities near the friend's, the smallest and the greatest, with the marks of an original and of a reply."""
    number = int(aim.wire[6:].replace(":", ""), 16)
    near = {max(0, number + step) for step in range(-4, 5)} | {0, 1, 2, 1 << 16, (1 << 32) - 1, int(aim.victim.address)}
    for one in near:
        text = ":".join(f"{byte:02x}" for byte in one.to_bytes(4, "big"))
        for mark in (aim.wire[3:5], "00", "01", "02", "04", "05", "08", "10", "58"):
            for address in (aim.attacker.address, aim.friend.address, IPv4Address("203.0.113.5")):
                yield craft.udp(End("", address, f"0a:{mark}:{text}"), aim.victim, (9000, 9000))


SETS = (
    FrameSet("spoofed: others' addresses", _addresses, short=True),
    FrameSet("spoofed: others' MACs", _macs),
    FrameSet("spoofed: others' addresses and MACs", _both, short=True),
    FrameSet("spoofed: foreign destination MACs", _to_macs, short=True),
    FrameSet("spoofed: special destinations", _special_targets),
    FrameSet("identity: a friend's in the source MAC, with all marks", _own_with_marks, short=True),
    FrameSet("identity: a friend's, and its address, with all marks", _friend_with_marks),
    FrameSet("identity: other numbers", _numbers),
)
