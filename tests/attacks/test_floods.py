"""One pod sends 20,000 frames a second: the others go on to open connections, and megaflows stay few."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.attacks import craft, ground
from tests.attacks.craft import UDP, Ip
from tests.attacks.frameset import Aim
from tests.attacks.ground import TENANT
from tests.attacks.harm import Vary, harm_of, served
from tests.attacks.scene import Scene, aim_of

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
ATTACKER = "red/atk"
DST_MAC, SRC_MAC, TAG, TYPE, IDENT, SUM, SRC, DST = 0, 6, 14, 12, 18, 24, 26, 30
"""Offsets in a frame."""
PORTS = 34
BESIDE = "tags of IPv4"
"""What drops other ethertypes does not see a tag where the kernel keeps it beside the frame, as after tc in the pod."""
ARP_OPERATION, ARP_HARDWARE, ARP_SENDER, ARP_TARGET = 20, 22, 28, 38
IPV6_SOURCE = 22
ZERO_MAC = "00:00:00:00:00:00"


def _udp(aim: Aim) -> bytes:
    return craft.udp(aim.attacker, aim.victim)


def _mac(frame: bytes, offset: int) -> list[Vary]:
    return [Vary(frame, tuple((offset + 2 * word, word) for word in range(3)))]


def _bytes_of(frame: bytes, offset: int, length: int) -> bytes:
    """A frame with zeros there."""
    return frame[:offset] + bytes(length) + frame[offset + length :]


def _arp_targets(aim: Aim) -> list[Vary]:
    own = aim.attacker.mac, aim.attacker.address
    frame = craft.arp(aim.attacker, 1, own, (ZERO_MAC, aim.victim.address))
    return [Vary(frame, ((ARP_TARGET, 0), (ARP_TARGET + 2, 1)))]


def _tagged(aim: Aim) -> bytes:
    return craft.ether(aim.attacker.mac, aim.victim.hop, craft.IPV4, _udp(aim)[14:], ((craft.VLAN, 0),))


def _tags(aim: Aim) -> list[Vary]:
    return [Vary(_tagged(aim), ((TAG, 0), (TAG + 2, 1)))]


def _ipv4_tags(aim: Aim) -> list[Vary]:
    return [Vary(_tagged(aim), ((TAG, 0),))]


def _types(aim: Aim) -> list[Vary]:
    return [Vary(_udp(aim), ((TYPE, 0),))]


def _hops(aim: Aim) -> list[Vary]:
    """Every TTL with 32 of the values of TOS."""
    return [
        Vary(craft.udp(aim.attacker, aim.victim, how=Ip(ttl=ttl, tos=tos)))
        for ttl in range(256)
        for tos in range(0, 256, 8)
    ]


def _flags(aim: Aim) -> list[Vary]:
    return [Vary(craft.tcp(aim.attacker, aim.victim, (7000, 80), flags)) for flags in range(256)]


def _sources(aim: Aim) -> list[Vary]:
    return [Vary(_bytes_of(_udp(aim), SRC, 4), ((SRC, 0), (SRC + 2, 1)))]


def _targets(aim: Aim) -> list[Vary]:
    return [Vary(_bytes_of(_udp(aim), DST, 4), ((DST, 0), (DST + 2, 1)))]


def _plan_addresses(aim: Aim) -> list[Vary]:
    """Targets in 10.0.0.0/8: of the address plan, where mostly nobody is."""
    head = craft.packet(aim.attacker.address, IPv4Address("10.0.0.0"), UDP, b"\0\0\0\0\0\x0e\0\0attack")
    frame = craft.ether(aim.attacker.mac, aim.victim.hop, craft.IPV4, head)
    return [Vary(frame[: DST + 1] + bytes([part]) + frame[DST + 2 :], ((DST + 2, 0),)) for part in range(256)]


def _share_addresses(aim: Aim) -> list[Vary]:
    """Targets in the share of the victim's node: all that differ from the victim in no bit of the host."""
    frame, own = _udp(aim), int(aim.victim.address)
    return [
        Vary(frame[:DST] + (own & ~0xFFF03F | segment << 12 | endpoint).to_bytes(4, "big") + frame[DST + 4 :])
        for segment in range(0, 4096, 8)
        for endpoint in range(0, 64, 4)
    ]


def _arp_senders(aim: Aim) -> list[Vary]:
    frame = craft.arp(aim.attacker, 1, (aim.attacker.mac, IPv4Address(0)), (ZERO_MAC, aim.victim.address))
    return [Vary(frame, ((ARP_SENDER, 0), (ARP_SENDER + 2, 1)))]


def _arp_hardware(aim: Aim) -> list[Vary]:
    own = aim.attacker.mac, aim.attacker.address
    frame = craft.arp(aim.attacker, 1, own, (ZERO_MAC, aim.victim.address))
    return [Vary(frame, tuple((ARP_HARDWARE + 2 * word, word) for word in range(3)))]


def _arp_operations(aim: Aim) -> list[Vary]:
    own = aim.attacker.mac, aim.attacker.address
    return [Vary(craft.arp(aim.attacker, 0, own, (ZERO_MAC, aim.victim.address)), ((ARP_OPERATION, 0),))]


def _protocols(aim: Aim) -> list[Vary]:
    return [Vary(craft.ip(aim.attacker, aim.victim, protocol)) for protocol in range(256)]


def _icmp(aim: Aim) -> list[Vary]:
    """Every type with every eighth code."""
    return [Vary(craft.icmp(aim.attacker, aim.victim, kind, code)) for kind in range(256) for code in range(0, 256, 8)]


def _pieces(aim: Aim) -> list[Vary]:
    """Random offsets and flags of fragments, with random identification."""
    frame = craft.ip(aim.attacker, aim.victim, UDP, b"f" * craft.FULL, Ip(ident=0))
    return [Vary(frame, ((IDENT, 0), (IDENT + 2, 1)))]


def _ipv6(aim: Aim) -> list[Vary]:
    frame = craft.icmpv6(aim.attacker, aim.victim.hop, bytes(16), bytes(16), 135, bytes(20))
    return [Vary(frame, tuple((place, word) for word, place in enumerate(range(IPV6_SOURCE, IPV6_SOURCE + 32, 2))))]


def _identities(aim: Aim) -> list[Vary]:
    spoofed = replace(aim.attacker, mac=aim.wire)
    return [Vary(craft.udp(spoofed, aim.victim), ((SRC_MAC + 2, 0), (SRC_MAC + 4, 1)))]


def _ports(aim: Aim) -> list[Vary]:
    frame = craft.ip(aim.attacker, aim.victim, UDP, b"\0\0\0\0\0\x0e\0\0attack")
    return [Vary(frame, ((PORTS, 0), (PORTS + 2, 1)))]


VARIES: dict[str, Callable[[Aim], list[Vary]]] = {
    "destination MACs": lambda aim: _mac(_udp(aim), DST_MAC),
    "source MACs": lambda aim: _mac(_udp(aim), SRC_MAC),
    "ARP targets": _arp_targets,
    "tags": _tags,
    BESIDE: _ipv4_tags,
    "ethertypes": _types,
    "TTL and TOS": _hops,
    "TCP flags": _flags,
    "source addresses": _sources,
    "destination addresses": _targets,
    "identities": _identities,
    "UDP ports": _ports,
    "addresses of the plan": _plan_addresses,
    "addresses of one node": _share_addresses,
    "ARP senders": _arp_senders,
    "ARP hardware addresses": _arp_hardware,
    "ARP operations": _arp_operations,
    "IP protocols": _protocols,
    "ICMP types and codes": _icmp,
    "fragments": _pieces,
    "IPv6": _ipv6,
}


@pytest.fixture(scope="module")
def scene(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A ground of its own, for what is left of floods."""
    with served(tmp_path_factory.mktemp("floods"), fabric) as made:
        yield made


@pytest.mark.attack("flood")
@pytest.mark.parametrize("duel", [pytest.param(TENANT[0], marks=LONG), TENANT[1]], ids=lambda duel: duel.name)
@pytest.mark.parametrize(
    "varies", [pytest.param(one, marks=[] if one == "destination MACs" else [LONG]) for one in VARIES]
)
def test_others_are_not_harmed(scene: Scene, varies: str, duel: ground.Duel) -> None:
    with scene.unfiltered(ATTACKER) if varies == BESIDE else contextlib.nullcontext():
        harm = harm_of(scene, ATTACKER, VARIES[varies](aim_of(scene, duel)))
    harm.megaflows_stay_few()
    harm.connections_come_about()


@LONG
@pytest.mark.attack("flood of what is allowed")
@pytest.mark.parametrize("duel", TENANT, ids=lambda duel: duel.name)
@pytest.mark.parametrize("varies", ["destination MACs", "TTL and TOS", "TCP flags", "UDP ports", "fragments"])
def test_others_are_not_harmed_by_what_arrives(scene: Scene, varies: str, duel: ground.Duel) -> None:
    """To a pod of the attacker's own tenant."""
    harm = harm_of(scene, ATTACKER, VARIES[varies](aim_of(scene, duel).at_ally()))
    harm.megaflows_stay_few()
    harm.connections_come_about()
