"""Runs tests on a newer Open vSwitch than the system's (`make test-newer-switch`)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.debian_packages import find_sources
from tests.kernel.packages import prepare_host
from tests.newer_switch.build import HOST_PROGRAMS, build, find
from tests.newer_switch.selection import OPTIONS, TESTS
from tests.support.open_vswitch import VARIABLE, chosen_prefix

PYTEST = ("--durations=15",)


def main(words: Sequence[str] | None = None) -> int:
    """Replaces this process by pytest. Returns exit code 2 when there is no newer Open vSwitch to be had."""
    arguments = _parser().parse_args(words)
    try:
        prefix = str(chosen_prefix() or _find_or_build())
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if arguments.prefix:
        print(prefix)
        return 0
    argv = [sys.executable, *pytest_arguments(arguments.tests)]
    os.execve(sys.executable, argv, {**os.environ, VARIABLE: prefix})


def pytest_arguments(tests: Sequence[str]) -> list[str]:
    """The arguments of Python that run `tests` (with options of pytest), or the usual ones."""
    return ["-m", "pytest", *PYTEST, *(tests or (*OPTIONS, *TESTS))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.newer_switch", description=__doc__)
    parser.add_argument("--prefix", action="store_true", help=f"print what {VARIABLE} is set to, and run no tests")
    parser.add_argument("tests", nargs="*", help="tests and options of pytest, after `--`, not the usual ones")
    return parser


def _find_or_build() -> Path:
    if (present := find()) is not None:
        return present
    prepare_host(_progress, HOST_PROGRAMS)
    _, sources = find_sources()
    return build(sources, _progress)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
