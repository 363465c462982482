"""The machine is started, watched and ended, with a program in the place of QEMU that does what a test says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.model.errors import SetupError
from tests.kernel import machine
from tests.kernel.image import Image
from tests.kernel.machine import EMULATION, Accelerator, Job, NotBootedError, qemu_argv, run_job
from tests.support.waiting import eventually

QEMU = """#!/bin/bash
echo $$ >> "$QEMU_PIDS"
for word; do case $word in local,path=*) share=${{word#local,path=}}; share=${{share%%,*}};; esac; done
case "$*" in *"-accel kvm"*) {kvm};; esac
{emulated}
"""
UP = 'touch "$share/up"'
JOB = f"""{UP}
trap 'kill $(jobs -p); exit' TERM
bash "$share/job" > "$share/output" & wait $!
echo $? > "$share/new"; mv "$share/new" "$share/status"
exec sleep 60"""
ABORT = "echo assertion >&2; exit 134"


class World:
    """A folder with a QEMU in it, and what a run prints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.progress: list[str] = []
        self.output: list[str] = []

    def qemu(self, emulated: str, kvm: str = ABORT) -> None:
        """What QEMU does."""
        path = self.folder / "qemu-system-x86_64"
        path.write_text(QEMU.format(kvm=kvm, emulated=emulated))
        path.chmod(0o755)

    def run(self, script: str = "echo done", seconds: float = 20.0) -> int:
        """The exit code of a job."""

        def script_of(how: Accelerator) -> str:
            return f"{script}\n"

        (self.folder / "checkout.tar").touch()
        job = Job(self.folder / "checkout.tar", script_of, seconds)
        return run_job(Image(self.folder), job, self.progress.append, self.output.append)

    def pids(self) -> list[int]:
        """The processes that were started in the place of QEMU."""
        file = self.folder / "pids"
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    def left(self) -> list[str]:
        """What still runs or lies there."""
        running = [str(pid) for pid in self.pids() if Path("/proc", str(pid)).exists()]
        return running + [path.name for path in (self.folder / "tmp").iterdir()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A QEMU to be written, a device for KVM, and a look at what is left."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("QEMU_PIDS", str(tmp_path / "pids"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(machine, "KVM", tmp_path / "pids")
    (tmp_path / "pids").touch()
    world = World(tmp_path)
    yield world
    assert world.left() == []


@pytest.mark.parametrize("status", [0, 1])
def test_a_job_is_run_and_its_output_comes(world: World, status: int) -> None:
    world.qemu(emulated="exit 1", kvm=JOB)
    assert world.run(f"echo one; sleep 0.3; echo two; exit {status}") == status
    assert "".join(world.output) == "one\ntwo\n"
    assert len(world.output) > 1, "line by line"
    assert len(world.progress) == 1
    assert world.progress[0].endswith("with KVM")


def test_where_kvm_aborts_the_processor_is_emulated(world: World) -> None:
    world.qemu(emulated=JOB)
    assert world.run() == 0
    said, up = world.progress
    assert said.startswith("KVM does not work here (QEMU ended: assertion): QEMU emulates the processor")
    assert up.endswith("with QEMU's emulation")


def test_where_kvm_hangs_the_processor_is_emulated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = machine.KERNEL_VIRTUAL_MACHINE
    monkeypatch.setattr(machine, "KERNEL_VIRTUAL_MACHINE", Accelerator(quick.name, quick.options, 0.3, quick.slowness))
    world.qemu(emulated=JOB, kvm="exec sleep 60")
    assert world.run() == 0
    assert "was not up after 0 s" in world.progress[0]


def test_without_the_device_kvm_is_not_tried(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "KVM", world.folder / "none")
    world.qemu(emulated=JOB)
    assert world.run() == 0
    assert len(world.pids()) == 1


def test_a_machine_that_ends_early_is_an_error(world: World) -> None:
    world.qemu(emulated=UP)
    with pytest.raises(SetupError, match="ended before its job"):
        world.run()


def test_a_machine_that_does_not_boot_is_an_error(world: World) -> None:
    world.qemu(emulated="echo no disk >&2; exit 1")
    with pytest.raises(NotBootedError, match="QEMU ended: no disk"):
        world.run()


def test_a_job_that_takes_too_long_is_ended(world: World) -> None:
    world.qemu(emulated=JOB)
    with pytest.raises(SetupError, match="ended after 1 s"):
        world.run("exec sleep 30", seconds=1.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_the_machine_ends_with_its_parent(world: World, number: signal.Signals) -> None:
    world.qemu(emulated=f"{UP}; exec sleep 60")
    program = f"""
import signal
from pathlib import Path
from tests.kernel import machine
from tests.kernel.__main__ import interrupt
from tests.kernel.image import Image
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, interrupt)
machine.KVM = Path("/none")
folder = Path({str(world.folder)!r})
machine.run_job(Image(folder), machine.Job(folder / "pids", lambda how: "", 50.0), print, print)
"""
    environment = {**os.environ, "TMPDIR": str(world.folder / "tmp")}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    eventually(world.pids, "the machine runs")
    eventually(lambda: list((world.folder / "tmp").glob("*/share/up")), "the machine is up")
    process.send_signal(number)
    process.wait(20)
    if number == signal.SIGKILL:
        eventually(lambda: len(world.left()) == 1, "QEMU is gone")
        world.qemu(emulated=JOB)
        assert world.run() == 0, "which removes the folder"
    eventually(lambda: not world.left(), "nothing is left")


def test_paths_with_commas_are_escaped() -> None:
    argv = qemu_argv(EMULATION, Image(Path("/a,b")), Path("/c,d"), Path("/console"))
    assert "file=/a,,b/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe" in argv
    assert "local,path=/c,,d,mount_tag=share,security_model=none" in argv


def test_output_is_awaited_without_spinning(world: World) -> None:
    world.qemu(emulated=JOB)
    began = time.process_time()
    assert world.run("sleep 1") == 0
    assert time.process_time() - began < 0.5
