"""Valid manifests of every kind with every field that is decoded, and how to change one value in them."""

from __future__ import annotations

import copy

METADATA = {
    "name": "a",
    "namespace": "x",
    "labels": {"owner": "t1"},
    "uid": "u",
    "ownerReferences": [{"kind": "ReplicaSet", "name": "r"}],
}
SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}
POD_SPEC = {
    "nodeName": "node1",
    "hostNetwork": False,
    "containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}],
    "initContainers": [{"restartPolicy": "Always", "ports": [{"containerPort": 81}]}],
}
PORTS = [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "http"}]
PEERS = [
    {"podSelector": SELECTOR, "namespaceSelector": SELECTOR},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
]
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
TERM = {
    "matchExpressions": [{"key": "k", "operator": "Gt", "values": ["3"]}],
    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}],
}
DAEMON_SPEC = {
    **POD_SPEC,
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}},
}
MANIFESTS: list[dict[str, object]] = [
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": METADATA,
        "spec": POD_SPEC,
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    },
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}},
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": METADATA,
        "spec": {
            "podSelector": SELECTOR,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": PEERS, "ports": PORTS}],
            "egress": [{"to": PEERS, "ports": PORTS}],
        },
    },
    {
        "apiVersion": "romana.io/v1",
        "kind": "NetworkPolicy",
        "metadata": METADATA,
        "spec": {"podSelector": SELECTOR, "allowIncoming": [{"toPorts": [{"port": 80}], "from": [{"pods": SELECTOR}]}]},
    },
    {
        "apiVersion": "romana.io/demo/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "labels": [{"owner": "t1"}]},
        "spec": {"podSelector": {"a": "b"}},
        "allowIncoming": [{"toPorts": [{"port": 80}], "from": [{"pods": {"a": "b"}}]}],
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": METADATA,
        "spec": {"replicas": 2, "selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": METADATA,
        "spec": {"selector": SELECTOR, "template": {"metadata": TEMPLATE["metadata"], "spec": DAEMON_SPEC}},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": METADATA,
        "spec": {"replicas": 2, "ordinals": {"start": 3}, "selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": METADATA,
        "spec": {"suspend": False, "jobTemplate": {"spec": {"completions": 2, "template": TEMPLATE}}},
    },
    {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": "a-", "labels": {"a": "b"}},
        "spec": {"completionMode": "Indexed", "parallelism": 2, "completions": 9, "template": TEMPLATE},
        "status": {"completedIndexes": "0-2,5", "failedIndexes": "4", "succeeded": 4},
    },
    {
        "apiVersion": "apps.kruise.io/v1alpha1",
        "kind": "CloneSet",
        "metadata": METADATA,
        "spec": {"replicas": 2, "template": TEMPLATE},
    },
    {
        "apiVersion": "example.com/v1",
        "kind": "Gang",
        "metadata": METADATA,
        "spec": {"members": [{"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}]},
    },
    {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": METADATA,
        "spec": {"replicas": 2, "selector": {"a": "b"}, "template": TEMPLATE},
    },
    {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": METADATA,
        "spec": {"parallelism": 2, "completions": 3, "suspend": False, "template": TEMPLATE},
        "status": {"conditions": [{"type": "Complete", "status": "False"}]},
    },
    {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": METADATA, "spec": POD_SPEC}]},
]


def spots(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The paths to every value inside `value`, itself included."""
    inner: list[tuple[object, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(spot for key, entry in inner for spot in spots(entry, (*path, key)))]


def put(value: object, path: tuple[object, ...], new: object) -> object:
    """`value` with `new` at `path`."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]  # type: ignore[index]
    inner[path[-1]] = new  # type: ignore[index]
    return changed
