"""Decodes the bytes of a manifest file to text, as kubectl does.

kubectl reads UTF-8, and UTF-16 that starts with a byte order mark (golang.org/x/text, unicode.BOMOverride); bytes that
are no text become U+FFFD.
"""

from __future__ import annotations

import codecs
from typing import NamedTuple

_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_MARKED = ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF8, "utf-8"))
_HOW_TO_SAVE = "save it as UTF-8 (PowerShell: Out-File -Encoding utf8)"


class ParseError(Exception):
    """The text is not YAML or JSON; `line` counts from 1, 0 when unknown."""

    def __init__(self, reason: str, line: int = 0) -> None:
        self.reason = reason
        self.line = line
        super().__init__(f"line {line}: {reason}" if line else reason)


class Text(NamedTuple):
    """The text of a file, without its byte order mark, and the line of the first byte that is no text, or 0."""

    text: str
    undecodable_line: int = 0


def decode_text(data: bytes) -> Text:
    """The text of a file. Raises ParseError for an encoding that kubectl does not read."""
    if data.startswith(_WIDE):
        raise ParseError(f"is UTF-32, which kubectl does not read: {_HOW_TO_SAVE}")
    encoding = "utf-8"
    for mark, name in _MARKED:
        if data.startswith(mark):
            data, encoding = data[len(mark) :], name
            break
    else:
        if 0 in data[:2]:
            raise ParseError(f"is UTF-16 without a byte order mark, which kubectl does not read: {_HOW_TO_SAVE}")
    try:
        return Text(data.decode(encoding))
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "replace").count("\n") + 1
        return Text(data.decode(encoding, "replace"), line)
