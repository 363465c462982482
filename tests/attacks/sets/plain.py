"""Packets that are right in every way and only not allowed."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attacks import craft
from tests.attacks.craft import ICMP, SCTP, TCP, UDP
from tests.attacks.frameset import Aim, FrameSet
from tests.attacks.ground import POLICY, SHARED, TENANT
from tests.support.frames import SYN

PORTS = (1, 53, 67, 80, 81, 123, 443, 4789, 6081, 6443, 9000, 9001, 10250, 33434, 65535)
ICMPV6 = 58
"""Connection tracking calls it invalid in IPv4, so that it arrives nowhere: it is among the odd ones."""
SOURCES = (53, 68, 80, 9000, 40000)
EVERYBODY = TENANT + POLICY + SHARED


def _udp(aim: Aim) -> Iterator[bytes]:
    return (craft.udp(aim.attacker, aim.victim, (one, two)) for one in SOURCES for two in PORTS)


def _syn(aim: Aim) -> Iterator[bytes]:
    for source in SOURCES:
        for port in PORTS:
            yield craft.tcp(aim.attacker, aim.victim, (source, port), SYN)
            yield craft.tcp(aim.attacker, aim.victim, (source + 1, port), SYN, data=b"early")


def _echo(aim: Aim) -> Iterator[bytes]:
    return (craft.icmp(aim.attacker, aim.victim, 8, data=b"x" * size) for size in (0, 8, 56, 1300))


def _sctp(aim: Aim) -> Iterator[bytes]:
    return (craft.sctp(aim.attacker, aim.victim, (one, two)) for one in SOURCES for two in PORTS)


def _protocols(aim: Aim) -> Iterator[bytes]:
    numbers = set(range(256)) - {ICMP, TCP, UDP, SCTP, ICMPV6}
    return (craft.ip(aim.attacker, aim.victim, number, b"\0" * 40) for number in sorted(numbers))


SETS = (
    FrameSet("plain: UDP", _udp, works=True, duels=EVERYBODY, short=True),
    FrameSet("plain: SYN", _syn, works=True, duels=EVERYBODY, short=True),
    FrameSet("plain: echo", _echo, works=True, duels=EVERYBODY, short=True),
    FrameSet("plain: SCTP INIT", _sctp, works=True, duels=EVERYBODY, short=True),
    FrameSet("plain: every other IP protocol", _protocols, works=True, duels=EVERYBODY, short=True),
)
