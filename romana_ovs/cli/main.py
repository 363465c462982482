"""Runs the command `romana-ovs`: imports the module of the subcommand only, and turns errors into exit codes.

A subcommand's module has `HELP: str`, `add_arguments(parser)` and `run(args) -> int` (exit code 0: fine, 1: the answer
is no, or problems were found). With `PASSES_OPTIONS = True` it gets undeclared options as the list `args.rest`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple, NoReturn

from romana_ovs import __version__
from romana_ovs.model.errors import InputError, RomanaError, SetupError
from romana_ovs.model.syntax import plain

OK, PROBLEMS, UNUSABLE = 0, 1, 2
INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of the output has closed it."""

EMULATOR = "romana_ovs_emulate"
"""The package of the commands that emulate a cluster; imported only when one of them is asked for."""

_OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Subcommand(NamedTuple):
    """A subcommand: its name, the module that implements it, and one line about it.

    A module of `EMULATOR` belongs to a second distribution, which production nodes do not carry.
    """

    name: str
    module: str
    help: str


SUBCOMMANDS = (
    Subcommand("demo", f"{EMULATOR}.cli.demo", "the demonstration, measured on emulated nodes step by step"),
    Subcommand("emulate", f"{EMULATOR}.cli.emulate", "run a folder of manifests on emulated nodes"),
    Subcommand("matrix", "romana_ovs.cli.matrix", "who may connect to whom"),
    Subcommand("verdict", "romana_ovs.cli.verdict", "whether one connection is allowed, and by which rule"),
    Subcommand("flows", "romana_ovs.cli.flows", "the compiled tables of one node"),
    Subcommand("check", "romana_ovs.cli.check", "every problem of a folder of manifests"),
    Subcommand("diff", "romana_ovs.cli.diff", "what a change would open and close"),
    Subcommand("convert", "romana_ovs.cli.convert", "objects of obsolete API versions as current ones"),
    Subcommand("ipam", "romana_ovs.cli.ipam", "address ranges, their use, what is left"),
    Subcommand("node", "romana_ovs.cli.node", "what this host lacks as a node, or has wrong"),
    Subcommand("clean", f"{EMULATOR}.cli.clean", "remove what a killed run left behind"),
    Subcommand("attach", "romana_ovs.cli.attach", "the attach agent of a node, which the CNI plugin asks"),
    Subcommand("controller", "romana_ovs.cli.controller", "the Ryu application"),
)


class _Parser(argparse.ArgumentParser):
    """A parser whose usage errors are one sentence."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError instead of printing the usage."""
        raise InputError.because(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except RomanaError as error:
        _print_error(error)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _print_error(InputError.because(f"cannot be read: {error.strerror}", file=plain(str(error.filename))))
            return UNUSABLE
        if error.errno not in _OUTPUT_FULL:
            raise
        print(f"romana-ovs: the output cannot be written: {error.strerror}", file=sys.stderr)
        _discard_output()
        return UNUSABLE
    except SystemExit as end:  # --help and --version
        return end.code if isinstance(end.code, int) else OK


def _open_standard_streams() -> None:
    """Open /dev/null as standard input, output or error where the process was started without.

    Python leaves None there, which few libraries expect, and the next opened files would get these descriptors.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 (open until we end)


def _discard_output() -> None:
    """Discard what is still buffered; the interpreter would report an error at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    name = next((word for word in arguments if not word.startswith("-")), "")
    chosen = next((command for command in SUBCOMMANDS if command.name == name), None)
    module = _module(chosen) if chosen is not None else None
    parser = _parser(chosen, module)
    if module is not None and getattr(module, "PASSES_OPTIONS", False):
        args, rest = parser.parse_known_args(arguments)
        args.rest = rest
    else:
        args = parser.parse_args(arguments)
    if module is None:
        parser.print_help(sys.stderr)
        return UNUSABLE
    return int(module.run(args))


def _module(command: Subcommand) -> ModuleType:
    """The module of a subcommand. Raises SetupError when it belongs to the emulator, and that is not installed."""
    try:
        return importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name != EMULATOR:
            raise
        raise SetupError(
            f"{command.name} needs the package romana-ovs-emulate: pip install 'romana-ovs[emulate]'"
        ) from error


def _parser(chosen: Subcommand | None, module: ModuleType | None) -> _Parser:
    """The parser of all subcommands' names; only the chosen one knows its arguments."""
    parser = _Parser(
        prog="romana-ovs",
        description="Tenants, tiers and network policies of Kubernetes as OpenFlow tables of Open vSwitch.",
        epilog="Exit codes: 0 fine; 1 the answer is no, or problems were found; 2 unusable input or usage.",
    )
    parser.add_argument("--version", action="version", version=f"romana-ovs {__version__}")
    commands = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", title="subcommands")
    for command in SUBCOMMANDS:
        passes = module is not None and command is chosen and getattr(module, "PASSES_OPTIONS", False)
        sub = commands.add_parser(
            command.name,
            help=command.help,
            description=module.HELP if module is not None and command is chosen else command.help,
            allow_abbrev=not passes,
        )
        sub.add_argument("--json", action="store_true", help="print JSON")
        if module is not None and command is chosen:
            module.add_arguments(sub)
    return parser


def _print_error(error: RomanaError) -> None:
    """Print an error to stderr: one sentence, or one for each problem."""
    sentences = [str(problem) for problem in error.problems] if isinstance(error, InputError) else [str(error)]
    for sentence in sentences or [str(error)]:
        print(f"romana-ovs: {sentence}", file=sys.stderr)
