"""Reads the folder of manifests, and reads it again after every change."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from eventlet import tpool
from eventlet.hubs import trampoline

from romana_ovs.kube.manifests.folder import FolderContent, FolderReader
from romana_ovs.kube.manifests.inotify import FolderWatch
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import PodKey

LOG = logging.getLogger("romana_ovs.manifests")


class Listener(Protocol):
    """Who learns what the folder says (`RomanaOvs`)."""

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        """There is a new cluster; its change was noticed at this time of `time.monotonic`."""

    def on_unreadable(self, error: InputError) -> None:
        """The folder cannot be read; the last cluster stays in force."""


class Manifests:
    """`run` is a green thread's job."""

    def __init__(self, path: Path, store: ManifestStore, listener: Listener) -> None:
        self._path = path
        self._store = store
        self._reader = FolderReader(path, store.settings)
        self._listener = listener
        self._content: FolderContent | None = None

    def run(self) -> None:
        """Never returns. While the folder cannot be read the last cluster stands. Raises SetupError without inotify."""
        with FolderWatch(self._path) as watch:
            noticed = time.monotonic()
            while True:
                self._read(watch, noticed)
                while not watch.drain():
                    trampoline(watch.fileno(), read=True)
                noticed = time.monotonic()

    def set_observed_nodes(self, seen: Mapping[PodKey, str]) -> None:
        """Tell of the cluster with its unbound pods on the nodes where their ports are `seen`; they stay there."""
        if self._content is not None:
            self._listener.on_cluster(self._store.apply(self._content, seen=seen), time.monotonic())

    def _read(self, watch: FolderWatch, noticed: float) -> None:
        try:
            # In a thread of its own: a large folder takes seconds, and switches want their echoes answered.
            content = watch.settled(lambda: tpool.execute(self._reader.read))
            loaded = self._store.apply(content)
            self._content = content
        except InputError as error:
            self._listener.on_unreadable(error)
        else:
            self._listener.on_cluster(loaded, noticed)
