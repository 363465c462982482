"""The check for leftovers finds what it is for."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leak_check


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[leak_check.LeakCheck]:
    """A watch inside the session's own, over run folders and namespaces of its own."""
    outer = os.environ[leak_check.TOKEN], os.environ["TMPDIR"]
    monkeypatch.setattr(leak_check, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(leak_check, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(leak_check, "NAMESPACES", tmp_path / "netns")
    leak_check.RUNS.mkdir()
    leak_check.NAMESPACES.mkdir()
    (leak_check.RUNS / "older").mkdir()
    yield leak_check.LeakCheck.start()
    os.environ[leak_check.TOKEN], os.environ["TMPDIR"] = outer
    tempfile.tempdir = outer[1]


def test_a_clean_session_leaves_nothing(watch: leak_check.LeakCheck) -> None:
    with tempfile.TemporaryDirectory():
        subprocess.run(["true"], check=True)
    assert watch.finish() == []


def test_a_process_that_outlives_its_test_is_named(watch: leak_check.LeakCheck) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"running\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"running\n", "until then its command line may be Python's"
        left = watch.finish()
        process.kill()
    assert left == [f"process {process.pid}: cat"]


def test_a_temporary_folder_is_named_and_removed(watch: leak_check.LeakCheck) -> None:
    folder = Path(tempfile.mkdtemp(prefix="rundir-"))
    assert watch.finish() == [f"temporary {folder}"]
    assert not folder.exists()


def test_a_dead_run_and_its_namespace_are_named_but_no_live_one(watch: leak_check.LeakCheck) -> None:
    for name in ("aaaa", "bbbb"):
        (leak_check.RUNS / name).mkdir()
        (leak_check.RUNS / name / "lock").touch()
        (leak_check.NAMESPACES / f"rmn-{name}-node1").touch()
    (leak_check.NAMESPACES / "somebody-else").touch()
    lock = leak_check.RUNS / "bbbb" / "lock"
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


def test_a_killed_session_s_processes_end_with_the_next(watch: leak_check.LeakCheck) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    (watch.folder / f"rt-{ended.pid}-gone").mkdir()
    (watch.folder / f"rt-{os.getpid()}-here").mkdir()
    left, other = (
        subprocess.Popen(["sleep", "60"], env={**os.environ, leak_check.TOKEN: token}) for token in ("gone", "here")
    )
    inner = leak_check.LeakCheck.start()
    assert left.wait(5) == -9
    assert other.poll() is None
    other.kill()
    other.wait()
    shutil.rmtree(inner.folder)
    watch.finish()


def test_a_killed_session_s_folder_goes_with_the_next(watch: leak_check.LeakCheck) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    dead, alive = (watch.folder / f"rt-{pid}-abc" for pid in (ended.pid, os.getpid()))
    dead.mkdir()
    alive.mkdir()
    inner = leak_check.LeakCheck.start()
    assert not dead.exists()
    assert alive.exists()
    shutil.rmtree(inner.folder)
    alive.rmdir()
    assert watch.finish() == []
