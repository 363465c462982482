"""What a flood from one pod does to others: connections they open meanwhile, and megaflows of both nodes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.system import inside
from tests.attacks import flood, ground
from tests.attacks.scene import NotHeldError, Scene, scene_of
from tests.support.live_cluster import Traffic, attempts
from tests.support.waiting import PATIENCE, eventually

RATE = 20_000
"""Frames a second that one pod sends."""
SECONDS = 2.5
SHARE = 0.95
"""Of the connections that others begin meanwhile, so many are to come about."""
MAX_MEGAFLOWS = 1000
POLL_SECONDS = 0.2
AFTER_SECONDS = 2.0
"""How long others try to connect when a flood is over."""
OTHERS = {
    "blue/pal1": (("connect", "blue/v1", 80), ("connect", "blue/v2", 80)),
    "blue/pal2": (("connect", "blue/v2", 80),),
}
"""Who opens connections to whom: inside each node, and between them. 50 a second each."""


Counts = dict[str, tuple[int, int]]
"""Of each way how many connections came about, and how many were begun."""


@dataclass(frozen=True, slots=True)
class Vary:
    """A frame of a flood: at each (offset, word) a random word, equal for equal numbers; see `flood`."""

    frame: bytes
    places: tuple[tuple[int, int], ...] = ()
    checksum: int = 0


@dataclass
class Harm:
    """What was measured during a flood."""

    sent: int = 0
    megaflows: dict[str, int] = field(default_factory=dict)
    begun: dict[str, int] = field(default_factory=dict)
    good: dict[str, int] = field(default_factory=dict)

    def note(self, before: Counts, now: Counts) -> None:
        """Take the difference of two counts of others' connections."""
        for way, (good, begun) in now.items():
            self.good[way], self.begun[way] = good - before[way][0], begun - before[way][1]
        assert min(self.begun.values()) > 0, "nobody else tried to connect"

    def connections_come_about(self) -> None:
        """Raises NotHeldError if others were kept from connecting."""
        for way, begun in self.begun.items():
            if self.good[way] < SHARE * begun:
                raise NotHeldError(f"{way}: {self.good[way]} of {begun} connections came about ({self.sent} frames)")

    def megaflows_stay_few(self) -> None:
        """Raises NotHeldError if a node had too many megaflows."""
        for node, count in self.megaflows.items():
            if count >= MAX_MEGAFLOWS:
                raise NotHeldError(f"{node} had {count} megaflows ({self.sent} frames sent)")


def harm_of(scene: Scene, source: str, frames: list[Vary], *, rate: int = RATE, seconds: float = SECONDS) -> Harm:
    """What others and both nodes suffer while `source` sends these frames in turn, again and again."""
    harm = Harm()
    for node in scene.cluster.emulation.nodes.values():
        node.appctl("revalidator/purge")  # What an earlier flood left stays for ten seconds.
    with _connecting(scene) as traffic:
        for one in traffic.values():
            one.flowing()
        before = _counts(traffic)
        with flooding(scene, source, frames, rate=rate, seconds=seconds) as process:
            while process.poll() is None:
                for name in scene.cluster.emulation.nodes:
                    harm.megaflows[name] = max(harm.megaflows.get(name, 0), scene.megaflows(name))
                time.sleep(POLL_SECONDS)
            assert process.stdout is not None
            harm.sent = int(process.stdout.read().split()[-1])
        harm.note(before, _counts(traffic))
    return harm


def harm_after(scene: Scene, source: str, frames: list[Vary], *, rate: int = RATE, seconds: float = SECONDS) -> Harm:
    """What others suffer when such a flood is over, by what it left behind."""
    harm = Harm()
    with flooding(scene, source, frames, rate=rate, seconds=seconds) as process:
        harm.sent = int(process.communicate(timeout=seconds + PATIENCE)[0].split()[-1])
    scene.forget()
    scene.taken_in(source)  # A queue that is full yet would harm others by that alone.
    with _connecting(scene) as traffic:
        before = _counts(traffic)
        limit = time.monotonic() + AFTER_SECONDS
        eventually(lambda: time.monotonic() > limit, "others have tried for a while")
        harm.note(before, _counts(traffic))
    return harm


@contextmanager
def served(folder: Path, fabric: Fabric, *, settings: str = "", more: str = "") -> Iterator[Scene]:
    """A ground on which the pods of OTHERS serve pages."""
    with ground.cluster(folder, fabric, settings=settings, more=more) as running, scene_of(running, fabric) as made:
        for key in {target for tasks in OTHERS.values() for _, target, _ in tasks}:
            running.pod(key).agent.serve(("80/tcp",))
        yield made


@contextmanager
def flooding(
    scene: Scene, source: str, frames: list[Vary], *, rate: int = RATE, seconds: float = SECONDS, ready: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """The process that floods; it ends by itself, and in the end anyway. `ready`: see `flood`."""
    words = 1 + max((word for one in frames for _, word in one.places), default=-1)
    order = {
        "rate": rate,
        "seconds": seconds,
        "words": words,
        "ready": ready,
        "frames": [{"hex": one.frame.hex(), "places": one.places, "checksum": one.checksum} for one in frames],
    }
    process = subprocess.Popen(
        inside(scene.cluster.pod(source).netns, [sys.executable, flood.__file__]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


@contextmanager
def _connecting(scene: Scene) -> Iterator[dict[str, Traffic]]:
    """Others open connections all the time."""
    one, two = OTHERS
    with attempts(scene.cluster, one, *OTHERS[one]) as first, attempts(scene.cluster, two, *OTHERS[two]) as second:
        yield {one: first, two: second}


def _counts(traffic: dict[str, Traffic]) -> Counts:
    """The counts of what was begun until now, once all of it has its outcome."""
    return {
        f"{source} -> {target}": (one["good"], one["oldest"])
        for source, running in traffic.items()
        for (_, target, _), one in zip(OTHERS[source], running.decided(), strict=True)
    }
