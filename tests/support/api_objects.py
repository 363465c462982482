"""Builds objects of the Kubernetes API as dicts, as clients send them and manifests hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Object = dict[str, Any]


def pod(
    key: str,
    node: str = "",
    *,
    uid: str = "",
    ports: str | Sequence[Mapping[str, Any]] = (),
    spec: Mapping[str, Any] | None = None,
    status: Mapping[str, Any] | None = None,
    **labels: object,
) -> Object:
    """A Pod `namespace/name`, or `name` without a namespace, with one container.

    `ports` are such as `http=80/tcp 53/udp`, or entries of a container's `ports`; `spec` has more fields of the spec.
    """
    entries = [_container_port(text) for text in ports.split()] if isinstance(ports, str) else list(ports)
    container = {"name": "c", "image": "i", **({"ports": entries} if entries else {})}
    metadata = _metadata(key, labels) | ({"uid": uid} if uid else {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**({"nodeName": node} if node else {}), "containers": [container], **(spec or {})},
        **({} if status is None else {"status": dict(status)}),
    }


def bound_pod(name: str, node: str, **labels: Any) -> Object:
    """A Pod on a node of an API server without kubelets, whose deletion waits for nobody."""
    spec = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
    return pod(name, node, ports="http=80/tcp", spec=spec, **labels)


def node(name: str, **labels: object) -> Object:
    """A Node."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": _metadata(name, labels)}


def namespace(name: str, **labels: object) -> Object:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": _metadata(name, labels)}


def policy(key: str, spec: object) -> Object:
    """A Kubernetes NetworkPolicy `namespace/name`, or `name` without a namespace."""
    api = "networking.k8s.io/v1"
    return {"apiVersion": api, "kind": "NetworkPolicy", "metadata": _metadata(key, {}), "spec": spec}


def romana_policy(key: str, spec: object, **labels: object) -> Object:
    """A Romana NetworkPolicy `namespace/name`, or `name` without a namespace."""
    api = "romana.io/v1"
    return {"apiVersion": api, "kind": "NetworkPolicy", "metadata": _metadata(key, labels), "spec": spec}


def as_yaml(*objects: Object) -> str:
    """The objects as documents of one file (JSON is YAML), each with its `---`, so that such texts can be joined."""
    return "".join(f"---\n{json.dumps(each)}\n" for each in objects)


def _metadata(key: str, labels: Mapping[str, object]) -> Object:
    space, _, name = key.rpartition("/")
    given = {label: str(value) for label, value in labels.items()}
    return {"name": name, **({"namespace": space} if space else {}), **({"labels": given} if given else {})}


def _container_port(text: str) -> Object:
    name, _, port = text.rpartition("=")
    number, _, protocol = port.partition("/")
    return {**({"name": name} if name else {}), "containerPort": int(number), "protocol": protocol.upper() or "TCP"}
