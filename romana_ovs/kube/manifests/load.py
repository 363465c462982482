"""Reads a folder of manifests once, for the offline commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from romana_ovs.kube.manifests.files import STDIN, SUFFIXES, passed_by
from romana_ovs.kube.manifests.folder import FolderContent, FolderReader
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings


def read_folder(path: Path, settings: Settings, *, recursive: bool = False) -> FolderContent:
    """The content of `path` (a folder, one file, or `-` for standard input), with notes on what is passed by.

    Raises InputError when it cannot be read, or holds no object at all.
    """
    content = FolderReader(path, settings, recursive=recursive).read()
    notes = passed_by(path, recursive=recursive)
    if not content.is_empty:
        return replace(content, notes=notes)
    if path == STDIN:
        raise InputError.because("holds no Kubernetes objects", file="stdin")
    hint = "".join(f"; {note}" for note in notes[:3])
    raise InputError.because(f"holds no Kubernetes objects (in files *{', *'.join(SUFFIXES)}){hint}", file=str(path))


def load(path: Path, settings: Settings, *, nodes: int | None = None, recursive: bool = False) -> ClusterSnapshot:
    """The cluster that the manifests in `path` (a folder, one file, or `-`) describe.

    Problems of single objects are in the result. Raises InputError when the folder cannot be read, holds
    no object at all, or has Node objects while `nodes` is given.
    """
    return ManifestStore(settings).apply(read_folder(path, settings, recursive=recursive), nodes=nodes)
