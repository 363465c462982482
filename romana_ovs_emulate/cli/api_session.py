"""A session over a Kubernetes API server: emulated nodes join its cluster, and run what it binds to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.addressing.plan import Plan as AddressPlan
from romana_ovs.config import settings_in
from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.manifests.store import DEFAULT_NODES
from romana_ovs.model.connection import PortRef
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.apicluster import ApiCluster
from romana_ovs_emulate.cli.session import Session
from romana_ovs_emulate.emulation import Emulation, Plan
from romana_ovs_emulate.fabric import Fabric, underlay_address
from romana_ovs_emulate.kubelet import Kubelet
from romana_ovs_emulate.manifests import served_ports
from romana_ovs_emulate.reporter import Reporter


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: `settings` is a configuration file with those of the controller, None for the defaults."""

    kubeconfig: Path
    nodes: int = DEFAULT_NODES
    fabric: Fabric = Fabric.LINK
    settings: Path | None = None
    state: Path | None = None
    ports: Sequence[PortRef] = ()
    as_json: bool = False


def prepare(wish: Wish) -> tuple[ApiCluster, Session]:
    """The cluster of an API server, and a session over it. Raises InputError and SetupError."""
    settings = settings_in(wish.settings) if wish.settings is not None else Settings()
    cluster = ApiCluster(Api(ApiSource(str(wish.kubeconfig))), settings)
    cluster.start()
    names = tuple(f"node{number + 1}" for number in range(wish.nodes))

    def reporter(emulation: Emulation) -> Reporter:
        kubelet = Kubelet(
            cluster.api,
            addresses=_addresses(names, wish.fabric),
            complain=lambda text: session.complain(text),
            ended=emulation.refollow,
        )
        cluster.follow_pods(kubelet.take)
        return kubelet

    plan = Plan(
        source=wish.kubeconfig.resolve(),
        nodes=names,
        count=None,
        addresses=AddressPlan.of(settings),
        fabric=wish.fabric,
        ports=served_ports(cluster.read().cluster, wish.ports),
        settings=(wish.settings.resolve(),) if wish.settings is not None else (),
        state_file=wish.state.resolve() if wish.state is not None else None,
        follows_api=True,
    )
    session = Session.over(cluster, plan, ports=wish.ports, as_json=wish.as_json, reporter=reporter)
    cluster.changed = session.catch_up
    return cluster, session


def _addresses(names: Sequence[str], fabric: Fabric) -> dict[str, str]:
    """The InternalIPs of nodes: where they tunnel from. Plain links have no addresses."""
    if fabric is Fabric.LINK:
        return {}
    return {name: str(underlay_address(index)) for index, name in enumerate(names)}
