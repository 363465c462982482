"""Starts a cluster of real nodes, as a context manager, and removes all of it.

with Cluster(ClusterOptions()) as cluster:
    cluster.plane.kubectl("get", "nodes")
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from romana_ovs.config import settings_in
from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import binaries
from romana_ovs_emulate.build_cache import Progress
from romana_ovs_emulate.cluster import (
    images,
    installation,
    kube_proxy,
    kubelet,
    requirements,
    runtime,
    switch,
    underlay,
)
from romana_ovs_emulate.cluster.kube_proxy import ProxyMode
from romana_ovs_emulate.cluster.node import ClusterNode
from romana_ovs_emulate.controlplane import ControlPlane, Site
from romana_ovs_emulate.fabric import Fabric, underlay_address
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.runs import Run, start_run

READY_SECONDS = patience(90.0)
"""How long nodes may take to be Ready, in seconds."""
RETRY_SECONDS = 0.2
SETTINGS_FILE = "romana.conf"
SETTINGS = """\
[romana]
# Apart from the range of Services, and from the underlay.
network = 100.64.0.0/10
segment_bits = 10
"""
"""The settings of romana-ovs where no others are given."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """`settings` is a configuration file of romana-ovs, None for SETTINGS."""

    nodes: int = 2
    fabric: Fabric = Fabric.GENEVE
    proxy: ProxyMode = ProxyMode.NFTABLES
    settings: Path | None = None


class Cluster:
    """A cluster: `plane` is its control plane, `nodes` its nodes by name."""

    def __init__(self, options: ClusterOptions, progress: Progress = lambda text: None) -> None:
        """Nothing is started yet."""
        self.options = options
        self.nodes: Mapping[str, ClusterNode] = {}
        self._progress = progress
        self._run: Run | None = None
        self._plane: ControlPlane | None = None

    def __enter__(self) -> Self:
        """Build what is missing and start everything, until all nodes are Ready. Raises SetupError and InputError."""
        requirements.require()
        if self.options.settings is not None:
            settings_in(self.options.settings)
        programs = binaries.find_or_build(self._progress)
        self._programs = binaries.find_or_build_node_programs(self._progress)
        image = installation.find_or_build_image(self._progress)
        self._run = start_run()
        try:
            self._start(self._run, programs, image)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End and remove everything."""
        self.close()

    @property
    def plane(self) -> ControlPlane:
        """Its control plane. Raises SetupError before it is started."""
        if self._plane is None:
            raise SetupError("the cluster is not started")
        return self._plane

    @property
    def agnhost(self) -> str:
        """The name of the image of Kubernetes' own tests."""
        return images.agnhost_name(self._programs.path("agnhost"))

    def close(self) -> None:
        """End and remove everything. Idempotent."""
        nodes = list(self.nodes.values())
        if nodes:
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(ClusterNode.kill, nodes))
        if self._plane is not None:
            self._plane.close()
        if self._run is not None:
            self._run.close()

    def restart_switch(self, name: str) -> None:
        """Kill ovs-vswitchd of a node, and start it again. Raises SetupError."""
        node = self.nodes[name]
        switch.kill_switch(node)
        switch.start_switch(node, self._others(node))

    def cut_power(self, name: str) -> None:
        """Take a node's power: what is not on its disk is gone. Raises SetupError."""
        node = self.nodes[name]
        node.kill()
        underlay.disconnect(node.run.netns(underlay.NAME), list(self.nodes).index(name))
        node.remove_network()

    def boot(self, name: str) -> None:
        """Start a node again after `cut_power`; does not wait until it is Ready. Raises SetupError."""
        node = self.nodes[name]
        self._connect(node, node.run.netns(underlay.NAME), list(self.nodes).index(name))
        self._prepare(node, [])
        self._start_kubelet(node)

    def _connect(self, node: ClusterNode, netns: str, index: int) -> None:
        node.create_network()
        underlay.connect(netns, node.netns, index)

    def _others(self, node: ClusterNode) -> list[IPv4Address]:
        """The addresses of all nodes but this one."""
        return [other.address for other in self.nodes.values() if other is not node]

    def _start(self, run: Run, programs: binaries.Binaries, image: Path) -> None:
        began = time.monotonic()

        def progress(text: str) -> None:
            self._progress(f"{time.monotonic() - began:5.1f} s  {text}")

        (run.folder / SETTINGS_FILE).write_text(
            SETTINGS if self.options.settings is None else self.options.settings.read_text()
        )
        netns = underlay.create(run)
        nodes = []
        for index in range(self.options.nodes):
            nodes.append(ClusterNode(f"node{index + 1}", run, underlay_address(index)))
            self._connect(nodes[-1], netns, index)
        self.nodes = {node.name: node for node in nodes}
        progress(f"starting etcd, API server and controllers, and {len(nodes)} nodes with Open vSwitch and containerd")
        archives = [*images.write_images(run.folder / "images", self._programs.path("agnhost")), image]
        with ThreadPoolExecutor(len(nodes)) as pool:
            prepared = [pool.submit(self._prepare, node, archives) for node in nodes]
            plane = ControlPlane(
                controllers=True, binaries=programs, site=Site(run, netns, str(underlay.CONTROL_PLANE))
            )
            self._plane = plane.__enter__()
            plane.kubectl("apply", "-f", "-", stdin=kube_proxy.BINDING)
            for one in prepared:
                one.result()
        progress("starting kubelets and kube-proxies" if self._has_proxy else "starting kubelets")
        for node in nodes:
            self._start_kubelet(node)
        self._await_nodes(plane)
        progress("installing romana-ovs")
        installation.install(plane, (run.folder / SETTINGS_FILE).read_text(), self.options.fabric)
        self._await_ready(plane)
        progress("all nodes are Ready")

    @property
    def _has_proxy(self) -> bool:
        return self.options.proxy is not ProxyMode.NONE

    def _prepare(self, node: ClusterNode, archives: list[Path]) -> None:
        """Start what needs no API server."""
        node.start()
        switch.start(node, self._others(node))
        runtime.start(node)
        runtime.import_images(node, archives)

    def _start_kubelet(self, node: ClusterNode) -> None:
        """Start kubelet and kube-proxy of a node."""
        plane = self.plane
        credentials = plane.kubeconfig_for(f"system:node:{node.name}", ["system:nodes"], url=plane.node_url)
        kubelet.configure(node, credentials, plane.authority)
        kubelet.start(node, self._programs.path("kubelet"))
        if self._has_proxy:
            credentials = plane.kubeconfig_for(kube_proxy.USER, url=plane.node_url)
            pod_network = settings_in(plane.folder / SETTINGS_FILE).network
            kube_proxy.configure(node, self.options.proxy, pod_network, credentials)
            kube_proxy.start(node, self._programs.path("kube-proxy"))

    def _await_nodes(self, plane: ControlPlane) -> None:
        """Wait until every kubelet has made its Node object."""
        deadline = time.monotonic() + READY_SECONDS
        while plane.try_kubectl("get", "node", *self.nodes).returncode != 0:
            if time.monotonic() > deadline:
                raise SetupError(f"kubelets made no Node objects; their logs end:\n{self._kubelet_logs()}")
            time.sleep(RETRY_SECONDS)

    def _await_ready(self, plane: ControlPlane) -> None:
        """Wait until all nodes are Ready, and romana-ovs is available."""
        try:
            installation.await_rollout(plane)
            plane.kubectl("wait", "--for=condition=Ready", "node", "--all", f"--timeout={READY_SECONDS:.0f}s")
        except SetupError as error:
            logs = f"{installation.log_tails(plane)}\n{self._kubelet_logs()}"
            raise SetupError(f"romana-ovs is not available: {error}\n{logs}") from error

    def _kubelet_logs(self) -> str:
        """The end of each kubelet's log."""
        return "\n".join(f"kubelet of {node.name}:\n{node.log_tail(kubelet.PROGRAM)}" for node in self.nodes.values())
