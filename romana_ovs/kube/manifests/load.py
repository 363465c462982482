"""Reads a folder of manifests once, for the offline commands."""

from __future__ import annotations

from pathlib import Path

from romana_ovs.kube.manifests.folder import SUFFIXES, FolderReader
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import InputError
from romana_ovs.model.settings import Settings


def load(path: Path, settings: Settings, *, nodes: int | None = None) -> ClusterSnapshot:
    """The cluster that the manifests in `path` (a folder, or one file) describe.

    Problems of single objects are in the result. Raises InputError when the folder cannot be read, holds
    no object at all, or has Node objects while `nodes` is given.
    """
    content = FolderReader(path, settings).read()
    if not any(file.objects or file.problems or file.ignored for file in content.files):
        reason = f"holds no Kubernetes objects (in files *{', *'.join(SUFFIXES)})"
        raise InputError.because(reason, file=str(path))
    return ManifestStore(settings).apply(content, nodes=nodes)
