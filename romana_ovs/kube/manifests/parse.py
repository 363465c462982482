"""Parses the text of a manifest file into documents of plain values (dict, list, str, int, float, bool, None).

YAML is built from parser events instead of nodes, because folders may come from strangers: nothing recurses, so the
depth is bounded here and not by the stack; an alias is one shared value, and the expansion of all aliases is bounded; a
key that occurs twice is reported. Scalars are read as Kubernetes reads them (YAML 1.1 without dates and sexagesimals).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import yaml

from romana_ovs.kube.decode.objects import Document, DuplicateKey
from romana_ovs.model.syntax import plain

MAX_DEPTH = 100
"""Levels of nesting; Kubernetes objects stay below 30."""
MAX_ALIASED = 100_000
"""Values that all aliases of one file may expand to together."""
MAX_DIGITS = 40

_BOOLEANS = {
    text: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
    for text in (word, word.capitalize(), word.upper())
}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_NUMBER = re.compile(r"[-+]?[0-9.]")
_INTEGER = re.compile(r"([-+]?)(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)\Z")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = frozenset(_TAG + name for name in ("null", "bool", "int", "float"))
_TEXT_TAGS = frozenset({"!", _TAG + "str"})
_COLLECTION_TAGS = frozenset({None, "!", _TAG + "map", _TAG + "seq"})


class ParseError(Exception):
    """The text is not YAML or JSON; `line` counts from 1, 0 when unknown."""

    def __init__(self, reason: str, line: int = 0) -> None:
        self.line = line
        super().__init__(f"line {line}: {reason}" if line else reason)


def parse_yaml(text: str) -> tuple[Document, ...]:
    """The documents of a YAML stream. Raises ParseError."""
    try:
        return _Builder(yaml.CSafeLoader(text)).documents()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ParseError("holds a character that YAML does not allow", line) from error
    except yaml.MarkedYAMLError as error:
        raise _parse_error(error, text) from error
    except yaml.YAMLError as error:
        raise ParseError(plain(str(error))) from error


def parse_json(text: str) -> tuple[Document, ...]:
    """The documents of a JSON file, which may have several one after another. Raises ParseError."""
    duplicates: dict[int, list[str]] = {}

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            duplicates[id(made)] = sorted({key for key in keys if keys.count(key) > 1})
        return made

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse_constant)
    documents: list[Document] = []
    position = _skip_space(text, 0)
    while position < len(text):
        duplicates.clear()
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise ParseError(f"no valid JSON: {error.msg}", error.lineno) from error
        except RecursionError as error:
            raise ParseError("is nested too deeply") from error
        except ValueError as error:
            raise ParseError(plain(str(error))) from error
        duplicate_keys = tuple(_duplicate_paths(value, duplicates)) if duplicates else ()
        documents.append(Document(len(documents) + 1, value, duplicate_keys))
        position = _skip_space(text, position)
    return tuple(documents)


def _duplicate_paths(value: object, duplicates: Mapping[int, list[str]]) -> Iterator[DuplicateKey]:
    """The paths of the keys that `duplicates` lists for the mappings (by id) inside `value`."""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        path, inner = pending.pop()
        if isinstance(inner, list):
            pending += [(f"{path}[{index}]", entry) for index, entry in enumerate(inner)]
        elif isinstance(inner, dict):
            start = f"{path}." if path else ""
            yield from (DuplicateKey(start + plain(key), 0) for key in duplicates.get(id(inner), ()))
            pending += [(start + plain(key), entry) for key, entry in inner.items()]


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _parse_error(error: yaml.MarkedYAMLError, text: str) -> ParseError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 0
    lines = text.splitlines()
    if 0 < line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return ParseError("a tab indents this line, YAML wants spaces", line)
    return ParseError(f"no valid YAML: {plain(error.problem or error.context or 'cannot be read')}", line)


@dataclass(slots=True)
class _Frame:
    """A collection that is being built; `size` counts the values in it, with aliases expanded."""

    value: dict[str, object] | list[object]
    anchor: str | None
    size: int = 1
    key: str | None = None
    merges: list[object] = field(default_factory=list)


class _Builder:
    """Builds the documents of one stream of YAML events."""

    def __init__(self, parser: yaml.CSafeLoader) -> None:
        self.parser = parser
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[object, int]] = {}
        self.duplicates: list[DuplicateKey] = []
        self.aliased = 0
        self.root: object = None

    def documents(self) -> tuple[Document, ...]:
        """All documents of the stream. Raises ParseError and yaml.YAMLError."""
        parsed: list[Document] = []
        while True:
            event = self.parser.get_event()
            if isinstance(event, yaml.ScalarEvent):
                self._add(_scalar(event, key=self._wants_key()), 1, event)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._open({} if isinstance(event, yaml.MappingStartEvent) else [], event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close(event)
            elif isinstance(event, yaml.AliasEvent):
                self._alias(event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.anchors, self.duplicates, self.root = {}, [], None
            elif isinstance(event, yaml.DocumentEndEvent):
                parsed.append(Document(len(parsed) + 1, self.root, tuple(self.duplicates)))
            elif isinstance(event, yaml.StreamEndEvent):
                return tuple(parsed)

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _open(self, value: dict[str, object] | list[object], event: yaml.CollectionStartEvent) -> None:
        line = _line(event)
        if self._wants_key():
            raise ParseError("a mapping key must be a word, not a collection", line)
        if event.tag not in _COLLECTION_TAGS:
            raise ParseError(f"unknown tag {plain(str(event.tag))}", line)
        if len(self.stack) >= MAX_DEPTH:
            raise ParseError(f"is nested more than {MAX_DEPTH} levels deep", line)
        if event.anchor:
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Frame(value, event.anchor))

    def _close(self, event: yaml.Event) -> None:
        frame = self.stack.pop()
        for merged in frame.merges:
            for source in merged if isinstance(merged, list) else [merged]:
                if not isinstance(source, dict) or not isinstance(frame.value, dict):
                    raise ParseError("'<<' wants a mapping", _line(event))
                for key, value in source.items():
                    frame.value.setdefault(key, value)
        self._add(frame.value, frame.size, event, anchor=frame.anchor)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        if self._wants_key():
            raise ParseError("a mapping key must be a word, not an alias", line)
        if not event.anchor or event.anchor not in self.anchors:
            raise ParseError(f"alias *{plain(str(event.anchor))} names nothing that is complete before it", line)
        value, size = self.anchors[event.anchor]
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise ParseError(f"its aliases stand for more than {MAX_ALIASED} values", line)
        self._add(value, size, event)

    def _add(self, value: object, size: int, event: yaml.Event, *, anchor: str | None = None) -> None:
        anchor = anchor if anchor is not None else (event.anchor if isinstance(event, yaml.ScalarEvent) else None)
        if anchor:
            self.anchors[anchor] = (value, size)
        if not self.stack:
            self.root = value
            return
        frame = self.stack[-1]
        frame.size += size
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.key is None:
            frame.key = str(value)
        else:
            self._put(frame, frame.value, value, _line(event))

    def _put(self, frame: _Frame, target: dict[str, object], value: object, line: int) -> None:
        key = frame.key or ""
        if key == "<<":
            frame.merges.append(value)
        elif key in target:
            self.duplicates.append(DuplicateKey(self._path(), line))
        else:
            target[key] = value
        frame.key = None

    def _path(self) -> str:
        path = ""
        for frame in self.stack:
            if isinstance(frame.value, list):
                path += f"[{len(frame.value)}]"
            elif frame.key is not None:
                path += ("." if path else "") + plain(frame.key)
        return path


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


def _scalar(event: yaml.ScalarEvent, *, key: bool) -> object:
    if key:
        return event.value
    if event.tag is None:
        return _plain_value(event.value) if event.implicit[0] else event.value
    if event.tag in _TEXT_TAGS:
        return event.value
    if event.tag in _PLAIN_TAGS:
        return _plain_value(event.value)
    raise ParseError(f"unknown tag {plain(str(event.tag))}", _line(event))


def _plain_value(text: str) -> object:
    """The value of an unquoted scalar."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if not _NUMBER.match(text) or len(text) > MAX_DIGITS:
        return text
    integer = _INTEGER.match(text)
    if integer:
        return _integer(integer.group(1), integer.group(2).replace("_", ""), text)
    return float(text) if _FRACTION.match(text) else text


def _integer(sign: str, digits: str, text: str) -> object:
    bases = {"0b": 2, "0x": 16, "0o": 8}
    base = bases.get(digits[:2], 8 if len(digits) > 1 and digits[0] == "0" else 10)
    try:
        number = int(digits, base)
    except ValueError:
        return text
    return -number if sign == "-" else number
