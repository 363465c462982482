"""Lists the files of a folder of manifests as kubectl does, and names what is passed by."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.model.errors import InputError, Problem, Severity
from romana_ovs.model.syntax import plain

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = Path("-")
"""In place of a folder: standard input."""
_EDITOR_PREFIXES = (".", "#", "~")
_EDITOR_SUFFIXES = ("~", "#", ".swp", ".swo", ".swx")
_COUNTED = 10_000
"""Entries of sub-folders that are looked at to count manifests."""


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file to read: its name in messages (its path below the folder), and where it is.

    With a `fault` it cannot be read, for this reason, and may be a sub-folder: what is in it is unknown.
    """

    name: str
    path: Path
    fault: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of a folder or of its sub-folders.

    `read`: it is a manifest, or with a `fault` (why it cannot be read) a sub-folder. Anything else is passed by.
    """

    path: Path
    read: bool
    fault: str = ""


def is_manifest(name: str) -> bool:
    """Whether a file of this name in a folder is read as a manifest.

    kubectl reads hidden files, too; here they are not read, as editors write such beside a file, and are named instead.
    """
    return name.endswith(SUFFIXES) and not name.startswith(_EDITOR_PREFIXES)


def list_files(path: Path, *, recursive: bool) -> list[ListedFile]:
    """The files to read at `path`, in sorted order: those of a folder, or the one file, whatever its name.

    With `recursive` those of sub-folders, too, but not behind links; sub-folders that cannot be listed are in their
    places. Raises InputError when `path` itself cannot be read.
    """
    if path == STDIN:
        return [ListedFile("stdin", path)]
    try:
        if not path.is_dir():
            path.stat()
            return [ListedFile(path.name, path)]
        entries = _scan(path)
    except OSError as error:
        raise InputError.because(f"cannot be read: {error.strerror}", file=str(path)) from error
    return [
        ListedFile(entry.path.relative_to(path).as_posix(), entry.path, entry.fault)
        for entry in _walk(entries, recursive=recursive)
        if entry.read
    ]


def passed_by(path: Path, *, recursive: bool) -> tuple[Problem, ...]:
    """Notes about what looks like manifests at `path` and is not read."""
    try:
        entries = _scan(path) if path != STDIN and path.is_dir() else []
    except OSError:
        return ()  # `list_files` raises it
    others = (entry.path for entry in _walk(entries, recursive=recursive) if not entry.read)
    return tuple(_note(other, path, reason) for other in others if (reason := _reason(other, recursive=recursive)))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _walk(entries: list[os.DirEntry[str]], *, recursive: bool) -> Iterator[_Entry]:
    """All entries, with `recursive` those of sub-folders in place of these, but for hidden ones and links."""
    for entry in entries:
        path = Path(entry.path)
        try:
            if not entry.is_dir(follow_symlinks=False):
                yield _Entry(path, is_manifest(entry.name) and not entry.is_dir())
            elif not recursive or entry.name.startswith("."):
                yield _Entry(path, read=False)
            else:
                yield from _walk(_scan(path), recursive=True)
        except FileNotFoundError:
            continue  # it is gone, and with it all that it had
        except OSError as error:
            read = is_manifest(entry.name) or (recursive and not entry.name.startswith("."))
            yield _Entry(path, read, error.strerror or str(error))


def _note(file: Path, folder: Path, reason: str) -> Problem:
    return Problem(reason, file=plain(file.relative_to(folder).as_posix()), severity=Severity.INFO)


def _reason(path: Path, *, recursive: bool) -> str:
    """Why something that looks like manifests is not read; empty when it does not look like one."""
    name = path.name
    try:
        is_folder = path.is_dir()
    except OSError:
        is_folder = False  # behind a link into a folder that may not be searched
    if name.startswith("..") or (not is_folder and name.endswith(_EDITOR_SUFFIXES)):
        return ""  # links of a mounted ConfigMap; what an editor writes beside a file
    if is_folder:
        count = _count(path)
        files = "1 manifest" if count == 1 else f"{count} manifests"
        if not count:
            return ""
        if name.startswith("."):
            return f"is a hidden folder with {files}, which are not read"
        if path.is_symlink():
            return f"is a link to a folder with {files}, which are not read (kubectl does not follow it either)"
        return f"is a sub-folder with {files}, which are not read without -R" if not recursive else ""
    if name.endswith(SUFFIXES):
        return "is a hidden file, which is not read (kubectl reads it)"
    if any(suffix in name.lower() for suffix in SUFFIXES):
        return f"is not read: only *{', *'.join(SUFFIXES)} are"
    return ""


def _count(folder: Path) -> int:
    """The number of manifests in a folder and its sub-folders, as far as `_COUNTED` entries go."""
    count = seen = 0
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        count += sum(is_manifest(name) for name in files)
        seen += len(files) + len(folders)
        if seen > _COUNTED:
            break
    return count
