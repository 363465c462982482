"""Pods send 20,000 ARP frames a second each: nobody else loses a connection or an answer.

An answer rewrites fields of ARP, which no datapath can do: ovs-vswitchd makes it, in the same threads that make
megaflows for new traffic of all pods (docs/dataplane.md, "ARP"; docs/hazards.md B28). That the others lose nothing
shows the meter on a slow machine only, so what passes each pod's meter is counted, too.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest

from romana_ovs.pipeline.meters import ARP_BURST, ARP_RATE, arp_meter_number
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from tests.attacks import craft
from tests.attacks.craft import BROADCAST
from tests.attacks.frameset import Aim
from tests.attacks.ground import TENANT
from tests.attacks.harm import Vary, flooding, served
from tests.attacks.scene import NotHeldError, Scene, aim_of
from tests.support.live_cluster import attempts
from tests.support.netns_sockets import run
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
ATTACKER, CLIENT, SERVER, ASKING = "red/atk", "blue/pal1", "blue/v1", "blue/foe"
"""All on one node."""
TOGETHER = (ATTACKER, "red/mate1", "kube-system/kin1", "blue/iso1")
"""Four pods of the same node that flood at the same time."""
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
    "random senders and targets": lambda aim: [
        Vary(
            _zeros(_request(aim), (0, 12), (HARDWARE, 20)),
            (*((2 * word, word) for word in range(6)), *((HARDWARE + 2 * word, 6 + word) for word in range(10))),
        )
    ],
    "everything random": lambda aim: [
        Vary(
            _zeros(_request(aim), (0, 12), (OPERATION, 22)),
            (*((2 * word, word) for word in range(6)), *((OPERATION + 2 * word, 6 + word) for word in range(11))),
        )
    ],
    "replies of the victim": lambda aim: [Vary(_reply(aim))],
}
NO_REQUESTS = frozenset({"everything random", "replies of the victim"})
"""Frames that are dropped before any meter, as (almost) none is an ARP request."""
MORE_SECONDS = patience(1.0)
"""How much longer requests may come to a meter than between the two readings that are compared."""


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
    metered: Mapping[str, int] = field(default_factory=dict)
    """Frames of each attacker that came to its meter."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """Those of them that the meter did not drop."""

    def text(self) -> str:
        """The figures in one line."""
        ordered = sorted(self.answers)
        times = f"{1000 * ordered[len(ordered) // 2]:.1f}/{1000 * ordered[-1]:.0f} ms" if ordered else "-"
        return (
            f"{self.sent / self.seconds:.0f} frames/s: {len(self.answers)} answers ({times}), "
            f"{self.connected} of {self.begun} connections, {self.lost} upcalls lost, "
            f"meters passed {sum(self.passed.values())} of {sum(self.metered.values())}"
        )

    def others_lose_nothing(self) -> None:
        """Raises NotHeldError if an answer, a connection or an upcall was lost."""
        if len(self.answers) < EXCHANGES or self.connected < self.begun or self.lost:
            raise NotHeldError(self.text())

    def meters_drop_the_rest(self) -> None:
        """Raises NotHeldError if an attacker's frames did not come to its meter, or more passed than it may pass."""
        most = ARP_BURST + ARP_RATE * (self.seconds + MORE_SECONDS)
        if min(self.metered.values()) < most or max(self.passed.values()) > most:
            raise NotHeldError(f"meters passed {dict(self.passed)} of {dict(self.metered)} frames, not {most:.0f}")


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
    outcome = _outcome(scene, {ATTACKER: _frames(scene, ATTACKER, kind)})
    record_property("figures", outcome.text())
    print(kind, outcome.text())
    outcome.others_lose_nothing()
    if kind not in NO_REQUESTS:
        outcome.meters_drop_the_rest()


@pytest.mark.attack("ARP flood of four pods")
@pytest.mark.parametrize("kind", ["one target", pytest.param("random senders and targets", marks=LONG)])
def test_nobody_loses_by_floods_of_many(
    scene: Scene, kind: str, record_property: Callable[[str, object], None]
) -> None:
    outcome = _outcome(scene, {pod: _frames(scene, pod, kind) for pod in TOGETHER})
    record_property("figures", outcome.text())
    print(kind, outcome.text())
    outcome.others_lose_nothing()
    outcome.meters_drop_the_rest()


def test_a_meter_that_passes_all_is_noticed(scene: Scene) -> None:
    """Otherwise the tests above would prove nothing on a machine that is fast enough to answer a whole flood."""
    number, node = _arp_meter(scene, ATTACKER), _node(scene)
    node.ofctl("mod-meter", f"meter={number},pktps,burst,stats,bands=type=drop,rate=1000000,burst_size=1000000")
    try:
        outcome = _outcome(scene, {ATTACKER: _frames(scene, ATTACKER, "one target")}, exchanges=20)
    finally:
        usual = f"meter={number},pktps,burst,stats,bands=type=drop,rate={ARP_RATE},burst_size={ARP_BURST}"
        node.ofctl("mod-meter", usual)
    print(outcome.text())
    with pytest.raises(NotHeldError, match="meters passed"):
        outcome.meters_drop_the_rest()


def _frames(scene: Scene, attacker: str, kind: str) -> list[Vary]:
    return FRAMES[kind](replace(aim_of(scene, TENANT[0]), attacker=scene.end(attacker)))


def _outcome(scene: Scene, floods: Mapping[str, list[Vary]], *, exchanges: int = EXCHANGES) -> Outcome:
    """What others get while each pod of `floods` sends its frames."""
    outcome = Outcome()
    with attempts(scene.cluster, CLIENT, ("connect", SERVER, 80)) as traffic, ExitStack() as running:
        traffic.flowing()
        idle = _sent(scene, floods)
        processes = [
            running.enter_context(flooding(scene, pod, frames, seconds=FLOOD_SECONDS, ready=READY))
            for pod, frames in floods.items()
        ]
        eventually(lambda: min(_increase(idle, _sent(scene, floods)).values()) > READY, "every flood begins")
        began, before, sent, lost = time.monotonic(), traffic.report()[0], _sent(scene, floods), _lost(scene)
        metered, passed = _metered(scene, floods)
        for _ in range(exchanges):
            if (took := _exchange(scene)) is not None:
                outcome.answers.append(took)
            time.sleep(PAUSE_SECONDS)
        while traffic.report()[0]["next"] < before["next"] + exchanges:
            time.sleep(PAUSE_SECONDS)
        now_metered, now_passed = _metered(scene, floods)
        outcome.metered, outcome.passed = _increase(metered, now_metered), _increase(passed, now_passed)
        assert all(process.poll() is None for process in processes), "a flood has ended before"
        outcome.sent = sum(_increase(sent, _sent(scene, floods)).values())
        outcome.seconds = time.monotonic() - began
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


def _increase(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {key: count - before[key] for key, count in now.items()}


def _sent(scene: Scene, pods: Iterable[str]) -> dict[str, int]:
    """How many frames the interface of each pod has sent."""
    sent = {}
    for pod in pods:
        shown = run(scene.cluster.pod(pod).netns, "ip", "-json", "-stats", "link", "show", "dev", "eth0").stdout
        sent[pod] = int(json.loads(shown)[0]["stats64"]["tx"]["packets"])
    return sent


def _node(scene: Scene) -> Node:
    """The node of all attackers."""
    return scene.cluster.node(scene.cluster.pod(ATTACKER).place.node)


def _lost(scene: Scene) -> int:
    """How many upcalls the datapath of the node has lost."""
    return sum(map(int, re.findall(r"lost:(\d+)", _node(scene).appctl("dpctl/show"))))


def _arp_meter(scene: Scene, pod: str) -> int:
    """The number of the meter for a pod's ARP requests."""
    ports = dict(re.findall(r"^ (\d+)\((\S+)\): ", _node(scene).ofctl("show"), re.MULTILINE))
    (number,) = (int(port) for port, name in ports.items() if name == scene.cluster.pod(pod).port)
    return arp_meter_number(number)


def _metered(scene: Scene, pods: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """How many ARP requests of each pod came to its meter, and how many of these passed it."""
    came, passed = {}, {}
    for pod in pods:
        shown = _node(scene).ofctl("meter-stats", f"meter={_arp_meter(scene, pod)}")
        (before,), (dropped,) = re.findall(r"packet_in_count:(\d+)", shown), re.findall(r"0: packet_count:(\d+)", shown)
        came[pod], passed[pod] = int(before), int(before) - int(dropped)
    return came, passed
