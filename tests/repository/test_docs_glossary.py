"""The glossary and the code use the same words."""

from __future__ import annotations

import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
USED, _, NOT_USED = (ROOT / "docs" / "glossary.md").read_text().partition("## Not used as identifiers")
NOT_USED_NAMES = sorted(
    {name for row in re.findall(r"^\| (`.*?) \|", NOT_USED, re.MULTILINE) for name in re.findall(r"\w+", row)}
)
MODULES = sorted((ROOT / "romana_ovs").rglob("*.py"))
WORDS = frozenset(word for path in MODULES for word in re.findall(r"[A-Za-z_]\w*", path.read_text()))
"""All words of the package, those of texts and comments included."""
CODE_NAME = re.compile(r"`((?:[A-Z][a-z]+){2,}|[a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)(?:\.(\w+))?`")
OF_CLIENT_GO = {"HasSynced", "ListerWatcher"}


@cache
def _identifiers() -> frozenset[str]:
    """All names in the code, those of modules included; a leading underscore does not count."""
    names = {path.stem for path in MODULES}
    for path in MODULES:
        with path.open("rb") as file:
            names |= {
                token.string.strip("_") for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME
            }
    return frozenset(names)


def test_code_names_of_the_glossary_exist() -> None:
    named = {part for pair in CODE_NAME.findall(USED) for part in pair if part}
    assert named - OF_CLIENT_GO and sorted(named - OF_CLIENT_GO - WORDS) == []


@pytest.mark.parametrize("name", NOT_USED_NAMES)
def test_words_that_are_not_used_do_not_occur(name: str) -> None:
    assert name not in _identifiers()
