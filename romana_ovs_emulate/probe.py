"""Measures the reachability of an emulated cluster: every ordered pair of pods on every port, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, PodPath
from romana_ovs_emulate.agent_client import PROBE_SECONDS, ProbeResult
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.pods import RunningPod

CONFIRM_SECONDS = patience(4.0)
"""How long the second probe of a path that should be open may take, in seconds: a loaded machine may be slow."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not as expected; `detail` is the result of the probe."""

    path: PodPath
    expected: bool
    measured: bool
    detail: str

    def to_json(self) -> dict[str, object]:
        """As JSON values, in the form of docs/design.md section 8, with `detail` added."""
        return {**self.path.to_json(), "expected": self.expected, "measured": self.measured, "detail": self.detail}

    def __str__(self) -> str:
        measured, expected = ("open", "closed") if self.measured else ("closed", "open")
        path = self.path
        return f"{path.source} -> {path.destination} {path.port} is {measured}, should be {expected}" + (
            f" ({self.detail})" if self.detail else ""
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measured matrix, and why each closed path is closed."""

    matrix: Matrix
    details: Mapping[PodPath, str]

    def differences(self, expected: Matrix) -> list[Difference]:
        """Every path on which this differs from what is expected, sorted."""
        here, there = set(self.matrix.open_paths()), set(expected.open_paths())
        return [Difference(one, one in there, one in here, self.details.get(one, "")) for one in sorted(here ^ there)]


def measure(
    pods: Mapping[PodKey, RunningPod],
    ports: Sequence[str],
    *,
    expected: Matrix | None = None,
    flush_sctp: Callable[[], None] = lambda: None,
    seconds: float = PROBE_SECONDS,
) -> Measurement:
    """The matrix of `pods` (all serving `ports`), measured by real connections: every pair on every port.

    Paths that `expected` has open are probed as `expected_open` of `probe_paths`. Raises SetupError.
    """
    paths = [
        PodPath(source, destination, port)
        for source in pods
        for destination in pods
        if source != destination
        for port in ports
    ]
    expected_open = frozenset(expected.open_paths()) if expected is not None else frozenset()
    answers = probe_paths(pods, paths, expected_open=expected_open, flush_sctp=flush_sctp, seconds=seconds)
    matrix = Matrix.of(pods, ports, (path for path, answer in answers.items() if answer.open))
    return Measurement(matrix, {path: answer.detail for path, answer in answers.items() if not answer.open})


def probe_paths(
    pods: Mapping[PodKey, RunningPod],
    paths: Sequence[PodPath],
    *,
    expected_open: AbstractSet[PodPath] = frozenset(),
    flush_sctp: Callable[[], None] = lambda: None,
    seconds: float = PROBE_SECONDS,
) -> dict[PodPath, ProbeResult]:
    """The result of each path.

    A path of `expected_open` that is closed in the first round is probed once more, with a longer time limit, so that a
    busy machine does not make a path appear closed. No other path is probed twice. `seconds` is the first limit.

    Open vSwitch before 3.2 tracks SCTP without ports: all associations of a pair, whichever end begins, are one
    connection. So the two directions of a pair are probed one after the other, and before each of them `flush_sctp` is
    called, which flushes SCTP from the switches' connection tracking. Raises SetupError.
    """
    answers: dict[PodPath, ProbeResult] = {}
    for group in _sctp_groups(paths):
        answers.update(_probe_fresh(pods, group, seconds, flush_sctp))
    doubtful = [path for path in paths if path in expected_open and not answers[path].open]
    for group in _sctp_groups(doubtful):
        answers.update(_probe_fresh(pods, group, CONFIRM_SECONDS, flush_sctp))
    return answers


def _sctp_groups(paths: Sequence[PodPath]) -> Iterator[list[PodPath]]:
    """The paths in groups that may be probed at once: none has both directions of a pair over SCTP."""
    upward = [path for path in paths if not _is_sctp(path) or path.source < path.destination]
    downward = [path for path in paths if _is_sctp(path) and path.source > path.destination]
    yield from (group for group in (upward, downward) if group)


def _probe_fresh(
    pods: Mapping[PodKey, RunningPod], paths: Sequence[PodPath], seconds: float, flush_sctp: Callable[[], None]
) -> dict[PodPath, ProbeResult]:
    if any(map(_is_sctp, paths)):
        flush_sctp()
    return probe_once(pods, paths, seconds=seconds)


def _is_sctp(path: PodPath) -> bool:
    return path.port.endswith("/sctp")


def probe_once(
    pods: Mapping[PodKey, RunningPod], paths: Sequence[PodPath], *, seconds: float = PROBE_SECONDS
) -> dict[PodPath, ProbeResult]:
    """The result of each path; all sources probe in parallel. Raises SetupError."""
    by_source: dict[PodKey, list[PodPath]] = {}
    for path in paths:
        by_source.setdefault(path.source, []).append(path)
    probes = []
    for source, targets in by_source.items():
        agent = pods[source].agent
        probes.append((targets, agent, agent.start_probe([_target(pods, path) for path in targets], seconds=seconds)))
    return {
        path: answer
        for targets, agent, number in probes
        for path, answer in zip(targets, agent.finish_probe(number, seconds=seconds), strict=True)
    }


def _target(pods: Mapping[PodKey, RunningPod], path: PodPath) -> tuple[str, int, str, str]:
    port, _, protocol = path.port.partition("/")
    return pods[path.destination].place.address, int(port), protocol, path.destination
