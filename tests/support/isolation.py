"""A session of tests stands apart: network interfaces, ports, named namespaces and runs are all its own.

So sessions may run side by side (pytest-xdist starts one in each of its workers), nothing of the machine's own
network is seen or touched, and whatever a killed session leaves of these ends with its last process. To look on
from outside: `nsenter --target PID --net --mount`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.support.leak_check import NAMESPACES, RUNS

# unshare(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000


def isolate_session() -> None:
    """Enter a network and a mount namespace of our own, where only loopback is, and no run. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no namespaces for the tests")
    _run("mount", "--make-rslave", "/")
    for folder in (NAMESPACES, RUNS):
        folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "none", str(folder))
    _run("ip", "link", "set", "lo", "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "LC_ALL": "C"})


class AloneLock:
    """Lets tests of several workers run beside each other, but for those that must run alone: they measure time."""

    def __init__(self, folder: Path) -> None:
        """`folder` is the same for all workers of a run."""
        self._gate = (folder / "gate").open("w")
        self._room = (folder / "room").open("w")

    @contextmanager
    def taken(self, *, alone: bool) -> Iterator[None]:
        """Returns when the turn has come; nothing else begins while somebody waits to be alone."""
        with _locked(self._gate, fcntl.LOCK_EX):
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._room, fcntl.LOCK_UN)


@contextmanager
def _locked(file: IO[str], how: int) -> Iterator[None]:
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
