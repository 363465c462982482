"""An ordinary start, in which pods may be there before their switch is first read: nobody is taken for old."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.attacks.frameset import FrameSet
from tests.attacks.ground import NODES, PODS, POLICIES, POLICY, TENANT, Duel
from tests.attacks.scene import Scene, aim_of, scene_of
from tests.attacks.sets import connections, errors, plain
from tests.support.live_cluster import live_cluster

pytestmark = [pytest.mark.root, pytest.mark.long]
SETS = (*plain.SETS, *connections.SETS, *errors.SETS)


@pytest.fixture(scope="module")
def started(fabric: Fabric, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The ground, all of it there when the controller starts."""
    folder = tmp_path_factory.mktemp("start")
    with live_cluster(folder, NODES, fabric=fabric, manifests={"ground": PODS + POLICIES}) as cluster:
        cluster.emulation.serve(())
        with scene_of(cluster, fabric) as made:
            yield made


@pytest.mark.attack("ordinary start")
@pytest.mark.parametrize("duel", TENANT + POLICY, ids=lambda duel: duel.name)
@pytest.mark.parametrize("frames", SETS, ids=lambda frames: frames.name)
def test_nothing_arrives(started: Scene, frames: FrameSet, duel: Duel) -> None:
    started.attack(duel, frames.frames(aim_of(started, duel)))
    started.nobody_heard(duel)
