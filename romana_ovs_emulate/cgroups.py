"""Creates and removes the control groups of nodes with real kubelets, in every hierarchy (cgroups(7)).

A node's group, `/NAME`, is what its kubelet takes for the root of all groups (`cgroupRoot`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from romana_ovs.model.errors import SetupError

ROOT = Path("/sys/fs/cgroup")
UNIFIED = "cgroup.controllers"
"""A file that only groups of version 2 have."""
CPUSET_FILES = ("cpuset.cpus", "cpuset.mems")
REMOVE_SECONDS = 5.0
"""How long a group may be in use after its last process has ended, in seconds."""
RETRY_SECONDS = 0.02


def create(name: str) -> None:
    """Create the group in every hierarchy. Raises SetupError."""
    try:
        for hierarchy in _used_hierarchies():
            group = hierarchy / name
            group.mkdir(exist_ok=True)
            if (hierarchy / UNIFIED).exists():
                _delegate(hierarchy)
            # Empty in a new group of version 1, in which then no process may be.
            for file in CPUSET_FILES:
                if (group / file).exists() and not (hierarchy / UNIFIED).exists():
                    (group / file).write_text((hierarchy / file).read_text())
    except OSError as error:
        raise SetupError(f"the control group {name} cannot be created: {error.strerror} ({error.filename})") from error


def remove(prefix: str) -> None:
    """Remove the groups whose name begins with `prefix`, with the groups in them. Those with processes stay."""
    deadline = time.monotonic() + REMOVE_SECONDS
    for hierarchy in _mounted_hierarchies():
        for group in hierarchy.glob(f"{prefix}*"):
            while group.is_dir() and not _removed(group) and time.monotonic() < deadline:
                time.sleep(RETRY_SECONDS)


def _mounted_hierarchies() -> Iterator[Path]:
    """The root groups: of version 2 alone, else of each hierarchy of version 1 and of the empty one of version 2."""
    if (ROOT / UNIFIED).exists():
        yield ROOT
        return
    for path in sorted(ROOT.iterdir()) if ROOT.is_dir() else ():
        if not path.is_symlink() and (path / "cgroup.procs").exists():
            yield path


def _used_hierarchies() -> Iterator[Path]:
    """Those with controllers. Container runtimes make groups in an empty one, too, by themselves."""
    return (path for path in _mounted_hierarchies() if path == ROOT or not (path / UNIFIED).exists())


def _delegate(hierarchy: Path) -> None:
    """Let the groups of version 2 have every controller that they can have."""
    for controller in (hierarchy / UNIFIED).read_text().split():
        with contextlib.suppress(OSError):
            (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")


def _removed(group: Path) -> bool:
    """Whether the group and those in it could be removed, the innermost first."""
    folders = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
    try:
        for folder in (*folders, group):
            folder.rmdir()
    except OSError:
        return False
    return True
