"""Every command of every case of the corpus (tests/corpus/README.md)."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.cli.main import main
from tests.corpus.matching import mismatches

CORPUS = Path(__file__).parent
AREAS = ("reading", "workloads", "nodes", "policies", "services", "advice")
FIELDS = {"run", "exit", "json", "stdout", "stderr", "stdin", "root"}
CASES = sorted(path.parent for path in CORPUS.glob("*/case.json"))


@dataclass(frozen=True)
class Outcome:
    """The exit code, stdout and stderr of a command."""

    code: int
    stdout: str
    stderr: str


def commands() -> Iterator[Any]:
    """One pytest parameter for each command: its folder and its entry in `case.json`."""
    for folder in CASES:
        case = json.loads((folder / "case.json").read_text())
        for number, command in enumerate(case["commands"], 1):
            marks = [pytest.mark.root] if command.get("root") else []
            yield pytest.param(folder, command, id=f"{folder.name}-{number}", marks=marks)


@pytest.mark.parametrize(("folder", "command"), list(commands()))
def test_command(
    folder: Path, command: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (folder / command["stdin"]).read_bytes() if "stdin" in command else b""
    monkeypatch.chdir(folder)
    if command.get("root"):
        outcome = as_process(command["run"], given)
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        code = main(command["run"])
        captured = capsys.readouterr()
        outcome = Outcome(code, captured.out, captured.err)
    assert list(differences(command, outcome)) == []


def as_process(arguments: list[str], given: bytes) -> Outcome:
    """Run a command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(CORPUS.parents[1])}
    process = subprocess.run(
        [sys.executable, "-m", "romana_ovs", *arguments], input=given, capture_output=True, env=environment, check=False
    )
    return Outcome(process.returncode, process.stdout.decode(), process.stderr.decode())


def differences(command: dict[str, Any], outcome: Outcome) -> Iterator[str]:
    """One sentence for each way in which the outcome is not the expected one."""
    shown = f"\nstdout: {outcome.stdout}\nstderr: {outcome.stderr}"
    if outcome.code != command.get("exit", 0):
        yield f"the exit code is {outcome.code}, not {command.get('exit', 0)}{shown}"
    if "json" in command:
        try:
            yield from mismatches(command["json"], json.loads(outcome.stdout))
        except json.JSONDecodeError:
            yield f"stdout is no JSON{shown}"
    for name, text in (("stdout", outcome.stdout), ("stderr", outcome.stderr)):
        if command.get(name) == [] and text:
            yield f"{name} is not empty: {text}"
        joined = one_line(text)
        yield from (
            f"{name} has no {wanted!r}: {joined}" for wanted in command.get(name, ()) if one_line(wanted) not in joined
        )


def one_line(text: str) -> str:
    """The text with any run of white space as one blank."""
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_case_is_complete(folder: Path) -> None:
    case = json.loads((folder / "case.json").read_text())
    assert set(case) == {"about", "commands"}
    assert case["about"].endswith(".")
    assert folder.name.partition("-")[0] in AREAS
    assert (folder / "manifests").exists()
    assert case["commands"]
    for command in case["commands"]:
        assert set(command) <= FIELDS
        assert len(set(command) & {"json", "stdout", "stderr"}) > 0


def test_folders_are_cases() -> None:
    folders = {path for path in CORPUS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(CASES)


@pytest.mark.parametrize(
    ("pattern", "value", "count"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, 0),
        ({"a": 1}, {"a": True}, 1),
        ({"a": 1}, {}, 1),
        ([{"a": 1}], [{"a": 1, "b": 2}], 0),
        ([{"a": 1}], [], 1),
        ([{"a": 1}, {"a": 2}], [{"a": 2}, {"a": 1}], 2),
        ({"$has": [{"a": 1}], "$lacks": [{"b": 3}]}, [{"b": 2}, {"a": 1}], 0),
        ({"$has": [{"a": 1}], "$lacks": [{"b": 2}]}, [{"b": 2}], 2),
        ({"$lacks": ["a"]}, {"a": 1}, 1),
        ({"a": {"$text": "not a boolean"}}, {"a": "must be a string, not a boolean"}, 0),
        ({"a": {"$text": "x"}}, {"a": 1}, 1),
    ],
)
def test_matching(pattern: object, value: object, count: int) -> None:
    assert len(list(mismatches(pattern, value))) == count
