"""An API server as the emulator sees it: what is expected of its cluster, and the pods that its nodes are to run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.list_watch import Follower
from romana_ovs.kube.api.messages import Health
from romana_ovs.kube.api.resources import ALLOCATIONS, CLUSTER, NODES, PODS
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.cache.object_tracker import ObjectTracker
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import ApiError, MissingError, SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.manifests import Expectation

LISTING_SECONDS = 30.0
"""How long the API server may take to list what there is."""

Object = Mapping[str, Any]


class ApiCluster(Expectation):
    """Follows an API server in threads of its own, from `start` until `stop` or the end of the process.

    `changed` is called, from those threads, after every change of the cluster.
    """

    def __init__(self, api: Api, settings: Settings) -> None:
        super().__init__()
        self.name = str(api.source)
        self.api = api
        self.settings = settings
        self.changed: Callable[[], None] = lambda: None
        self._pods_changed: Callable[[Mapping[PodKey, Object]], None] = lambda _: None
        self._store = ClusterCache(settings)
        self._ledger = ObjectTracker([str(PODS)])
        self._followers = [
            *(Follower(api, resource, settings, self._take) for resource in CLUSTER),
            Follower(api, replace(PODS, decoded=False), settings, self._take_pods),
        ]
        self._pods: dict[PodKey, Object] = {}
        self._loaded: ClusterSnapshot | None = None
        self._troubles: dict[str, str] = {}
        self._news = threading.Condition(threading.RLock())
        self._telling = threading.Lock()
        """Held while pods are told, so that what is told last is what is there."""

    @property
    def edited(self) -> str:
        """The cluster, with the tool for that."""
        return f"the cluster (kubectl --kubeconfig {self.name} ...)"

    def start(self) -> None:
        """Follow from now on. Raises SetupError when the API server cannot be asked, or does not list what it has."""
        try:
            self.api.request("GET", NODES.path, query={"limit": 1}, deadline=LISTING_SECONDS)
            self.api.request("GET", ALLOCATIONS.path, query={"limit": 1}, deadline=LISTING_SECONDS)
        except MissingError as error:
            raise SetupError("the cluster lacks our definitions: kubectl apply -f etc/kubernetes") from error
        except ApiError as error:
            raise SetupError(f"the API server cannot be asked: {error}") from error
        for follower in self._followers:
            follower.start()
        with self._news:
            if not self._news.wait_for(lambda: self._loaded is not None and self._ledger.listed, LISTING_SECONDS):
                said = "; ".join(self._troubles.values()) or "no answer"
                raise SetupError(f"the API server of {self.name} does not list what it has: {said}")

    def stop(self) -> None:
        """Ask the API server for nothing more: it may be about to end."""
        for follower in self._followers:
            follower.stop()

    def follow_pods(self, take: Callable[[Mapping[PodKey, Object]], None]) -> None:
        """Have `take` called with every pod as the API server has it (metadata, spec, status): now, and whenever one
        changes, from another thread."""
        with self._telling:
            with self._news:
                self._pods_changed = take
                pods = dict(self._pods)
            take(pods)

    def await_cluster(self, condition: Callable[[Cluster], bool], seconds: float = LISTING_SECONDS) -> Cluster:
        """The cluster once `condition` holds of it. Raises SetupError when that takes longer than `seconds`."""
        with self._news:
            if not self._news.wait_for(lambda: condition(self.read().cluster), seconds):
                raise SetupError(f"the API server does not tell within {seconds:.0f} s what it was asked to do")
            return self.read().cluster

    def read(self) -> ClusterSnapshot:
        """The cluster as the API server last told it."""
        with self._news:
            if self._loaded is None:
                raise SetupError(f"the API server of {self.name} has not listed what it has")
            return self._loaded

    def _take(self, message: object) -> None:
        with self._news:
            if isinstance(message, Health):
                self._troubles[message.subject] = message.trouble
            loaded = self._store.apply(message)
            if loaded is None:
                return
            self._loaded = loaded
            self._news.notify_all()
        self.changed()

    def _take_pods(self, message: object) -> None:
        with self._telling:
            self._tell_pods(message)

    def _tell_pods(self, message: object) -> None:
        with self._news:
            before = self._ledger.listed
            changes = list(self._ledger.apply(message))
            for change in changes:
                key = PodKey(f"{change.id.namespace}/{change.id.name}")
                if change.update is None or change.update.raw is None:
                    self._pods.pop(key, None)
                else:
                    self._pods[key] = change.update.raw
            pods = dict(self._pods)
            if self._ledger.listed and not before:
                self._news.notify_all()
        if changes:
            self._pods_changed(pods)
