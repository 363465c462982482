"""The demonstration on a cluster of real nodes."""

from __future__ import annotations

import json

import pytest

from romana_ovs_emulate.cluster import demo
from tests.support.real_cluster import skip_without_requirements

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of three real kubelets")]


def test_the_demonstration_is_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    skip_without_requirements()
    exit_code = demo.main(["--json"])
    printed = json.loads(capsys.readouterr().out)
    assert exit_code == 0 and printed["faults"] == []
    opened = [[(path["from"], path["to"], path["port"]) for path in step["opened"]] for step in printed["steps"]]
    path = ("default/nginx-frontend", "default/nginx-backend", "80/tcp")
    assert opened[1:] == [[], [path], []]
    assert sorted(printed["figures"]["flows"]) == ["node1", "node2", "node3"]
    assert printed["figures"]["packets_to_controller"] == 0
