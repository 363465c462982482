"""Objects of other API groups that make pods, and objects whose names are generated."""

from __future__ import annotations

import re

import pytest

from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import Severity
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.cli.measured import EmulationState, unmeasured
from tests.support.manifests import content, loaded, pod

TEMPLATE = "{metadata: {labels: {app: w}}, spec: {containers: [{name: c, image: i}]}}"


def custom(version: str, kind: str, spec: str, name: str = "w") -> str:
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


@pytest.mark.parametrize(
    ("version", "kind", "spec", "pods", "like"),
    [
        ("argoproj.io/v1alpha1", "Rollout", f"replicas: 2, template: {TEMPLATE}", ["w-0", "w-1"], "Deployment"),
        ("apps.kruise.io/v1alpha1", "CloneSet", f"template: {TEMPLATE}", ["w-0"], "Deployment"),
        ("example.com/v1", "Thing", f"podTemplate: {TEMPLATE}", ["w-0"], "Deployment"),
        (
            "apps.kruise.io/v1beta1",
            "StatefulSet",
            f"replicas: 2, template: {TEMPLATE}",
            ["w-0", "w-1"],
            "StatefulSet",
        ),
        ("apps.kruise.io/v1alpha1", "DaemonSet", f"template: {TEMPLATE}", ["w-node1", "w-node2"], "DaemonSet"),
    ],
)
def test_a_pod_template_is_expanded(version: str, kind: str, spec: str, pods: list[str], like: str) -> None:
    found = loaded(a=custom(version, kind, spec))
    assert found.problems == ()
    assert found.ignored == ()
    assert [one.name for one in found.cluster.pods.values()] == pods
    assert {one.labels["app"] for one in found.cluster.pods.values()} == {"w"}
    (note,) = found.notes
    assert (note.kind, note.name) == (kind, "w")
    assert f"is expanded like a {like}" in note.reason


def test_labels_of_widely_used_controllers() -> None:
    rollout = loaded(a=custom("argoproj.io/v1alpha1", "Rollout", f"template: {TEMPLATE}"))
    assert rollout.cluster.pods[next(iter(rollout.cluster.pods))].labels["rollouts-pod-template-hash"] == "unknown"
    service = loaded(a=custom("serving.knative.dev/v1", "Service", f"template: {TEMPLATE}"))
    assert service.cluster.pods[next(iter(service.cluster.pods))].labels["serving.knative.dev/service"] == "w"


def test_pods_of_a_cluster_stand_for_their_workload() -> None:
    owner = "  ownerReferences: [{kind: ReplicaSet, name: w-00001-deployment-x, controller: true}]\nspec:"
    made = pod("w-00001-x-y", "{serving.knative.dev/service: w, serving.knative.dev/configuration: w}")
    service = custom("serving.knative.dev/v1", "Service", f"template: {TEMPLATE.replace('app: w', '')}")
    assert list(loaded(a=service, b=made.replace("spec:", owner)).cluster.pods) == ["default/w-00001-x-y"]


@pytest.mark.parametrize(
    ("version", "kind", "spec", "reason"),
    [
        ("monitoring.coreos.com/v1", "Prometheus", "replicas: 2", "makes pods in a way of its own"),
        ("kafka.strimzi.io/v1beta2", "Kafka", "kafka: {replicas: 3}", "makes pods in a way of its own"),
        ("elasticsearch.k8s.elastic.co/v1", "Elasticsearch", "nodeSets: []", "makes pods in a way of its own"),
        (
            "argoproj.io/v1alpha1",
            "Rollout",
            "workloadRef: {kind: Deployment, name: x}",
            "uses the pod template of Deployment x",
        ),
        ("v1", "PodTemplate", "", "makes no pods by itself"),
        (
            "example.com/v1",
            "Gang",
            f"members: [{{template: {TEMPLATE}}}]",
            "has spec.members[0].template.spec.",
        ),
        ("example.com/v1", "Store", "replicas: 3", "has spec.replicas, so it may make pods"),
        ("example.com/v1", "Store", "podMetadata: {labels: {a: b}}", "has spec.podMetadata, so it may make pods"),
    ],
)
def test_what_makes_pods_otherwise_is_named(version: str, kind: str, spec: str, reason: str) -> None:
    found = loaded(a=custom(version, kind, spec))
    assert found.cluster.pods == {}
    (one,) = found.left_out
    assert (one.kind.partition(".")[0], one.name) == (kind, "default/w")
    assert reason in one.reason


BROKEN = "template: {spec: {containers: [{name: c, ports: [{containerPort: 0}]}]}}"


def problems(found: ClusterSnapshot) -> list[tuple[str, str]]:
    return [(problem.field, problem.reason) for problem in found.problems]


def test_a_template_that_cannot_be_read_is_an_error() -> None:
    found = loaded(a=custom("example.com/v1", "Thing", BROKEN))
    (problem,) = found.problems
    assert (problem.kind, problem.name, problem.severity) == ("Thing", "w", Severity.ERROR)
    assert problem.field == "spec.template.spec.containers[0].ports[0].containerPort"
    assert (found.cluster.pods, found.ignored, found.left_out) == ({}, (), ())
    (missing,) = unmeasured(found, [], [], EmulationState([], {}, []))
    assert (missing.kind, missing.name) == ("Thing", "w")
    store = ManifestStore(Settings())
    before = store.apply(content(a=custom("example.com/v1", "Thing", f"template: {TEMPLATE}")))
    assert store.apply(content(a=custom("example.com/v1", "Thing", BROKEN))).cluster is before.cluster


@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        ("argoproj.io/v1alpha1", "Rollout", f"template: {TEMPLATE}"),
        ("serving.knative.dev/v1", "Service", f"template: {TEMPLATE}"),
        ("monitoring.coreos.com/v1", "Prometheus", "replicas: 2"),
        ("elasticsearch.k8s.elastic.co/v1", "Elasticsearch", "nodeSets: []"),
    ],
)
@pytest.mark.parametrize(
    ("metadata", "field", "reason"),
    [
        ("{name: 5}", "metadata.name", "must be a string, not a number"),
        ("{name: A}", "metadata.name", '"A" may hold'),
        ("{}", "metadata.name", "is required"),
        ("[]", "metadata", "must be an object, not a list"),
        ("{name: w, namespace: 5}", "metadata.namespace", "must be a string, not a number"),
        ("{name: w, namespace: a.b}", "metadata.namespace", '"a.b" may hold'),
    ],
)
def test_what_makes_pods_has_a_name(version: str, kind: str, spec: str, metadata: str, field: str, reason: str) -> None:
    found = loaded(a=custom(version, kind, spec).replace("{name: w}", metadata))
    ((place, sentence),) = problems(found)
    assert place == field
    assert sentence.startswith(reason)
    assert (found.cluster.pods, found.left_out) == ({}, ())
    (missing,) = unmeasured(found, [], [], EmulationState([], {}, []))
    assert missing.kind == kind


@pytest.mark.parametrize(
    ("replicas", "assumed"),
    [
        ("'3'", 'spec.replicas is no number ("3") and counts as 1; '),
        ("true", "spec.replicas is no number (true) and counts as 1; "),
        ("{min: 2}", "spec.replicas is no number (an object) and counts as 1; "),
        ("null", ""),
    ],
)
def test_replicas_that_are_no_number_count_as_one(replicas: str, assumed: str) -> None:
    found = loaded(a=custom("example.com/v1", "Thing", f"replicas: {replicas}, template: {TEMPLATE}"))
    assert (found.problems, list(found.cluster.pods)) == ((), ["default/w-0"])
    (note,) = found.notes
    assert note.reason.endswith(f"to w-0; {assumed}labels that its own controller adds are not known here")


@pytest.mark.parametrize("replicas", ["200000", "-1"])
def test_replicas_out_of_range_are_an_error(replicas: str) -> None:
    found = loaded(a=custom("example.com/v1", "Thing", f"replicas: {replicas}, template: {TEMPLATE}"))
    assert problems(found) == [("spec.replicas", f"{replicas} is not between 0 and 100000")]
    daemons = loaded(a=custom("example.com/v1", "DaemonSet", f"replicas: {replicas}, template: {TEMPLATE}"))
    assert (daemons.problems, len(daemons.cluster.pods)) == ((), 2)


def test_doubled_keys_are_errors() -> None:
    twice = custom("example.com/v1", "Thing", f"replicas: 2, replicas: 3, template: {TEMPLATE}")
    found = loaded(a=twice)
    assert problems(found) == [("spec.replicas", "is given twice, again in line 4")]
    assert found.cluster.pods == {}
    (missing,) = unmeasured(found, [], [], EmulationState([], {}, []))
    assert missing.name == "w"
    operator = loaded(a=custom("kafka.strimzi.io/v1beta2", "Kafka", "a: 1, a: 2"))
    assert problems(operator) == [("spec.a", "is given twice, again in line 4")]
    other = loaded(a=custom("v1", "ConfigMap", "a: 1, a: 2"))
    assert problems(other) == [("spec.a", "is given twice, again in line 4")]
    assert list(unmeasured(other, [], [], EmulationState([], {}, []))) == []


def test_an_operator_whose_pods_are_there_is_no_matter() -> None:
    owner = "  ownerReferences: [{kind: Kafka, name: w, controller: true}]\nspec:"
    found = loaded(a=custom("kafka.strimzi.io/v1beta2", "Kafka", ""), b=pod("w-0").replace("spec:", owner))
    assert found.left_out == ()


@pytest.mark.parametrize(
    ("version", "kind", "spec"),
    [
        ("v1", "ConfigMap", ""),
        ("monitoring.coreos.com/v1", "ServiceMonitor", "selector: {}"),
        ("apps/v1", "ControllerRevision", f"template: {TEMPLATE}"),
        ("example.com/v1", "Broken", "template: {spec: {containers: 3}}"),
        ("example.com/v1", "Text", "replicas: many"),
        ("cluster.x-k8s.io/v1beta1", "MachineSet", "replicas: 3"),
    ],
)
def test_what_makes_no_pods_is_ignored(version: str, kind: str, spec: str) -> None:
    found = loaded(a=custom(version, kind, spec))
    assert not (found.left_out or found.notes or found.problems)
    assert len(found.ignored) == 1


def test_a_generated_name_is_the_same_every_time() -> None:
    text = pod("x").replace("name: x", "generateName: web-")
    found = loaded(a=text + "---\n" + text, b=text)
    assert found.problems == ()
    assert all(re.fullmatch("default/web-[bcdfghjklmnpqrstvwxz2456789]{5}", key) for key in found.cluster.pods)
    assert len(found.cluster.pods) == len(found.notes) == 3
    assert loaded(a=text + "---\n" + text, b=text).cluster.pods == found.cluster.pods
    assert {note.field for note in found.notes} == {"metadata.generateName"}


def test_a_name_counts_before_generate_name() -> None:
    found = loaded(a=pod("x").replace("name: x", "name: x\n  generateName: web-"))
    assert list(found.cluster.pods) == ["default/x"]
    assert found.notes == ()
