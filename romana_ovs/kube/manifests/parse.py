"""Splits a manifest file into documents of plain values (dict, list, str, int, float, bool, None), as kubectl does.

By content and not by name: a text that starts with a brace is a stream of JSON values, any other one is YAML, whose
documents are between lines that start with `---`. Of each such part kubectl reads the first document alone. Sources:
apimachinery pkg/util/yaml (YAMLOrJSONDecoder, YAMLReader) and cli-runtime pkg/resource (StreamVisitor). What kubectl
refuses or passes by without a word is a fault here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from romana_ovs.kube.decode.objects import Document
from romana_ovs.kube.manifests.block_yaml import build_block
from romana_ovs.kube.manifests.json_documents import read_json
from romana_ovs.kube.manifests.text import ParseError, decode_text
from romana_ovs.kube.manifests.yaml_documents import BuiltDocument, build
from romana_ovs.model.errors import Severity
from romana_ovs.model.syntax import plain

_GUESS = 4096
"""Characters at the start of a file that decide whether it is JSON."""
_SPACE = "\t\n\v\f\r \x85\xa0"
"""White space to Go."""
_MARK = "\ufeff"
_SEPARATOR = re.compile(r"^(\ufeff*)---([^\n]*)(?:\n|\Z)", re.MULTILINE)
_DIRECTIVES = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\r?\n|%[^\n]*\n)+\Z")


class Fault(NamedTuple):
    """What is wrong with a file beside its objects: document and line count from 1, 0 when unknown.

    When it `hides` something, objects may be in the file that are not among its documents.
    """

    reason: str
    document: int = 0
    line: int = 0
    severity: Severity = Severity.ERROR
    hides: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else self.reason


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """The documents of a file, and its faults, each in their order."""

    documents: tuple[Document, ...] = ()
    faults: tuple[Fault, ...] = ()


def parse(data: bytes) -> ParsedFile:
    """The documents and faults of a file."""
    try:
        text, line = decode_text(data)
    except ParseError as error:
        return ParsedFile(faults=(Fault(error.reason, line=error.line),))
    parsed = parse_text(text)
    if not line:
        return parsed
    reason = "is not UTF-8 text: kubectl reads U+FFFD in place of such bytes"
    return replace(parsed, faults=(Fault(reason, 0, line, Severity.INFO, hides=False), *parsed.faults))


def parse_text(text: str) -> ParsedFile:
    """The documents and faults of a text without byte order mark."""
    return _parse_json(text) if text[:_GUESS].lstrip(_SPACE).startswith("{") else _parse_yaml(text)


def _parse_json(text: str) -> ParsedFile:
    """A text that starts with a brace.

    kubectl 1.33 and later read it as YAML when the first or second document is no JSON, earlier ones refuse it.
    """
    documents, error, final = read_json(text)
    if error is None:
        return ParsedFile(documents)
    if len(documents) <= 1 and not final:
        parsed = _parse_yaml(text)
        if parsed.documents and not parsed.faults:
            reason = (
                f"{error.reason}; kubectl before 1.33 takes what starts with a brace for JSON and stops here: "
                "write a line with a comment (#) first"
            )
            return replace(parsed, faults=(Fault(reason, len(documents) + 1, error.line, hides=False),))
    return ParsedFile(documents, (Fault(f"{error.reason}; what follows is not read", len(documents) + 1, error.line),))


@dataclass(frozen=True, slots=True)
class _Part:
    """The text between two separators, the number of lines before it, and what is wrong with its first separator."""

    text: str
    lines_before: int
    fault: Fault | None = None


def _parse_yaml(text: str) -> ParsedFile:
    documents: list[Document] = []
    faults: list[Fault] = []
    number = 0
    for index, part in enumerate(_parts(text)):
        if part.fault is not None:
            faults.append(part.fault._replace(document=number + 1))
            if part.fault.hides:
                number += 1
                continue
        try:
            built = _build(part.text)
        except ParseError as error:
            number += 1
            faults.append(_fault(error, part, number))
            continue
        if not built.exists and index == 0:
            continue  # Comments before the first separator are no document.
        number += 1
        duplicates = tuple(replace(key, line=part.lines_before + key.line) for key in built.duplicates)
        documents.append(Document(number, built.value, duplicates))
        if built.next_line:
            reason = "kubectl does not read this: --- on a line of its own must be before every further document"
            faults.append(Fault(reason, number, part.lines_before + built.next_line))
    return ParsedFile(tuple(documents), tuple(faults))


def _build(text: str) -> BuiltDocument:
    if _MARK in text and (mark := text.find("\n" + _MARK)) >= 0:
        raise ParseError("a byte order mark starts this line: remove it", text.count("\n", 0, mark) + 2)
    block = build_block(text)
    return build(text) if block is None else BuiltDocument(exists=True, value=block.value)


def _fault(error: ParseError, part: _Part, number: int) -> Fault:
    if "%" in part.text and _DIRECTIVES.match(part.text):
        line = part.lines_before + part.text[: part.text.index("%")].count("\n") + 1
        return Fault("kubectl reads no directives such as %YAML: remove this line", number, line, hides=False)
    return Fault(error.reason, number, part.lines_before + error.line if error.line else 0)


def _parts(text: str) -> Iterator[_Part]:
    """The parts of a YAML text. The first one may be empty."""
    start = lines = 0
    fault: Fault | None = None
    for separator in _separators(text):
        mark, rest = separator.groups()
        if mark and separator.start() == start:
            continue  # At the start of its part a mark is skipped, and the line is that of its first document.
        inside = text[start : separator.start()]
        yield _Part(inside, lines, fault)
        lines += inside.count("\n") + 1
        start, rest, fault = separator.end(), rest.strip(), None
        if rest and not rest.startswith("#"):
            reason = f"kubectl reads nothing beside ---: {plain(rest)} must be on the next line"
            fault = Fault(reason, line=lines)
        elif mark:
            reason = "kubectl does not see a separator after a byte order mark: remove the mark"
            fault = Fault(reason, line=lines, hides=False)
    yield _Part(text[start:], lines, fault)


def _separators(text: str) -> Iterator[re.Match[str]]:
    """The lines that start with `---`, or with it after a byte order mark."""
    if _MARK in text:
        yield from _SEPARATOR.finditer(text)
        return
    position = 0
    while position >= 0:
        if match := _SEPARATOR.match(text, position):
            yield match
        line_end = text.find("\n---", position)
        position = line_end + 1 if line_end >= 0 else -1
