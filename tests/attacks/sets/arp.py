"""ARP: the switch answers all of it, and only to who asks; nothing goes to anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from tests.attacks import craft
from tests.attacks.craft import BROADCAST
from tests.attacks.frameset import Aim, FrameSet

NONE = "00:00:00:00:00:00"
ZERO = IPv4Address("0.0.0.0")
RARP = 0x8035


def _claims(aim: Aim) -> Iterator[bytes]:
    """Gratuitous and unsolicited: the attacker says that others' addresses are its own."""
    own = aim.attacker.mac
    for other in (*aim.others, *aim.nodes):
        for to in (BROADCAST, aim.victim.hop, aim.victim.mac):
            for operation in (1, 2):
                yield craft.arp(aim.attacker, operation, (own, other.address), (NONE, other.address), to=to)
                yield craft.arp(
                    aim.attacker, operation, (own, other.address), (aim.victim.mac, aim.victim.address), to=to
                )


def _honest(aim: Aim) -> Iterator[bytes]:
    """Requests and replies in the attacker's own name."""
    own, mine = aim.attacker.mac, aim.attacker.address
    for other in (*aim.others, *aim.nodes):
        for to in (BROADCAST, other.hop, other.mac):
            for operation in (1, 2):
                yield craft.arp(aim.attacker, operation, (own, mine), (NONE, other.address), to=to)
                yield craft.arp(aim.attacker, operation, (own, mine), (other.mac, other.address), to=to)
            yield craft.arp(aim.attacker, 1, (own, ZERO), (NONE, other.address), to=to)


def _odd(aim: Aim) -> Iterator[bytes]:
    """Other operations, hardware and protocol kinds, sizes, RARP, and packets that end early."""
    ends = (aim.attacker.mac, aim.attacker.address), (aim.victim.mac, aim.victim.address)
    for to in (BROADCAST, aim.victim.hop, aim.victim.mac):
        for operation in (0, *range(3, 26), 255, 0xFFFF):
            yield craft.arp(aim.attacker, operation, *ends, to=to)
        for head in (
            (0, 0x0800, 6, 4),
            (6, 0x0800, 6, 4),
            (1, 0x86DD, 6, 16),
            (1, 0x0800, 0, 4),
            (1, 0x0800, 8, 4),
            (1, 0x0800, 6, 0),
            (1, 0x0800, 255, 255),
        ):
            for operation in (1, 2):
                yield craft.arp(aim.attacker, operation, *ends, to=to, head=head)
        for operation in (1, 2, 3, 4):
            yield craft.arp(aim.attacker, operation, *ends, to=to, kind=RARP)
            whole = craft.arp(aim.attacker, operation, *ends, to=to)
            yield from (whole[:length] for length in (15, 20, 27, 34, 41))


SETS = (
    FrameSet("ARP: others' addresses claimed", _claims, short=True),
    FrameSet("ARP: requests, replies and probes in the own name", _honest),
    FrameSet("ARP: odd, cut short, RARP", _odd, to_tables=True),
)
