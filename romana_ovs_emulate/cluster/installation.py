"""Installs romana-ovs on a cluster: its objects, the CNI plugin, and its processes, from this checkout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from romana_ovs.data_files import data_file
from romana_ovs_emulate import cni_plugin
from romana_ovs_emulate.agent_client import child_environment
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.cluster.runtime import CNI_FOLDER
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.daemon import Daemon
from romana_ovs_emulate.runs import Run

CONTROLLER = "romana-controller"
ATTACH_AGENT = "romana-attach"
NAMESPACE = "kube-system"
SETTINGS = "/etc/romana-ovs/romana.conf"
KUBECONFIG = "/etc/kubernetes/romana-node.kubeconfig"
SOCKET = "/run/romana-ovs/status.sock"
_NODE_SETTINGS = f"""
state_file = /var/lib/romana-ovs/state
status_socket = {SOCKET}
"""


def install(plane: ControlPlane, netns: str, run: Run, nodes: Sequence[ClusterNode], settings: str) -> None:
    """Install romana-ovs on these nodes, whose Node objects exist; `netns` is the control plane's. Raises SetupError.

    `settings` is the text of a configuration file. Until there is an image, processes run from this checkout: on each
    node the controller and the attach agent, and the registry beside the API server.
    """
    plane.apply(data_file("kubernetes"))
    _start_registry(plane, netns, run, settings)
    plugin = cni_plugin.find_or_build(_ignore)
    for node in nodes:
        cni_plugin.copy_to(plugin, node.path(f"{CNI_FOLDER}/{cni_plugin.NAME}"))
        kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "romana-node", node=node.name, url=plane.node_url)
        node.write(KUBECONFIG, kubeconfig.read_text(), mode=0o600)
        node.write(SETTINGS, settings + _NODE_SETTINGS)
        start_node_processes(node)


def start_node_processes(node: ClusterNode) -> None:
    """Start the controller and the attach agent of a node. Raises SetupError."""
    start_controller(node)
    start_attach_agent(node)


def start_controller(node: ClusterNode) -> None:
    """Start the controller of a node. Raises SetupError."""
    node.path(SOCKET).parent.mkdir(exist_ok=True)
    options = ["--kubeconfig", KUBECONFIG, "--node", node.name, "--config-file", SETTINGS]
    node.start_program(CONTROLLER, _command("controller", *options), env=child_environment())


def start_attach_agent(node: ClusterNode) -> None:
    """Start the attach agent of a node. Raises SetupError."""
    node.start_program(ATTACH_AGENT, _command("attach"), env=child_environment())


def _start_registry(plane: ControlPlane, netns: str, run: Run, settings: str) -> None:
    kubeconfig = plane.kubeconfig_for_service_account(NAMESPACE, "romana-registry", url=plane.node_url)
    file = run.folder / "registry.conf"
    file.write_text(settings + f"\nstatus_socket = {run.folder / 'registry.sock'}\n")
    program, *options = _command(
        "controller", "--kubeconfig", str(kubeconfig), "--registry", "--config-file", str(file)
    )
    Daemon(run, Path(program), netns=netns, name="romana-registry").start(options, env=child_environment())


def _command(subcommand: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "romana_ovs", subcommand, *options]


def _ignore(text: str) -> None:
    """Progress of a build that has been reported before."""
