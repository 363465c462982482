"""ICMP errors: about connections of others, about the attacker's own, about none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.attacks import craft
from tests.attacks.craft import End
from tests.attacks.frameset import Aim, FrameSet
from tests.attacks.ground import LISTEN, SEND
from tests.support.frames import ACK, SYN

KINDS = ((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (5, 0), (5, 1), (11, 0), (11, 1), (12, 0))
"""Type and code: unreachable, source quench, redirect, time exceeded, parameter problem."""
LONG = b"p" * 1160


def errors(sender: End, target: End, about: bytes) -> Iterator[bytes]:
    """An error of each kind from `sender` to `target` about the packet in `about`, bare and with payload."""
    for kind, code in KINDS:
        yield craft.error(sender, target, kind, code, about)
        yield craft.error(sender, target, kind, code, about, data=LONG)


def _packets(a: End, b: End) -> Iterator[bytes]:
    """A packet of each protocol from `a` to `b`, and back."""
    for one, two in ((a, b), (b, a)):
        yield craft.udp(one, two, (SEND, LISTEN) if one is a else (LISTEN, SEND))
        yield craft.udp(one, two, (7100, 7200))
        yield craft.tcp(one, two, (40000, 80), SYN)
        yield craft.tcp(one, two, (80, 40000), ACK)
        yield craft.icmp(one, two, 8)
        yield craft.sctp(one, two, (80, 9999))


def _nobodys(aim: Aim) -> Iterator[bytes]:
    """About packets that there never were, between any two of victim, attacker, node and outside."""
    for other in (aim.attacker, aim.nodes[0], craft.nobody("203.0.113.5")):
        for about in _packets(aim.victim, other):
            yield from errors(aim.attacker, aim.victim, about)


def _friends(aim: Aim) -> Iterator[bytes]:
    """About the live connection of friend and victim, as the attacker, as the friend, as their node."""
    for sender in (
        aim.attacker,
        replace(aim.attacker, address=aim.friend.address),
        aim.friend,
        replace(aim.attacker, address=aim.nodes[0].address),
    ):
        for about in _packets(aim.friend, aim.victim):
            yield from errors(sender, aim.victim, about)


def _own(aim: Aim) -> Iterator[bytes]:
    """About what the attacker itself sent to the victim, which was refused."""
    refused = list(_packets(aim.attacker, aim.victim))
    yield from refused[: len(refused) // 2]
    for about in refused:
        yield from errors(aim.attacker, aim.victim, about)


def _allys(aim: Aim) -> Iterator[bytes]:
    """About the attacker's live connection with its ally, sent to the victim instead."""
    for about in _packets(aim.attacker, aim.ally):
        yield from errors(aim.attacker, aim.victim, about)


SETS = (
    FrameSet("ICMP errors: about nothing", _nobodys, short=True),
    FrameSet("ICMP errors: about a friend's live connection", _friends, short=True),
    FrameSet("ICMP errors: about own refused packets", _own, short=True),
    FrameSet("ICMP errors: about a connection with another", _allys),
)
