"""Prepares a session on a Kubernetes API server: emulated nodes join its cluster and run the pods bound to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.config import settings_in
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.manifests.store import DEFAULT_NODES
from romana_ovs.model.bridge import DatapathType
from romana_ovs.model.connection import PortRef
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.api_cluster import ApiCluster
from romana_ovs_emulate.cli.session import Session
from romana_ovs_emulate.cluster_source import served_ports
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.fabric import Fabric, underlay_address
from romana_ovs_emulate.kubelet import Kubelet
from romana_ovs_emulate.reporter import Reporter


@dataclass(frozen=True, slots=True)
class EmulateRequest:
    """The options of `emulate --kubeconfig`: `settings` is the controller's configuration file, None for defaults.

    `datapath` None: the kernel's if it has one.
    """

    kubeconfig: Path
    nodes: int = DEFAULT_NODES
    fabric: Fabric = Fabric.LINK
    settings: Path | None = None
    state: Path | None = None
    ports: Sequence[PortRef] = ()
    as_json: bool = False
    datapath: DatapathType | None = None


def prepare(request: EmulateRequest) -> tuple[ApiCluster, Session]:
    """The cluster of an API server, and a session on it. Raises InputError and SetupError."""
    settings = settings_in(request.settings) if request.settings is not None else Settings()
    cluster = ApiCluster(Api(ApiSource(str(request.kubeconfig))), settings)
    cluster.start()
    names = tuple(f"node{number + 1}" for number in range(request.nodes))

    def reporter(emulation: Emulation) -> Reporter:
        kubelet = Kubelet(
            cluster.api,
            addresses=_addresses(names, request.fabric),
            on_error=lambda text: session.report_error(text),
            on_terminating=emulation.reconcile,
        )
        cluster.watch_pods(kubelet.on_pods)
        return kubelet

    plan = Plan(
        source=request.kubeconfig.resolve(),
        nodes=names,
        count=None,
        addresses=AddressPlan.of(settings),
        fabric=request.fabric,
        ports=served_ports(cluster.read().cluster, request.ports),
        settings=(request.settings.resolve(),) if request.settings is not None else (),
        state_file=request.state.resolve() if request.state is not None else None,
        follows_api=True,
        datapath=request.datapath,
    )
    session = Session.over(cluster, plan, ports=request.ports, as_json=request.as_json, reporter=reporter)
    cluster.changed = session.catch_up
    return cluster, session


def _addresses(names: Sequence[str], fabric: Fabric) -> dict[str, str]:
    """The InternalIPs of nodes: their tunnel addresses. Plain links need none."""
    if fabric is Fabric.LINK:
        return {}
    return {name: str(underlay_address(index)) for index, name in enumerate(names)}
