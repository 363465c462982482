"""docs/hazards.md: every hazard is there once, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.conformance.table import CASES

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "hazards.md").read_text(encoding="utf-8")
COUNTS = {"A": 31, "B": 32, "C": 16, "D": 15, "E": 13}
"""How many hazards there are of each kind."""
_ITEM = re.compile(r"^- \*\*([A-E]\d+)\*\* (.*?)(?=^- \*\*|^## |\Z)", re.MULTILINE | re.DOTALL)
ITEMS = {number: " ".join(text.split()) for number, text in _ITEM.findall(TEXT)}
SAID = ("Does not apply", "Open:", "Open for ", "*Conformance table.*")
CITED = re.compile(r"docs/hazards\.md ((?:[A-E]\d+(?:, | and | to )?)+)")


@cache
def functions(path: str) -> frozenset[str]:
    """The names of the functions at the top of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


def test_every_hazard_is_there_once_and_in_order() -> None:
    numbers = re.findall(r"^- \*\*([A-Z]\d+)\*\*", TEXT, re.MULTILINE)
    assert numbers == [f"{kind}{number}" for kind, most in COUNTS.items() for number in range(1, most + 1)]
    assert len(numbers) == 107 and "107 known failures" in TEXT


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 150
    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []
    files = re.findall(r"`(tests/[\w/.]+)`", TEXT)
    assert [path for path in files if not (ROOT / path).exists()] == []


def test_every_hazard_has_a_test_or_says_why_not() -> None:
    bare = [number for number, text in ITEMS.items() if "::" not in text and not any(word in text for word in SAID)]
    assert bare == []


def test_the_conformance_table_has_what_is_said_to_be_in_it() -> None:
    said = {number for number, text in ITEMS.items() if "*Conformance table.*" in text}
    assert said == {case.hazard for case in CASES if case.hazard}


def test_numbers_that_are_cited_are_there() -> None:
    places = [*ROOT.glob("romana_ovs/**/*.py"), *ROOT.glob("tests/**/*.py"), *ROOT.glob("docs/*.md")]
    cited = {
        number
        for path in places
        for numbers in CITED.findall(path.read_text(encoding="utf-8"))
        for number in re.findall(r"[A-E]\d+", numbers)
    }
    assert cited - ITEMS.keys() == set()
