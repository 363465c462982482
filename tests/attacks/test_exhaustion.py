"""One pod fills the connection table, which all share. Others go on.

The userspace datapath's table takes 3,000,000 connections, which a pod fills in some ten minutes where nothing keeps
it from that. Here it takes TABLE only (`dpctl/ct-set-maxconns`), so that seconds do; what limits a pod or a tenant is
set for this table by SETTINGS, in the proportion that the defaults have to the real one. So this shows that limits
work and whom they spare; that the defaults fit the real table is arithmetic, and is not tried here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.attacks import craft
from tests.attacks.craft import UDP
from tests.attacks.frameset import Aim
from tests.attacks.ground import TENANT, Duel
from tests.attacks.harm import Vary, harm_after, served
from tests.attacks.scene import Scene, aim_of
from tests.support.frames import ACK, SYN

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
TABLE = 20_000
SETTINGS = "tenant_connections = 1600"
"""Lines of the controller's configuration that set its limits for a table of this size: 250,000 of 3,000,000."""
REAL_TABLE = 3_000_000
RATE, SECONDS = 10_000, 4.0
"""Twice as many connections are tried as the table takes."""
PORTS, TCP_SUM = 34, 50
"""Offsets in a frame."""


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
