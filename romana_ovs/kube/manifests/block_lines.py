"""Parses single lines of the block style in which kubectl and PyYAML print YAML."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from romana_ovs.kube.manifests.scalars import ScalarError, as_json, as_key, resolve

_LINE = re.compile(
    r"(?P<indent> *)(?P<dash>- )?"
    r"""(?:(?:(?P<key>[A-Za-z0-9_./][A-Za-z0-9_./-]{0,200})|"(?P<quoted>[ !#-\[\]-~]{0,200})"):(?: +|\Z))?"""
    r"""(?:(?P<double>"(?:[ !#-\[\]-~]|\\(?:[\\"nt]|u[0-9a-cA-C][0-9a-fA-F]{3}))*")"""
    r"|'(?P<single>(?:[ -&(-~]|'')*)(?P<closed>')?"
    r"|(?P<empty>\{\}|\[\])|(?P<block>\|-?)|&(?P<anchor>[A-Za-z0-9_-]+)|\*(?P<alias>[A-Za-z0-9_-]+)"
    r"|(?P<plain>[A-Za-z0-9_./+$(;<=^~][ -~]*|-[A-Za-z0-9_.-][ -~]*))?\Z"
)
_CONTINUATION = re.compile(r" *(?P<text>[A-Za-z0-9_./+$(;<=^~][ -~]*)\Z")
_SKIPPED = re.compile(r" *(?:#[ -~]*)?\Z")
_PRINTABLE = re.compile(r"[ -~]*\Z")
_ENDINGS = {"|": "\n", "|-": ""}

KEY_SCALAR, KEY, DASH_KEY, DASH_SCALAR = range(4)
"""Kinds of lines: `key: value` with the whole value; `key:` with an alias, or with a value that is in the next lines
or goes on there; `- key:` with any of these; `- value`."""
KINDS = 4


class Line(NamedTuple):
    """A parsed line. `code` is the column of its dash or key times `KINDS`, plus its kind; `key` may be empty."""

    code: int
    key: str
    value: object


BLANK = Line(-1, "", None)
"""A blank line or a comment."""
IRREGULAR = Line(-2, "", None)
"""A line that is not in this style."""


@dataclass(frozen=True, slots=True)
class Following:
    """In place of a value: it is in the lines that follow, a collection or null; `anchor` is its anchor, if any."""

    anchor: str | None = None


@dataclass(frozen=True, slots=True)
class Literal:
    """In place of a value: a literal block follows, which ends with `ending`."""

    ending: str


@dataclass(frozen=True, slots=True)
class OpenQuote:
    """In place of a value: a single-quoted scalar that starts with `text` and goes on in the next line."""

    text: str


@dataclass(frozen=True, slots=True)
class Alias:
    """In place of a value: that of an anchor."""

    anchor: str


FOLLOWING = Following()


class Lines(dict[str, Line]):
    """The parsed line of each text. A text is parsed at its first occurrence: most lines occur many times."""

    def __missing__(self, text: str) -> Line:
        line = self[text] = BLANK if is_skipped(text) else _parse_line(text)
        return line


def is_skipped(text: str) -> bool:
    """Whether a line is blank or a comment."""
    return _SKIPPED.match(text) is not None


def is_printable(text: str) -> bool:
    """Whether a line has printable ASCII only."""
    return _PRINTABLE.match(text) is not None


def indent_of(text: str) -> int:
    """The number of blanks at the start of a line."""
    return len(text) - len(text.lstrip(" "))


def plain_text(text: str) -> str | None:
    """The plain scalar at the end of a line, as it is written; None when the line has none."""
    match = _LINE.match(text)
    return match["plain"] if match is not None else None


def continuation(text: str) -> str | None:
    """The text of a line that continues a plain scalar; None when the line may be something else."""
    match = _CONTINUATION.match(text)
    return match["text"] if match is not None and _is_plain(match["text"]) else None


def _is_plain(text: str) -> bool:
    return ": " not in text and " #" not in text and not text.endswith((":", " "))


def _parse_line(text: str) -> Line:
    """Parse a line that is neither blank nor a comment."""
    match = _LINE.match(text)
    if match is None:
        return IRREGULAR
    key = match["key"]
    try:
        name = as_key(resolve(key)) if key is not None else match["quoted"]
        value = _value(match)
    except ScalarError:
        return IRREGULAR
    column, dash = len(match["indent"]), match["dash"] is not None
    if name is not None:
        is_scalar = not isinstance(value, (Following, Literal, OpenQuote, Alias))
        return Line(column * KINDS + (DASH_KEY if dash else KEY_SCALAR if is_scalar else KEY), name, value)
    if not dash or value is FOLLOWING or isinstance(value, Literal):
        return IRREGULAR
    return Line(column * KINDS + DASH_SCALAR, "", value)


def _value(match: re.Match[str]) -> object:
    """The value on a line. Raises ScalarError when it seems to be a plain scalar and is not, or not one of JSON."""
    if (plain := match["plain"]) is not None:
        if not _is_plain(plain):
            raise ScalarError("is no plain scalar on one line")
        return as_json(resolve(plain))
    if (double := match["double"]) is not None:
        return json.loads(double)
    if (single := match["single"]) is not None:
        return single.replace("''", "'") if match["closed"] else _open_quote(single)
    if (empty := match["empty"]) is not None:
        return {} if empty == "{}" else []
    if (block := match["block"]) is not None:
        return Literal(_ENDINGS[block])
    if (alias := match["alias"]) is not None:
        return Alias(alias)
    return Following(match["anchor"]) if match["anchor"] else FOLLOWING


def _open_quote(text: str) -> OpenQuote:
    return OpenQuote(text.rstrip(" ").replace("''", "'"))


def close_quote(text: str) -> tuple[str, bool] | None:
    """The text of a line that continues a single-quoted scalar, and whether it ends there; None for anything else."""
    inner = text.strip(" ").replace("''", "\0")
    quotes = inner.count("'")
    if not inner or not is_printable(text) or quotes > 1 or (quotes and not inner.endswith("'")):
        return None
    return inner.removesuffix("'").rstrip("" if quotes else " ").replace("\0", "'"), quotes == 1
