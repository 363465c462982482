"""Reads the files of a folder of manifests (or a single file), and again those that have changed.

Sub-folders are not read; hidden files and backup files of editors are not manifests.
"""

from __future__ import annotations

import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import DecodedObject, Document
from romana_ovs.kube.manifests.parse import ParseError, parse_json, parse_yaml
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Settings
from romana_ovs.model.syntax import plain

SUFFIXES = (".yaml", ".yml", ".json")
_EDITOR_PREFIXES = (".", "#", "~")
RACY_NS = 50_000_000
"""Nanoseconds: a file that changed this shortly before it was read may change again without a change of its stat."""


@dataclass(frozen=True, slots=True)
class FileContent:
    """The objects of one file. Not `readable`: its objects are unknown, `problems` say why.

    `problems` are all problems of the file, those of its objects included.
    """

    name: str
    objects: tuple[DecodedObject, ...] = ()
    problems: tuple[Problem, ...] = ()
    ignored: tuple[str, ...] = ()
    readable: bool = True


@dataclass(frozen=True, slots=True)
class FolderContent:
    """All files of a folder in sorted order. An unchanged file is the same FileContent (`is`) as before."""

    folder: str
    files: tuple[FileContent, ...] = ()


class _Stamp(NamedTuple):
    """Identifies a version of a file without reading it."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


@dataclass(frozen=True, slots=True)
class _CachedFile:
    """A file as it was read; `racy` when it may have changed again within the same tick of the clock."""

    stamp: _Stamp
    racy: bool
    data: bytes | None
    content: FileContent


class FolderReader:
    """Reads a folder of manifests, or a single file, and decodes only the files that have changed."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self._known: dict[str, _CachedFile] = {}

    def read(self) -> FolderContent:
        """The folder as it is now. Raises InputError when it cannot be listed."""
        files: dict[str, _CachedFile] = {}
        for path in self._files():
            known = self._read(path, self._known.get(path.name))
            if known is not None:
                files[path.name] = known
        self._known = files
        return FolderContent(str(self.path), tuple(known.content for known in files.values()))

    def _files(self) -> list[Path]:
        try:
            if self.path.is_file():
                return [self.path]
            entries = sorted(self.path.iterdir())
        except OSError as error:
            raise InputError.because(f"cannot be read: {error.strerror}", file=str(self.path)) from error
        return [path for path in entries if is_manifest(path.name)]

    def _read(self, path: Path, known: _CachedFile | None) -> _CachedFile | None:
        """The file at `path`, None when there is none (any more)."""
        stamp = _Stamp(0, 0, 0, 0, 0)
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                return None
            if not stat.S_ISREG(status.st_mode):
                return _unreadable(path.name, stamp, "is not a regular file")
            stamp = _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if known is not None and known.stamp == stamp and not known.racy:
                return known
            racy = time.time_ns() - max(stamp.modified, stamp.changed) < RACY_NS
            data = path.read_bytes()
        except FileNotFoundError:
            return _unreadable(path.name, stamp, "is a link to nothing") if path.is_symlink() else None
        except OSError as error:
            return _unreadable(path.name, stamp, f"cannot be read: {error.strerror}")
        same = known is not None and known.data == data
        content = known.content if known is not None and same else read_bytes(path.name, data, self.settings)
        return _CachedFile(stamp, racy, data if racy else None, content)


def is_manifest(name: str) -> bool:
    """Whether a file of this name is read as a manifest."""
    return name.endswith(SUFFIXES) and not name.startswith(_EDITOR_PREFIXES)


def _unreadable(name: str, stamp: _Stamp, reason: str) -> _CachedFile:
    return _CachedFile(
        stamp, True, None, FileContent(name, problems=(Problem(reason, file=plain(name)),), readable=False)
    )


def parse_bytes(name: str, data: bytes) -> tuple[Document, ...]:
    """The documents of a file of this name. Raises InputError naming the file and, if known, the line."""
    try:
        text = data.decode("utf-8-sig")
        return parse_json(text) if name.endswith(".json") else parse_yaml(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError.because(f"line {line}: is not UTF-8 text", file=plain(name)) from error
    except ParseError as error:
        raise InputError.because(str(error), file=plain(name)) from error


def read_bytes(name: str, data: bytes, settings: Settings) -> FileContent:
    """The content of a file of this name."""
    try:
        documents = parse_bytes(name, data)
    except InputError as error:
        return FileContent(name, problems=error.problems, readable=False)
    decoded = [decode(document, plain(name), settings) for document in documents]
    return FileContent(
        name,
        objects=tuple(item for one in decoded for item in one.objects),
        problems=tuple(problem for one in decoded for problem in one.problems),
        ignored=tuple(dict.fromkeys(kind for one in decoded for kind in one.ignored)),
    )
