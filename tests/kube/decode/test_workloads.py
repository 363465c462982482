"""Workloads become pods, unless their pods are there already."""

from __future__ import annotations

import pytest

from romana_ovs.model.labels import Labels
from tests.support.manifests import join, loaded, pod, workload

NODES = "".join(f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n" for name in ("n-b", "n-a"))


def names(**files: str) -> list[str]:
    found = loaded(None, None, **files)
    assert found.problems == ()
    return [pod.name for pod in found.cluster.pods.values()]


@pytest.mark.parametrize("kind", ["ReplicationController", "ReplicaSet", "Deployment", "StatefulSet"])
def test_replicas(kind: str) -> None:
    assert names(a=workload(kind, "w", "  replicas: 3\n")) == ["w-0", "w-1", "w-2"]
    assert names(a=workload(kind, "w")) == ["w-0"]
    assert names(a=workload(kind, "w", "  replicas: 0\n"), b=pod("other")) == ["other"]


def test_pods_look_like_their_template() -> None:
    text = workload("Deployment", "w", metadata="  namespace: x\n", labels="{app: w, tier: a}")
    (found,) = loaded(a=text.replace("image: nginx", "ports: [{containerPort: 80}]")).cluster.pods.values()
    assert (found.namespace, found.labels) == ("x", Labels({"app": "w", "tier": "a"}))
    assert [port.number for port in found.ports] == [80]


def test_one_pod_of_a_daemon_set_on_each_node() -> None:
    found = loaded(a=workload("DaemonSet", "d"), b=NODES).cluster.pods.values()
    assert [(pod.name, pod.node) for pod in found] == [("d-n-a", "n-a"), ("d-n-b", "n-b")]


@pytest.mark.parametrize(
    ("spec", "status", "count"),
    [
        ("", "", 1),
        ("  parallelism: 3\n", "", 3),
        ("  parallelism: 3\n  completions: 2\n", "", 2),
        ("  completions: 5\n", "", 1),
        ("  parallelism: 3\n  suspend: true\n", "", 0),
        ("  parallelism: 3\n", "status: {conditions: [{type: Complete, status: 'True'}]}\n", 0),
        ("  parallelism: 3\n", "status: {conditions: [{type: Failed, status: 'False'}]}\n", 3),
    ],
)
def test_a_job_runs_as_many_as_it_may_at_once(spec: str, status: str, count: int) -> None:
    assert len(names(a=workload("Job", "j", spec) + status)) == count


def owned(name: str, kind: str, owner: str, labels: str = "{app: w}") -> str:
    return pod(name, labels).replace("spec:", f"  ownerReferences: [{{kind: {kind}, name: {owner}}}]\nspec:")


def test_a_workload_whose_pods_are_there_is_not_expanded_again() -> None:
    assert names(a=workload("ReplicaSet", "w", "  replicas: 2\n"), b=owned("w-x", "ReplicaSet", "w")) == ["w-x"]
    assert names(a=workload("StatefulSet", "w", "  replicas: 2\n"), b=pod("w-0", "{app: w}")) == ["w-0"]
    assert names(a=workload("Deployment", "w", "  replicas: 2\n"), b=pod("w-6c5bdf7b4d-2xkqz", "{app: w}")) == [
        "w-6c5bdf7b4d-2xkqz"
    ]


def test_a_deployment_owns_pods_of_a_missing_replica_set() -> None:
    text = owned("odd", "ReplicaSet", "w-6c5bdf7b4d", "{app: w, pod-template-hash: 6c5bdf7b4d}")
    assert names(a=workload("Deployment", "w", "  replicas: 2\n"), b=text) == ["odd"]


def test_a_deployment_leaves_its_pods_to_its_replica_set() -> None:
    owner = "  ownerReferences: [{kind: Deployment, name: w}]\n"
    both = join(
        workload("Deployment", "w", "  replicas: 2\n"), workload("ReplicaSet", "w-1", "  replicas: 2\n", metadata=owner)
    )
    assert names(a=both) == ["w-1-0", "w-1-1"]


def test_a_pod_that_only_resembles_does_not_count() -> None:
    other_name = workload("Deployment", "nginx", labels="{app: nginx}")
    assert names(a=other_name, b=pod("nginx-frontend", "{app: nginx}")) == ["nginx-0", "nginx-frontend"]
    assert names(a=workload("ReplicaSet", "w"), b=pod("w-2xkqz", "{app: other}")) == ["w-0", "w-2xkqz"]
    elsewhere = pod("w-0", "{app: w}", namespace="x")
    assert names(a=workload("ReplicaSet", "w"), b=elsewhere) == ["w-0", "w-0"]


def test_a_name_that_is_taken_is_told() -> None:
    found = loaded(a=workload("ReplicaSet", "w", "  replicas: 2\n"), b=pod("w-1", "{app: other}"))
    assert [pod.labels for pod in found.cluster.pods.values()] == [Labels({"app": "w"}), Labels({"app": "other"})]
    (problem,) = found.problems
    assert "default/w-1 exists already, by b.yaml, document 1" in problem.reason
