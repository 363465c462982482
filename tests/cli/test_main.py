"""The frame of the command: subcommands, exit codes, errors in a sentence."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from romana_ovs import __version__
from romana_ovs.cli import main as frame
from romana_ovs.cli.main import SUBCOMMANDS, Subcommand, main
from romana_ovs.model.errors import AddressError, InputError, Problem, SetupError
from tests.cli.manifest_folders import crowd
from tests.support.command import COMMAND

DEMO = Path(__file__).parent.parent.parent / "etc" / "demo"
ORDER = "demo emulate matrix verdict flows check diff convert ipam node clean attach controller"


class Fake(ModuleType):
    """A subcommand whose `run` does what the test says."""

    HELP = "A subcommand of the tests."
    PASSES_OPTIONS = False
    raises: BaseException | None = None
    args: argparse.Namespace | None = None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--number", type=int, default=3)

    def run(self, args: argparse.Namespace) -> int:
        self.args = args
        if self.raises is not None:
            raise self.raises
        return 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    module = Fake("tests_fake_subcommand")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(frame, "SUBCOMMANDS", (Subcommand("fake", module.__name__, "a fake"),))

    return module


def test_the_subcommands() -> None:
    assert " ".join(command.name for command in SUBCOMMANDS) == ORDER
    for command in SUBCOMMANDS:
        module = import_module(command.module)
        assert isinstance(module.HELP, str) and callable(module.add_arguments) and callable(module.run)


@pytest.mark.parametrize("name", ["demo", "emulate", "clean"])
def test_a_command_without_its_package(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [each for each in sys.modules if each.split(".")[0] == "romana_ovs_emulate"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [_Missing(), *sys.meta_path])
    assert main([name, "--help"]) == 2
    hint = f"romana-ovs: {name} needs the package romana-ovs-emulate: pip install 'romana-ovs[emulate]'\n"
    assert capsys.readouterr().err == hint


class _Missing:
    """An importer for which the emulator is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "romana_ovs_emulate":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_the_answer_is_the_exit_code(fake: Fake) -> None:
    assert main(["fake", "--json", "--number", "5"]) == 1
    assert fake.args is not None
    assert (fake.args.json, fake.args.number) == (True, 5)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (SetupError("needs root"), 2, "romana-ovs: needs root\n"),
        (AddressError("no range left"), 2, "romana-ovs: no range left\n"),
        (InputError(Problem("one", file="a"), Problem("two", file="b")), 2, "romana-ovs: a: one\nromana-ovs: b: two\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors(fake: Fake, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, told: str) -> None:
    fake.raises = error
    assert main(["fake"]) == code
    assert capsys.readouterr() == ("", told)


def test_options_of_others_are_passed_on(fake: Fake) -> None:
    assert main(["fake", "--config-file", "x"]) == 2
    fake.PASSES_OPTIONS = True
    assert main(["fake", "--config-file", "x", "app", "--number", "4"]) == 1
    assert fake.args is not None
    assert (fake.args.rest, fake.args.number) == (["--config-file", "x", "app"], 4)


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"romana-ovs {__version__}\n"
    assert main(["--help"]) == 0
    assert "check" in capsys.readouterr().out
    assert main([]) == 2
    assert "SUBCOMMAND" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_closed_pipe_gives_no_traceback() -> None:
    process = subprocess.Popen(
        [*COMMAND, "convert", str(DEMO / "policy" / "third-party-resource.yaml"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), told) == (141, b"")


@pytest.mark.parametrize(
    ("redirections", "code", "told"),
    [
        (">&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("> /dev/full", 2, "romana-ovs: the output cannot be written: No space left on device\n"),
    ],
)
def test_closed_or_full_outputs(redirections: str, code: int, told: str) -> None:
    line = f"exec {shlex.join([*COMMAND, 'check', str(DEMO)])} {redirections}"
    done = subprocess.run(["sh", "-c", line], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, told)


def test_imports_are_few_and_quick() -> None:
    heavy = ("ryu", "ovs", "eventlet", "rich")
    program = (
        "import sys; from romana_ovs.cli.main import main; code = main(sys.argv[1:]);"
        f"loaded = [name for name in {heavy} if name in sys.modules];"
        "sys.exit(f'{code} {loaded}' if code or loaded else 0)"
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "-R", str(DEMO), "--json"], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert time.monotonic() - started < 5  # Far below a second on a machine that does nothing else.


@pytest.mark.parametrize("words", [["matrix"], ["matrix", "--json"], ["flows", "--node", "node0000"]])
@pytest.mark.parametrize(("pods", "seconds"), [(50, 1), (10_000, 20)])
def test_startup_time(words: list[str], pods: int, seconds: float, tmp_path: Path) -> None:
    """The process as a whole, start-up included, in its own processor time: others use this machine too."""
    folder = crowd(tmp_path / "crowd", pods)
    with (tmp_path / "out").open("w") as out:
        process = subprocess.Popen([*COMMAND, *words, str(folder)], stdout=out)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert (tmp_path / "out").stat().st_size > 1000
    assert used.ru_utime + used.ru_stime < seconds


@pytest.mark.parametrize("option", ["--kubeconfig", "--node"])
def test_an_empty_option_is_an_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["controller", option, ""]) == 2
    assert f"{option} is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["check", "x" * 300], ["diff", "x" * 300, str(DEMO)], ["matrix", str(DEMO), "--state", "x" * 300]]
)
def test_a_name_that_is_too_long_is_one_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("romana-ovs: xxx") and line.endswith("cannot be read: File name too long")
