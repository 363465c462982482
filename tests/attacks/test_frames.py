"""Every set of frames, by everybody to whom it is of use: nothing arrives."""

from __future__ import annotations

import contextlib

import pytest

from tests.attacks.frameset import FrameSet
from tests.attacks.ground import ONE_PORT_OPEN, POLICY, SHARED, TENANT, Duel
from tests.attacks.scene import NotHeldError, Scene, aim_of
from tests.attacks.sets import SETS
from tests.support.waiting import eventually

pytestmark = pytest.mark.root
DUELS = TENANT + POLICY + SHARED + ONE_PORT_OPEN


def _attacks() -> list[object]:
    return [
        pytest.param(one, duel, id=f"{one.name}-{duel.name}", marks=[] if one.short else [pytest.mark.long])
        for duel in DUELS
        for one in SETS
        if duel in one.duels
    ]


@pytest.mark.attack
@pytest.mark.parametrize(("frames", "duel"), _attacks())
def test_nothing_arrives(scene: Scene, frames: FrameSet, duel: Duel) -> None:
    aim = aim_of(scene, duel)
    made = list(frames.frames(aim))
    assert made
    with scene.unfiltered(duel.attacker) if frames.to_tables else contextlib.nullcontext():
        scene.attack(duel, made)
    scene.nobody_heard(duel, but=frames.admits)
    if frames.works:
        _arrive_at_the_ally(scene, duel, list(frames.frames(aim.at_ally())))


def _arrive_at_the_ally(scene: Scene, duel: Duel, made: list[bytes]) -> None:
    """The control: the same frames come to somebody who may be reached."""
    scene.forget()
    scene.through(duel.attacker, duel.ally, made)
    arrived = len(scene.heard(duel.ally))
    assert arrived >= len(made), f"of {len(made)} such frames {arrived} arrive where they may"


def test_a_frame_that_arrives_is_seen(scene: Scene) -> None:
    """The tests are not blind: a packet that is allowed, sent as if it were an attack, does not count as held."""
    udp = next(one for one in SETS if one.name == "plain: UDP")
    for victim in ("blue/v1", "blue/v2"):
        duel = Duel("", "blue/foe", "blue/v1", victim, "blue/pal1")
        duel = duel if victim != duel.ally else Duel("", "blue/foe", "blue/iso1", victim, "blue/pal1")
        scene.reach(duel.friend, duel.victim)
        scene.forget()

        def heard(duel: Duel = duel) -> bool:
            # The friend's packets may overtake those from another node.
            scene.put(duel.attacker, udp.frames(aim_of(scene, duel)))
            scene.reach(duel.friend, duel.victim)
            try:
                scene.nobody_heard(duel)
            except NotHeldError:
                return True
            return False

        eventually(heard, f"{victim} hears what it may")


def test_the_names_of_sets_are_different() -> None:
    names = [one.name for one in SETS]
    assert len(set(names)) == len(names)
