"""The Kubernetes process on a real API server, with the cluster that it passes on, and the objects to write there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from romana_ovs.kube.api.messages import Start
from romana_ovs.kube.api.resources import CLUSTER, Resource
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.settings import Settings
from tests.support.kubernetes_process import KubeProcess, kubernetes_process


class Source:
    """The process, and the cluster by what it tells."""

    def __init__(self, process: KubeProcess, store: ClusterCache) -> None:
        self.process = process
        self.store = store
        self.loaded: list[ClusterSnapshot] = []

    def heard(self, message: object) -> None:
        """Take one message."""
        if (loaded := self.store.apply(message)) is not None:
            self.loaded.append(loaded)

    @property
    def cluster(self) -> Cluster:
        return self.loaded[-1].cluster

    def until(self, wanted: Callable[[ClusterSnapshot], bool]) -> ClusterSnapshot:
        """What is loaded when this holds."""
        if not self.loaded or not wanted(self.loaded[-1]):
            self.process.until(lambda _: bool(self.loaded) and wanted(self.loaded[-1]), anew=True)
        return self.loaded[-1]


@contextmanager
def source(kubeconfig: Path, resources: tuple[Resource, ...] = CLUSTER) -> Iterator[Source]:
    """A running process that follows this API server."""
    made: list[Source] = []
    with kubernetes_process(lambda message: made[0].heard(message)) as process:
        made.append(Source(process, ClusterCache(Settings(), map(str, resources))))
        process.send(Start(ApiSource(str(kubeconfig)), Settings(), resources))
        yield made[0]


def pods_path(namespace: str) -> str:
    """Where the pods of a namespace are."""
    return f"/api/v1/namespaces/{namespace}/pods"


def policies_path(namespace: str, group: str = "networking.k8s.io") -> str:
    """Where the policies of a namespace are."""
    return f"/apis/{group}/v1/namespaces/{namespace}/networkpolicies"
