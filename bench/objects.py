"""Builds the objects of a large cluster as users and controllers send them to an API server."""

from __future__ import annotations

from typing import Any

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import KubernetesPolicy, Pod

Object = dict[str, Any]
POLICIES = "/apis/networking.k8s.io/v1"
_SETTINGS = 3
"""Environment variables of a container; with them a pod is about 3 KB as the API server serves it."""


def node_object(name: str, address: str) -> Object:
    """A Node with its address, as the kubelet reports it."""
    conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting"}]
    status = {"addresses": [{"type": "InternalIP", "address": address}], "conditions": conditions}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def pod_object(pod: Pod) -> Object:
    """A pod as a ReplicaSet makes it, with what kubectl and admission add; bound to its node."""
    resources = {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}}
    probe = {"httpGet": {"path": "/healthz", "port": 80}, "periodSeconds": 10, "timeoutSeconds": 1}
    container = {
        "name": "server",
        "image": f"registry.example/shop/{pod.labels['app']}@sha256:{'0123456789abcdef' * 4}",
        "ports": [{"containerPort": port.number, "protocol": port.protocol.name} for port in pod.ports],
        "env": [{"name": f"SETTING_{number}", "value": f"value-{number}"} for number in range(_SETTINGS)],
        "resources": resources,
        "livenessProbe": probe,
        "readinessProbe": probe,
        "volumeMounts": [{"name": "settings", "mountPath": "/etc/server", "readOnly": True}],
    }
    unready = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    spec = {
        "nodeName": pod.node,
        "containers": [container],
        "automountServiceAccountToken": False,
        "tolerations": [{"key": f"node.kubernetes.io/{why}", **unready} for why in ("not-ready", "unreachable")],
        "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
    }
    metadata = {
        "name": pod.name,
        "namespace": pod.namespace,
        "labels": {**pod.labels, "pod-template-hash": "7d9c8b6f5"},
        "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def policy_object(policy: KubernetesPolicy) -> Object:
    """A NetworkPolicy for ingress whose peers are pods of its own namespace."""
    ingress = [
        {
            "from": [{"podSelector": _selector(peer.pods)} for peer in rule.peers],
            "ports": [{"port": port.port} for port in rule.ports],
        }
        for rule in policy.ingress
    ]
    return {
        "apiVersion": POLICIES.removeprefix("/apis/"),
        "kind": "NetworkPolicy",
        "metadata": {"name": policy.name, "namespace": policy.namespace},
        "spec": {"podSelector": _selector(policy.selector), "policyTypes": ["Ingress"], "ingress": ingress},
    }


def _selector(selector: Selector | None) -> Object:
    """One of plain labels, as `Selector.of` makes it."""
    requirements = selector.requirements if selector is not None else ()
    return {"matchLabels": {each.key: min(each.values) for each in requirements}}


def pods_path(namespace: str) -> str:
    """Where the pods of a namespace are."""
    return f"/api/v1/namespaces/{namespace}/pods"


def policies_path(namespace: str) -> str:
    """Where the policies of a namespace are."""
    return f"{POLICIES}/namespaces/{namespace}/networkpolicies"


def everything(cluster: Cluster) -> list[list[tuple[str, Object]]]:
    """All objects of `cluster` with the paths to send them to; those of a list in any order, the lists one by one."""
    named = [("/api/v1/namespaces", {"metadata": {"name": name}}) for name in cluster.namespaces]
    nodes = [("/api/v1/nodes", node_object(name, str(node.addresses[0]))) for name, node in cluster.nodes.items()]
    pods = [(pods_path(pod.namespace), pod_object(pod)) for pod in cluster.pods.values()]
    policies = [
        (policies_path(policy.namespace), policy_object(policy))
        for policy in cluster.policies.values()
        if isinstance(policy, KubernetesPolicy)
    ]
    return [[*named, *nodes], [*policies, *pods]]
