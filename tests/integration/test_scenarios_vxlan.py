"""Policy scenarios on an emulated cluster over VXLAN: every pair of pods by every port is as expected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.integration.scenarios import checks
from tests.support.editable_cluster import EditableCluster

FABRIC = Fabric.VXLAN


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditableCluster]:
    yield from checks.running(FABRIC, tmp_path_factory.mktemp("live"))


@pytest.mark.parametrize("scenario", checks.scenarios_of(FABRIC))
def test_measured_is_expected(live: EditableCluster, scenario: str) -> None:
    checks.check_measured(live, scenario)


def test_a_new_controller_computes_the_same_flows(live: EditableCluster) -> None:
    checks.check_restart(live)
