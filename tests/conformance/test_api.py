"""The table by packets on real Open vSwitch bridges, with a real API server as the source.

All cases that were asked for run in one pass over one cluster, before the first of them is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.conformance.api import api_cluster
from tests.conformance.offline import MODES
from tests.conformance.runners import asked_of, run_table
from tests.conformance.table import CASES
from tests.conformance.words import Case, Way

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow("the first of each mode runs the whole table: 140 clusters, one after the other"),
]
HERE = [case for case in CASES if not case.lacking(Way.API)]


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """One of its own: what other tests leave in theirs is no part of the table."""
    with ControlPlane() as made:
        made.apply(manifests_folder())
        yield made


@pytest.fixture(scope="module", params=MODES)
def faults(
    request: pytest.FixtureRequest, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, list[str]]:
    """What is not as the table says, of every case that this session asks for."""
    with api_cluster(plane, tmp_path_factory.mktemp(request.param), request.param) as cluster:
        return run_table(cluster, asked_of(request), request.param)


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_packets_go_where_the_table_says(faults: Mapping[str, list[str]], case: Case) -> None:
    assert faults[case.name] == []
