"""Runs the kubelet of a node. Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""

from __future__ import annotations

import json
from pathlib import Path

from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.cluster.runtime import SOCKET

PROGRAM = "kubelet"
CONFIG = "/etc/kubernetes/kubelet.json"
KUBECONFIG = "/etc/kubernetes/kubelet.kubeconfig"
AUTHORITY = "/etc/kubernetes/ca.crt"
MAX_PODS = 110


def configure(node: ClusterNode, kubeconfig: Path, authority: Path) -> None:
    """Write what the kubelet reads; `kubeconfig` and `authority` are files of this machine."""
    node.write(CONFIG, json.dumps(_configuration(node), indent=2) + "\n")
    node.write(KUBECONFIG, kubeconfig.read_text(), mode=0o600)
    node.write(AUTHORITY, authority.read_text())


def start(node: ClusterNode, program: Path) -> None:
    """Start the kubelet. Raises SetupError."""
    node.start_program(
        PROGRAM,
        [
            str(program),
            f"--config={CONFIG}",
            f"--kubeconfig={KUBECONFIG}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
        ],
    )


def _configuration(node: ClusterNode) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": AUTHORITY},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # The nodes share this machine: its control groups may be of version 1, without systemd, and it may have swap.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # Images cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "maxPods": MAX_PODS,
        "readOnlyPort": 0,
        # A node without a network for days is nothing that is tried here: seconds are.
        "nodeStatusReportFrequency": "10s",
        "resolvConf": "",
        "volumePluginDir": "/var/lib/kubelet/volumeplugins",
    }
