"""The reachability of an emulated cluster, measured: every ordered pair of pods by every port, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, Opening
from romana_ovs_emulate.agents import PROBE_SECONDS, Answer
from romana_ovs_emulate.pods import RunningPod

CONFIRM_SECONDS = 4.0
"""How long a path that should be open gets for its second chance, in seconds: a loaded machine may be slow."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not as expected; `detail` is what the probe saw."""

    opening: Opening
    expected: bool
    measured: bool
    detail: str

    def to_json(self) -> dict[str, object]:
        """As docs/design.md section 8 writes it, with `detail` added."""
        return {**self.opening.to_json(), "expected": self.expected, "measured": self.measured, "detail": self.detail}

    def __str__(self) -> str:
        found, wanted = ("open", "closed") if self.measured else ("closed", "open")
        at = self.opening
        return f"{at.source} -> {at.destination} {at.port} is {found}, should be {wanted}" + (
            f" ({self.detail})" if self.detail else ""
        )


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured, and why each closed path failed."""

    matrix: Matrix
    details: Mapping[Opening, str]

    def differences(self, expected: Matrix) -> list[Difference]:
        """Every pair and port on which this and the expectation disagree, sorted."""
        here, there = set(self.matrix.openings()), set(expected.openings())
        return [Difference(one, one in there, one in here, self.details.get(one, "")) for one in sorted(here ^ there)]


def measure(
    pods: Mapping[PodKey, RunningPod],
    ports: Sequence[str],
    *,
    expected: Matrix | None = None,
    forget_sctp: Callable[[], None] = lambda: None,
    seconds: float = PROBE_SECONDS,
) -> Measurement:
    """The measured matrix of `pods` (all serving `ports`) by real connections, every pair by every port.

    What `expected` has open gets the second chance that `look` gives. Raises SetupError.
    """
    paths = [
        Opening(source, destination, port)
        for source in pods
        for destination in pods
        if source != destination
        for port in ports
    ]
    hoped = frozenset(expected.openings()) if expected is not None else frozenset()
    answers = look(pods, paths, hoped=hoped, forget_sctp=forget_sctp, seconds=seconds)
    matrix = Matrix.of(pods, ports, (path for path, answer in answers.items() if answer.open))
    return Measurement(matrix, {path: answer.detail for path, answer in answers.items() if not answer.open})


def look(
    pods: Mapping[PodKey, RunningPod],
    paths: Sequence[Opening],
    *,
    hoped: AbstractSet[Opening] = frozenset(),
    forget_sctp: Callable[[], None] = lambda: None,
    seconds: float = PROBE_SECONDS,
) -> dict[Opening, Answer]:
    """What each path answered.

    One of `hoped` that the first look found closed is asked once more, with patience, so that a busy machine is not
    taken for a closed path. A path that is open against hope is never asked again. `seconds` is how long the first
    look waits for answers.

    Open vSwitch before 3.2 tracks SCTP without ports: all associations of a pair, whichever end begins, are one
    connection. So the two directions of a pair are asked apart, and `forget_sctp` is called before each of
    them: it makes the switches forget what they track of SCTP. Raises SetupError.
    """
    answers: dict[Opening, Answer] = {}
    for group in _apart(paths):
        answers.update(_ask_afresh(pods, group, seconds, forget_sctp))
    doubtful = [path for path in paths if path in hoped and not answers[path].open]
    for group in _apart(doubtful):
        answers.update(_ask_afresh(pods, group, CONFIRM_SECONDS, forget_sctp))
    return answers


def _apart(paths: Sequence[Opening]) -> Iterator[list[Opening]]:
    """The paths in groups that may be asked at once: none with both directions of a pair over SCTP."""
    upward = [path for path in paths if not _is_sctp(path) or path.source < path.destination]
    downward = [path for path in paths if _is_sctp(path) and path.source > path.destination]
    yield from (group for group in (upward, downward) if group)


def _ask_afresh(
    pods: Mapping[PodKey, RunningPod], paths: Sequence[Opening], seconds: float, forget_sctp: Callable[[], None]
) -> dict[Opening, Answer]:
    if any(map(_is_sctp, paths)):
        forget_sctp()
    return ask(pods, paths, seconds=seconds)


def _is_sctp(path: Opening) -> bool:
    return path.port.endswith("/sctp")


def ask(
    pods: Mapping[PodKey, RunningPod], paths: Sequence[Opening], *, seconds: float = PROBE_SECONDS
) -> dict[Opening, Answer]:
    """What each path answered; all sources ask in parallel. Raises SetupError."""
    by_source: dict[PodKey, list[Opening]] = {}
    for path in paths:
        by_source.setdefault(path.source, []).append(path)
    begun = []
    for source, mine in by_source.items():
        agent = pods[source].agent
        begun.append((mine, agent, agent.probe_begin([_target(pods, path) for path in mine], seconds=seconds)))
    return {
        path: answer
        for mine, agent, number in begun
        for path, answer in zip(mine, agent.probe_end(number, seconds=seconds), strict=True)
    }


def _target(pods: Mapping[PodKey, RunningPod], path: Opening) -> tuple[str, int, str, str]:
    port, _, protocol = path.port.partition("/")
    return pods[path.destination].place.address, int(port), protocol, path.destination
