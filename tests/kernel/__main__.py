"""Runs tests on the kernel's datapath, in a virtual machine with the distribution's kernel (`make test-kernel`)."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.patience import VARIABLE as PATIENCE
from tests.kernel.image import CHECKOUT, find_or_build
from tests.kernel.machine import Accelerator, Job, run_job
from tests.kernel.packages import find_packages, prepare_host
from tests.kernel.selection import MODULES, selected_tests
from tests.support.datapath import VARIABLE as DATAPATH
from tests.support.open_vswitch import VARIABLE as OPEN_VSWITCH
from tests.support.open_vswitch import chosen_prefix

SECONDS, SAMPLE_SECONDS = 2700.0, 600.0
"""After so long no test of a whole run begins, and none of a sample."""
MARGIN_SECONDS = 240.0
"""What the last test and the end of the run may take then."""
PREPARE_SECONDS = 600.0
"""What installing packages and building the machine may take with `--best-effort`."""
TEST_SECONDS = 900
"""After so long a test hangs, and ends its run."""
CARRIED = ".open-vswitch"
"""The folder of the checkout in the machine that a prefix of another Open vSwitch comes in."""
PYTEST = (
    "-v", "-rs", "--tb=short", "--durations=15", "-p", "no:cacheprovider",
    "-p", "tests.kernel.instant_failures", "-p", "tests.kernel.begin_limit",
)  # fmt: skip
NOT_RUN = "The tests on the kernel's datapath are not run"
TOO_SLOW = (124, 137, os.EX_TEMPFAIL)
"""Exit codes of timeout(1) when it has ended a command, and of `tests.kernel.slowness`."""


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of pytest in the machine; 2 when there is no machine, 0 if that is to be accepted."""
    arguments = _parser().parse_args(words)
    # SIGINT, too: a shell has what it starts in the background ignore it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        status = _run(arguments)
    except (SetupError, OSError) as error:
        if arguments.best_effort:
            print(f"{NOT_RUN}: {error}.")
            return 0
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if arguments.best_effort and status in TOO_SLOW:
        print(f"{NOT_RUN} to their end: this machine is too slow for them.")
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a chosen ten minutes of the tests")
    parser.add_argument("--list", action="store_true", help="print the tests and do nothing")
    parser.add_argument("--seconds", type=float, help="begin no test after this time")
    parser.add_argument(
        "--best-effort",
        action="store_true",
        help="end at the first failure; exit code 0 where packages are missing, the virtual machine does not start, or "
        "this one is too slow: what was not run is named",
    )
    parser.add_argument("--script", type=Path, metavar="FILE", help="run a bash script in the machine, not the tests")
    parser.add_argument("tests", nargs="*", help="tests and options of pytest, after `--`, not the chosen ones")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    tests = arguments.tests or list(selected_tests(sample=arguments.sample))
    if arguments.list:
        print("\n".join(tests))
        return 0
    with time_limit(PREPARE_SECONDS if arguments.best_effort else 0.0, "the virtual machine is not built"):
        prepare_host(_progress)
        image = find_or_build(find_packages(), _progress)
    seconds = arguments.seconds or (SAMPLE_SECONDS if arguments.sample else SECONDS)
    own = arguments.script.read_text() if arguments.script else ""
    prefix = chosen_prefix()
    run = Run(tests, seconds, best_effort=arguments.best_effort)
    with tempfile.NamedTemporaryFile(prefix="romana-checkout-", suffix=".tar") as archive:
        pack_checkout(Path(archive.name), prefix)
        job = Job(Path(archive.name), lambda how: install(prefix) + (own or run.script(how)), seconds + MARGIN_SECONDS)
        return run_job(image, job, _progress, _write)


def install(prefix: Path | None) -> str:
    """The commands by which the machine has what came with the checkout at `prefix`, as on this one."""
    if prefix is None:
        return ""
    name = shlex.quote(str(prefix))
    # Programs have paths below their prefix in them.
    return f"mkdir -p {name}\ncp -a /romana/{CARRIED}/. {name}/\nexport {OPEN_VSWITCH}={name}\n"


@dataclass(frozen=True, slots=True)
class Run:
    """A run of pytest in the machine: which tests, and after how many seconds none begins."""

    tests: Sequence[str]
    seconds: float
    best_effort: bool = False

    def script(self, accelerator: Accelerator) -> str:
        """What the machine runs in bash: modules, then pytest."""
        variables = {
            DATAPATH: "system",
            PATIENCE: f"{accelerator.slowness:g}",
            "CI": "1",
            "ROMANA_HYPOTHESIS": "brief" if accelerator.slowness > 2 else "quick",
            "PYTHONPATH": "/romana",
            "PYTHONUNBUFFERED": "1",
        }
        return "\n".join(
            [
                "set -eu",
                "export PATH=/venv/bin:$PATH",
                *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
                f"modprobe -a {' '.join(MODULES)}",
                *([f"{PATIENCE}=$(python -m tests.kernel.slowness ${PATIENCE})"] if self.best_effort else []),
                f"exec {shlex.join(self._command())}",
                "",
            ]
        )

    def _command(self) -> list[str]:
        pytest = ["python", "-m", "pytest", *PYTEST, "-o", f"faulthandler_timeout={TEST_SECONDS}"]
        if not self.best_effort:
            return [*pytest, f"--time-limit={self.seconds:.0f}", *self.tests]
        # What is under way some time later is ended, before the machine is. With -x no test has failed until then.
        limit = ["timeout", "--signal=INT", "--kill-after=30", f"{self.seconds + MARGIN_SECONDS - 60:.0f}"]
        return [*limit, *pytest, "-x", f"--begin-limit={self.seconds:.0f}", *self.tests]


def pack_checkout(archive: Path, prefix: Path | None = None) -> None:
    """Put the files of the checkout as they are now into a tar file: those of git, and new ones not ignored.

    What is below `prefix` is put into CARRIED. Raises SetupError.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise SetupError("git cannot list the files of this checkout")
    names = [name for name in listed.stdout.split(b"\0") if name]
    present = [name for name in names if os.path.lexists(os.path.join(os.fsencode(CHECKOUT), name))]
    tar = ["tar", "--create", f"--file={archive}", "--null", "--no-recursion", "--files-from=-"]
    if subprocess.run(tar, cwd=CHECKOUT, input=b"\0".join(present), check=False).returncode:
        raise SetupError("the files of this checkout cannot be packed")
    if prefix is not None:
        tar = ["tar", "--append", f"--file={archive}", f"--transform=s,^[.],{CARRIED},S"]
        if subprocess.run([*tar, f"--directory={prefix}", "."], check=False).returncode:
            raise SetupError(f"the files of {prefix} cannot be packed")


@contextlib.contextmanager
def time_limit(seconds: float, problem: str) -> Iterator[None]:
    """Raise SetupError with `problem` in what takes longer than `seconds` here; 0 is no limit. In the main thread."""

    def ended(number: int, frame: FrameType | None) -> None:
        raise SetupError(f"{problem} after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ended)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _progress(text: str) -> None:
    print(text, flush=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C is: whatever was started is ended."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
