"""One pod sends 20,000 ARP frames a second: nobody else loses a connection or an answer.

An answer rewrites fields of ARP, which no datapath can do: ovs-vswitchd makes it, in the same threads that make
megaflows for new traffic of all pods (docs/dataplane.md, "ARP"; docs/hazards.md B28).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.patience import patience
from tests.attacks import craft
from tests.attacks.craft import BROADCAST
from tests.attacks.frameset import Aim
from tests.attacks.ground import TENANT
from tests.attacks.harm import RATE, Vary, flooding, served
from tests.attacks.scene import NotHeldError, Scene, aim_of
from tests.support.live_cluster import attempts
from tests.support.netns_sockets import run
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
ATTACKER, CLIENT, SERVER, ASKING = "red/atk", "blue/pal1", "blue/v1", "blue/foe"
"""All on one node."""
EXCHANGES = 100
"""Requests of ASKING for the next hop, as after `ip neigh flush`, and connections from CLIENT to SERVER."""
ANSWER_SECONDS = patience(1.0)
"""Linux asks again after this time (`retrans_time_ms`), so an answer that takes longer counts as lost."""
PAUSE_SECONDS = 0.04
"""Between two requests of ASKING: half of what a pod may ask."""
READY = 5_000
"""Different frames of a flood."""
FLOOD_SECONDS = patience(20.0)
"""More than the exchanges take; the flood ends when they do."""
OPERATION, HARDWARE, SENDER, TARGET = 20, 22, 28, 38
"""Offsets in a frame."""
ZERO_MAC = "00:00:00:00:00:00"
NEXT_HOP = IPv4Address("169.254.1.1")


def _request(aim: Aim, *, target: IPv4Address | None = None, to: str = BROADCAST) -> bytes:
    own = aim.attacker.mac, aim.attacker.address
    return craft.arp(aim.attacker, 1, own, (ZERO_MAC, target or aim.victim.address), to=to)


def _zeros(frame: bytes, *places: tuple[int, int]) -> bytes:
    """The frame with zeros at (offset, length)."""
    for offset, length in places:
        frame = frame[:offset] + bytes(length) + frame[offset + length :]
    return frame


def _reply(aim: Aim) -> bytes:
    victim = (aim.attacker.mac, aim.victim.address), (aim.friend.mac, aim.friend.address)
    return craft.arp(aim.attacker, 2, *victim)


FRAMES: dict[str, Callable[[Aim], list[Vary]]] = {
    "one target": lambda aim: [Vary(_request(aim))],
    "random targets": lambda aim: [Vary(_zeros(_request(aim), (TARGET, 4)), ((TARGET, 0), (TARGET + 2, 1)))],
    "random sender addresses": lambda aim: [Vary(_zeros(_request(aim), (SENDER, 4)), ((SENDER, 0), (SENDER + 2, 1)))],
    "random MACs in the frame": lambda aim: [
        Vary(_zeros(_request(aim), (0, 12)), tuple((2 * word, word) for word in range(6)))
    ],
    "random MACs in the request": lambda aim: [
        Vary(_zeros(_request(aim), (HARDWARE, 6)), tuple((HARDWARE + 2 * word, word) for word in range(3)))
    ],
    "everything random": lambda aim: [
        Vary(
            _zeros(_request(aim), (0, 12), (OPERATION, 22)),
            (*((2 * word, word) for word in range(6)), *((OPERATION + 2 * word, 6 + word) for word in range(11))),
        )
    ],
    "replies of the victim": lambda aim: [Vary(_reply(aim))],
}


@dataclass(slots=True)
class Outcome:
    """What came of the exchanges and connections of others."""

    sent: int = 0
    """Frames of the attacker."""
    seconds: float = 0.0
    answers: list[float] = field(default_factory=list)
    """How long each answer took, in seconds."""
    connected: int = 0
    begun: int = 0
    lost: int = 0
    """Packets that ovs-vswitchd should have handled and did not take in time."""

    def text(self) -> str:
        """The figures in one line."""
        ordered = sorted(self.answers)
        times = f"{1000 * ordered[len(ordered) // 2]:.1f}/{1000 * ordered[-1]:.0f} ms" if ordered else "-"
        return (
            f"{self.sent / self.seconds:.0f} frames/s: {len(self.answers)} of {EXCHANGES} answers ({times}), "
            f"{self.connected} of {self.begun} connections, {self.lost} upcalls lost"
        )


@pytest.fixture(scope="module")
def scene(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A ground of its own."""
    with served(tmp_path_factory.mktemp("arp"), fabric) as made:
        yield made


@pytest.mark.attack("ARP flood")
@pytest.mark.parametrize(
    "kind", [pytest.param(one, marks=[] if one in ("one target", "everything random") else [LONG]) for one in FRAMES]
)
def test_nobody_else_loses_anything(scene: Scene, kind: str, record_property: Callable[[str, object], None]) -> None:
    outcome = _outcome(scene, FRAMES[kind](aim_of(scene, TENANT[0])))
    record_property("figures", outcome.text())
    print(kind, outcome.text())
    if len(outcome.answers) < EXCHANGES or outcome.connected < outcome.begun or outcome.lost:
        raise NotHeldError(outcome.text())


def _outcome(scene: Scene, frames: list[Vary], *, rate: int = RATE) -> Outcome:
    """What others get while ATTACKER sends `frames`."""
    outcome = Outcome()
    with attempts(scene.cluster, CLIENT, ("connect", SERVER, 80)) as traffic:
        traffic.flowing()
        with flooding(scene, ATTACKER, frames, rate=rate, seconds=FLOOD_SECONDS, ready=READY) as process:
            idle = _sent(scene)
            eventually(lambda: _sent(scene) > idle + READY, "the flood begins")
            began, before, sent, lost = time.monotonic(), traffic.report()[0], _sent(scene), _lost(scene)
            for _ in range(EXCHANGES):
                if (took := _exchange(scene)) is not None:
                    outcome.answers.append(took)
                time.sleep(PAUSE_SECONDS)
            while traffic.report()[0]["next"] < before["next"] + EXCHANGES:
                time.sleep(PAUSE_SECONDS)
            assert process.poll() is None, "the flood has ended before"
            outcome.sent, outcome.seconds = _sent(scene) - sent, time.monotonic() - began
            outcome.lost = _lost(scene) - lost
            after = traffic.decided()[0]
            outcome.connected, outcome.begun = after["good"] - before["good"], after["oldest"] - before["oldest"]
    return outcome


def _exchange(scene: Scene) -> float | None:
    """How long the switch takes to answer one request of ASKING for the next hop; None without an answer in time."""
    asking, tap = scene.end(ASKING), scene.tap(ASKING)
    tap.forget()
    answer = NEXT_HOP.packed + bytes.fromhex(asking.mac.replace(":", "")) + asking.address.packed
    began = time.monotonic()
    tap.send(craft.arp(asking, 1, (asking.mac, asking.address), (ZERO_MAC, NEXT_HOP)))
    while (took := time.monotonic() - began) < ANSWER_SECONDS:
        if any(frame[28:42] == answer for frame in tap.drain()):
            return took
        time.sleep(0.0005)
    return None


def _sent(scene: Scene) -> int:
    """How many frames ATTACKER's interface has sent."""
    shown = run(scene.cluster.pod(ATTACKER).netns, "ip", "-json", "-stats", "link", "show", "dev", "eth0").stdout
    return int(json.loads(shown)[0]["stats64"]["tx"]["packets"])


def _lost(scene: Scene) -> int:
    """How many upcalls the datapath of ATTACKER's node has lost."""
    node = scene.cluster.node(scene.cluster.pod(ATTACKER).place.node)
    return sum(map(int, re.findall(r"lost:(\d+)", node.appctl("dpctl/show"))))
