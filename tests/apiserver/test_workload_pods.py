"""Pods of workloads in a folder are those that the controllers of a real cluster make of the same manifests."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.kube.decode.controller_labels import UNKNOWN, VALUES_OF_A_CLUSTER
from romana_ovs.kube.manifests.load import load
from romana_ovs.model.settings import Settings
from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.control_plane import needed_binaries
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

NAMESPACE = "shop"
WAIT_SECONDS = 60
CONTROLLERS = "kube-controller-manager"
NODES = """
apiVersion: v1
kind: Node
metadata: {name: big, labels: {disk: ssd}}
---
apiVersion: v1
kind: Node
metadata: {name: control}
spec: {taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]}
---
apiVersion: v1
kind: Node
metadata: {name: cordoned}
spec: {unschedulable: true}
"""
BARE_PODS = ("cache-9", "app: cache"), ("mine", "app: adopting"), ("db-3", "app: db")
RUN = "nightly-29012345"
"""The name of a Job of the CronJob `nightly`, which its controller would make at the scheduled time."""


def bare(name: str, labels: str) -> str:
    """A pod without owner."""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}, labels: {{{labels}}}}}
spec: {{containers: [{{name: c, image: i}}]}}
"""


def workload(kind: str, name: str, spec: str = "", pod: str = "") -> str:
    """A workload whose pods have the label `app`, with more of its spec and of its pods' spec."""
    version = {"ReplicationController": "v1", "Job": "batch/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    template = (
        f"template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{{pod}containers: [{{name: c, image: i}}]}}}}"
    )
    if version == "apps/v1":
        spec += f"selector: {{matchLabels: {{app: {name}}}}}, "
    elif kind != "ReplicationController":
        template = template.replace("spec: {", "spec: {restartPolicy: Never, ")
    body = f"{spec}{template}"
    if kind == "CronJob":
        body = f'schedule: "0 0 1 1 *", jobTemplate: {{spec: {{{body}}}}}'
    return f"""
apiVersion: {version}
kind: {kind}
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec: {{{body}}}
"""


WORKLOADS = [
    workload("Deployment", "cache", "replicas: 2, "),
    workload("Deployment", "paused", "paused: true, "),
    workload("StatefulSet", "db", "replicas: 2, ordinals: {start: 3}, podManagementPolicy: Parallel, "),
    workload("ReplicaSet", "adopting", "replicas: 2, "),
    workload("ReplicationController", "old"),
    workload("DaemonSet", "everywhere", pod="tolerations: [{operator: Exists}], "),
    workload("DaemonSet", "ordinary"),
    workload("DaemonSet", "fast", pod="nodeSelector: {disk: ssd}, "),
    workload("Job", "once"),
    workload("Job", "indexed", "completionMode: Indexed, completions: 5, parallelism: 2, "),
    workload("Job", "few", "completions: 2, parallelism: 3, "),
    workload("Job", "asleep", "suspend: true, "),
    workload("Job", "manual", "manualSelector: true, selector: {matchLabels: {app: manual}}, "),
    workload("CronJob", "nightly"),
]
PODS = 2 + 1 + 2 + 2 + 1 + 3 + 2 + 1 + 1 + 2 + 2 + 1 + 1
"""How many pods the workloads and the bare pods have in all: of the latter only cache-9 is nobody's."""


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with controllers, the nodes, and the namespace."""
    needed_binaries()
    found = binaries.find()
    if found is None or not (found.folder / CONTROLLERS).exists():
        pytest.skip(f"needs {CONTROLLERS}")
    with ControlPlane(controllers=True, binaries=found) as own:
        own.kubectl("create", "namespace", NAMESPACE)
        own.kubectl("apply", "-f", "-", stdin=NODES)
        ready = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "-"}]}}
        for node in ("big", "control", "cordoned"):
            own.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(ready))
        account = ("get", "serviceaccount", "default", "--namespace", NAMESPACE, "--ignore-not-found")
        eventually(lambda: own.kubectl(*account), "the service account", WAIT_SECONDS)
        yield own


@pytest.fixture(scope="module")
def made(plane: ControlPlane) -> list[dict[str, Any]]:
    """The pods that the controllers have made of the workloads."""
    plane.kubectl("create", "-f", "-", stdin="---".join([*(bare(*one) for one in BARE_PODS), *WORKLOADS]))
    plane.kubectl("create", "job", RUN, "--from=cronjob/nightly", "--namespace", NAMESPACE)
    eventually(lambda: len(pods(plane)) == PODS, "all pods", WAIT_SECONDS)
    indexed = "apps.kubernetes.io/pod-index"
    eventually(lambda: sum(indexed in one["metadata"]["labels"] for one in pods(plane)) == 2, "db-3", WAIT_SECONDS)
    return pods(plane)


def pods(plane: ControlPlane) -> list[dict[str, Any]]:
    listed = json.loads(plane.kubectl("get", "pods", "--namespace", NAMESPACE, "--output=json"))["items"]
    return [one for one in listed if "deletionTimestamp" not in one["metadata"]]


def comparable(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The labels without values that only a cluster has."""
    known = {key: UNKNOWN if key in VALUES_OF_A_CLUSTER else value for key, value in labels.items()}
    return tuple(sorted((key, re.sub("^nightly-[0-9]+$", f"nightly-{UNKNOWN}", value)) for key, value in known.items()))


def write(folder: Path, *documents: str) -> None:
    (folder / "a.yaml").write_text("---".join(documents))


def test_labels_and_numbers(made: list[dict[str, Any]], tmp_path: Path) -> None:
    write(tmp_path, NODES, *WORKLOADS, *(bare(*one) for one in BARE_PODS))
    found = load(tmp_path, Settings())
    assert found.problems == ()
    expected = Counter(comparable(one["metadata"]["labels"]) for one in made)
    assert Counter(comparable(one.labels) for one in found.cluster.pods.values()) == expected
    assert [one.name for one in found.left_out] == ["shop/paused", "shop/asleep"]


def test_nodes_of_daemon_sets(made: list[dict[str, Any]], tmp_path: Path) -> None:
    write(tmp_path, NODES, *WORKLOADS)
    here = {(one.labels["app"], one.node) for one in load(tmp_path, Settings()).cluster.pods.values() if one.node}
    there = {(one["metadata"]["labels"]["app"], node_of(one)) for one in made if "affinity" in one["spec"]}
    assert here >= there
    assert len(there) == 6


def node_of(pod: Mapping[str, Any]) -> str:
    """The node for which a pod of a DaemonSet is made."""
    required = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def test_what_a_cluster_has_is_not_expanded(plane: ControlPlane, made: list[dict[str, Any]], tmp_path: Path) -> None:
    everything = "nodes,pods,deployments,statefulsets,replicasets,rc,daemonsets,jobs,cronjobs"
    (tmp_path / "dump.json").write_text(plane.kubectl("get", everything, "--all-namespaces", "--output=json"))
    found = load(tmp_path, Settings())
    assert found.problems == ()
    assert {one.name for one in found.cluster.pods.values()} == {one["metadata"]["name"] for one in made}
    assert found.notes == ()
