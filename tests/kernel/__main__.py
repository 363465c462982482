"""Runs tests on the kernel's datapath, in a virtual machine with the distribution's kernel (`make test-kernel`)."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.patience import VARIABLE as PATIENCE
from tests.kernel.image import CHECKOUT, find_or_build
from tests.kernel.machine import Accelerator, Job, run_job
from tests.kernel.packages import NoPackagesError, find_packages, prepare_host
from tests.kernel.selection import MODULES, selected_tests
from tests.support.datapath import VARIABLE as DATAPATH

SECONDS, SAMPLE_SECONDS = 2700.0, 1500.0
"""After so long no test of a whole run begins, and none of a sample: twice what they take where nothing else runs."""
MARGIN_SECONDS = 240.0
"""What the last test and the end of the run may take then."""
TEST_SECONDS = 900
"""After so long a test hangs, and ends its run."""
PYTEST = ("-v", "--tb=short", "--durations=15", "-p", "no:cacheprovider", "-p", "tests.kernel.instant_failures")


def main(words: Sequence[str] | None = None) -> int:
    """The exit code of pytest in the machine; 2 when there is no machine, 0 if that is to be accepted."""
    arguments = _parser().parse_args(words)
    # SIGINT, too: a shell has what it starts in the background ignore it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        return _run(arguments)
    except NoPackagesError as error:
        if arguments.skip_without_packages:
            print(f"The tests on the kernel's datapath are skipped: {error}.")
            return 0
        print(error, file=sys.stderr)
        return 2
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kernel", description=__doc__)
    parser.add_argument("--sample", action="store_true", help="a chosen ten minutes of the tests")
    parser.add_argument("--list", action="store_true", help="print the tests and do nothing")
    parser.add_argument("--seconds", type=float, help="begin no test after this time")
    parser.add_argument(
        "--skip-without-packages", action="store_true", help="exit code 0 where the distribution's packages lack"
    )
    parser.add_argument("--script", type=Path, metavar="FILE", help="run a bash script in the machine, not the tests")
    parser.add_argument("tests", nargs="*", help="tests and options of pytest, after `--`, not the chosen ones")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    tests = arguments.tests or list(selected_tests(sample=arguments.sample))
    if arguments.list:
        print("\n".join(tests))
        return 0
    prepare_host(_progress)
    seconds = arguments.seconds or (SAMPLE_SECONDS if arguments.sample else SECONDS)
    image = find_or_build(find_packages(), _progress)
    own = arguments.script.read_text() if arguments.script else ""
    with tempfile.NamedTemporaryFile(prefix="romana-checkout-", suffix=".tar") as archive:
        pack_checkout(Path(archive.name))
        job = Job(Path(archive.name), lambda how: own or script_of(tests, how, seconds), seconds + MARGIN_SECONDS)
        return run_job(image, job, _progress, _write)


def script_of(tests: Sequence[str], accelerator: Accelerator, seconds: float) -> str:
    """What the machine runs in bash: modules, then pytest."""
    variables = {
        DATAPATH: "system",
        PATIENCE: f"{accelerator.slowness:g}",
        "CI": "1",
        "ROMANA_HYPOTHESIS": "brief" if accelerator.slowness > 2 else "quick",
        "PYTHONPATH": "/romana",
        "PYTHONUNBUFFERED": "1",
    }
    pytest = [
        "python", "-m", "pytest", *PYTEST, f"--time-limit={seconds:.0f}", "-o", f"faulthandler_timeout={TEST_SECONDS}",
        *tests,
    ]  # fmt: skip
    return "\n".join(
        [
            "set -eu",
            "export PATH=/venv/bin:$PATH",
            *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
            f"modprobe -a {' '.join(MODULES)}",
            f"exec {shlex.join(pytest)}",
            "",
        ]
    )


def pack_checkout(archive: Path) -> None:
    """Put the files of the checkout as they are now into a tar file: those of git, and new ones not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if listed.returncode:
        raise SetupError("git cannot list the files of this checkout")
    names = [name for name in listed.stdout.split(b"\0") if name]
    present = [name for name in names if os.path.lexists(os.path.join(os.fsencode(CHECKOUT), name))]
    tar = ["tar", "--create", f"--file={archive}", "--null", "--no-recursion", "--files-from=-"]
    subprocess.run(tar, cwd=CHECKOUT, input=b"\0".join(present), check=True)


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
