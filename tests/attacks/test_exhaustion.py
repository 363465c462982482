"""One pod fills what all share: the connection table, the memory for fragments. Others go on.

The userspace datapath's table takes 3,000,000 connections, which a pod fills in some ten minutes where nothing keeps
it from that. Here it takes TABLE only (`dpctl/ct-set-maxconns`), so that seconds do; what limits a pod or a tenant is
set for this table by SETTINGS, in the proportion that the defaults have to the real one. So this shows that limits
work and whom they spare; that the defaults fit the real table is arithmetic, and is not tried here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.attacks import craft
from tests.attacks.craft import FULL, MORE, UDP, Ip
from tests.attacks.frameset import Aim
from tests.attacks.ground import TENANT, Duel
from tests.attacks.harm import SHARE, Vary, flooding, harm_after, served
from tests.attacks.scene import MARK, NotHeldError, Scene, aim_of
from tests.support.frames import ACK, SYN
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
TABLE = 20_000
SETTINGS = "tenant_connections = 1600"
"""Lines of the controller's configuration that set its limits for a table of this size: 250,000 of 3,000,000."""
REAL_TABLE = 3_000_000
RATE, SECONDS = 10_000, 4.0
"""Twice as many connections are tried as the table takes."""
PORTS, TCP_SUM, FRAGMENT_IDENT, IP_SUM = 34, 50, 18, 24
"""Offsets in a frame."""
FIRSTS_SECONDS = 0.5
FORGET_SECONDS = 15.0
"""How long Open vSwitch waits for the rest of a datagram."""
DATAGRAMS = 20
BIG = b"d" * 3500


def _udp(aim: Aim) -> list[Vary]:
    """A datagram from any port to any; the zero for its checksum says that it has none (RFC 768)."""
    frame = craft.ip(aim.attacker, aim.victim, UDP, b"\0\0\0\0\0\x0e\0\0attack")
    return [Vary(frame, ((PORTS, 0), (PORTS + 2, 1)))]


def _udp_to_itself(aim: Aim) -> list[Vary]:
    return _udp(replace(aim, victim=aim.attacker))


def _tcp_to_itself(aim: Aim) -> list[Vary]:
    """Both ends of a handshake, so that the connection counts as established, which lasts a day."""
    own = replace(aim, victim=aim.attacker)
    steps = ((SYN, 1000, 0, False), (SYN | ACK, 5000, 1001, True), (ACK, 1001, 5001, False))
    return [_segment(own, *step) for step in steps]


def _syn(aim: Aim) -> list[Vary]:
    return [_segment(aim, SYN, 1000, 0, False)]


def _segment(aim: Aim, flags: int, seq: int, ack: int, back: bool) -> Vary:
    frame = craft.tcp(aim.attacker, aim.victim, (0, 0), flags, seq=seq, ack=ack)
    places = ((PORTS, 1), (PORTS + 2, 0)) if back else ((PORTS, 0), (PORTS + 2, 1))
    return Vary(frame, places, TCP_SUM)


def _echo(aim: Aim) -> list[Vary]:
    """Echo requests with any identifier."""
    frame = craft.icmp(aim.attacker, aim.victim, 8, rest=bytes(4))
    return [Vary(frame, ((38, 0),), 36)]


def _outside(aim: Aim) -> Aim:
    return replace(aim, victim=craft.nobody("203.0.113.5", aim.nodes[0].hop))


FILLS: dict[str, tuple[Duel, Callable[[Aim], list[Vary]]]] = {
    "UDP to itself": (TENANT[0], _udp_to_itself),
    "TCP to itself, both ends": (TENANT[0], _tcp_to_itself),
    "UDP to its own tenant, same node": (TENANT[0], lambda aim: _udp(aim.at_ally())),
    "UDP to its own tenant, other node": (TENANT[1], lambda aim: _udp(aim.at_ally())),
    "SYN to its own tenant, same node": (TENANT[0], lambda aim: _syn(aim.at_ally())),
    "SYN to its own tenant, other node": (TENANT[1], lambda aim: _syn(aim.at_ally())),
    "echo to its own tenant, same node": (TENANT[0], lambda aim: _echo(aim.at_ally())),
    "UDP refused, same node": (TENANT[0], _udp),
    "UDP refused, other node": (TENANT[1], _udp),
    "UDP to outside": (TENANT[0], lambda aim: _udp(_outside(aim))),
    "UDP to its node": (TENANT[0], lambda aim: _udp(replace(aim, victim=aim.nodes[0]))),
}


@pytest.fixture(scope="module")
def scene(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A ground of its own, with other limits."""
    with served(tmp_path_factory.mktemp("exhaustion"), fabric, settings=SETTINGS) as made:
        yield made


@pytest.fixture
def small(scene: Scene) -> Iterator[None]:
    """Both nodes' connection tables are small and empty."""
    nodes = scene.cluster.emulation.nodes.values()
    for node in nodes:
        node.appctl("dpctl/flush-conntrack")
        node.appctl("dpctl/ct-set-maxconns", str(TABLE))
    yield
    for node in nodes:
        node.appctl("dpctl/ct-set-maxconns", str(REAL_TABLE))
        node.appctl("dpctl/flush-conntrack")


@pytest.mark.attack("connection table")
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fills", [pytest.param(one, marks=[] if one == "UDP to itself" else [LONG]) for one in FILLS])
def test_other_tenants_go_on_to_connect(scene: Scene, fills: str) -> None:
    duel, make = FILLS[fills]
    frames = make(aim_of(scene, duel))
    harm = harm_after(scene, duel.attacker, frames, rate=RATE, seconds=SECONDS * len(frames))
    assert harm.sent > 1.5 * TABLE * len(frames), f"only {harm.sent} frames were sent"
    harm.connections_come_about()


@pytest.mark.attack("first fragments without the rest")
@pytest.mark.parametrize("duel", [TENANT[0], pytest.param(TENANT[1], marks=LONG)], ids=lambda duel: duel.name)
def test_others_datagrams_in_fragments_arrive(scene: Scene, duel: Duel) -> None:
    """A friend's large datagrams come to the victim while the attacker begins 5,000 that it never ends."""
    a, b = scene.end(duel.friend), scene.end(duel.victim)
    eventually(lambda: _let_go(scene, duel), "the switches have let go of older fragments", 2 * FORGET_SECONDS)
    assert _arrive(scene, duel, a, b) == DATAGRAMS, "at rest all arrive"
    whole = craft.udp(
        scene.end(duel.attacker), scene.end(duel.ally), (7000, 7001), b"f" * (FULL - 8), how=Ip(ident=0, fragment=MORE)
    )
    with flooding(
        scene, duel.attacker, [Vary(whole, ((FRAGMENT_IDENT, 0),), IP_SUM)], rate=RATE, seconds=FIRSTS_SECONDS
    ) as process:
        process.wait()
    arrived = _arrive(scene, duel, a, b)
    if arrived < SHARE * DATAGRAMS:
        raise NotHeldError(f"{arrived} of {DATAGRAMS} datagrams in fragments arrived")


def _let_go(scene: Scene, duel: Duel) -> bool:
    """Whether no switch keeps fragments. Open vSwitch lets them go, after their time, as other packets pass."""
    scene.reach(duel.friend, duel.victim)
    return not _held_fragments(scene)


def _held_fragments(scene: Scene) -> int:
    """How many IPv4 fragments the nodes' switches keep, waiting for others."""
    shown = "".join(node.appctl("dpctl/ipf-get-status") for node in scene.cluster.emulation.nodes.values())
    found = re.findall(r"num frag: (\d+)", shown)
    assert found, shown
    return sum(map(int, found))


def _arrive(scene: Scene, duel: Duel, a: craft.End, b: craft.End) -> int:
    """How many of DATAGRAMS from a friend, in three fragments each, arrive whole at the victim."""
    scene.forget()
    for number in range(DATAGRAMS):
        whole = craft.udp(a, b, (9000, 9000), b"whole%03d" % number + BIG)
        scene.through(duel.friend, duel.victim, craft.fragments(whole, (FULL, 2 * FULL), ident=1000 + number))
    pieces = [frame for frame in scene.heard(duel.victim) if frame[26:30] == a.address.packed and MARK not in frame]
    return len(pieces) // 3
