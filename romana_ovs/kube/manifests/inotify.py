"""Watches a folder of manifests for changes, by inotify(7).

inotify is called through the C library. The descriptor never blocks, so select can wait for it in a plain process
and in one that eventlet has patched.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from romana_ovs.kube.manifests.files import is_manifest
from romana_ovs.kube.manifests.folder import FolderContent
from romana_ovs.model.errors import SetupError

QUIET = 0.01
"""Seconds without an event after which a change counts as complete."""
PATIENCE = 1.0
"""Seconds after which a change is read even if it is not complete."""

_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x4000, 0x8000
_MASK_ADD, _IS_FOLDER = 0x20000000, 0x40000000
_GONE = _DELETE_SELF | _MOVE_SELF | _IGNORED
_NAMES_CHANGE = _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_CONTENT = _MODIFY | _ATTRIB | _CLOSE_WRITE | _NAMES_CHANGE | _DELETE_SELF | _MOVE_SELF
_HEADER = struct.Struct("iIII")
_BUFFER = 65536


class _Event(NamedTuple):
    """One event: watch descriptor, event mask, and the name in the watched folder."""

    watch: int
    mask: int
    name: str


class _Inotify:
    """The three calls of inotify(7). Raises SetupError when the kernel refuses an instance."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            reason = os.strerror(ctypes.get_errno())
            raise SetupError(f"cannot watch folders: {reason} (see fs.inotify.max_user_instances)")

    def add(self, path: Path, mask: int) -> int | None:
        """The descriptor of a watch on `path`, None when there is no such thing."""
        watch = self._libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(mask | _MASK_ADD))
        if watch >= 0:
            return int(watch)
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            return None
        raise SetupError(f"cannot watch {path}: {os.strerror(code)} (see fs.inotify.max_user_watches)")

    def remove(self, watch: int) -> None:
        """End a watch; one that has ended already is no error."""
        self._libc.inotify_rm_watch(self.fd, watch)

    def read(self) -> list[_Event]:
        """All pending events."""
        events: list[_Event] = []
        while True:
            # Checked first, because a read that eventlet has patched waits instead of raising BlockingIOError.
            waiting = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
            if not any(waiting):
                return events
            data = os.read(self.fd, _BUFFER)
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _HEADER.unpack_from(data, offset)
                offset += _HEADER.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                events.append(_Event(watch, mask, os.fsdecode(name)))


class FolderWatch:
    """Watches a folder (which may be replaced, or not exist yet) and the targets of links in it.

    With `recursive` its sub-folders, too. Nothing that happened before the start is reported. Close it when done.
    """

    def __init__(self, path: Path, *, recursive: bool = False) -> None:
        self.path = Path(os.path.abspath(path))
        self.recursive = recursive
        self._inotify = _Inotify()
        self._folder: int | None = None
        self._sub_folders: frozenset[int] = frozenset()
        self._other_watches: dict[int, set[str]] = {}
        self._writing: set[tuple[int, str]] = set()
        self._attach()

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        if self._inotify.fd >= 0:
            os.close(self._inotify.fd)
            self._inotify.fd = -1

    def fileno(self) -> int:
        """The descriptor that is readable when `drain` has events to read."""
        return self._inotify.fd

    def drain(self) -> bool:
        """Whether the content of the folder may have changed since the last call. Never blocks."""
        events = self._inotify.read()
        if not events:
            return False
        changed = [self._concerns(event) for event in events]
        if any(event.mask & (_GONE | _NAMES_CHANGE | _OVERFLOW | _IS_FOLDER) for event in events):
            changed.append(self._attach())
        return any(changed)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the folder may have changed, `timeout` seconds at most (None: any); returns whether it has."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            ready, _, _ = select.select([self.fileno()], [], [], left)
            if not ready:
                return False
            if self.drain():
                return True

    def settled(self, read: Callable[[], FolderContent]) -> FolderContent:
        """What `read` returns once the change is complete, or after `PATIENCE` seconds.

        A change is complete when every file that was written to is closed, nothing more happens for `QUIET` seconds,
        and two readings in a row are equal.
        """
        end = time.monotonic() + PATIENCE
        self._await_writers(end)
        content = read()
        while self.wait(QUIET) and time.monotonic() < end:
            self._await_writers(end)
            content = read()
        while time.monotonic() < end:
            before, content = content, read()
            if content == before:
                return content
        return content

    def _await_writers(self, end: float) -> None:
        while self._writing and time.monotonic() < end:
            self.wait(max(0.0, end - time.monotonic()))
        self._writing.clear()

    def _concerns(self, event: _Event) -> bool:
        """Whether `event` concerns the content of the folder; also tracks which files are being written."""
        if event.mask & _OVERFLOW:
            self._writing.clear()
            return True
        if event.watch != self._folder and event.watch not in self._sub_folders:
            return event.name in self._other_watches.get(event.watch, ())
        file = (event.watch, event.name)
        if event.mask & (_CLOSE_WRITE | _MOVED_FROM | _DELETE):
            self._writing.discard(file)
        elif event.mask & _MODIFY and is_manifest(event.name):
            self._writing.add(file)
        if event.mask & _GONE:
            return True
        # A sub-folder may be another one, or may now be listed (_ATTRIB: its mode has changed).
        if self.recursive and event.mask & _IS_FOLDER and event.mask & (_NAMES_CHANGE | _ATTRIB):
            return True
        # The links of a mounted ConfigMap all change through one hidden link, `..data`.
        return is_manifest(event.name) or event.name.startswith("..")

    def _attach(self) -> bool:
        """Watch the folder that is at the path now, its sub-folders, its parent, and the folders of link targets.

        Returns whether the folder, or one of its sub-folders, is another one than before.
        """
        before, sub_folders = self._folder, self._sub_folders
        # The parent reports when the folder is replaced; it is watched first, so that no event is missed in between.
        names_by_folder = {self.path.parent: {self.path.name}}
        self._other_watches = self._watch_names(names_by_folder)
        self._folder = self._inotify.add(self.path, _CONTENT)
        if self._folder != before:
            self._writing.clear()
            if before is not None:
                self._inotify.remove(before)
        watched = self._watch_sub_folders()
        self._sub_folders = frozenset(watched)
        for watch in sub_folders - self._sub_folders:
            self._inotify.remove(watch)
            self._writing = {file for file in self._writing if file[0] != watch}
        for target in self._link_targets([self.path, *watched.values()]):
            names_by_folder.setdefault(target.parent, set()).add(target.name)
        self._other_watches = self._watch_names(names_by_folder)
        return self._folder != before or self._sub_folders != sub_folders

    def _watch_sub_folders(self) -> dict[int, Path]:
        """The sub-folders that `list_files` reads, by their watches: not the hidden ones, nor those behind links."""
        watched: dict[int, Path] = {}
        folders = [self.path] if self.recursive else []
        while folders:
            for path in _folders_in(folders.pop()):
                # Watched before it is listed, so that none in it is missed.
                watch = self._inotify.add(path, _CONTENT)
                if watch is not None:
                    watched[watch] = path
                    folders.append(path)
        return watched

    def _watch_names(self, names_by_folder: dict[Path, set[str]]) -> dict[int, set[str]]:
        """Watch these names in these folders; missing folders are left out."""
        names_by_watch: dict[int, set[str]] = {}
        for folder, names in names_by_folder.items():
            watch = self._inotify.add(folder, _CLOSE_WRITE | _NAMES_CHANGE)
            if watch is not None:
                names_by_watch.setdefault(watch, set()).update(names)
        return names_by_watch

    def _link_targets(self, folders: Iterable[Path]) -> set[Path]:
        """The files outside these folders that links in them point to."""
        targets: set[Path] = set()
        for folder in folders:
            try:
                links = [entry for entry in folder.iterdir() if is_manifest(entry.name) and entry.is_symlink()]
            except OSError:
                continue
            here = Path(os.path.realpath(folder))
            targets |= {target for target in (Path(os.path.realpath(link)) for link in links) if target.parent != here}
        return targets


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that are neither hidden nor behind links; none when it has gone."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        return [entry for entry in entries if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return []
