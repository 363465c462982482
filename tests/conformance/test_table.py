"""The table itself: what it covers, and that no case of it says nothing."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conformance.offline import every_case, expected
from tests.conformance.states import BASE_STATE, endpoints, in_lane, key_of, states
from tests.conformance.table import CASES, ELSEWHERE, OUT_OF_SCOPE, UPSTREAM_ELSEWHERE
from tests.conformance.words import Case, Way, labels, named, policy, where

ROOT = Path(__file__).parents[2]
HAZARDS = {f"A{number}" for number in range(1, 32)}


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


def test_every_hazard_is_in_the_table_or_said_to_be_elsewhere() -> None:
    covered = {case.hazard for case in CASES if case.hazard}
    assert covered & HAZARDS | ELSEWHERE.keys() | OUT_OF_SCOPE.keys() == HAZARDS
    assert not covered & (ELSEWHERE.keys() | OUT_OF_SCOPE.keys())
    assert all((ROOT / place).is_file() for place in ELSEWHERE.values())


@every_case
def test_whoever_a_line_names_is_there(case: Case) -> None:
    """An exception about nobody would say nothing."""
    for step, state in states(case.steps):
        pods = endpoints(state)
        lines = [line for reach in (*step.expect.values(), *step.tenants.values()) for line in reach.lines]
        for line in lines:
            assert any(line.fits(pod, line.destination) for pod in pods), f"{step.does}: {line}"
            assert any(line.fits(line.source, pod) for pod in pods), f"{step.does}: {line}"
        assert {end for claim in step.claims for end in (claim.source, claim.destination) if "/" in end} <= {*pods}


@every_case
def test_a_step_changes_something(case: Case) -> None:
    """All but the one that looks at the base as it is."""
    before = BASE_STATE
    for number, (step, state) in enumerate(states(case.steps)):
        assert state != before or (number == 0 and not step.changes), step.does
        before = state


def test_the_rule_of_tenants_is_what_cases_write_out() -> None:
    """Where a case says in full what tenants leave open, that is what the rule of the table makes of the plain case."""
    written = 0
    for step, state in ((step, state) for case in CASES for step, state in states(case.steps)):
        pods = endpoints(state)
        written += len(step.tenants)
        ruled = expected(replace(step, tenants={}), pods, "tenants")
        assert {path for path in ruled if path.port in step.tenants} == {
            path for path in expected(step, pods, "tenants") if path.port in step.tenants
        }
    assert written > 10


@every_case
def test_a_case_can_be_run_in_some_way_with_packets(case: Case) -> None:
    assert not case.lacking(Way.FOLDER)
    assert all(case.without.values())


def _upstream_titles(source: str) -> list[str]:
    """The titles in a file of the end-to-end tests, with the protocol that its part is about."""
    titles = []
    for number, part in enumerate(re.split(r"common\.SIGDescribe\(", source)[1:]):
        about = ("", "UDP: ", "SCTP: ")[number]
        titles += [about + title for title in re.findall(r'It\("should (.*?)",', part)]
    return titles


def _upstream_folder() -> Path | None:
    """Where the Go module cache has the end-to-end tests, if it has them."""
    try:
        found = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    folders = sorted(Path(found).glob("k8s.io/kubernetes@*/test/e2e/network/netpol"))
    return folders[-1] if folders else None


def test_every_upstream_test_has_its_case() -> None:
    folder = _upstream_folder()
    if folder is None:
        pytest.skip("needs the source of k8s.io/kubernetes in the Go module cache: `make kube` puts it there")
    titles = [
        title
        for name in ("network_policy.go", "network_policy_api.go")
        for title in _upstream_titles((folder / name).read_text())
    ]
    ours = [case.upstream for case in CASES if case.upstream]
    assert len(titles) > 45 and len(set(ours)) == len(ours)
    assert set(titles) == {*ours, *UPSTREAM_ELSEWHERE}


def test_a_lane_renames_namespaces_wherever_they_are_asked_for() -> None:
    made = in_lane(
        policy(
            "x/p",
            where("kubernetes.io/metadata.name", "NotIn", "x", "y"),
            ingress=[{"from": [{"namespaceSelector": named("y"), "podSelector": labels(pod="x")}]}],
        ),
        2,
    )
    assert key_of(made).namespace == "x-2"
    assert made["spec"]["podSelector"]["matchExpressions"][0]["values"] == ["x-2", "y-2"]
    assert made["spec"]["ingress"][0]["from"][0] == {"namespaceSelector": named("y-2"), "podSelector": labels(pod="x")}
    spaces = {key_of(in_lane(manifest, 1)) for manifest in BASE_STATE.values()}
    assert {(key.kind, key.namespace, key.name) for key in spaces} >= {("Namespace", "", "x-1"), ("Pod", "y-1", "a")}
