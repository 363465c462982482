"""A probe succeeds only when everything that should run was measured, and is as expected."""

from __future__ import annotations

from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import Matrix, PodPath
from romana_ovs_emulate.cli.measured import EmulationState, ProbeResults, Unmeasured, between, unmeasured
from romana_ovs_emulate.probe import Measurement
from tests.support.manifests import join, loaded, pod, workload

A, B, C = (PodKey(f"default/{name}") for name in "abc")
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: node1}\n"
PORT = "80/tcp"


def matrix(pods: str, *paths: str) -> Matrix:
    """The matrix of pods `a`, `b` ... with open paths such as `ab`."""
    keys = [PodKey(f"default/{name}") for name in pods]
    return Matrix.of(
        keys, [PORT], (PodPath(PodKey(f"default/{one[0]}"), PodKey(f"default/{one[1]}"), PORT) for one in paths)
    )


def results(expected: Matrix, measured: Matrix, *missing: Unmeasured) -> ProbeResults:
    return ProbeResults(expected, Measurement(measured, {}), missing)


def test_only_what_was_measured_can_differ() -> None:
    missing = Unmeasured("Pod", C, "it does not run")
    partial = results(matrix("abc", "ab", "ac", "cb"), matrix("ab", "ab"), missing)
    assert partial.differences == []
    assert partial.pairs == (2, 6)
    assert not partial.successful
    assert results(matrix("ab", "ab"), matrix("ab", "ab")).successful
    assert not results(matrix("ab", "ab"), matrix("ab", "ab", "ba")).successful


def test_a_part_of_a_matrix() -> None:
    assert between(matrix("abc", "ab", "ac", "cb"), [A, C]) == matrix("ac", "ac")


def test_why_pods_do_not_run() -> None:
    text = join(
        NODE,
        pod("a", more="  nodeName: gone\n"),
        pod("b"),
        pod("c"),
        pod("d"),
        pod("BAD"),
        workload("Deployment", "w", "  replicas: x\n"),
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: P}\nspec: {podSelector: {}}\n",
    )
    found = loaded(a=text, z="\t[")
    state = EmulationState(
        ["node1"], {B: "pod default/b cannot be started: why"}, ["Pod default/c: no address is left"]
    )
    listed = list(unmeasured(found, [*found.cluster.pods], [], state))
    assert [(one.kind, one.name, one.reason[:36]) for one in listed[:-1]] == [
        ("Pod", "default/a", "there is no node gone"),
        ("Pod", "default/b", "pod default/b cannot be started: why"),
        ("Pod", "default/c", "no address is left"),
        ("Pod", "default/d", "it does not run"),
        ("Pod", "BAD", 'metadata.name: "BAD" may hold a-z, 0'),
        ("Deployment", "w", "spec.replicas: must be a number from"),
    ]
    assert (listed[-1].kind, listed[-1].name[:6]) == ("", "z.yaml")


def test_a_node_that_came_later_is_not_emulated() -> None:
    found = loaded(a=pod("a", more="  nodeName: worker\n"))
    (one,) = unmeasured(found, [A], [], EmulationState(["node1"], {}, []))
    assert one.reason == "node worker is not one of the emulated nodes"
    assert list(unmeasured(found, [A], [A], EmulationState(["node1"], {}, []))) == []
