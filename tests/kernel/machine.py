"""Boots the virtual machine with QEMU and runs one job in it, whose output comes while it runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.build_cache import Progress
from tests.kernel.image import Image

KVM = Path("/dev/kvm")
KVM_BOOT_SECONDS = 20.0
"""Where KVM works, the machine is up after about 3 s; where it only seems to (as in some containers), never."""
EMULATED_BOOT_SECONDS = 180.0
MEMORY_MB = 4096
MAX_CPUS = 4
END_SECONDS = 10.0
"""How long the machine may take to end after its job."""
POLL_SECONDS = 0.2
SILENT_SECONDS = 60.0
"""After so many seconds without output, a line says that the machine still runs, and again after as many."""
FOLDER = "romana-kernel-"
"""Of temporary folders, before the process id."""
_ARGUMENTS = (
    "-machine", "q35,hpet=off", "-nodefaults", "-no-reboot", "-display", "none",
    "-object", "rng-random,id=random,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=random",
)  # fmt: skip
_KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off nowatchdog net.ifnames=0 tsc=reliable"


class NotBootedError(SetupError):
    """The machine did not come up."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """How QEMU runs the processor."""

    name: str
    options: tuple[str, ...]
    boot_seconds: float
    slowness: float
    """How many times as long as on this machine itself everything may take."""


KERNEL_VIRTUAL_MACHINE = Accelerator("KVM", ("-accel", "kvm", "-cpu", "host"), KVM_BOOT_SECONDS, 1.5)
EMULATION = Accelerator(
    "QEMU's emulation", ("-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"), EMULATED_BOOT_SECONDS, 8.0
)


@dataclass(frozen=True, slots=True)
class Job:
    """What the machine does: `script` runs in bash, in the folder that `archive` (a tar file) is unpacked into."""

    archive: Path
    script: Callable[[Accelerator], str]
    seconds: float
    """After so long it is ended."""


@dataclass
class Machine:
    """A running QEMU process."""

    process: subprocess.Popen[bytes]
    share: Path
    console: Path
    errors: Path

    def wait_until_up(self, seconds: float) -> None:
        """Return when the machine begins its job. Raises NotBootedError when it ends before, or does not in time."""
        limit = time.monotonic() + seconds
        while not (self.share / "up").exists():
            if self.process.poll() is not None:
                reason = last_line(self.errors) or last_line(self.console) or "it gives no reason"
                # Without the names of a program and of its source file before it.
                raise NotBootedError(f"QEMU ended: {reason.rpartition(': ')[2].rstrip('.')}")
            if time.monotonic() > limit:
                raise NotBootedError(f"the machine was not up after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)

    def run_job(self, seconds: float, write: Callable[[str], None]) -> int:
        """The exit code of the job, whose output `write` gets while it runs.

        Raises SetupError when the machine ends before its job, or the job takes longer than `seconds`.
        """
        began = spoke = time.monotonic()
        with (self.share / "output").open("a+", encoding="utf-8", errors="replace") as output:
            output.seek(0)
            while True:
                ended = (self.share / "status").exists() or self.process.poll() is not None
                if text := output.read():
                    write(text)
                    spoke = time.monotonic()
                elif ended:
                    break
                now = time.monotonic()
                if now - began > seconds:
                    raise SetupError(f"the machine was ended after {seconds:.0f} s: its job is not done")
                if now - spoke > SILENT_SECONDS:
                    write(f"\n  (still running after {now - began:.0f} s)\n")
                    spoke = now
                time.sleep(0 if ended else POLL_SECONDS)
        try:
            return int((self.share / "status").read_text())
        except FileNotFoundError as error:
            raise SetupError(f"the machine ended before its job: {last_line(self.console)}") from error

    def end(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run_job(image: Image, job: Job, progress: Progress, write: Callable[[str], None]) -> int:
    """The exit code of a job in a machine of its own, with KVM where that works. Nothing of the machine is left.

    Raises SetupError when the machine does not boot, ends early, or takes too long.
    """
    problem = "" if os.access(KVM, os.R_OK | os.W_OK) else f"there is no {KVM} to use"
    if not problem:
        try:
            return _run_with(KERNEL_VIRTUAL_MACHINE, image, job, progress, write)
        except NotBootedError as error:
            problem = str(error)
    progress(f"KVM does not work here ({problem}): QEMU emulates the processor, 5 to 20 times slower")
    return _run_with(EMULATION, image, job, progress, write)


def _run_with(
    accelerator: Accelerator, image: Image, job: Job, progress: Progress, write: Callable[[str], None]
) -> int:
    with _temporary_folder() as folder, _running(accelerator, image, job, folder) as machine:
        began = time.monotonic()
        machine.wait_until_up(accelerator.boot_seconds)
        progress(f"The machine is up after {time.monotonic() - began:.0f} s, with {accelerator.name}")
        return machine.run_job(job.seconds, write)


@contextlib.contextmanager
def _running(accelerator: Accelerator, image: Image, job: Job, folder: Path) -> Iterator[Machine]:
    share = folder / "share"
    share.mkdir()
    shutil.copy(job.archive, share / "checkout.tar")
    (share / "job").write_text(job.script(accelerator))
    console, errors = folder / "console", folder / "errors"
    argv = qemu_argv(accelerator, image, share, console)
    environment = {**os.environ, "TMPDIR": str(folder)}
    with errors.open("wb") as file:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment)
    machine = Machine(process, share, console, errors)
    try:
        yield machine
    finally:
        machine.end()


def qemu_argv(accelerator: Accelerator, image: Image, share: Path, console: Path) -> list[str]:
    """The command that starts the machine; it ends when the thread that started it does, however that comes."""
    return [
        "setpriv", "--pdeathsig=KILL", "qemu-system-x86_64", *accelerator.options, *_ARGUMENTS,
        "-m", str(MEMORY_MB), "-smp", str(min(os.cpu_count() or 1, MAX_CPUS)),
        "-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", _KERNEL_ARGUMENTS,
        "-drive", f"file={_escaped(image.disk)},format=raw,if=virtio,snapshot=on,cache=unsafe",
        "-serial", f"file:{console}",
        "-virtfs", f"local,path={_escaped(share)},mount_tag=share,security_model=none",
    ]  # fmt: skip


def _escaped(path: Path) -> str:
    """A path as a value among QEMU's comma-separated options."""
    return str(path).replace(",", ",,")


def last_line(path: Path) -> str:
    """The last line of a file that is not blank; empty without one."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder that goes at the end. Those that killed processes left go now."""
    parent = Path(tempfile.gettempdir())
    for path in parent.glob(f"{FOLDER}*-*"):
        owner = path.name.removeprefix(FOLDER).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(path, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-") as folder:
        yield Path(folder)
