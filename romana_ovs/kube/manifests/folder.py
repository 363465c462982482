"""Reads the files of a folder of manifests (or a single file, or standard input), and again those that have changed."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import NO_SOURCE, DecodedObject, Document, ObjectId
from romana_ovs.kube.manifests.files import STDIN, ListedFile, list_files
from romana_ovs.kube.manifests.parse import Fault, parse
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.objects import KubernetesPolicy, RomanaPolicy
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import plain

RACY_NS = 50_000_000
"""Nanoseconds: a file that changed this shortly before it was read may change again without a change of its stat."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """The objects of one file. Not `readable`: it may have objects that are unknown, `problems` say why.

    `problems` are all problems of the file, those of its objects included. A sub-folder that cannot be listed stands
    for all files below it.
    """

    name: str
    objects: tuple[DecodedObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
    readable: bool = True


@dataclass(frozen=True, slots=True)
class FolderContent:
    """All files of a folder in sorted order. An unchanged file is the same FileContent (`is`) as before.

    `notes` name what is passed by.
    """

    folder: str
    files: tuple[FileContent, ...] = ()
    notes: tuple[Problem, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to read in it, not even a problem."""
        return not any(file.objects or file.problems or file.ignored for file in self.files)


class _Stamp(NamedTuple):
    """Identifies a version of a file without reading it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


_NO_STAMP = _Stamp(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _CachedFile:
    """A file as it was read; `racy` when it may have changed again within the same tick of the clock.

    `stream`: it is a pipe, which can be read once.
    """

    stamp: _Stamp
    racy: bool
    data: bytes | None
    content: FileContent
    stream: bool = False


class FolderReader:
    """Reads a folder of manifests, a single file, or standard input, and decodes only the files that have changed.

    With `recursive` sub-folders, too.
    """

    def __init__(self, path: Path, settings: Settings, *, recursive: bool = False) -> None:
        self.path = path
        self.settings = settings
        self.recursive = recursive
        self._known: dict[str, _CachedFile] = {}

    def read(self) -> FolderContent:
        """The folder as it is now. Raises InputError when it cannot be listed."""
        files: dict[str, _CachedFile] = {}
        seen: set[ObjectId] = set()
        for file in list_files(self.path, recursive=self.recursive):
            known = self._read(file, self._known.get(file.name), seen)
            if known is not None:
                files[file.name] = known
                seen.update(item.id for item in known.content.objects if item.id is not None)
        self._keep_sources(files)
        self._known = files
        return FolderContent(str(self.path), tuple(known.content for known in files.values()))

    def _keep_sources(self, files: dict[str, _CachedFile]) -> None:
        """Keep the manifests of objects that occur more than once, to compare them, and drop all others.

        The files with the first ones of these are read again: manifests of a whole folder are much larger than its
        objects, and are not needed together.
        """
        counts = Counter(item.id for known in files.values() for item in known.content.objects if item.id is not None)
        repeated = {key for key, count in counts.items() if count > 1}
        for name, known in files.items():
            content = known.content
            if any(item.id in repeated and not item.source for item in content.objects):
                data = known.data if known.data is not None else _bytes_again(self.path, name)
                if data is not None:
                    content = read_bytes(name, data, self.settings, sources_of=repeated)
            files[name] = replace(known, content=_without_sources(content, but=repeated))

    def _read(
        self, file: ListedFile, known: _CachedFile | None, sources_of: Collection[ObjectId]
    ) -> _CachedFile | None:
        """The file, None when there is none (any more); `sources_of` as in `decode`."""
        stamp = _NO_STAMP
        path = file.path
        if known is not None and known.stream:
            return known
        if file.fault:
            return _unreadable(file.name, stamp, f"cannot be read: {file.fault}")
        try:
            if path == STDIN:
                return self._stream(file, sys.stdin.buffer.read(), sources_of)
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                return None
            if path == self.path and _is_stream(status):
                return self._stream(file, path.read_bytes(), sources_of)
            if not stat.S_ISREG(status.st_mode):
                return _unreadable(file.name, stamp, "is not a regular file")
            stamp = _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if known is not None and known.stamp == stamp and not known.racy:
                return known
            racy = time.time_ns() - max(stamp.modified, stamp.changed) < RACY_NS
            data = path.read_bytes()
        except FileNotFoundError:
            return _unreadable(file.name, stamp, "is a link to nothing") if path.is_symlink() else None
        except OSError as error:
            return _unreadable(file.name, stamp, f"cannot be read: {error.strerror}")
        same = known is not None and known.data == data
        if known is not None and same:
            content = known.content
        else:
            content = read_bytes(file.name, data, self.settings, sources_of=sources_of)
        return _CachedFile(stamp, racy, data if racy else None, content)

    def _stream(self, file: ListedFile, data: bytes, sources_of: Collection[ObjectId]) -> _CachedFile:
        content = read_bytes(file.name, data, self.settings, sources_of=sources_of)
        return _CachedFile(_NO_STAMP, False, data, content, stream=True)


def _is_stream(status: os.stat_result) -> bool:
    """Whether a file that was named itself is a pipe, or the terminal of standard input."""
    if stat.S_ISFIFO(status.st_mode):
        return True
    return stat.S_ISCHR(status.st_mode) and os.path.samestat(status, os.fstat(0))


def _unreadable(name: str, stamp: _Stamp, reason: str) -> _CachedFile:
    return _CachedFile(
        stamp, True, None, FileContent(name, problems=(Problem(reason, file=plain(name)),), readable=False)
    )


def _bytes_again(folder: Path, name: str) -> bytes | None:
    """The bytes of a file that was read before, None when it has gone."""
    try:
        return (folder / name if folder.is_dir() else folder).read_bytes()
    except OSError:
        return None


def _without_sources(content: FileContent, *, but: Collection[ObjectId]) -> FileContent:
    """The same content without the manifests of its objects, except of policies and of `but`.

    `content` itself if nothing changes.
    """

    def kept(item: DecodedObject) -> bool:
        return not item.source or item.id in but or isinstance(item.value, (KubernetesPolicy, RomanaPolicy))

    if all(map(kept, content.objects)):
        return content
    return replace(
        content, objects=tuple(one if kept(one) else replace(one, source=NO_SOURCE) for one in content.objects)
    )


def parse_bytes(name: str, data: bytes) -> tuple[Document, ...]:
    """The documents of a file of this name. Raises InputError naming the file and the line of each fault."""
    parsed = parse(data)
    if faults := [fault for fault in parsed.faults if fault.hides]:
        raise InputError(*(_problem(fault, plain(name)) for fault in faults))
    return parsed.documents


def _problem(fault: Fault, file: str) -> Problem:
    return Problem(str(fault), file=file, document=fault.document, severity=fault.severity)


def read_bytes(
    name: str, data: bytes, settings: Settings, *, sources_of: Collection[ObjectId] | None = None
) -> FileContent:
    """The content of a file of this name; `sources_of` as in `decode`."""
    parsed = parse(data)
    file = plain(name)
    decoded = {
        document.number: decode(document, file, settings, sources_of=sources_of) for document in parsed.documents
    }
    problems = [_problem(fault, file) for fault in parsed.faults]
    problems += [problem for one in decoded.values() for problem in one.problems]
    return FileContent(
        name,
        objects=tuple(item for one in decoded.values() for item in one.objects),
        problems=tuple(sorted(problems, key=lambda problem: problem.document)),
        ignored=tuple(dict.fromkeys(kind for one in decoded.values() for kind in one.ignored)),
        readable=not any(fault.hides for fault in parsed.faults),
    )
