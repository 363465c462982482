"""Workloads become the pods that their controllers make, unless a cluster has made them already."""

from __future__ import annotations

import pytest

from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings
from tests.support.manifests import content, join, loaded, pod, workload

NODES = "".join(f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\n---\n" for name in ("n-b", "n-a"))


def names(a: str, b: str = "") -> list[str]:
    found = loaded(a=a, b=b)
    assert found.problems == ()
    return [pod.name for pod in found.cluster.pods.values()]


def notes(found: ClusterSnapshot) -> list[tuple[str, str]]:
    return [(f"{note.kind} {note.name}", note.reason) for note in found.notes]


def only(found: ClusterSnapshot) -> Pod:
    (made,) = found.cluster.pods.values()
    return made


@pytest.mark.parametrize("kind", ["ReplicationController", "ReplicaSet", "Deployment", "StatefulSet"])
def test_replicas(kind: str) -> None:
    assert names(a=workload(kind, "w", "  replicas: 3\n")) == ["w-0", "w-1", "w-2"]
    assert names(a=workload(kind, "w")) == ["w-0"]
    assert names(a=workload(kind, "w", "  replicas: 0\n"), b=pod("other")) == ["other"]


def test_pods_look_like_their_template() -> None:
    text = workload("ReplicaSet", "w", metadata="  namespace: x\n", labels="{app: w, tier: a}")
    made = only(loaded(a=text.replace("image: nginx", "ports: [{containerPort: 80}]")))
    assert (made.namespace, made.labels) == ("x", Labels({"app": "w", "tier": "a"}))
    assert [port.number for port in made.ports] == [80]


def test_ordinals_of_a_stateful_set_may_start_later() -> None:
    found = loaded(a=workload("StatefulSet", "w", "  replicas: 2\n  ordinals: {start: 5}\n"))
    assert [pod.name for pod in found.cluster.pods.values()] == ["w-5", "w-6"]
    labels = found.cluster.pods[PodKey("default/w-6")].labels
    assert labels["apps.kubernetes.io/pod-index"] == "6"
    assert labels["statefulset.kubernetes.io/pod-name"] == "w-6"
    assert labels["controller-revision-hash"] == "unknown"


def test_a_deployment_adds_a_hash_that_no_cluster_makes() -> None:
    assert only(loaded(a=workload("Deployment", "w"))).labels == Labels({"app": "w", "pod-template-hash": "unknown"})


def test_one_pod_of_a_daemon_set_on_each_node() -> None:
    found = loaded(a=workload("DaemonSet", "d"), b=NODES).cluster.pods.values()
    assert [(pod.name, pod.node) for pod in found] == [("d-n-a", "n-a"), ("d-n-b", "n-b")]
    assert {pod.labels["pod-template-generation"] for pod in found} == {"1"}


def test_workloads_of_one_name_do_not_share_names() -> None:
    kinds = ("Deployment", "Job", "StatefulSet", "DaemonSet")
    found = loaded(a=join(*(workload(kind, "db", labels=f"{{kind: {kind}}}") for kind in kinds)), nodes=1)
    assert found.problems == ()
    assert {pod.name: pod.labels["kind"] for pod in found.cluster.pods.values()} == {
        "db-0": "StatefulSet",
        "db-daemonset-node1": "DaemonSet",
        "db-deployment-0": "Deployment",
        "db-job-0": "Job",
    }


def test_a_taken_name_is_passed_over() -> None:
    found = loaded(a=workload("ReplicaSet", "w", "  replicas: 2\n"), b=pod("w-1", "{app: other}"))
    assert [(pod.name, pod.labels["app"]) for pod in found.cluster.pods.values()] == [
        ("w-0", "w"),
        ("w-1", "other"),
        ("w-2", "w"),
    ]


def test_a_taken_name_of_a_stateful_set_is_a_problem() -> None:
    found = loaded(a=workload("StatefulSet", "w", "  replicas: 2\n"), b=pod("w-1", "{app: other}"))
    assert [pod.labels["app"] for pod in found.cluster.pods.values()] == ["w", "other"]
    (problem,) = found.problems
    assert "default/w-1 exists already, by b.yaml, document 1" in problem.reason


def test_a_name_alone_makes_no_pod_of_a_workload() -> None:
    text = workload("Deployment", "w", "  replicas: 2\n")
    assert names(a=text, b=pod("w-6c5bdf7b4d-2xkqz", "{app: w}")) == ["w-0", "w-1", "w-6c5bdf7b4d-2xkqz"]
    assert names(a=text, b=pod("w-9", "{app: w}")) == ["w-0", "w-1", "w-9"]
    assert notes(loaded(a=text, b=pod("w-9", "{app: w}"))) == []


def test_a_pod_that_the_controller_adopts_counts_and_is_noted() -> None:
    for kind in ("ReplicaSet", "ReplicationController"):
        found = loaded(a=workload(kind, "w", "  replicas: 2\n"), b=pod("mine", "{app: w, more: x}"))
        assert list(found.cluster.pods) == ["default/mine", "default/w-0"]
        ((subject, reason),) = notes(found)
        assert subject == "Pod mine"
        assert f"one of the pods of {kind} w" in reason
    found = loaded(a=workload("DaemonSet", "d"), b=NODES, c=pod("mine", "{app: w}", more="  nodeName: n-a\n"))
    assert list(found.cluster.pods) == ["default/d-n-b", "default/mine"]


def test_a_stateful_set_adopts_by_name_and_labels() -> None:
    text = workload("StatefulSet", "w", "  replicas: 2\n")
    assert names(a=text, b=pod("w-0", "{app: w}")) == ["w-0", "w-1"]
    adopted = loaded(a=text, b=pod("w-0", "{app: w}")).cluster.pods[PodKey("default/w-0")]
    assert adopted.labels["apps.kubernetes.io/pod-index"] == "0"
    assert names(a=text, b=pod("mine", "{app: w}")) == ["mine", "w-0", "w-1"]


def test_adopted_pods_that_a_controller_would_delete_are_noted() -> None:
    found = loaded(a=workload("ReplicaSet", "w"), b=join(pod("x", "{app: w}"), pod("y1", "{app: w}")))
    assert list(found.cluster.pods) == ["default/x", "default/y1"]
    assert "deletes the rest, 1 of x and y1" in notes(found)[-1][1]
    found = loaded(a=workload("StatefulSet", "w"), b=pod("w-7", "{app: w}"))
    assert list(found.cluster.pods) == ["default/w-0", "default/w-7"]
    assert "deletes the rest, 1 of w-7" in notes(found)[-1][1]


def owned(name: str, kind: str, owner: str, labels: str = "{app: w}", entry: str = "controller: true") -> str:
    reference = f"  ownerReferences: [{{kind: {kind}, name: {owner}, {entry}}}]\nspec:"
    return pod(name, labels).replace("spec:", reference)


def test_a_workload_whose_pods_are_there_is_not_expanded() -> None:
    found = loaded(a=workload("ReplicaSet", "w", "  replicas: 2\n"), b=owned("w-x", "ReplicaSet", "w"))
    assert list(found.cluster.pods) == ["default/w-x"]
    ((subject, reason),) = notes(found)
    assert (subject, reason[:45]) == ("ReplicaSet w", "1 of its 2 pods are in the folder; further on")
    assert notes(loaded(a=workload("ReplicaSet", "w"), b=owned("w-x", "ReplicaSet", "w"))) == []


def test_an_owner_that_does_not_control_is_none() -> None:
    text = owned("x", "ReplicaSet", "w", labels="{app: other}", entry="controller: false")
    assert names(a=workload("ReplicaSet", "w"), b=text) == ["w-0", "x"]


def test_an_owner_of_another_uid_is_another_object() -> None:
    text = workload("ReplicaSet", "w", metadata="  uid: new\n")
    old = owned("x", "ReplicaSet", "w", labels="{app: other}", entry="controller: true, uid: old")
    assert names(a=text, b=old) == ["w-0", "x"]
    assert names(a=text, b=old.replace("uid: old", "uid: new")) == ["x"]


def test_a_deployment_owns_pods_of_a_missing_replica_set() -> None:
    text = owned("odd", "ReplicaSet", "w-6c5bdf7b4d", "{app: w, pod-template-hash: 6c5bdf7b4d}")
    assert names(a=workload("Deployment", "w", "  replicas: 2\n"), b=text) == ["odd"]
    trimmed = owned("odd", "ReplicaSet", "w-6c5bdf7b4d", "{app: w}")
    assert names(a=workload("Deployment", "w", "  replicas: 2\n"), b=trimmed) == ["odd"]
    another = owned("odd", "ReplicaSet", "w-api-6c5bdf7b4d", "{app: w, pod-template-hash: 6c5bdf7b4d}")
    assert names(a=workload("Deployment", "w", "  replicas: 2\n"), b=another) == ["odd", "w-0", "w-1"]


def test_a_deployment_leaves_its_pods_to_its_replica_set() -> None:
    owner = "  ownerReferences: [{kind: Deployment, name: w, controller: true}]\n"
    both = join(
        workload("Deployment", "w", "  replicas: 2\n"), workload("ReplicaSet", "w-1", "  replicas: 2\n", metadata=owner)
    )
    assert names(a=both) == ["w-1-0", "w-1-1"]
    old = workload("ReplicaSet", "w-2", "  replicas: 0\n", metadata=owner)
    assert notes(loaded(a=join(both, old))) == []
    assert loaded(a=join(both, old)).left_out == ()


def test_pods_that_have_ended_are_replaced_but_those_of_jobs() -> None:
    ended = "status: {phase: Failed}\n"
    assert names(a=workload("ReplicaSet", "w"), b=owned("x", "ReplicaSet", "w") + ended) == ["w-0", "x"]
    assert names(a=workload("Job", "w"), b=owned("x", "Job", "w") + ended) == ["x"]


def test_a_terminating_pod_is_replaced() -> None:
    text = owned("x", "ReplicaSet", "w").replace("metadata:", "metadata:\n  deletionTimestamp: '2026-01-01T00:00:00Z'")
    assert names(a=workload("ReplicaSet", "w"), b=text) == ["w-0", "x"]


def test_a_job_owns_its_pods_and_a_cron_job_its_jobs() -> None:
    cron = workload("CronJob", "c")
    assert names(a=cron, b=owned("x", "Job", "c-29012345")) == ["x"]
    job = workload("Job", "c-manual", metadata="  ownerReferences: [{kind: CronJob, name: c, controller: true}]\n")
    assert names(a=cron, b=job) == ["c-manual-0"]
    found = loaded(a=cron, b=owned("x", "Job", "c-29012345") + "status: {phase: Succeeded}\n")
    assert [one.reason for one in found.left_out] == [
        "has Jobs or pods here that have ended; its next run is not added"
    ]


def test_a_workload_without_pods_is_left_out() -> None:
    found = loaded(
        a=workload("Job", "w", "  suspend: true\n"),
        b=workload("Deployment", "z", "  replicas: 0\n"),
        c=workload("Deployment", "p", "  paused: true\n"),
    )
    assert [(one.kind, one.name, one.reason) for one in found.left_out] == [
        ("Deployment", "default/p", "is paused (spec.paused), so it has no pods"),
        ("Deployment", "default/z", "has 0 replicas, so it has no pods"),
        ("Job", "default/w", "is suspended (spec.suspend), so it has no pods"),
    ]


def test_without_nodes_those_that_pods_name_are_the_nodes() -> None:
    on = [pod("a", more="  nodeName: worker-a\n"), pod("b", more="  nodeName: worker-b\n"), pod("c")]
    found = loaded(a=join(*on))
    assert found.problems == ()
    assert list(found.cluster.nodes) == ["worker-a", "worker-b"]
    over = pod("o", more="  nodeName: worker-c\n") + "status: {phase: Succeeded}\n"
    assert list(loaded(a=join(on[0], over)).cluster.nodes) == ["worker-a"]
    assert list(loaded(a=pod("a", more="  nodeName: node1\n")).cluster.nodes) == ["node1", "node2"]


def test_nodes_that_pods_name_stay_and_later_ones_get_no_others() -> None:
    store = ManifestStore(Settings())
    store.apply(content(a=pod("a", more="  nodeName: worker-a\n")))
    later = join(pod("b", more="  nodeName: worker-b\n"), pod("c"), pod("d"))
    found = store.apply(content(a=later)).cluster
    assert list(found.nodes) == ["worker-a", "worker-b"]
    assert [one.node for one in found.pods.values()] == ["worker-b", "worker-a", "worker-a"]
    declared = "---\napiVersion: v1\nkind: Node\nmetadata: {name: m}\n"
    assert list(store.apply(content(a=later + declared)).cluster.nodes) == ["m"]
