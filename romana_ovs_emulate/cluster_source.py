"""Reads the cluster that the controller follows, and evaluates what the reference evaluation expects of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

from romana_ovs.config import load_settings
from romana_ovs.kube.manifests.files import passed_by
from romana_ovs.kube.manifests.folder import FolderReader
from romana_ovs.kube.manifests.store import DEFAULT_NODES, ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import Node, PodKey
from romana_ovs.policy.matrix import Matrix, container_ports, reachability

ALWAYS_SERVED = "80/tcp"
"""A port that every emulated pod serves, so that `a curl b` works in any folder."""
_SHOWN_REASONS = 3


class ClusterSource:
    """A cluster that changes, and what the reference evaluation expects of it. Subclasses define `read`.

    `addresses` returns the pods' present addresses, which policies with an ipBlock need. `name` is shown to users.
    `count` is the number of nodes in the controller's settings, None when the source names the nodes.
    """

    name: str
    count: int | None = None

    @property
    def edit_hint(self) -> str:
        """What a user edits to change it."""
        return self.name

    def __init__(self, addresses: Callable[[], Mapping[PodKey, IPv4Address]] = dict) -> None:
        self.addresses = addresses

    def read(self) -> ClusterSnapshot:
        """The cluster as it is now: the identical object while nothing changes. Raises InputError."""
        raise NotImplementedError

    def served(self, asked: Sequence[PortRef] = ()) -> tuple[str, ...]:
        """The ports that every pod must serve, so that only policies decide which paths are open."""
        return served_ports(self.read().cluster, asked)

    def expected(self, ports: Sequence[PortRef] = ()) -> Matrix:
        """The reference matrix of the present cluster; without `ports`, on the ports that containers declare."""
        return self.cluster_and_matrix(ports)[1]

    def cluster_and_matrix(self, ports: Sequence[PortRef] = ()) -> tuple[Cluster, Matrix]:
        """The present cluster and its reference matrix."""
        cluster = self.read().cluster
        return cluster, reachability(cluster, self.addresses(), ports or container_ports(cluster) or (default_port(),))


class ManifestFolder(ClusterSource):
    """A folder of manifests. Like the controller, keeps the last valid version of an object."""

    def __init__(
        self,
        folder: Path,
        nodes: int | None,
        addresses: Callable[[], Mapping[PodKey, IPv4Address]] = dict,
        *,
        recursive: bool = False,
    ) -> None:
        """Reads the folder. Raises InputError when it cannot be used, or names nodes while `nodes` is given."""
        super().__init__(addresses)
        self.folder, self.name, self.recursive = folder, str(folder), recursive
        self._node_count = nodes
        settings = load_settings(folder)
        self._reader = FolderReader(folder, settings, recursive=recursive)
        self._store = ManifestStore(settings)
        self._notes = passed_by(folder, recursive=recursive)
        self._lock = threading.Lock()
        self.first = self.read()
        if not self.first.cluster.pods:
            reasons = [f"{one.kind} {one.name} {one.reason}" for one in self.first.left_out]
            reasons += map(str, self.first.problems)
            raise InputError.because("; ".join(["holds no pod to run", *reasons[:_SHOWN_REASONS]]), file=str(folder))
        self.count = nodes if nodes is not None else None if self._names_nodes() else DEFAULT_NODES

    def read(self) -> ClusterSnapshot:
        """The folder as it is now. Raises InputError when it cannot be read."""
        with self._lock:
            content = replace(self._reader.read(), notes=self._notes)
            return self._store.apply(content, nodes=self._node_count)

    def _names_nodes(self) -> bool:
        items = (item for file in self._reader.read().files for item in file.objects)
        return any(isinstance(item.value, Node) for item in items)


def served_ports(cluster: Cluster, asked: Sequence[PortRef] = ()) -> tuple[str, ...]:
    """The ports of all containers, `asked`, and `ALWAYS_SERVED`, sorted."""
    return tuple(sorted({ALWAYS_SERVED, *map(str, asked), *map(str, container_ports(cluster))}))


def default_port() -> PortRef:
    """The port that is measured when no container declares one."""
    return PortRef.parse(ALWAYS_SERVED)
