"""Runs containerd on a node, and gives it images."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.cluster.images import PAUSE
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.cluster.requirements import cni_plugins
from romana_ovs_emulate.patience import patience

PROGRAM = "containerd"
SOCKET = "/run/containerd/containerd.sock"
CONFIG = "/etc/containerd/config.toml"
CNI_FOLDER = "/opt/cni/bin"
CNI_CONF_FOLDER = "/etc/cni/net.d"
NAMESPACE = "k8s.io"
"""The namespace of containerd in which Kubernetes has its images and containers."""
START_SECONDS = patience(30.0)
IMPORT_SECONDS = patience(120.0)
RETRY_SECONDS = 0.05
_CONFIG = f"""\
version = 2
# Not used here, and some fail where the machine has no device mapper, ZFS or Btrfs.
disabled_plugins = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # A node's processes may not lower their own score below that of this machine's container.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_FOLDER}"
    conf_dir = "{CNI_CONF_FOLDER}"
"""


def start(node: ClusterNode) -> None:
    """Start containerd; returns when it answers. Raises SetupError."""
    if not node.path(CONFIG).exists():
        node.write(CONFIG, _CONFIG)
        node.path(CNI_FOLDER).mkdir(parents=True, exist_ok=True)
        node.path(CNI_CONF_FOLDER).mkdir(parents=True, exist_ok=True)
        for plugin in cni_plugins():
            shutil.copy(plugin, node.path(CNI_FOLDER))
    start_process(node)


def start_process(node: ClusterNode) -> None:
    """Start containerd, configured already; returns when it answers. Raises SetupError."""
    node.start_program(PROGRAM, ["containerd", "--config", CONFIG])
    deadline = time.monotonic() + START_SECONDS
    while node.execute("ctr", "--address", SOCKET, "version").returncode != 0:
        if node.program_pid(PROGRAM) is None or time.monotonic() > deadline:
            raise SetupError(f"containerd does not answer on {node.name}; its log ends:\n{node.log_tail(PROGRAM)}")
        time.sleep(RETRY_SECONDS)


def ctr(node: ClusterNode, *arguments: str) -> str:
    """The output of a `ctr` command on Kubernetes' images and containers. Raises SetupError."""
    return node.call("ctr", "--address", SOCKET, "--namespace", NAMESPACE, *arguments)


def import_images(node: ClusterNode, archives: Sequence[Path]) -> None:
    """Import images from archives of this machine. Raises SetupError."""
    for archive in archives:
        command = ["ctr", "--address", SOCKET, "--namespace", NAMESPACE, "images", "import", "-"]
        with archive.open("rb") as file:
            try:
                done = subprocess.run(
                    node.inside(command),
                    stdin=file,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=IMPORT_SECONDS,
                )
            except subprocess.TimeoutExpired as error:
                raise SetupError(f"{archive.name} was not imported on {node.name} in {IMPORT_SECONDS:.0f} s") from error
        if done.returncode != 0:
            raise SetupError(f"{archive.name} cannot be imported on {node.name}: {' '.join(done.stderr.split())}")
