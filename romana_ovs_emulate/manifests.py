"""The emulator's own reading of what the controller follows: what is expected, by the reference evaluation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path

from romana_ovs.config import load_settings
from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.kube.manifests.store import DEFAULT_NODES, ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import Node, PodKey
from romana_ovs.policy.matrix import Matrix, container_ports, reachability

ALWAYS_SERVED = "80/tcp"
"""What every emulated pod serves, so that `a curl b` says something in any folder."""


class Expectation:
    """What the reference evaluation expects of a cluster that changes; `read` is what kinds of sources differ in.

    `addresses` gives the pods' addresses of the moment, which policies with an ipBlock ask for. `name` is what people
    call the source, `count` the number of nodes that the controller is to be told, None when the source names them.
    """

    name: str
    count: int | None = None

    @property
    def edited(self) -> str:
        """What people edit to change it."""
        return self.name

    def __init__(self, addresses: Callable[[], Mapping[PodKey, IPv4Address]] = dict) -> None:
        self.addresses = addresses

    def read(self) -> ClusterSnapshot:
        """The cluster as it is now: the same object as before while nothing changed. Raises InputError."""
        raise NotImplementedError

    def served(self, asked: Sequence[PortRef] = ()) -> tuple[str, ...]:
        """The ports that every pod must serve so that only policy decides what is reached."""
        return served_ports(self.read().cluster, asked)

    def expected(self, ports: Sequence[PortRef] = ()) -> Matrix:
        """The reference matrix of the cluster as it is now (without `ports`: of the containers' ports)."""
        return self.cluster_and_matrix(ports)[1]

    def cluster_and_matrix(self, ports: Sequence[PortRef] = ()) -> tuple[Cluster, Matrix]:
        """The same with the cluster."""
        cluster = self.read().cluster
        return cluster, reachability(cluster, self.addresses(), ports or container_ports(cluster) or (default_port(),))


class Manifests(Expectation):
    """A folder, read again whenever it is asked; like the controller it keeps the last valid version of an object."""

    def __init__(
        self, folder: Path, nodes: int | None, addresses: Callable[[], Mapping[PodKey, IPv4Address]] = dict
    ) -> None:
        """Reads it a first time. Raises InputError when it cannot be used, or names nodes while `nodes` is given."""
        super().__init__(addresses)
        self.folder, self.name = folder, str(folder)
        self._asked = nodes
        settings = load_settings(folder)
        self._reader = FolderReader(folder, settings)
        self._store = ManifestStore(settings)
        self._lock = threading.Lock()
        self.first = self.read()
        if not self.first.cluster.pods:
            raise InputError.because("holds no pod that could run", file=str(folder))
        self.count = nodes if nodes is not None else None if self._names_nodes() else DEFAULT_NODES

    def read(self) -> ClusterSnapshot:
        """The folder as it is now. Raises InputError when it cannot be read."""
        with self._lock:
            return self._store.apply(self._reader.read(), nodes=self._asked)

    def _names_nodes(self) -> bool:
        items = (item for file in self._reader.read().files for item in file.objects)
        return any(isinstance(item.value, Node) for item in items)


def served_ports(cluster: Cluster, asked: Sequence[PortRef] = ()) -> tuple[str, ...]:
    """The ports of all containers, those asked for, and `ALWAYS_SERVED`, sorted."""
    return tuple(sorted({ALWAYS_SERVED, *map(str, asked), *map(str, container_ports(cluster))}))


def default_port() -> PortRef:
    """The port that is measured where nothing names one."""
    return PortRef.parse(ALWAYS_SERVED)
