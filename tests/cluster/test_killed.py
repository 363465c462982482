"""What a cluster leaves behind when its process is killed, and who removes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from romana_ovs_emulate import cgroups, runs
from romana_ovs_emulate.agent_client import child_environment
from romana_ovs_emulate.system import NETNS_FOLDER
from tests.support.real_cluster import RUNNING_SECONDS, skip_without_requirements
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of a real kubelet")]


def test_the_next_run_removes_a_killed_cluster(tmp_path: Path) -> None:
    skip_without_requirements()
    before = set(runs.RUNS_FOLDER.glob("[!.]*"))
    log = tmp_path / "log"
    command = [sys.executable, "-m", "romana_ovs_emulate.cluster", "--nodes", "1", "--kube-proxy", "none"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=child_environment())
    try:
        eventually(
            lambda: "installing romana-ovs" in log.read_text() or process.poll() is not None,
            f"the kubelet runs; {log.read_text()}",
            2 * RUNNING_SECONDS,
        )
        (folder,) = set(runs.RUNS_FOLDER.glob("[!.]*")) - before
        assert _traces(folder.name)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    (removed,) = [run for run in runs.clean() if run.run == folder.name]
    assert removed.processes
    assert _traces(folder.name) == []


def _traces(run: str) -> list[str]:
    """What there is of a run on this machine: folders, network namespaces, control groups, processes."""
    folders = [path for path in (runs.RUNS_FOLDER / run, runs.DISK_FOLDER / run) if path.exists()]
    groups = [path for path in cgroups.ROOT.glob(f"*/rmn-{run}-*") if path.is_dir()]
    namespaces = list(NETNS_FOLDER.glob(f"rmn-{run}-*"))
    processes = [path for path in Path("/proc").glob("[0-9]*") if f"/{run}/" in _words(path)]
    return sorted(map(str, (*folders, *groups, *namespaces, *processes)))


def _words(process: Path) -> str:
    """The command line of a process, and the mounts that it sees."""
    try:
        return (process / "cmdline").read_text() + (process / "mountinfo").read_text()
    except OSError:
        return ""
