"""Run folders: a live run is never touched, a dead one goes with its own processes only."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs_emulate import runs


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def dead_run(folder: Path, *, processes: str = "", boot: str | None = None) -> Path:
    run = folder / "dead"
    run.mkdir(parents=True)
    (run / "lock").touch()
    (run / "boot").write_text(boot or runs.BOOT_ID.read_text().strip())
    (run / "processes").write_text(processes)
    return run


def test_live_runs_stay_and_ids_differ(tmp_path: Path) -> None:
    first, second = runs.start_run(tmp_path), runs.start_run(tmp_path)
    try:
        assert first.id != second.id
        assert first.netns("ns/pod") != second.netns("ns/pod")
        assert runs.clean(tmp_path) == []
        assert first.folder.is_dir()
    finally:
        second.close()
        first.close()
    first.close()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_start_of_a_run_removes_dead_ones(tmp_path: Path) -> None:
    dead = dead_run(tmp_path)
    run = runs.start_run(tmp_path)
    assert not dead.exists()
    run.close()


def test_a_recorded_process_ends_with_its_run(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    run = runs.start_run(tmp_path)
    run.record(sleeper.pid)
    run.close()
    assert sleeper.wait(5) == -15


def test_a_process_with_a_reused_pid_is_left_alone(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    dead_run(tmp_path, processes=f"{sleeper.pid} 12345\n")
    assert [(one.run, one.processes) for one in runs.clean(tmp_path)] == [("dead", 0)]
    assert sleeper.poll() is None


def test_pids_of_an_earlier_boot_are_ignored(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    started = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19]
    dead_run(tmp_path, processes=f"{sleeper.pid} {started}\n", boot="another")
    assert runs.clean(tmp_path)[0].processes == 0
    assert sleeper.poll() is None


@pytest.mark.parametrize("torn", ["", "\n", "earlier"])
def test_a_torn_record_is_ignored(tmp_path: Path, torn: str) -> None:
    run = dead_run(tmp_path, processes=f"{os.getpid()} \n7 8 9\nx y\n")
    (run / "boot").write_text(torn or runs.BOOT_ID.read_text().strip())
    assert [one.processes for one in runs.clean(tmp_path)] == [0]
    assert not run.exists()


def test_nothing_to_clean_where_nothing_ran(tmp_path: Path) -> None:
    assert runs.clean(tmp_path / "absent") == []


def test_long_names_are_shortened_and_stay_apart() -> None:
    one, two = "a" * 100 + "1", "a" * 100 + "2"
    assert runs.short("node1.example.org") == "node1.example.org"
    assert len(runs.short(one)) == runs.NAME_LENGTH
    assert runs.short(one) != runs.short(two)


OWNER = """
import os, sys
from pathlib import Path
from romana_ovs_emulate import runs, system
run = runs.start_run(Path(sys.argv[1]))
os.environ["PATH"] = sys.argv[2]
print(run.folder, flush=True)
run.ip_batch(["netns add never"])
"""


def test_a_command_that_outlives_its_killed_owner_is_waited_for(tmp_path: Path) -> None:
    slow = tmp_path / "bin" / "ip"
    slow.parent.mkdir()
    done, begun = tmp_path / "done", tmp_path / "begun"
    slow.write_text(f"#!/bin/sh\nPATH={os.environ['PATH']}\n: > {begun}\nsleep 0.3\n: > {done}\n")
    slow.chmod(0o755)
    registers = tmp_path / "runs"
    argv = [sys.executable, "-c", OWNER, str(registers), str(slow.parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        deadline = time.monotonic() + 10
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert runs.is_live(folder.name, registers)
        owner.kill()
        owner.wait()
    assert not done.exists()
    assert [one.run for one in runs.clean(registers)] == [folder.name]
    assert done.exists(), "nothing of the run can come any more"
