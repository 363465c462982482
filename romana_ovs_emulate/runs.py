"""Creates and removes run folders, so that runs never collide and the remains of a killed run can be removed.

A run is a folder named by its id. Its owner holds a lock on the file `lock` in it until it ends (the kernel releases
it however the owner ends). Commands that create namespaces for the run hold the lock too, so that a dead run
creates nothing more. All that a run creates is recognised by the id: its network namespaces and control groups are
`rmn-<id>-...`, its interfaces are inside these, its processes are recorded with their start times, and what needs
a disk is in a folder of its own. So a dead run can be removed completely, and nothing else is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import shutil
import signal
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate import cgroups
from romana_ovs_emulate.system import NETNS_FOLDER, ip_batch

RUNS_FOLDER = Path("/run/romana-ovs")
DISK_FOLDER = Path("/var/cache/romana-ovs/runs")
"""Where runs have folders for what is large, executed or mounted over: RUNS_FOLDER is a tmpfs on most machines."""
NETNS_PREFIX = "rmn-"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAME_LENGTH = 60
"""The longest name of a node or pod that is used in paths unchanged."""
STRAGGLER_SECONDS = 5.0
"""How long to wait for commands that a killed owner had started, in seconds; they usually take milliseconds."""
END_SECONDS = 2.0
"""How long processes may take to end on SIGTERM before SIGKILL, in seconds."""


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process of a run: its id and its start time in clock ticks since boot (proc(5), field 22)."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class RemovedRun:
    """A removed run: its id, how many of its processes were alive when it was removed, and its namespaces."""

    run: str
    processes: int
    namespaces: tuple[str, ...]


class Run:
    """A live run: its folder and its lock. `start_run` starts it, `close` ends it."""

    def __init__(self, folder: Path, lock: IO[str]) -> None:
        self.folder = folder
        self.id = folder.name
        self._lock = lock

    def netns(self, name: str) -> str:
        """The name of this run's network namespace for `name` (a node, or a pod as `ns/pod`)."""
        return f"{NETNS_PREFIX}{self.id}-{short(name.replace('/', '.'))}"

    def cgroup(self, name: str) -> str:
        """The name of this run's control group for `name` (a node)."""
        return self.netns(name)

    @property
    def disk(self) -> Path:
        """A folder of this run on a disk, readable by its owner only. Raises SetupError when it cannot be made."""
        folder = _disk_folder(self.folder)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise SetupError(f"the folder {folder} cannot be made: {error.strerror}") from error
        return folder

    def ip_batch(self, lines: Iterable[str]) -> None:
        """Run `ip` commands that create namespaces of this run. Raises SetupError as `ip_batch` does."""
        ip_batch(lines, keep_open=self._lock)

    def record(self, pid: int) -> None:
        """Record a process of this run, so that it can be ended after its owner was killed."""
        started = _start_time(pid)
        if started is not None:
            with (self.folder / "processes").open("a") as file:
                file.write(f"{pid} {started}\n")

    def close(self) -> None:
        """End every process of this run, remove its namespaces and folder, release the lock. Idempotent."""
        if not self._lock.closed:
            with _runs_lock(self.folder.parent):
                _remove(self.folder)
                self._lock.close()


def short(name: str) -> str:
    """`name`; when it is too long for the path of a socket (unix(7): 107 bytes), its beginning and a hash of it."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 9]}-{zlib.crc32(name.encode()):08x}"


def start_run(runs: Path = RUNS_FOLDER) -> Run:
    """Start a run with a free id, after removing dead runs. Raises SetupError."""
    with _runs_lock(runs):
        _remove_dead(runs)
        while True:
            folder = runs / secrets.token_hex(2)
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                break
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / "boot").write_text(_boot())
        (folder / "owner").write_text(f"{os.getpid()} {_start_time(os.getpid())}\n")
    return Run(folder, lock)


def clean(runs: Path = RUNS_FOLDER) -> list[RemovedRun]:
    """Remove dead runs, and nothing else. Returns an entry for each."""
    if not runs.is_dir():
        return []
    with _runs_lock(runs):
        return _remove_dead(runs)


def is_live(name: str, runs: Path = RUNS_FOLDER) -> bool:
    """Whether a run of this id is live on this machine."""
    return bool(name) and Path(name).name == name and (runs / name).is_dir() and _is_live(runs / name)


def remove_if_dead(folder: Path) -> None:
    """Remove one run if it is dead; does nothing when it is live or removed already."""
    with _runs_lock(folder.parent):
        if folder.is_dir() and _wait_until_dead(folder):
            _remove(folder)


@contextlib.contextmanager
def _runs_lock(runs: Path) -> Iterator[None]:
    """Hold the lock of the folder of runs, under which run folders are created and removed."""
    try:
        runs.mkdir(mode=0o755, parents=True, exist_ok=True)
        file = (runs / ".lock").open("w")
    except OSError as error:
        raise SetupError(f"the folder {runs} cannot be used: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_dead(runs: Path) -> list[RemovedRun]:
    return [_remove(path) for path in sorted(runs.iterdir()) if path.is_dir() and _wait_until_dead(path)]


def _wait_until_dead(folder: Path) -> bool:
    """Whether no process holds the run's lock.

    When the owner has ended but its commands still hold the lock, waits for these, at most STRAGGLER_SECONDS.
    """
    deadline = time.monotonic() + STRAGGLER_SECONDS
    while _is_live(folder):
        if _owner_exists(folder) or time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # flock(2) has no time limit
    return True


def _owner_exists(folder: Path) -> bool:
    """Whether the process that started the run exists; True also when the file that names it is missing or damaged."""
    try:
        pid, started = (folder / "owner").read_text().split()
    except (FileNotFoundError, ValueError):
        return True
    return str(_start_time(int(pid))) == started


def _is_live(folder: Path) -> bool:
    """Whether a process holds the run's lock."""
    try:
        with (folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _remove(folder: Path) -> RemovedRun:
    """Remove everything of one run except the calling process."""
    prefix = f"{NETNS_PREFIX}{folder.name}-"
    names = sorted(path.name for path in NETNS_FOLDER.glob(f"{prefix}*"))
    processes = _recorded_processes(folder) | _processes_inside(names)
    _end(processes)
    ip_batch(f"netns del {name}" for name in names)
    cgroups.remove(prefix)
    shutil.rmtree(_disk_folder(folder), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    return RemovedRun(folder.name, len(processes), tuple(names))


def _disk_folder(folder: Path) -> Path:
    """The folder on disk of the run that has the run folder `folder`."""
    return DISK_FOLDER / folder.name


def _recorded_processes(folder: Path) -> set[ProcessRef]:
    """The recorded processes of the run that still exist, without the calling process."""
    try:
        boot = (folder / "boot").read_text()
        lines = (folder / "processes").read_text().splitlines()
    except FileNotFoundError:
        return set()
    if boot != _boot():
        return set()
    pairs = [line.split() for line in lines]
    recorded = {ProcessRef(*map(int, pair)) for pair in pairs if len(pair) == 2 and "".join(pair).isdigit()}
    return {one for one in recorded if one.pid != os.getpid() and _start_time(one.pid) == one.started}


def _processes_inside(names: Iterable[str]) -> set[ProcessRef]:
    """The processes inside these network namespaces: commands that were started in pods and nodes."""
    namespaces = set()
    for name in names:
        with contextlib.suppress(OSError):
            status = (NETNS_FOLDER / name).stat()
            namespaces.add((status.st_dev, status.st_ino))
    own = Path("/proc/self/ns/net").stat()
    namespaces.discard((own.st_dev, own.st_ino))
    result = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                status = (entry / "ns/net").stat()
                started = _start_time(int(entry.name))
                if (status.st_dev, status.st_ino) in namespaces and started is not None:
                    result.add(ProcessRef(int(entry.name), started))
    return result


def _end(processes: set[ProcessRef]) -> None:
    """End processes by SIGTERM, then SIGKILL. Waits END_SECONDS at most after each; some may still exist then."""
    for number, seconds in ((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS)):
        handles = []
        for one in processes:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(one.pid)
                if _start_time(one.pid) == one.started:
                    handles.append(handle)
                    signal.pidfd_send_signal(handle, number)
                else:
                    os.close(handle)
        _await_end(handles, seconds)


def _await_end(handles: list[int], seconds: float) -> None:
    """Wait until every pidfd is readable (its process ended), at most `seconds`; closes them."""
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    waiting = set(handles)
    deadline = time.monotonic() + seconds
    while waiting and (left := deadline - time.monotonic()) > 0:
        for handle, _ in poll.poll(left * 1000):
            poll.unregister(handle)
            waiting.discard(handle)
    for handle in handles:
        os.close(handle)


def _start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot, or None when it does not exist (or is a zombie)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _boot() -> str:
    return BOOT_ID.read_text().strip()
