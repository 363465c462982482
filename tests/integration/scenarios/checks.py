"""What the policy scenarios share: which there are, their files, and how each is judged.

A fabric's cluster runs its scenarios one after the other: manifests are replaced live; other settings mean a
restart of the controller over the running switches.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from romana_ovs.policy.matrix import Matrix, PodPath
from romana_ovs_emulate.fabric import Fabric
from tests.support.editable_cluster import EditableCluster

FOLDER = Path(__file__).parent
PORTS = ("80/tcp", "81/tcp", "443/tcp", "81/udp", "80/sctp", "81/sctp")
PROBE_SECONDS = 30
"""The longest that measuring nine pods by six ports may take."""
SCENARIOS = sorted(
    str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.glob("*/*.yaml") if path.name != "pods.yaml"
)
_CLAIM = re.compile(r"^# (open|closed): (.+)$", re.MULTILINE)


def scenarios_of(fabric: Fabric) -> list[str]:
    """Those that run on a fabric: they take turns, so each fabric has some of each kind."""
    return SCENARIOS[(Fabric.LINK, Fabric.VXLAN).index(fabric) :: 2]


def settings_of(scenario: str) -> str:
    """Its romana.conf."""
    return (FOLDER / scenario).with_name("romana.conf").read_text()


def text_of(scenario: str) -> str:
    """Its own file."""
    return (FOLDER / f"{scenario}.yaml").read_text()


def manifests_of(scenario: str) -> str:
    """Its pods and its own file."""
    return (FOLDER / scenario).with_name("pods.yaml").read_text() + "---\n" + text_of(scenario)


def claims_of(scenario: str) -> dict[PodPath, bool]:
    """What a scenario's comments say: path -> whether it is open."""
    claims: dict[PodPath, bool] = {}
    for word, paths in _CLAIM.findall(text_of(scenario)):
        for path in paths.split(", "):
            source, _, destination, port = path.split()
            claims[PodPath(source, destination, port)] = word == "open"
    return claims


def check_claims(scenario: str, matrix: Matrix) -> None:
    """Every claim is about a path that was asked, and is true."""
    openings, claims = set(matrix.open_paths()), claims_of(scenario)
    assert set(claims.values()) == {True, False}, "a scenario says by hand what is open and what is closed"
    assert {opening.port for opening in claims} <= set(matrix.ports)
    assert {pod for opening in claims for pod in (opening.source, opening.destination)} <= set(matrix.pods)
    assert {one: one in openings for one in claims} == claims


def running(fabric: Fabric, folder: Path) -> Iterator[EditableCluster]:
    """The fabric's cluster with its first scenario."""
    first = scenarios_of(fabric)[0]
    with EditableCluster(
        folder, fabric, ports=PORTS, settings=settings_of(first), manifests=manifests_of(first)
    ) as live:
        live.shown = first
        yield live


def check_measured(live: EditableCluster, scenario: str) -> None:
    """Show the scenario; every pair of pods by every port is as a fresh reading of it expects, and as it claims."""
    if live.shown != scenario:
        live.show(settings_of(scenario), manifests_of(scenario))
        live.shown = scenario
    expected = live.expected()
    check_claims(scenario, expected)
    began = time.monotonic()
    measured = live.measure(expected)
    assert [str(one) for one in measured.differences(expected)] == []
    assert len(measured.matrix.pods) >= 7
    assert time.monotonic() - began < PROBE_SECONDS


def check_restart(live: EditableCluster) -> None:
    """A controller that starts anew wants exactly what the live edits have arrived at."""
    before = live.flows()
    assert all(len(flows) > 50 for flows in before.values())
    live.restart_controller()
    assert live.flows() == before
