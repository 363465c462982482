"""Builds the objects by which a kubelet reports its node and pods to the API server.

Sources: Kubernetes core/v1 Node, NodeStatus and PodStatus; coordination.k8s.io/v1 Lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from romana_ovs import __version__

EMULATED = "romana.io/emulated"
"""Label of an emulated Node; its value is the id of the run that it belongs to."""
LEASE_NAMESPACE = "kube-node-lease"
"""Namespace of the Leases that nodes renew (Kubernetes: `NamespaceNodeLease`)."""
LEASE_SECONDS = 40
"""How long a node counts as alive after it last renewed its Lease, in seconds; the default of kubelets."""
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "1000", "ephemeral-storage": "1Ti"}
"""The capacity of a node, so large that the scheduler never runs out of it: emulated pods need almost nothing."""
READY = "KubeletReady"

Object = Mapping[str, Any]


def node_object(name: str, run: str) -> dict[str, Any]:
    """The Node of emulated node `name` of a run, as it is created: without a status."""
    labels = {EMULATED: run, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def node_status(name: str, address: str | None, now: str) -> dict[str, Any]:
    """The status of a node that is ready; `address` is its InternalIP, `now` a time as the API writes it."""
    addresses = [{"type": "Hostname", "address": name}]
    if address is not None:
        addresses.insert(0, {"type": "InternalIP", "address": address})
    ready = _condition("Ready", now, reason=READY, message="the emulated node is up")
    return {
        "addresses": addresses,
        "capacity": CAPACITY,
        "allocatable": CAPACITY,
        "conditions": [{**ready, "lastHeartbeatTime": now}],
        "nodeInfo": {
            "architecture": "",
            "bootID": "",
            "containerRuntimeVersion": "romana-ovs://",
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": f"romana-ovs {__version__}",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "",
            "systemUUID": "",
        },
    }


def node_lease(name: str, now: str) -> dict[str, Any]:
    """The Lease of a node; `now` with microseconds."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now},
    }


def pod_status(pod: Object, *, address: str, host: str | None, now: str) -> dict[str, Any]:
    """The status of `pod` once it runs at `address` on a node whose InternalIP is `host`."""
    spec = pod.get("spec", {})
    status: dict[str, Any] = {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": now,
        "conditions": [_condition(kind, now) for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")],
        "containerStatuses": [_container(container, now) for container in spec.get("containers", ())],
    }
    if host is not None:
        status |= {"hostIP": host, "hostIPs": [{"ip": host}]}
    return status


def unready(now: str, why: str) -> dict[str, Any]:
    """The condition Ready of a pod that could not be started."""
    return {**_condition("Ready", now, reason="StartFailed", message=why), "status": "False"}


def _container(container: Object, now: str) -> dict[str, Any]:
    return {
        "name": container["name"],
        "image": container.get("image", ""),
        "imageID": "",
        "containerID": f"romana-ovs://{container['name']}",
        "ready": True,
        "started": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": now}},
    }


def _condition(kind: str, now: str, *, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": message}
