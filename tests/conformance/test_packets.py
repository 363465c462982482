"""The table by packets on real Open vSwitch bridges, with a folder of manifests as the source.

All cases that were asked for run in one pass over one cluster, before the first of them is judged.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.conformance.folder import folder_cluster
from tests.conformance.lanes import run_table
from tests.conformance.offline import MODES, every_case
from tests.conformance.words import Case, Way

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", params=MODES)
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """What is not as the table says, of every case that this session asks for."""
    mode = request.param
    asked = {
        item.callspec.params["case"].name: item.callspec.params["case"]
        for item in request.session.items if item.path == request.path
    }
    with folder_cluster(tmp_path_factory.mktemp(mode), mode) as cluster:
        return run_table(cluster, [case for case in asked.values() if Way.FOLDER not in case.without], mode)


@every_case
def test_packets_go_where_the_table_says(faults: Mapping[str, list[str]], case: Case) -> None:
    assert faults[case.name] == []
