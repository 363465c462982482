"""Installs romana-ovs on a cluster as anybody would: `kubectl apply` of its manifest, with its image on each node."""

from __future__ import annotations

from pathlib import Path

from romana_ovs.model.bridge import DatapathType
from romana_ovs_emulate.build_cache import Progress
from romana_ovs_emulate.cluster.underlay import CONTROL_PLANE
from romana_ovs_emulate.controlplane import SECURE_PORT, ControlPlane
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.image.build import CHECKOUT, find_or_build
from romana_ovs_emulate.manifests import install_manifest
from romana_ovs_emulate.patience import patience

NAMESPACE = "kube-system"
WORKLOADS = ("daemonset/romana-node", "deployment/romana-registry")
ROLLOUT_SECONDS = patience(90.0)
"""How long each of the workloads may take to be available, in seconds."""
LOG_LINES = 15


def find_or_build_image(progress: Progress) -> Path:
    """The archive of the image of this checkout. Raises SetupError."""
    return find_or_build(progress).path


def install(plane: ControlPlane, settings: str, fabric: Fabric) -> None:
    """Install romana-ovs with these settings, the text of a configuration file; does not wait. Raises SetupError."""
    manifest = install_manifest(
        CHECKOUT,
        {
            "apiServer": {"host": str(CONTROL_PLANE), "port": str(SECURE_PORT)},
            "settings": settings,
            "datapath": DatapathType.NETDEV.value,
            "tunnel": fabric.value,
        },
    )
    plane.kubectl("apply", "--server-side", "-f", "-", stdin=manifest)


def await_rollout(plane: ControlPlane) -> None:
    """Wait until all of romana-ovs is available. Raises SetupError, with the ends of its logs."""
    limit = f"--timeout={ROLLOUT_SECONDS:.0f}s"
    for workload in WORKLOADS:
        plane.kubectl("rollout", "status", workload, f"--namespace={NAMESPACE}", limit)


def log_tails(plane: ControlPlane) -> str:
    """Its pods, and the ends of their logs."""
    pods = ["--selector=app.kubernetes.io/name=romana-ovs", f"--namespace={NAMESPACE}"]
    logs = ["logs", *pods, "--all-containers", "--prefix", f"--tail={LOG_LINES}"]
    return "\n".join(plane.try_kubectl(*command).stdout for command in (["get", "pods", "-o", "wide", *pods], logs))
