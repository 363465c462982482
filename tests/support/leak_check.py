"""What a test session leaves on the machine: processes, network namespaces, runs, temporary folders.

Other sessions and other runs may be alive on the same machine, so ours is told apart by what it inherits: an
environment variable for processes, a folder of its own for whatever `tempfile` makes. A namespace or run
belongs to nobody once the lock of its run is free, and was ours if it was not there when we began.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from romana_ovs_emulate.patience import patience

TOKEN = "ROMANA_TEST_SESSION"
RUNS = Path("/run/romana-ovs")
NAMESPACES = Path("/run/netns")
NAMESPACE_PREFIX = "rmn-"
FOLDER = "rt-"
"""Of temporary folders, before process id and token. Short: paths of Unix sockets have 107 characters."""
GRACE_SECONDS = patience(5.0)
"""How long what tests have ended may take to be gone, in seconds."""


@dataclass(frozen=True, slots=True)
class LeakCheck:
    """A session's token, its temporary folder, and the runs that were there before it."""

    token: str
    folder: Path
    before: frozenset[str]

    @classmethod
    def start(cls) -> LeakCheck:
        """A watch over what this process makes and starts from now on."""
        token = secrets.token_hex(3)
        parent = Path(tempfile.gettempdir())
        _remove_what_the_dead_left(parent)
        folder = parent / f"{FOLDER}{os.getpid()}-{token}"
        folder.mkdir(mode=0o755)
        os.environ[TOKEN] = token
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        return cls(token, folder, frozenset(_runs()))

    def finish(self) -> list[str]:
        """One line for each thing that is still there; empty when all is clean. The temporary folder goes."""
        end = time.monotonic() + GRACE_SECONDS
        while (left := self._left()) and time.monotonic() < end:
            time.sleep(0.05)
        shutil.rmtree(self.folder, ignore_errors=True)
        tempfile.tempdir = None
        del os.environ["TMPDIR"], os.environ[TOKEN]
        return left

    def _left(self) -> list[str]:
        runs = [name for name in _runs() if name not in self.before and not _is_live(name)]
        return [
            *self._processes(),
            *(f"run or namespace {name}" for name in runs),
            *(f"temporary {path}" for path in sorted(self.folder.iterdir())),
        ]

    def _processes(self) -> list[str]:
        """Processes that were started with our token in their environment, but for Python's own helpers."""
        found = []
        for number in _started_by(self.token):
            with contextlib.suppress(OSError):
                said = Path(f"/proc/{number}/cmdline").read_bytes()
                command = said.replace(b"\0", b" ").decode(errors="replace").strip()
                if "multiprocessing.resource_tracker" not in command:
                    found.append(f"process {number}: {command}")
        return found


def _remove_what_the_dead_left(parent: Path) -> None:
    """A session that was killed cannot end its processes and remove its folder; the next one does."""
    for path in parent.glob(f"{FOLDER}*-*"):
        owner, _, token = path.name.removeprefix(FOLDER).partition("-")
        if owner.isdigit() and not Path("/proc", owner).exists():
            for number in _started_by(token):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            shutil.rmtree(path, ignore_errors=True)


def _started_by(token: str) -> Iterator[int]:
    """The processes that have a session's token in their environment."""
    wanted = f"{TOKEN}={token}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # It may end meanwhile, or not be ours to read.
            with contextlib.suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def _runs() -> list[str]:
    """Names of run folders, and of network namespaces of runs."""
    runs = [path.name for path in RUNS.iterdir() if path.is_dir()] if RUNS.is_dir() else []
    spaces = [path.name for path in NAMESPACES.iterdir()] if NAMESPACES.is_dir() else []
    return sorted(runs) + sorted(name for name in spaces if name.startswith(NAMESPACE_PREFIX))


def _is_live(name: str) -> bool:
    """Whether somebody holds the lock of the run that the folder or namespace is named by."""
    run = name.removeprefix(NAMESPACE_PREFIX).split("-")[0]
    try:
        with (RUNS / run / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
