"""Packets inside packets, to pods and to nodes' tunnels."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from romana_ovs_emulate.fabric import TUNNEL_KEY, underlay_address
from tests.attacks import craft
from tests.attacks.craft import End
from tests.attacks.frameset import Aim, FrameSet

UNDERLAY = tuple(underlay_address(index) for index in range(2))
PORTS = {"vxlan": 4789, "geneve": 6081}


def _inner(aim: Aim) -> Iterator[bytes]:
    """Frames as the friend's node would send them, and as the friend would."""
    first = int(aim.wire[3:5], 16)
    for mark in {first, 0, 1, 2, 5, 0x58}:
        yield craft.udp(replace(aim.friend, mac=f"0a:{mark:02x}:{aim.wire[6:]}"), aim.victim, (9000, 9000))
    yield craft.udp(aim.friend, aim.victim, (9000, 9000))


def _targets(aim: Aim) -> Iterator[End]:
    yield from (aim.victim, *aim.nodes)
    yield from (replace(aim.nodes[0], address=address) for address in UNDERLAY)


def _encapsulated(aim: Aim) -> Iterator[bytes]:
    """VXLAN and Geneve with a friend's packet inside, from the attacker's, the nodes' and others' addresses."""
    sources = (aim.attacker, *(replace(aim.attacker, address=address) for address in UNDERLAY), aim.nodes[1])
    for target in _targets(aim):
        for source in sources:
            for inner in _inner(aim):
                for kind, port in PORTS.items():
                    for key in (TUNNEL_KEY, 0):
                        yield craft.udp(source, target, (50000, port), craft.tunnelled(inner, kind, key))


def _in_fragments(aim: Aim) -> Iterator[bytes]:
    """The same, padded, in two fragments of which the first is as long as Open vSwitch wants it."""
    idents = count(100)
    for target in _targets(aim):
        for inner in _inner(aim):
            for kind, port in PORTS.items():
                whole = craft.udp(
                    aim.attacker, target, (50000, port), craft.tunnelled(inner + bytes(1600), kind, TUNNEL_KEY)
                )
                yield from craft.fragments(whole, (1208,), ident=next(idents))


def _nested(aim: Aim) -> Iterator[bytes]:
    """A tunnel in a tunnel."""
    node = replace(aim.nodes[1], address=UNDERLAY[1])
    for inner in _inner(aim):
        for kind, port in PORTS.items():
            middle = craft.udp(aim.nodes[0], node, (50000, port), craft.tunnelled(inner, kind, TUNNEL_KEY))
            for target in _targets(aim):
                yield craft.udp(aim.attacker, target, (50000, port), craft.tunnelled(middle, kind, TUNNEL_KEY))


def _protocols(aim: Aim) -> Iterator[bytes]:
    """IPIP, 6in4, GRE (plain, keyed, NVGRE, ERSPAN), ESP, AH, IGMP, L2TP, EtherIP."""
    inner = craft.udp(aim.friend, aim.victim, (9000, 9000))
    gre = {
        "plain": struct.pack("!HH", 0, 0x0800) + inner[14:],
        "keyed": struct.pack("!HHI", 0x2000, 0x0800, TUNNEL_KEY) + inner[14:],
        "nvgre": struct.pack("!HHI", 0x2000, 0x6558, TUNNEL_KEY << 8) + inner,
        "erspan": struct.pack("!HHII", 0x1000, 0x88BE, 1, 0) + inner,
        "pptp": struct.pack("!HHHH", 0x2001, 0x880B, len(inner), 1) + inner,
    }
    payloads = [
        (4, inner[14:]),
        (41, inner[14:]),
        *((47, each) for each in gre.values()),
        (50, bytes(8) + inner[14:]),
        (51, struct.pack("!BBHII", 4, 4, 0, 1, 1) + bytes(12) + inner[14:]),
        (2, b"\x16\0\0\0" + bytes(4)),
        (97, b"\x30\0" + inner),
        (115, bytes(4) + inner),
    ]
    for target in _targets(aim):
        for protocol, payload in payloads:
            yield craft.ip(aim.attacker, target, protocol, payload)


def _multicast(aim: Aim) -> Iterator[bytes]:
    """IGMP and datagrams to groups and broadcast addresses."""
    for address, hardware in (
        ("224.0.0.1", "01:00:5e:00:00:01"),
        ("224.0.0.251", "01:00:5e:00:00:fb"),
        ("239.255.255.250", "01:00:5e:7f:ff:fa"),
        ("255.255.255.255", craft.BROADCAST),
    ):
        group = craft.nobody(address, hardware)
        for source in (aim.attacker, aim.friend):
            yield craft.udp(source, group, (9000, 9000))
            yield craft.ip(source, group, 2, b"\x16\0\0\0" + group.address.packed)
            yield craft.icmp(source, group, 8)


SETS = (
    FrameSet("tunnels: a friend's packet in VXLAN and Geneve", _encapsulated, short=True),
    FrameSet("tunnels: the same in fragments", _in_fragments),
    FrameSet("tunnels: a tunnel in a tunnel", _nested),
    FrameSet("tunnels: IPIP, GRE, ESP, AH and others", _protocols),
    FrameSet("tunnels: multicast and IGMP", _multicast),
)
