"""SCTP: a server that a client asked once gets no way to other ports of that client.

It does where the switch tracks SCTP without ports, before Open vSwitch 3.2 (docs/kubernetes.md, SCTP).
"""

from __future__ import annotations

import struct

import pytest

from tests.attacks import craft
from tests.attacks.craft import SCTP
from tests.attacks.ground import Duel
from tests.attacks.scene import NotHeldError, Scene, is_of

pytestmark = pytest.mark.root
INIT, INIT_ACK, DATA, COOKIE_ECHO = 1, 2, 0, 10
SERVED, ASKED_FROM, OTHER = 80, 40000, 9999
WAYS = {
    "INIT from the port that was asked": (SERVED, [INIT]),
    "DATA from the port that was asked": (SERVED, [DATA, COOKIE_ECHO]),
    "INIT from another port": (SERVED + 1, [INIT]),
}
DUELS = (
    Duel("same node", "blue/v1", "blue/foe", "blue/iso1", "blue/pal1"),
    Duel("other node", "blue/v2", "blue/foe", "blue/iso1", "blue/pal1"),
    Duel("a shared tenant's server, same node", "kube-system/dns", "kube-system/kin1", "blue/v1", "blue/pal1"),
    Duel("a shared tenant's server, other node", "kube-system/dns", "kube-system/kin2", "blue/v2", "blue/pal1"),
)
"""The attacker is the server, the victim its client, which admits only its friend or is of another tenant."""


@pytest.mark.attack("SCTP server to other ports of its client")
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", WAYS)
def test_only_the_port_that_asked_hears_the_server(scene: Scene, way: str, duel: Duel) -> None:
    scene.cluster.emulation.flush_sctp()
    server, client = scene.end(duel.attacker), scene.end(duel.victim)
    # By way of the server's node: it knows the association before the server answers.
    scene.through(duel.victim, duel.attacker, [craft.sctp(client, server, (ASKED_FROM, SERVED), INIT)])
    scene.passes(duel, [craft.sctp(server, client, (SERVED, ASKED_FROM), INIT_ACK)])
    source, kinds = WAYS[way]
    scene.attack(duel, [craft.sctp(server, client, (source, OTHER), kind) for kind in kinds for _ in range(3)])
    arrived = [frame for frame in scene.heard(duel.victim) if is_of(frame, server) and frame[23] == SCTP]
    if arrived:
        ports = {struct.unpack("!HH", frame[34:38]) for frame in arrived}
        raise NotHeldError(f"{duel.victim} heard {duel.attacker} on ports {sorted(ports)}")
