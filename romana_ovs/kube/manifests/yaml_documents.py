"""Builds the value of a YAML document from parser events, as sigs.k8s.io/yaml (goyaml.v2) does.

Events instead of nodes, because folders may come from strangers: nothing recurses, so the depth is bounded here and not
by the stack; an alias is one shared value, and the expansion of all aliases is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import yaml

from romana_ovs.kube.decode.objects import DuplicateKey
from romana_ovs.kube.manifests.scalars import ScalarError, as_json, as_key, resolve, tagged
from romana_ovs.kube.manifests.text import ParseError
from romana_ovs.model.syntax import plain, shown

MAX_DEPTH = 100
"""Levels of nesting; Kubernetes objects stay below 30."""
MAX_ALIASED = 100_000
"""Values that all aliases of one document may expand to together."""

_MERGE = "<<"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_NO_CONTENT = re.compile(r"(?:[ \t]*(?:#.*|\.\.\.|%.*)?(?:\r?\n|\Z))*\Z")
"""What may follow a document without being another one: comments, directives, the mark of its end."""


Anchors = dict[str, tuple[object, int] | None]
"""Values by their anchors, with their number of values; None for a collection that is not complete."""


@dataclass(frozen=True, slots=True)
class BuiltDocument:
    """The first document of a text: its value, the keys that occur twice, and the line of what follows it, or 0.

    Without `exists` the text has comments and directives only. Lines count from 1. `aliased` is how many values all
    aliases stand for; `anchors` are those at the end.
    """

    exists: bool
    value: object = None
    duplicates: tuple[DuplicateKey, ...] = ()
    next_line: int = 0
    aliased: int = 0
    anchors: Anchors = field(default_factory=dict, compare=False)


def build(text: str, *, depth: int = 0, anchors: Anchors | None = None) -> BuiltDocument:
    """The first document of `text`, which kubectl reads alone.

    It is `depth` levels deep inside another one, which has `anchors` before it. Raises ParseError.
    """
    try:
        return _Builder(text, MAX_DEPTH - depth, anchors or {}).build()
    except yaml.reader.ReaderError as error:
        raise ParseError("holds a character that YAML does not allow", _line_at(text, error.position)) from error
    except yaml.MarkedYAMLError as error:
        raise _parse_error(error, text) from error
    except yaml.YAMLError as error:
        raise ParseError(plain(str(error))) from error


def _line_at(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _parse_error(error: yaml.MarkedYAMLError, text: str) -> ParseError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 0
    lines = text.splitlines()
    if 0 < line <= len(lines) and "\t" in lines[line - 1][: len(lines[line - 1]) - len(lines[line - 1].lstrip())]:
        return ParseError("a tab indents this line, YAML wants spaces", line)
    return ParseError(f"no valid YAML: {plain(error.problem or error.context or 'cannot be read')}", line)


@dataclass(slots=True)
class _Frame:
    """A collection that is being built; `size` counts the values in it, with aliases expanded.

    `explicit` are the keys that stand in it themselves, from the first merge on.
    """

    value: dict[str, object] | list[object]
    anchor: str | None
    size: int = 1
    key: str | None = None
    merges: bool = False
    merged: bool = False
    explicit: set[str] = field(default_factory=set)


class _Builder:
    """Builds the first document of a stream of YAML events."""

    def __init__(self, text: str, max_depth: int, anchors: Anchors) -> None:
        self.text = text
        self.max_depth = max_depth
        self.parser = yaml.CSafeLoader(text)
        self.stack: list[_Frame] = []
        self.anchors = dict(anchors)
        self.duplicates: list[DuplicateKey] = []
        self.aliased = 0
        self.root: object = None

    def build(self) -> BuiltDocument:
        """The document. Raises ParseError and yaml.YAMLError."""
        next_event = self.parser.get_event
        handlers: dict[type, Callable[..., None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._open_mapping,
            yaml.SequenceStartEvent: self._open_sequence,
            yaml.MappingEndEvent: self._close,
            yaml.SequenceEndEvent: self._close,
            yaml.AliasEvent: self._alias,
        }
        next_event()  # the start of the stream
        if isinstance(next_event(), yaml.StreamEndEvent):
            return BuiltDocument(exists=False)
        event = next_event()
        while (handler := handlers.get(type(event))) is not None:
            handler(event)
            event = next_event()
        return BuiltDocument(
            True, self.root, tuple(self.duplicates), self._next_line(event), self.aliased, self.anchors
        )

    def _next_line(self, end: yaml.Event | None) -> int:
        """The line of the first content after the event of the document's end, 0 when there is none."""
        position = end.end_mark.index if end is not None and end.end_mark is not None else len(self.text)
        try:
            event = self.parser.get_event()
            if isinstance(event, yaml.StreamEndEvent):
                return 0
        except yaml.YAMLError:
            if _NO_CONTENT.match(self.text, position):
                return 0
        rest = self.text[position:]
        return _line_at(self.text, len(self.text) - len(rest.lstrip()))

    def _wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def _open_mapping(self, event: yaml.MappingStartEvent) -> None:
        self._open({}, event)

    def _open_sequence(self, event: yaml.SequenceStartEvent) -> None:
        self._open([], event)

    def _open(self, value: dict[str, object] | list[object], event: yaml.CollectionStartEvent) -> None:
        """Begin a collection; its tag means nothing to Kubernetes."""
        if self._wants_key():
            raise ParseError("a mapping key must be a word, not a collection", _line(event))
        if len(self.stack) >= self.max_depth:
            raise ParseError(f"is nested more than {MAX_DEPTH} levels deep", _line(event))
        if event.anchor:
            self.anchors[event.anchor] = None
        self.stack.append(_Frame(value, event.anchor))

    def _close(self, event: yaml.Event) -> None:
        frame = self.stack.pop()
        if frame.anchor and self.anchors[frame.anchor] is None:  # else it occurs again inside, and that one counts
            self.anchors[frame.anchor] = (frame.value, frame.size)
        self._add(frame.value, frame.size, event)

    def _alias(self, event: yaml.AliasEvent) -> None:
        line = _line(event)
        anchored = self.anchors.get(event.anchor) if event.anchor else None
        if anchored is None:
            raise ParseError(f"alias *{plain(str(event.anchor))} names nothing that is complete before it", line)
        value, size = anchored
        if self._wants_key() and isinstance(value, (dict, list)):
            raise ParseError("a mapping key must be a word, not a collection", line)
        self.aliased += size
        if self.aliased > MAX_ALIASED:
            raise ParseError(f"its aliases stand for more than {MAX_ALIASED} values", line)
        self._add(value, size, event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        """Add a scalar; one without a tag is resolved only if it is plain (not quoted, no block)."""
        tag, text = event.tag, event.value
        is_plain = event.implicit[0]
        if tag is None:
            value = resolve(text) if is_plain else text
        else:
            try:
                value = tagged(tag, text)
            except ScalarError as error:
                raise ParseError(f"{shown(text)} {error}", _line(event)) from error
        if event.anchor:
            self.anchors[event.anchor] = (value, 1)
        if text == _MERGE and (is_plain or tag == _MERGE_TAG) and self._wants_key():
            self._merge_key(event)
        else:
            self._add(value, 1, event)

    def _merge_key(self, event: yaml.Event) -> None:
        frame = self.stack[-1]
        if frame.merged:
            self.duplicates.append(DuplicateKey(self._path(_MERGE), _line(event)))
        frame.key, frame.merges = _MERGE, True

    def _add(self, value: object, size: int, event: yaml.Event) -> None:
        """Add a value to the innermost collection, as its next entry, key, or the value of its key."""
        if not self.stack:
            self.root = self._as_json(value, event)
            return
        frame = self.stack[-1]
        frame.size += size
        target = frame.value
        if isinstance(target, list):
            target.append(self._as_json(value, event) if type(value) is float else value)
        elif frame.key is None:
            self._set_key(frame, target, value, event)
        elif frame.merges:
            self._merge(frame, target, value, event)
        else:
            target[frame.key] = self._as_json(value, event) if type(value) is float else value
            frame.key = None

    def _as_json(self, value: object, event: yaml.Event) -> object:
        try:
            return as_json(value)
        except ScalarError as error:
            raise ParseError(f"{getattr(event, 'value', value)} {error}", _line(event)) from error

    def _set_key(self, frame: _Frame, target: dict[str, object], value: object, event: yaml.Event) -> None:
        try:
            key = value if type(value) is str else as_key(value)
        except ScalarError as error:
            raise ParseError(f"a mapping key {error}", _line(event)) from error
        # The last of several equal keys counts, as for kubectl; one that a merge has set is no duplicate.
        if key in (frame.explicit if frame.merged else target):
            self.duplicates.append(DuplicateKey(self._path(key), _line(event)))
        if frame.merged:
            frame.explicit.add(key)
        frame.key = key

    def _merge(self, frame: _Frame, target: dict[str, object], value: object, event: yaml.Event) -> None:
        """Set all keys of the merged mappings at once: they overwrite what stands before, and later keys them.

        Of several mappings in a list the first one counts. Source: goyaml.v2, decode.go, merge.
        """
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise ParseError("'<<' wants a mapping, or a list of them", _line(event))
        if not frame.merged:
            frame.explicit.update(target)
        for source in reversed(sources):
            target.update(source)
        frame.key, frame.merges, frame.merged = None, False, True

    def _path(self, key: str) -> str:
        """The path of a key of the innermost mapping, from the top of the document."""
        path = ""
        for frame in self.stack[:-1]:
            if isinstance(frame.value, list):
                path += f"[{len(frame.value)}]"
            elif frame.key is not None:
                path += ("." if path else "") + plain(frame.key)
        return path + ("." if path else "") + plain(key)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0
