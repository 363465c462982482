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
    """A file to read: its name in messages (its path below the folder), and where it is."""

    name: str
    path: Path


def is_manifest(name: str) -> bool:
    """Whether a file of this name in a folder is read as a manifest.

    kubectl reads hidden files, too; here they are not read, as editors write such beside a file, and are named instead.
    """
    return name.endswith(SUFFIXES) and not name.startswith(_EDITOR_PREFIXES)


def list_files(path: Path, *, recursive: bool) -> list[ListedFile]:
    """The files to read at `path`, in sorted order: those of a folder, or the one file, whatever its name.

    With `recursive` those of sub-folders, too, but not behind links. Raises InputError when `path` cannot be read.
    """
    if path == STDIN:
        return [ListedFile("stdin", path)]
    try:
        if not path.is_dir():
            path.stat()
            return [ListedFile(path.name, path)]
        entries = _entries(path)
    except OSError as error:
        raise InputError.because(f"cannot be read: {error.strerror}", file=str(path)) from error
    return [ListedFile(file.relative_to(path).as_posix(), file) for file in _manifests(entries, recursive=recursive)]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _manifests(entries: list[os.DirEntry[str]], *, recursive: bool) -> Iterator[Path]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            if recursive and not entry.name.startswith("."):
                yield from _manifests(_entries_or_none(Path(entry.path)), recursive=True)
        elif is_manifest(entry.name) and not entry.is_dir():
            yield Path(entry.path)


def _entries_or_none(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return _entries(folder)
    except OSError:
        return []  # `passed_by` names it


def passed_by(path: Path, *, recursive: bool) -> tuple[Problem, ...]:
    """Notes about what looks like manifests at `path` and is not read."""
    if path == STDIN or not path.is_dir():
        return ()
    notes = []
    folders = [path]
    while folders:
        folder = folders.pop()
        try:
            entries = _entries(folder)
        except OSError as error:
            notes.append(_note(folder, path, f"cannot be read: {error.strerror}", Severity.ERROR))
            continue
        for entry in entries:
            if recursive and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                folders.append(Path(entry.path))
            elif reason := _reason(entry, recursive=recursive):
                notes.append(_note(Path(entry.path), path, reason))
    return tuple(notes)


def _note(file: Path, folder: Path, reason: str, severity: Severity = Severity.INFO) -> Problem:
    return Problem(reason, file=plain(file.relative_to(folder).as_posix()), severity=severity)


def _reason(entry: os.DirEntry[str], *, recursive: bool) -> str:
    """Why something that looks like manifests is not read; empty when it is read, or does not look like one."""
    name = entry.name
    if name.startswith("..") or (not entry.is_dir() and name.endswith(_EDITOR_SUFFIXES)):
        return ""  # links of a mounted ConfigMap; what an editor writes beside a file
    if entry.is_dir():
        count = _count(Path(entry.path))
        files = "1 manifest" if count == 1 else f"{count} manifests"
        if not count:
            return ""
        if name.startswith("."):
            return f"is a hidden folder with {files}, which are not read"
        if entry.is_symlink():
            return f"is a link to a folder with {files}, which are not read (kubectl does not follow it either)"
        return f"is a sub-folder with {files}, which are not read without -R" if not recursive else ""
    if is_manifest(name):
        return ""
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
