"""Compares what was measured with what is expected, and names what could not be measured.

A run succeeds only when everything that should run was measured, and is as expected.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from romana_ovs.kube.decode.workloads import WORKLOADS
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import Problem, Severity
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix
from romana_ovs_emulate.probe import Difference, Measurement


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """An object whose pods should run and do not; `name` is a pod's `namespace/name`, or that of an invalid object."""

    kind: str
    name: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return {"kind": self.kind, "name": self.name, "reason": self.reason}

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {self.reason}".lstrip()


@dataclass(frozen=True, slots=True)
class ProbeResults:
    """The matrix that is `expected` of all pods that should run, and what was measured between those that do."""

    expected: Matrix
    measurement: Measurement
    unmeasured: tuple[Unmeasured, ...] = ()

    @property
    def measured(self) -> Matrix:
        """The measured matrix, of the pods that run."""
        return self.measurement.matrix

    @property
    def differences(self) -> list[Difference]:
        """Every measured path that is not as expected, sorted."""
        return self.measurement.differences(between(self.expected, self.measured.pods))

    @property
    def successful(self) -> bool:
        """Whether everything was measured, and is as expected."""
        return not self.unmeasured and not self.differences

    @property
    def pairs(self) -> tuple[int, int]:
        """How many ordered pairs of pods were measured, and how many there are."""
        running, wanted = set(self.measured.pods), set(self.expected.pods)
        return _pairs(running & wanted), _pairs(wanted)


def _pairs(pods: Collection[PodKey]) -> int:
    return len(pods) * (len(pods) - 1)


def between(matrix: Matrix, pods: Collection[PodKey]) -> Matrix:
    """The part of `matrix` between these pods."""
    chosen = frozenset(pods)
    paths = (one for one in matrix.open_paths() if one.source in chosen and one.destination in chosen)
    return Matrix.of(pods, matrix.ports, paths)


@dataclass(frozen=True, slots=True)
class EmulationState:
    """What an emulation reports: its nodes, the failures of pods, and the problems of its controller."""

    nodes: Collection[str]
    failures: Mapping[PodKey, str]
    problems: Collection[str]


def unmeasured(
    loaded: ClusterSnapshot, wanted: Collection[PodKey], running: Collection[PodKey], state: EmulationState
) -> Iterator[Unmeasured]:
    """What should run and does not: the pods `wanted` that are not `running`, and invalid objects that have pods."""
    reported = set()
    for pod in sorted(wanted):
        if pod not in running:
            yield Unmeasured("Pod", pod, _reason(loaded, pod, state))
            if place := loaded.locations.get(pod):
                reported.add((place.file, place.document, place.kind, place.name))
    others = {(place.file, place.document, place.kind, place.name) for place in loaded.invalid_workloads}
    for problem in loaded.problems:
        place_of_problem = (problem.file, problem.document, problem.kind, problem.name)
        if place_of_problem not in reported and _lacks_pods(problem, of_unexpanded=place_of_problem in others):
            reason = f"{problem.field}: {problem.reason}" if problem.field else problem.reason
            document = f"{problem.file}, document {problem.document}" if problem.document else problem.file
            yield Unmeasured(problem.kind, problem.name or document, reason)


def _lacks_pods(problem: Problem, *, of_unexpanded: bool) -> bool:
    """Whether a problem may be why pods are missing: that of a pod or workload, or of an object of unknown kind.

    `of_unexpanded`: it is that of an object of another API group that makes pods.
    """
    return problem.severity is Severity.ERROR and (
        of_unexpanded or not problem.kind or problem.kind == "Pod" or problem.kind in WORKLOADS
    )


def _reason(loaded: ClusterSnapshot, pod: PodKey, state: EmulationState) -> str:
    node = loaded.cluster.pods[pod].node
    if node and node not in loaded.cluster.nodes:
        return f"there is no node {node}"
    if node and node not in state.nodes:
        return f"node {node} is not one of the emulated nodes"
    if failure := state.failures.get(pod):
        return failure
    problems = (problem.removeprefix(f"Pod {pod}: ") for problem in sorted(state.problems) if pod in problem)
    return next(problems, "it does not run")
