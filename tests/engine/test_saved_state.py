"""State files of version 0.1.0: every address, host number and class stays as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.engine import Engine
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.objects import PodKey
from tests.support.builders import DEFAULTS, cluster, pod, pods, policy, rule

OLD: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "state_1.json").read_text())
"""As it was written for `at()`, after a pod of a class of its own had gone."""


def at() -> Cluster:
    listed = [
        pod(
            f"p{number}",
            f"node{1 + number % 3}",
            app=("web", "db", "x")[number % 3],
            tier=("a", "b")[number % 2],
            uid=f"u{number}",
        )
        for number in range(9)
    ]
    asks = policy("asks", ingress=[rule(pods(app="web"))])
    return cluster(*listed, pod("f", address="192.168.7.9", node="node2", uid="uf"), asks)


def test_an_old_state_file_keeps_every_number() -> None:
    engine = Engine(DEFAULTS, OLD)
    engine.step(at())
    assert engine.hosts == OLD["addresses"]["hosts"] and engine.problems == ()
    addresses = {key: str(address) for key, _, _, address, *_ in OLD["addresses"]["endpoints"]}
    assert {key: str(engine.agents.address_of(PodKey(key))) for key in at().pods} == addresses
    known = {entry["identity"] for entry in OLD["identities"]["classes"]["classes"]}
    assert {engine.agents.identity_of(key) for key in at().pods} <= known
    again = Engine(DEFAULTS, json.loads(json.dumps(engine.to_json())))
    again.step(at())
    assert again.agents.endpoints == engine.agents.endpoints


def test_an_old_state_file_of_another_plan_is_refused() -> None:
    with pytest.raises(AddressError, match="was written for the plan"):
        Engine(replace(DEFAULTS, host_bits=DEFAULTS.host_bits - 1), OLD)


@pytest.mark.parametrize(
    "state", [{}, {"format": 2}, {**OLD, "addresses": 7}, {**OLD, "identities": {"remnants": [7]}}]
)
def test_what_is_no_state_of_ours_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Engine(DEFAULTS, state)
