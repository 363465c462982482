"""The check for leftovers finds what it is for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leftovers


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[leftovers.Watch]:
    """A watch inside the session's own, over run folders and namespaces of its own."""
    outer = os.environ[leftovers.TOKEN], os.environ["TMPDIR"]
    monkeypatch.setattr(leftovers, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(leftovers, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(leftovers, "NAMESPACES", tmp_path / "netns")
    leftovers.RUNS.mkdir()
    leftovers.NAMESPACES.mkdir()
    (leftovers.RUNS / "older").mkdir()
    yield leftovers.Watch.start()
    os.environ[leftovers.TOKEN], os.environ["TMPDIR"] = outer
    tempfile.tempdir = outer[1]


def test_a_clean_session_leaves_nothing(watch: leftovers.Watch) -> None:
    with tempfile.TemporaryDirectory():
        subprocess.run(["true"], check=True)
    assert watch.finish() == []


def test_a_process_that_outlives_its_test_is_named(watch: leftovers.Watch) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        left = watch.finish()
        process.kill()
    assert left == [f"process {process.pid}: sleep 60"]


def test_a_temporary_folder_is_named_and_removed(watch: leftovers.Watch) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rundir-"))
    assert watch.finish() == [f"temporary {folder}"]
    assert not folder.exists()


def test_a_dead_run_and_its_namespace_are_named_but_no_live_one(watch: leftovers.Watch) -> None:
    for name in ("aaaa", "bbbb"):
        (leftovers.RUNS / name).mkdir()
        (leftovers.RUNS / name / "lock").touch()
        (leftovers.NAMESPACES / f"rmn-{name}-node1").touch()
    (leftovers.NAMESPACES / "somebody-else").touch()
    lock = leftovers.RUNS / "bbbb" / "lock"
    with subprocess.Popen(["flock", str(lock), "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as live:
        assert live.stdin and live.stdout
        live.stdin.write(b"ready\n")
        live.stdin.flush()
        live.stdout.readline()  # flock runs cat only once it holds the lock.
        left = watch.finish()
    assert [line for line in left if not line.startswith("process")] == [
        "run or namespace aaaa",
        "run or namespace rmn-aaaa-node1",
    ]


def test_a_killed_session_s_processes_end_with_the_next(watch: leftovers.Watch) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    (watch.folder / f"rt-{ended.pid}-gone").mkdir()
    (watch.folder / f"rt-{os.getpid()}-here").mkdir()
    left, other = (
        subprocess.Popen(["sleep", "60"], env={**os.environ, leftovers.TOKEN: token}) for token in ("gone", "here")
    )
    inner = leftovers.Watch.start()
    assert left.wait(5) == -9
    assert other.poll() is None
    other.kill()
    other.wait()
    shutil.rmtree(inner.folder)
    watch.finish()


def test_a_killed_session_s_folder_goes_with_the_next(watch: leftovers.Watch) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    dead, alive = (watch.folder / f"rt-{pid}-abc" for pid in (ended.pid, os.getpid()))
    dead.mkdir()
    alive.mkdir()
    inner = leftovers.Watch.start()
    assert not dead.exists()
    assert alive.exists()
    shutil.rmtree(inner.folder)
    alive.rmdir()
    assert watch.finish() == []
