"""Reads the folder of manifests, and reads it again after every change."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from eventlet import tpool
from eventlet.hubs import trampoline

from romana_ovs.flag import Flag
from romana_ovs.kube.manifests.folder import FolderContent, FolderReader
from romana_ovs.kube.manifests.inotify import FolderWatch
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings


@dataclass(frozen=True, slots=True)
class FolderRead:
    """One reading of the folder: its content, or why it cannot be read.

    `noticed` is when inotify reported the change, in seconds of `time.monotonic`.
    """

    content: FolderContent | InputError
    noticed: float


class Manifests:
    """Keeps the newest reading until it is received, and raises `flag` for it."""

    def __init__(self, path: Path, settings: Settings, flag: Flag, *, recursive: bool = False) -> None:
        self._path = path
        self._recursive = recursive
        self._reader = FolderReader(path, settings, recursive=recursive)
        self._flag = flag
        self._newest: FolderRead | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """Always empty: problems of the folder are among those of its objects."""
        return ()

    def run(self) -> None:
        """Never returns. Raises SetupError without inotify."""
        with FolderWatch(self._path, recursive=self._recursive) as watch:
            noticed = time.monotonic()
            while True:
                self._newest = FolderRead(self._read(watch), noticed)
                self._flag.set()
                while not watch.drain():
                    trampoline(watch.fileno(), read=True)
                noticed = time.monotonic()

    def receive(self) -> tuple[FolderRead, ...]:
        """The newest reading, if it was not received yet."""
        newest, self._newest = self._newest, None
        return (newest,) if newest is not None else ()

    def send(self, messages: tuple[object, ...]) -> None:
        """Raises RuntimeError for any message, as a folder has no reader."""
        if messages:
            raise RuntimeError(f"a folder has no reader of messages: {messages}")

    def _read(self, watch: FolderWatch) -> FolderContent | InputError:
        try:
            # In a native thread: a large folder takes seconds, and echo requests of switches must be answered.
            return watch.settled(lambda: tpool.execute(self._reader.read))
        except InputError as error:
            return error
