"""Every example of docs/cli.md is run as it stands there, and the page speaks of every command and option there is.

In a ```console block `$ LINE` is given to a shell and `romana-ovs> LINE` typed at the prompt of the command above;
what follows is the exact output (empty lines around it and blanks at line ends apart), where a line `...` stands for
any lines and `...` inside a line for any words. `(exit code N)` follows unless it is 0.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from romana_ovs.cli.main import SUBCOMMANDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "cli.md"
EXAMPLES = ROOT / "docs" / "examples"
NEED_ROOT = ("demo", "emulate", "clean")
SECONDS = 120
ASKED, TYPED, ANYTHING = "$ ", "romana-ovs> ", "..."


@dataclass(frozen=True, slots=True)
class Example:
    """A command line, what is typed at its prompt, the lines that it prints and its exit code."""

    line: str
    typed: tuple[str, ...]
    output: tuple[str, ...]
    code: int

    @property
    def needs_root(self) -> bool:
        """Whether it starts an emulated cluster, or removes one."""
        return any(f"romana-ovs {name}" in self.line for name in NEED_ROOT)


def sessions() -> list[list[Example]]:
    """The console blocks of the page."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [[_example(part) for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]] for block in blocks]


def _example(text: str) -> Example:
    line, *output = text.rstrip("\n").split("\n")
    code = re.fullmatch(r"\(exit code (\d+)\)", output[-1]) if output else None
    if code:
        output.pop()
    while output and not output[-1]:
        output.pop()
    typed = tuple(each.removeprefix(TYPED) for each in output if each.startswith(TYPED))
    said = tuple(each for each in output if not each.startswith(TYPED))
    return Example(line, typed, said, int(code[1]) if code else 0)


def _sessions() -> list[object]:
    return [
        pytest.param(each, id=each[0].line, marks=[pytest.mark.root] if any(one.needs_root for one in each) else [])
        for each in sessions()
    ]


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the examples, to be in, with `romana-ovs` as a command of this checkout."""
    program = tmp_path / "bin" / "romana-ovs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m romana_ovs "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("COLUMNS", "80")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


@pytest.mark.parametrize("session", _sessions())
def test_examples_print_what_the_page_says(session: list[Example], shell: Path) -> None:
    for example in session:
        done = subprocess.run(
            ["bash", "-c", example.line],
            cwd=shell,
            input="".join(f"{line}\n" for line in example.typed),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
        said = [line.rstrip() for line in done.stdout.strip("\n").split("\n")] if done.stdout.strip("\n") else []
        as_told = matches(example.output, said)
        assert as_told, f"$ {example.line}\n{done.stdout}"
        assert done.returncode == example.code, example.line


def matches(pattern: Sequence[str], lines: Sequence[str]) -> bool:
    """Whether `lines` are those of `pattern`, `...` in it being any number of lines, or any words at a line's end."""
    regex = "".join(
        "(?:.*\n)*?" if line == ANYTHING else re.escape(line).replace(re.escape(ANYTHING), ".*") + "\n"
        for line in pattern
    )
    return re.fullmatch(regex, "".join(f"{line}\n" for line in lines)) is not None


def test_what_matches() -> None:
    assert matches(["a", "...", "c"], ["a", "c"])
    assert matches(["a", "...", "c"], ["a", "b", "b", "c"])
    assert matches(["a 1 ... ms", ""], ["a 1 22 ms", ""])
    assert not matches(["a", "c"], ["a", "b", "c"])
    assert not matches(["a", "..."], ["b"])
    assert not matches([], ["a"])


def test_every_command_is_documented_with_all_options() -> None:
    text = PAGE.read_text(encoding="utf-8")
    chapters = dict(re.findall(r"^## `romana-ovs ([a-z]+)[^\n]*`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(chapters) == [command.name for command in SUBCOMMANDS]
    shown = {word for session in sessions() for one in session for word in one.line.split()}
    for command in SUBCOMMANDS:
        parser = argparse.ArgumentParser()
        importlib.import_module(command.module).add_arguments(parser)
        options = {name for action in parser._actions for name in action.option_strings} - {"-h", "--help"}
        known = set(
            re.findall(r"(?<![\w-])(?:--[a-z-]+|-[A-Z])\b", chapters[command.name] + text.partition("\n## `")[0])
        )
        assert options <= known, command.name
        assert command.name in shown, command.name


def test_the_keys_of_json_are_those_that_the_page_names(shell: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words in (
        ("matrix", "shop"),
        ("flows", "shop", "--node", "node1"),
        ("check", "broken"),
        ("diff", "shop", "shop-new"),
        ("ipam", "shop", "--pods"),
        ("node", "check", "--ovsdb", "unix:nowhere/db.sock"),
        ("verdict", "shop", "--from", "shop/web-0", "--to", "shop/db", "--port", "80"),
    ):
        done = subprocess.run(["romana-ovs", *words, "--json"], cwd=shell, capture_output=True, text=True, check=False)
        chapter = text.partition(f"\n## `romana-ovs {words[0]}")[2].partition("\n## ")[0]
        for key in _keys(json.loads(done.stdout)):
            assert f'"{key}"' in chapter, f"{words[0]}: {key}"


def _keys(value: object) -> set[str]:
    """The names of fields; those of maps that are made of input (ports, nodes) are no names."""
    if isinstance(value, list):
        return {key for each in value for key in _keys(each)}
    if not isinstance(value, dict):
        return set()
    own = {key for key in value if "/" not in key and not re.fullmatch(r"node\d+", key)}
    return own | {key for each in value.values() for key in _keys(each)}
