"""Watches an API server for the emulator: the expected cluster, and the pods that emulated nodes must run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from romana_ovs.kube.api.client import Api
from romana_ovs.kube.api.list_watch import ListWatcher
from romana_ovs.kube.api.messages import Health
from romana_ovs.kube.api.resources import ALLOCATIONS, CLUSTER, NODES, PODS
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.cache.object_tracker import ObjectTracker
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import ApiError, MissingError, SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.cluster_source import ClusterSource

LISTING_SECONDS = 30.0
"""How long the API server may take to list its objects, in seconds."""

Object = Mapping[str, Any]


class ApiCluster(ClusterSource):
    """Watches an API server in threads of its own, from `start` until `stop` or the end of the process.

    `changed` is called, from those threads, after every change of the cluster.
    """

    def __init__(self, api: Api, settings: Settings) -> None:
        super().__init__()
        self.name = str(api.source)
        self.api = api
        self.settings = settings
        self.changed: Callable[[], None] = lambda: None
        self._pods_changed: Callable[[Mapping[PodKey, Object]], None] = lambda _: None
        self._cache = ClusterCache(settings)
        self._tracker = ObjectTracker([str(PODS)])
        self._watchers = [
            *(ListWatcher(api, resource, settings, self._on_message) for resource in CLUSTER),
            ListWatcher(api, replace(PODS, decoded=False), settings, self._on_pods),
        ]
        self._pods: dict[PodKey, Object] = {}
        self._snapshot: ClusterSnapshot | None = None
        self._errors: dict[str, str] = {}
        self._condition = threading.Condition(threading.RLock())
        self._handler_lock = threading.Lock()
        """Held while `_pods_changed` is called, so that the calls are in the order of the events."""

    @property
    def edit_hint(self) -> str:
        """The cluster, and the command that edits it."""
        return f"the cluster (kubectl --kubeconfig {self.name} ...)"

    def start(self) -> None:
        """Start the watches. Raises SetupError when the API server cannot be reached, or does not list its objects."""
        try:
            self.api.request("GET", NODES.path, query={"limit": 1}, deadline=LISTING_SECONDS)
            self.api.request("GET", ALLOCATIONS.path, query={"limit": 1}, deadline=LISTING_SECONDS)
        except MissingError as error:
            raise SetupError(
                "the CRDs of romana.io are missing in the cluster: kubectl apply -f etc/kubernetes"
            ) from error
        except ApiError as error:
            raise SetupError(f"the API server cannot be reached: {error}") from error
        for watcher in self._watchers:
            watcher.start()
        with self._condition:
            if not self._condition.wait_for(self._is_listed, LISTING_SECONDS):
                reason = "; ".join(self._errors.values()) or "no answer"
                raise SetupError(f"the API server of {self.name} does not list its objects: {reason}")

    def _is_listed(self) -> bool:
        return self._snapshot is not None and self._tracker.synced

    def stop(self) -> None:
        """Stop the watches: the API server may be about to end."""
        for watcher in self._watchers:
            watcher.stop()

    def watch_pods(self, handler: Callable[[Mapping[PodKey, Object]], None]) -> None:
        """Call `handler` with all pods as the API server has them (metadata, spec, status): now, and, from another
        thread, whenever one changes."""
        with self._handler_lock:
            with self._condition:
                self._pods_changed = handler
                pods = dict(self._pods)
            handler(pods)

    def await_cluster(self, condition: Callable[[Cluster], bool], seconds: float = LISTING_SECONDS) -> Cluster:
        """The cluster once `condition` holds of it. Raises SetupError when that takes longer than `seconds`."""
        with self._condition:
            if not self._condition.wait_for(lambda: condition(self.read().cluster), seconds):
                raise SetupError(f"the cluster is not as expected after {seconds:.0f} s")
            return self.read().cluster

    def read(self) -> ClusterSnapshot:
        """The cluster as last observed. Raises SetupError before `start`."""
        with self._condition:
            if self._snapshot is None:
                raise SetupError(f"the API server of {self.name} has not listed its objects")
            return self._snapshot

    def _on_message(self, message: object) -> None:
        with self._condition:
            if isinstance(message, Health):
                self._errors[message.subject] = message.error
            snapshot = self._cache.apply(message)
            if snapshot is None:
                return
            self._snapshot = snapshot
            self._condition.notify_all()
        self.changed()

    def _on_pods(self, message: object) -> None:
        with self._handler_lock:
            self._apply_pods(message)

    def _apply_pods(self, message: object) -> None:
        with self._condition:
            was_synced = self._tracker.synced
            changes = list(self._tracker.apply(message))
            for change in changes:
                key = PodKey(f"{change.id.namespace}/{change.id.name}")
                if change.update is None or change.update.raw is None:
                    self._pods.pop(key, None)
                else:
                    self._pods[key] = change.update.raw
            pods = dict(self._pods)
            if self._tracker.synced and not was_synced:
                self._condition.notify_all()
        if changes:
            self._pods_changed(pods)
