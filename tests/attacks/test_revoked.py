"""A permission is taken back: from then on the client hears nothing of its server, whatever that sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.attacks import craft
from tests.attacks.ground import Duel
from tests.attacks.scene import Scene
from tests.attacks.sets.errors import errors
from tests.support.frames import ACK, FIN
from tests.support.manifests import ingress_policy
from tests.support.waiting import eventually

pytestmark = pytest.mark.root
CLIENTS = "{from: [{podSelector: {matchLabels: {app: iso}}}]}"
PUSHES = 30
PORTS = (9000, 9000)
STREAM = 81
DUELS = (
    Duel("same node", "blue/v1", "blue/foe", "blue/iso1", "blue/pal1"),
    Duel("other node", "blue/v2", "blue/foe", "blue/iso1", "blue/pal1"),
)
"""The attacker is the server; the client admits nobody but its friend, so only as replies could packets pass."""


@contextmanager
def permission(scene: Scene, server: str) -> Iterator[None]:
    """The client may ask the server in here, and no more in any datapath behind it."""
    name, cluster = server.partition("/")[2], scene.cluster
    shut = ingress_policy("shut", f"app: {name}", namespace="blue")
    cluster.edit(lambda: cluster.write("shut", shut))
    cluster.edit(lambda: cluster.write("also", ingress_policy("also", f"app: {name}", CLIENTS, namespace="blue")))
    # A megaflow of the time before still drops what is sent once, until it is revalidated.
    scene.in_force()
    try:
        yield
    finally:
        cluster.edit(lambda: cluster.remove("also"))
        scene.in_force()


@pytest.fixture
def restored(scene: Scene) -> Iterator[None]:
    """The ground is as it was, in the end."""
    yield
    for key in ("blue/iso1", "blue/v1", "blue/v2"):
        scene.cluster.pod(key).agent.close_streams()
        scene.cluster.pod(key).agent.serve(())
    scene.cluster.edit(lambda: scene.cluster.remove("shut"))


@pytest.mark.attack("revoked")
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", ["UDP", "ICMP errors about UDP", "ICMP errors while UDP goes on"])
def test_a_server_that_pushes_is_heard_no_more(scene: Scene, way: str, duel: Duel) -> None:
    server, client = scene.end(duel.attacker), scene.end(duel.victim)
    asked, pushed = craft.udp(client, server, PORTS), craft.udp(server, client, PORTS)
    told = list(errors(server, client, asked))
    with permission(scene, duel.attacker):
        scene.through(duel.victim, duel.attacker, [asked])
        scene.passes(duel, [pushed] * PUSHES)
        scene.passes(duel, told)
    frames = {
        "UDP": [pushed] * PUSHES,
        "ICMP errors about UDP": told * 2,
        "ICMP errors while UDP goes on": [each for one in told * 2 for each in (pushed, one)],
    }[way]
    scene.attack(duel, frames)
    scene.hears_nothing_of(duel.victim, server)


@pytest.mark.attack("revoked")
@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("duel", DUELS, ids=lambda duel: duel.name)
@pytest.mark.parametrize("way", ["TCP that goes on", "ICMP errors about TCP"])
def test_a_connection_is_cut(scene: Scene, way: str, duel: Duel) -> None:
    """Both ends' kernels go on trying, as they do."""
    server, client = scene.end(duel.attacker), scene.end(duel.victim)
    agent = scene.cluster.pod(duel.victim).agent
    pushing = scene.cluster.pod(duel.attacker).agent
    pushing.serve((f"{STREAM}/tcp",))
    with permission(scene, duel.attacker):
        agent.stream(str(server.address), STREAM, push=False)
        eventually(lambda: [one["received"] > 100 for one in agent.streams()] == [True], "the server pushes")
    port = int(pushing.streams()[0]["peer"].rpartition(":")[2])
    about = [craft.tcp(client, server, (port, STREAM), ACK)]
    frames = [error for one in about for error in errors(server, client, one)] if "errors" in way else []
    frames += [craft.tcp(server, client, (STREAM, port), flags, data=b"attack") for flags in (ACK, FIN)]
    scene.attack(duel, frames * 3)
    scene.hears_nothing_of(duel.victim, server)
