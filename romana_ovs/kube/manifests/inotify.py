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
from collections.abc import Callable
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
_MASK_ADD = 0x20000000
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

    Nothing that happened before the start is reported. Close it when done.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.abspath(path))
        self._inotify = _Inotify()
        self._folder: int | None = None
        self._other_watches: dict[int, set[str]] = {}
        self._writing: set[str] = set()
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
        if any(event.mask & (_GONE | _NAMES_CHANGE | _OVERFLOW) for event in events):
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
        if event.watch != self._folder:
            return event.name in self._other_watches.get(event.watch, ())
        if event.mask & (_CLOSE_WRITE | _MOVED_FROM | _DELETE):
            self._writing.discard(event.name)
        elif event.mask & _MODIFY and is_manifest(event.name):
            self._writing.add(event.name)
        if event.mask & _GONE:
            return True
        # The links of a mounted ConfigMap all change through one hidden link, `..data`.
        return is_manifest(event.name) or event.name.startswith("..")

    def _attach(self) -> bool:
        """Watch the folder that is at the path now, its parent, and the folders of link targets.

        Returns whether the folder is another one than before.
        """
        before = self._folder
        # The parent reports when the folder is replaced; it is watched first, so that no event is missed in between.
        names_by_folder = {self.path.parent: {self.path.name}}
        self._other_watches = self._watch_names(names_by_folder)
        self._folder = self._inotify.add(self.path, _CONTENT)
        if self._folder != before:
            self._writing.clear()
            if before is not None:
                self._inotify.remove(before)
        for target in self._link_targets():
            names_by_folder.setdefault(target.parent, set()).add(target.name)
        self._other_watches = self._watch_names(names_by_folder)
        return self._folder != before

    def _watch_names(self, names_by_folder: dict[Path, set[str]]) -> dict[int, set[str]]:
        """Watch these names in these folders; missing folders are left out."""
        names_by_watch: dict[int, set[str]] = {}
        for folder, names in names_by_folder.items():
            watch = self._inotify.add(folder, _CLOSE_WRITE | _NAMES_CHANGE)
            if watch is not None:
                names_by_watch.setdefault(watch, set()).update(names)
        return names_by_watch

    def _link_targets(self) -> set[Path]:
        """The files outside the folder that links in it point to."""
        try:
            links = [entry for entry in self.path.iterdir() if is_manifest(entry.name) and entry.is_symlink()]
        except OSError:
            return set()
        here = Path(os.path.realpath(self.path))
        return {target for target in (Path(os.path.realpath(link)) for link in links) if target.parent != here}
