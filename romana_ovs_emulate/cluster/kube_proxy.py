"""Runs kube-proxy on a node. Source: https://kubernetes.io/docs/reference/config-api/kube-proxy-config.v1alpha1/"""

from __future__ import annotations

import json
from enum import Enum
from ipaddress import IPv4Network
from pathlib import Path

from romana_ovs_emulate.cluster.node import ClusterNode

PROGRAM = "kube-proxy"
USER = "system:kube-proxy"
CONFIG = "/etc/kubernetes/kube-proxy.json"
KUBECONFIG = "/etc/kubernetes/kube-proxy.kubeconfig"
BINDING = json.dumps(
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "kube-proxy"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:node-proxier"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    }
)
"""The permissions of its user, as a manifest."""


class ProxyMode(Enum):
    """How Services are translated on nodes; `none`: no kube-proxy, and no Services."""

    NFTABLES = "nftables"
    IPTABLES = "iptables"
    NONE = "none"


def configure(node: ClusterNode, mode: ProxyMode, pod_network: IPv4Network, kubeconfig: Path) -> None:
    """Write what kube-proxy reads; `kubeconfig` is a file of this machine. Raises SetupError."""
    node.write(CONFIG, json.dumps(_configuration(node, mode, pod_network), indent=2) + "\n")
    node.write(KUBECONFIG, kubeconfig.read_text(), mode=0o600)


def start(node: ClusterNode, program: Path) -> None:
    """Start kube-proxy. Raises SetupError."""
    node.start_program(PROGRAM, [str(program), f"--config={CONFIG}"])


def _configuration(node: ClusterNode, mode: ProxyMode, pod_network: IPv4Network) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode.value,
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": KUBECONFIG},
        "bindAddress": str(node.address),
        # What is not from this range it masquerades, so that pods would lose their address.
        "clusterCIDR": str(pod_network),
        # The size of the machine's connection table is not a node's to set.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
