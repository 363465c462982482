"""A node's switch dies and loses its connections; another takes its place. Nothing passes by being old.

Each test tries one attack on the cluster of `restarted`, in which connections were open, and permissions taken back,
before the switch died.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs_emulate.fabric import Fabric
from tests.attacks import craft
from tests.attacks.frameset import FrameSet
from tests.attacks.ground import POLICY, TENANT, Duel
from tests.attacks.restart import BUSY, HEIRS, SERVERS, STREAMS, Restarted, again, pushes, restarted, turned
from tests.attacks.scene import NotHeldError, aim_of
from tests.attacks.sets import SETS
from tests.attacks.sets.errors import errors
from tests.support.frames import ACK, SYN

pytestmark = pytest.mark.root
LONG = pytest.mark.long
NODES = [pytest.param("node1", marks=LONG), "node2"]
GROUPS = ("plain", "connections", "ICMP errors")
KEPT = tuple(one for one in SETS if one.name.partition(":")[0] in GROUPS)
DUELS = (
    *TENANT,
    Duel("closed by policy both ways, same node", "blue/foe", "blue/v1", "blue/sealed1", "blue/pal1"),
    Duel("closed by policy both ways, other node", "blue/foe", "blue/v2", "blue/sealed2", "blue/pal1"),
)
QUIET = tuple(
    Duel(f"{client} of {server}", server, "blue/v1" if client[-1] == "1" else "blue/v2", client, "blue/pal1")
    for client, server in SERVERS.items()
)
HEIR = tuple(
    Duel(
        f"blue/heir{node[-1]}", server, "blue/v1" if node == "node1" else "blue/v2", f"blue/heir{node[-1]}", "blue/pal1"
    )
    for node, (_, server) in HEIRS.items()
)
NUMBER = 30
"""How often a server pushes."""


@pytest.fixture(scope="module", params=NODES)
def after(
    request: pytest.FixtureRequest, fabric: Fabric, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Restarted]:
    """The cluster after the death of one node's switch."""
    with restarted(tmp_path_factory.mktemp("restart"), fabric, request.param) as made:
        yield made


@pytest.mark.attack("restart")
@pytest.mark.parametrize("stream", STREAMS)
def test_tcp_that_is_allowed_goes_on_or_is_reset(after: Restarted, stream: str) -> None:
    if stream in after.hung:
        raise NotHeldError(f"TCP {stream} hangs")


@pytest.mark.attack("restart")
@pytest.mark.parametrize("duel", QUIET, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", ["UDP and echo", "TCP", "ICMP errors"])
def test_a_client_that_is_shut_hears_nothing_of_its_old_server(after: Restarted, way: str, duel: Duel) -> None:
    server, client = after.scene.end(duel.attacker), after.scene.end(duel.victim)
    segment = again(server, client, after.segments[duel.victim])
    about = [*pushes(client, server), turned(segment)]
    frames = {
        "UDP and echo": pushes(server, client),
        "TCP": [segment],
        "ICMP errors": [error for one in about for error in errors(server, client, one)],
    }[way]
    after.scene.attack(duel, frames * NUMBER if way != "ICMP errors" else frames)
    after.scene.hears_nothing_of(duel.victim, server)


@pytest.mark.attack("restart")
@pytest.mark.parametrize("duel", HEIR, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", ["UDP and echo", "ICMP errors"])
def test_a_reused_address_gets_nothing_of_its_predecessor(after: Restarted, way: str, duel: Duel) -> None:
    server, client = after.scene.end(duel.attacker), after.scene.end(duel.victim)
    frames = {
        "UDP and echo": pushes(server, client) * NUMBER,
        "ICMP errors": [error for one in pushes(client, server) for error in errors(server, client, one)],
    }[way]
    after.scene.attack(duel, frames)
    after.scene.hears_nothing_of(duel.victim, server)


@pytest.mark.attack("restart")
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
@pytest.mark.parametrize("frames", KEPT, ids=lambda frames: frames.name)
def test_strangers_are_not_taken_for_old_friends(after: Restarted, frames: FrameSet, duel: Duel) -> None:
    after.scene.attack(duel, frames.frames(aim_of(after.scene, duel)))
    after.scene.nobody_heard(duel, busy=BUSY)


@LONG
@pytest.mark.attack("restart, egress open")
@pytest.mark.parametrize("duel", POLICY, ids=lambda duel: duel.name)
@pytest.mark.parametrize(
    "frames", [one for one in KEPT if not one.name.startswith("ICMP errors")], ids=lambda frames: frames.name
)
def test_who_may_ask_hears_at_most_what_may_be_an_answer(after: Restarted, frames: FrameSet, duel: Duel) -> None:
    """The victim may open connections to the attacker: TCP that opens nothing may be of a lost one, all else not.

    Its kernel resets such segments, and so has connections of its own, with answers and errors about them.
    """
    after.scene.attack(duel, frames.frames(aim_of(after.scene, duel)))
    after.scene.nobody_heard(duel, busy=BUSY, but=_of_a_connection)


def _of_a_connection(frame: bytes) -> bool:
    """Whether it is a TCP segment that opens nothing (RFC 9293), or the bridge's own ARP answer.

    That one comes when the victim's kernel resets what it does not know.
    """
    if frame[12:14] == b"\x08\x06":
        return frame[6:12] == NEXT_HOP_MAC.to_bytes(6, "big")
    head = (frame[14] & 0xF) * 4
    return frame[12:14] == b"\x08\x00" and frame[23] == craft.TCP and frame[14 + head + 13] & (SYN | ACK) != SYN
