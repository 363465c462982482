"""Pods fill the room for unfinished datagrams, which all share. Others' datagrams in fragments arrive.

The room: 5,000 fragments for 15 seconds in the userspace datapath, `net.ipv4.ipfrag_high_thresh` bytes for 30 in the
kernel's. The kernel's reassembles before policy decides, so a fragment takes up room wherever it is sent.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs.pipeline.meters import METERS, tenant_fragment_meter_number
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from tests.attacks import craft
from tests.attacks.craft import FULL, MORE, Ip
from tests.attacks.ground import TENANT, Duel
from tests.attacks.harm import SHARE, Vary, flooding, served
from tests.attacks.scene import MARK, NotHeldError, Scene
from tests.support.datapath import datapath_type
from tests.support.manifests import placed_pod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.alone]
LONG = pytest.mark.long
RATE, FIRSTS_SECONDS = 10_000, 0.5
FRAGMENT_IDENT, IP_SUM = 18, 24
"""Offsets in a frame."""
ON_KERNEL = datapath_type() is DatapathType.SYSTEM
FORGET_SECONDS = 30.0 if ON_KERNEL else 15.0
"""How long the datapath waits for the rest of a datagram."""
DATAGRAMS = 20
BIG = b"d" * 3500
MANY = tuple(f"red/many{number}" for number in range(8))
"""Pods of the attacker's tenant on its node: as many as fill the room, if each may send what a pod may."""
EACH_RATE = 200
"""Fragments a second of each of MANY, four times as many as a pod may send."""
FILL_SECONDS = 26.0 if ON_KERNEL else 13.0
"""How long MANY need to fill the room, by their own meters: 24 MB, or 5,000 fragments."""


@pytest.fixture(scope="module")
def scene(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A ground of its own, with more pods of the attacker's tenant."""
    more = "".join(placed_pod(key.partition("/")[2], "node1", "red") for key in MANY)
    with served(tmp_path_factory.mktemp("fragments"), fabric, more=more) as made:
        yield made


@pytest.mark.attack("first fragments without the rest")
@pytest.mark.parametrize("duel", [TENANT[0], pytest.param(TENANT[1], marks=LONG)], ids=lambda duel: duel.name)
def test_others_datagrams_in_fragments_arrive(scene: Scene, duel: Duel) -> None:
    """A friend's large datagrams come to the victim while the attacker begins 5,000 that it never ends."""
    _at_rest(scene, duel)
    with flooding(scene, duel.attacker, _firsts(scene, duel.attacker, duel), rate=RATE, seconds=FIRSTS_SECONDS) as it:
        it.wait()
    _all_arrive(scene, duel)


@pytest.mark.slow("eight pods need 13 seconds to fill the room, which is empty again after 15")
@pytest.mark.attack("first fragments of eight pods of a tenant")
@pytest.mark.parametrize("duel", [TENANT[0], pytest.param(TENANT[1], marks=LONG)], ids=lambda duel: duel.name)
def test_a_tenant_does_not_fill_the_room_for_fragments(scene: Scene, duel: Duel) -> None:
    _at_rest(scene, duel)
    with _many(scene, duel):
        _all_arrive(scene, duel)


@pytest.mark.slow("eight pods need 13 seconds to fill the room, which is empty again after 15")
def test_without_a_tenants_meter_its_pods_fill_the_room(scene: Scene) -> None:
    """Otherwise the test above would prove nothing."""
    duel, node = TENANT[0], scene.cluster.node("node1")
    _at_rest(scene, duel)
    with _without_tenants_meters(node), _many(scene, duel), pytest.raises(NotHeldError):
        _all_arrive(scene, duel)


def _firsts(scene: Scene, attacker: str, duel: Duel) -> list[Vary]:
    """First fragments to the ally, each of another datagram."""
    a, b = scene.end(attacker), scene.end(duel.ally)
    whole = craft.udp(a, b, (7000, 7001), b"f" * (FULL - 8), how=Ip(ident=0, fragment=MORE))
    return [Vary(whole, ((FRAGMENT_IDENT, 0),), IP_SUM)]


@contextmanager
def _many(scene: Scene, duel: Duel) -> Iterator[None]:
    """While MANY send first fragments, and have done so for a while."""
    with ExitStack() as running:
        for key in MANY:
            frames = _firsts(scene, key, duel)
            seconds = FILL_SECONDS + patience(10.0)
            running.enter_context(flooding(scene, key, frames, rate=EACH_RATE, seconds=seconds))
        limit = time.monotonic() + FILL_SECONDS
        eventually(lambda: time.monotonic() > limit, "the pods have sent for a while", 2 * FILL_SECONDS)
        yield


@contextmanager
def _without_tenants_meters(node: Node) -> Iterator[None]:
    """While the meters of tenants pass all."""
    meters = _tenant_meters(node)
    _set_rate(node, meters, 1_000_000)
    try:
        yield
    finally:
        _set_rate(node, meters, 100)


def _tenant_meters(node: Node) -> list[int]:
    shown = (int(number) for number in re.findall(r"meter=(\d+)", node.ofctl("dump-meters")))
    first = tenant_fragment_meter_number(0)
    return [number for number in shown if first <= number < METERS.stop]


def _set_rate(node: Node, meters: Iterable[int], rate: int) -> None:
    for number in meters:
        band = f"type=drop,rate={rate},burst_size={2 * rate}"
        node.ofctl("mod-meter", f"meter={number},pktps,burst,stats,bands={band}")


def _at_rest(scene: Scene, duel: Duel) -> None:
    """Returns when no switch keeps fragments, and others' datagrams arrive."""
    eventually(lambda: _let_go(scene, duel), "the switches have let go of older fragments", 3 * FORGET_SECONDS)
    assert _arrive(scene, duel) == DATAGRAMS, "at rest all arrive"


def _let_go(scene: Scene, duel: Duel) -> bool:
    """Whether no switch keeps fragments. Open vSwitch lets them go, after their time, as other packets pass."""
    scene.reach(duel.friend, duel.victim)
    return not any(_kept_fragments(node) for node in scene.cluster.emulation.nodes.values())


def _kept_fragments(node: Node) -> int:
    """How many fragments (or datagrams, in the kernel) a node's datapath keeps, waiting for others."""
    if ON_KERNEL:
        shown = node.execute(["grep", "FRAG", "/proc/net/sockstat"]).stdout
        kept = re.findall(r"inuse (\d+)", shown)
    else:
        shown = node.appctl("dpctl/ipf-get-status")
        kept = re.findall(r"num frag: (\d+)", shown)
    assert kept, shown
    return sum(map(int, kept))


def _all_arrive(scene: Scene, duel: Duel) -> None:
    """Raises NotHeldError if others' datagrams in fragments do not arrive."""
    kept = {name: _kept_fragments(node) for name, node in scene.cluster.emulation.nodes.items()}
    arrived = _arrive(scene, duel)
    print(f"{arrived} of {DATAGRAMS} datagrams arrived; fragments kept before: {kept}")
    if arrived < SHARE * DATAGRAMS:
        raise NotHeldError(f"{arrived} of {DATAGRAMS} datagrams in fragments arrived ({kept})")


def _arrive(scene: Scene, duel: Duel) -> int:
    """How many of DATAGRAMS from a friend, in three fragments each, arrive whole at the victim."""
    scene.forget()
    a, b = scene.end(duel.friend), scene.end(duel.victim)
    for number in range(DATAGRAMS):
        whole = craft.udp(a, b, (9000, 9000), b"whole%03d" % number + BIG)
        scene.through(duel.friend, duel.victim, craft.fragments(whole, (FULL, 2 * FULL), ident=1000 + number))
    pieces = [frame for frame in scene.heard(duel.victim) if frame[26:30] == a.address.packed and MARK not in frame]
    return len(pieces) // 3
