"""Policy scenarios on an emulated cluster of linked bridges: every pair of pods by every port is as expected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.policy.matrix import Matrix, PodPath
from romana_ovs_emulate.fabric import Fabric
from tests.integration.scenarios import checks
from tests.support.command import run_command
from tests.support.editable_cluster import EditableCluster

FABRIC = Fabric.LINK
ON_GENEVE = "plain/egress-open"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditableCluster]:
    yield from checks.running(FABRIC, tmp_path_factory.mktemp("live"))


@pytest.mark.parametrize("scenario", checks.scenarios_of(FABRIC))
def test_measured_is_expected(live: EditableCluster, scenario: str) -> None:
    checks.check_measured(live, scenario)


def test_a_new_controller_computes_the_same_flows(live: EditableCluster) -> None:
    checks.check_restart(live)


def test_a_fresh_start_on_geneve_measures_the_same(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(checks.manifests_of(ON_GENEVE))
    (tmp_path / "romana.conf").write_text(checks.settings_of(ON_GENEVE))
    words = ("emulate", str(tmp_path), "--nodes", "3", "--fabric", "geneve", "--json")
    done = run_command(*words, "--probe", ",".join(checks.PORTS), seconds=100)
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    result = json.loads(done.stdout)
    assert result["measured"] == result["expected"]
    measured = result["measured"]["allowed"]
    checks.check_claims(
        ON_GENEVE,
        Matrix.of(
            result["measured"]["pods"],
            checks.PORTS,
            [PodPath(source, destination, port) for port in checks.PORTS for source, destination in measured[port]],
        ),
    )
