"""The table by packets on real Open vSwitch bridges, with a folder of manifests as the source.

All cases that were asked for run in one pass over one cluster, before the first of them is judged. Where there is an
API server to run (test_api.py), only the cases that it cannot serve are run from a folder.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from romana_ovs_emulate import binaries
from tests.conformance.folder import folder_cluster
from tests.conformance.offline import MODES
from tests.conformance.runners import asked_of, run_table
from tests.conformance.table import CASES
from tests.conformance.words import Case, Way

pytestmark = pytest.mark.root
HERE = [case for case in CASES if case.lacking(Way.API) or binaries.unavailable_reason()]


@pytest.fixture(scope="module", params=MODES)
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """What is not as the table says, of every case that this session asks for."""
    with folder_cluster(tmp_path_factory.mktemp(request.param), request.param) as cluster:
        return run_table(cluster, asked_of(request), request.param)


@pytest.mark.parametrize("case", HERE, ids=lambda case: case.name)
def test_packets_go_where_the_table_says(faults: Mapping[str, list[str]], case: Case) -> None:
    assert faults[case.name] == []
