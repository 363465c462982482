"""Measures how long reading a folder of manifests takes: `python -m bench.reading PODS [--against DIR]`.

The folder has one file with a List, as `kubectl get pods,netpol -A -o yaml` (or `-o json`) prints it. Every reading is
a process of its own. `--against DIR` reads it with the checkout in DIR, too, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from bench.allocation import ROOT, into_tier, large_cluster
from bench.objects import Object, pod_object, policy_object
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import KubernetesPolicy, Pod

PODS_PER_POLICY = 25
TURNS = 5
_OPTIONS = 8
"""Environment variables of a container beside those of `pod_object`; with them a pod is 4.6 KB of YAML."""
_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
_TIME = "2026-01-01T00:00:00Z"
_TOKEN_SOURCES = [
    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
    {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
    {
        "downwardAPI": {
            "items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]
        }
    },
]
"""The volume of the service account's token, which admission adds to every pod."""
_PROGRAM = """
import json, sys, time
from pathlib import Path
from romana_ovs.cli.common import load
wall, processor = time.perf_counter(), time.process_time()
cluster = load(Path(sys.argv[1])).cluster
wall, processor = time.perf_counter() - wall, time.process_time() - processor
print(json.dumps({"wall": wall, "processor": processor, "pods": len(cluster.pods), "policies": len(cluster.policies)}))
"""


def served_pod(pod: Pod, number: int) -> Object:
    """A pod as an API server serves it: what a controller, the scheduler and the kubelet add to `pod_object`."""
    served = pod_object(pod)
    uid = f"{number:08x}-1111-4111-8111-{number:012x}"
    address = f"10.200.{number // 250}.{number % 250 + 1}"
    image = served["spec"]["containers"][0]["image"]
    owner = {"apiVersion": "apps/v1", "blockOwnerDeletion": True, "controller": True, "kind": "ReplicaSet"}
    served["metadata"] |= {
        "creationTimestamp": _TIME,
        "generateName": f"{pod.name}-",
        "ownerReferences": [{**owner, "name": f"{pod.name}-7d9c8b6f5", "uid": uid}],
        "resourceVersion": str(1_000 + number),
        "uid": uid,
    }
    token = {"name": f"kube-api-access-{number:05x}", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    served["spec"]["containers"][0]["volumeMounts"].append({**token, "readOnly": True})
    served["spec"]["volumes"].append(
        {"name": token["name"], "projected": {"defaultMode": 420, "sources": _TOKEN_SOURCES}}
    )
    field = {"apiVersion": "v1", "fieldPath": "status.podIP"}
    options = [{"name": f"OPTION_{index}", "value": f"value-{index}"} for index in range(_OPTIONS)]
    served["spec"]["containers"][0]["env"] += [*options, {"name": "POD_IP", "valueFrom": {"fieldRef": field}}]
    served["spec"] |= {
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
    }
    container = {
        "containerID": f"containerd://{uid}",
        "image": image,
        "imageID": image,
        "lastState": {},
        "name": "server",
        "ready": True,
        "restartCount": 0,
        "started": True,
        "state": {"running": {"startedAt": _TIME}},
    }
    condition = {"lastProbeTime": None, "lastTransitionTime": _TIME, "status": "True"}
    served["status"] = {
        "conditions": [{**condition, "type": kind} for kind in _CONDITIONS],
        "containerStatuses": [container],
        "hostIP": "172.16.0.1",
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "qosClass": "Burstable",
        "startTime": _TIME,
    }
    return served


def dump(cluster: Cluster, policies: Sequence[KubernetesPolicy]) -> Object:
    """The List that kubectl prints of all pods and policies."""
    items = [served_pod(pod, number) for number, pod in enumerate(cluster.pods.values())]
    return {
        "apiVersion": "v1",
        "items": [*items, *map(policy_object, policies)],
        "kind": "List",
        "metadata": {"resourceVersion": ""},
    }


def write_inputs(folder: Path, pods: int) -> dict[str, Path]:
    """A folder with the List in YAML, and one with it in JSON with kubectl's indentation."""
    cluster = large_cluster(pods, tenants=25)
    policies = [into_tier(f"tenant{number % 25:03}", number // 25 % 3 + 1) for number in range(pods // PODS_PER_POLICY)]
    named = [
        KubernetesPolicy(one.namespace, f"{one.name}-{number}", **_rest(one)) for number, one in enumerate(policies)
    ]
    text = json.dumps(dump(cluster, named), indent=4)
    texts = {
        # Of what is read again nothing is shared, so that it is written without aliases, as kubectl does.
        "yaml": yaml.dump(json.loads(text), Dumper=yaml.CSafeDumper, default_flow_style=False, width=1_000),
        "json": text,
    }
    folders = {}
    for suffix, text in texts.items():
        folders[suffix] = folder / suffix
        folders[suffix].mkdir()
        (folders[suffix] / f"dump.{suffix}").write_text(text)
    return folders


def _rest(policy: KubernetesPolicy) -> dict[str, Any]:
    return {
        "selector": policy.selector,
        "directions": policy.directions,
        "ingress": policy.ingress,
        "egress": policy.egress,
    }


def read(folder: Path, tree: Path) -> dict[str, Any]:
    """One reading by a process of the checkout in `tree`: seconds, and what it found."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    argv = [sys.executable, "-c", _PROGRAM, str(folder)]
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(pods: int, trees: dict[str, Path]) -> dict[str, Any]:
    """Medians of wall and processor seconds for each input and checkout, in turns."""
    with TemporaryDirectory() as folder:
        inputs = write_inputs(Path(folder), pods)
        readings: dict[str, dict[str, list[dict[str, Any]]]] = {kind: {name: [] for name in trees} for kind in inputs}
        for _ in range(TURNS):
            for kind, input_folder in inputs.items():
                for name, tree in trees.items():
                    readings[kind][name].append(read(input_folder, tree))
        sizes = {kind: sum(path.stat().st_size for path in inputs[kind].iterdir()) for kind in inputs}
    return {
        kind: {
            "bytes": sizes[kind],
            "pods": by_tree["now"][0]["pods"],
            "policies": by_tree["now"][0]["policies"],
            **{
                name: {part: statistics.median(one[part] for one in taken) for part in ("wall", "processor")}
                for name, taken in by_tree.items()
            },
        }
        for kind, by_tree in readings.items()
    }


def main(words: list[str]) -> int:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(prog="bench.reading")
    parser.add_argument("pods", type=int)
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout")
    options = parser.parse_args(words)
    trees = {"now": ROOT}
    if options.against is not None:
        trees["against"] = options.against.resolve()
    started = time.perf_counter()
    print(json.dumps({**measure(options.pods, trees), "seconds": time.perf_counter() - started}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
