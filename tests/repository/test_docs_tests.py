"""tests/README.md names every helper and every folder, and no others."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
TEXT = (TESTS / "README.md").read_text(encoding="utf-8")


def test_every_shared_helper_has_its_line() -> None:
    helpers = TEXT[TEXT.index("## Helpers") : TEXT.index("## Which API server")]
    rows = re.findall(r"^\| `(\w+)` \|", helpers, re.MULTILINE)
    assert sorted(rows) == sorted(path.stem for path in (TESTS / "support").glob("*.py") if path.stem != "__init__")


def test_every_folder_is_named() -> None:
    folders = {
        path.name for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("*.*")) and path.name[0] != "_"
    }
    named = set(re.findall(r"`(\w+)`", TEXT[TEXT.index("## Folders") : TEXT.index("## Helpers")]))
    assert folders - named == set()


def test_every_shared_helper_is_used() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py")}
    for helper in (TESTS / "support").glob("[a-z]*.py"):
        uses = re.compile(rf"tests\.support\.{helper.stem}\b|from tests\.support import [^\n]*\b{helper.stem}\b")
        assert any(uses.search(text) for path, text in texts.items() if path != helper), helper.stem
