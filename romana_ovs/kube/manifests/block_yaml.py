"""Builds documents in the block style in which kubectl and PyYAML print YAML, faster than from parser events.

It knows a part of YAML, line by line: keys, scalars of one line and folded ones, sequences, literal blocks, aliases.
Every other line is irregular. An irregular entry of a sequence such as the `items` of a List is built from parser
events on its own, so that it does not slow down the others; after any other irregular line the whole text is. A
property test compares both ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from romana_ovs.kube.manifests.block_lines import (
    DASH_KEY,
    DASH_SCALAR,
    IRREGULAR,
    KINDS,
    SCALAR,
    Alias,
    Following,
    Lines,
    Literal,
    OpenQuote,
    close_quote,
    continuation,
    indent_of,
    is_printable,
    is_skipped,
    plain_text,
)
from romana_ovs.kube.manifests.text import ParseError
from romana_ovs.kube.manifests.yaml_documents import MAX_ALIASED, MAX_DEPTH, Anchors, build

_NO_CODE = -3
_LIST_LEVEL = 2
"""Index in the stack of a sequence whose irregular entries are built on their own: after the holder and the root."""
_ROOT_KEY = ""
_FOLDED = frozenset({Literal, OpenQuote})
_ALIAS = re.compile(r"\*([^\s,\[\]{}]+)")
_UNKNOWN = object()

Collection = dict[str, object] | list[object]


class _IrregularTextError(Exception):
    """The text is not in this style."""


class _IrregularError(_IrregularTextError):
    """A line is not in this style; its entry may still be built on its own."""


@dataclass(frozen=True, slots=True)
class BlockDocument:
    """The value of a document."""

    value: object


def build_block(text: str) -> BlockDocument | None:
    """The only document of `text`; None when it is not in the block style that is known here.

    Never raises: what is invalid, or has equal keys in one mapping, is not in that style either.
    """
    try:
        return BlockDocument(_BlockBuilder(text).build())
    except _IrregularTextError:
        return None


class _BlockBuilder:
    """Builds one document line by line.

    `columns` and `nodes` are the stack of open collections, below them a holder of the root. A sequence may have the
    column of the mapping that it is in. `pending` is set when the value of the innermost mapping's key `pending_key`,
    or the next entry of the innermost sequence, follows. Lines before the one at `resume` are read already. `sizes` are
    those of collections by their identity, so none of them is freed: `discarded` are those that are not in the result.
    """

    def __init__(self, text: str) -> None:
        self.lines = (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")
        self.steps = enumerate(map(Lines().__getitem__, self.lines))
        self.holder: dict[str, object] = {}
        self.columns = [-1]
        self.nodes: list[Collection] = [self.holder]
        self.pending: Following | None = Following()
        self.pending_key = _ROOT_KEY
        self.resume = 0
        self.anchors: dict[str, object] = {}
        self.sizes: dict[int, int] = {}
        self.discarded: list[object] = []
        self.aliased = 0

    def build(self) -> Collection:
        """The root. Raises _IrregularError."""
        while (index := self._run()) is not None:
            self._build_entry(index)
        root = self.holder.get(_ROOT_KEY)
        if not isinstance(root, (dict, list)):
            raise _IrregularError
        return root

    def _run(self) -> int | None:
        """Build from the next line to the end. Returns the index of an irregular line, None at the end."""
        innermost: Collection = self.nodes[-1]
        scalar_code = _NO_CODE
        for index, (code, key, value) in self.steps:
            # Most lines are one more `key: scalar` of the innermost mapping.
            if code == scalar_code and key not in innermost:
                innermost[key] = value  # type: ignore[call-overload] # only a mapping has that code
            elif code != -1 and index >= self.resume:
                try:
                    self._step(index, code, key, value)
                except _IrregularError:
                    return index
                innermost = self.nodes[-1]
                is_plain = self.pending is None and self.resume <= index and type(innermost) is dict
                scalar_code = self.columns[-1] * KINDS + SCALAR if is_plain else _NO_CODE
        return None

    def _step(self, index: int, code: int, key: str, value: object) -> None:
        """Read one line. Raises _IrregularError."""
        if code == IRREGULAR.code:
            self._continue_plain(index)
            return
        columns, nodes = self.columns, self.nodes
        column, kind = divmod(code, KINDS)
        if type(value) in _FOLDED:
            value, self.resume = self._folded(value, index + 1, column + 2 * (kind == DASH_KEY))
        dash = kind >= DASH_KEY
        if self.pending is not None:
            self._open(self.pending, column, dash=dash)
        while column < columns[-1]:
            del columns[-1], nodes[-1]
        if not dash and type(nodes[-1]) is list:
            del columns[-1], nodes[-1]
        collection = nodes[-1]
        if column != columns[-1] or (type(collection) is list) is not dash:
            raise _IrregularError
        if isinstance(collection, list):
            value = self._completed(value, key)
            if kind == DASH_SCALAR:
                collection.append(value)
                return
            mapping: dict[str, object] = {}
            collection.append(mapping)
            columns.append(column + 2)
            nodes.append(mapping)
        elif key in collection:
            raise _IrregularError
        else:
            mapping = collection
            value = self._completed(value, key)
        mapping[key] = value

    def _completed(self, value: object, key: str) -> object:
        """The value of a line: that of an alias, or None when it follows and is pending now. Raises _IrregularError."""
        if isinstance(value, Alias):
            return self._anchored(value.anchor)
        if isinstance(value, Following):
            self.pending, self.pending_key = value, key
            return None
        return value

    def _open(self, pending: Following, column: int, *, dash: bool) -> None:
        """Begin the pending value, when the present line is in it. Raises _IrregularError."""
        self.pending = None
        outer = self.nodes[-1]
        above = self.columns[-1]
        if column < above or (column == above and (not dash or isinstance(outer, list))):
            self._set_anchor(pending, None)
            return
        # A sequence has one level more to come.
        if len(self.nodes) + dash > MAX_DEPTH:
            raise _IrregularError
        collection: Collection = [] if dash else {}
        if isinstance(outer, list):
            outer[-1] = collection
        else:
            outer[self.pending_key] = collection
        self._set_anchor(pending, collection)
        self.columns.append(column)
        self.nodes.append(collection)

    def _set_anchor(self, pending: Following, value: object) -> None:
        """Note the value of an anchor. Raises _IrregularTextError when it occurs again, which an entry could undo."""
        if pending.anchor in self.anchors:
            raise _IrregularTextError
        if pending.anchor:
            self.anchors[pending.anchor] = value

    def _anchored(self, anchor: str) -> object:
        """The value that an alias stands for. Raises _IrregularError when it is unknown, not complete, or too much."""
        value = self.anchors.get(anchor, _UNKNOWN)
        # A float may be one that JSON does not have.
        if value is _UNKNOWN or isinstance(value, float) or any(node is value for node in self.nodes):
            raise _IrregularError
        self.aliased += self._size(value)
        if self.aliased > MAX_ALIASED:
            raise _IrregularError
        return value

    def _size(self, value: object) -> int:
        """The number of values in one that is complete, with aliases expanded, as parser events count them."""
        if not isinstance(value, (dict, list)):
            return 1
        size = self.sizes.get(id(value))
        if size is None:
            keys, values = (len(value), value.values()) if isinstance(value, dict) else (0, value)
            try:
                size = self.sizes[id(value)] = 1 + keys + sum(map(self._size, values))
            except RecursionError as error:  # aliases inside aliases may be deeper than any text
                raise _IrregularTextError from error
        return size

    def _continue_plain(self, index: int) -> None:
        """Take lines from `index` on as the continuation of the plain scalar before them. Raises _IrregularError."""
        innermost = self.nodes[-1]
        first = plain_text(self.lines[index - 1]) if index else None
        if first is None or self.pending is not None or self.resume >= index or not innermost:
            raise _IrregularError
        words = [first]
        end = index
        while end < len(self.lines) and indent_of(self.lines[end]) > self.columns[-1]:
            text = continuation(self.lines[end])
            if text is None:
                raise _IrregularError
            words.append(text)
            end += 1
        if end == index:
            raise _IrregularError
        if isinstance(innermost, dict):
            innermost[next(reversed(innermost))] = " ".join(words)
        else:
            innermost[-1] = " ".join(words)
        self.resume = end

    def _folded(self, value: object, start: int, column: int) -> tuple[str, int]:
        """The scalar that starts with `value` and goes on at `start`, and the index of the line after it."""
        if isinstance(value, Literal):
            return self._literal(value, start, column)
        return self._quoted(value, start, column) if isinstance(value, OpenQuote) else ("", start)

    def _literal(self, block: Literal, start: int, column: int) -> tuple[str, int]:
        """The literal block from the line at `start`, whose key is at `column`, and the index of the line after it.

        Its lines are at least as far to the right as the first one. Raises _IrregularError for anything else.
        """
        first = self.lines[start] if start < len(self.lines) else ""
        indent = indent_of(first)
        if indent <= column or indent == len(first):
            raise _IrregularError
        margin = " " * indent
        content = []
        end = start
        while end < len(self.lines) and (not self.lines[end] or self.lines[end].startswith(margin)):
            text = self.lines[end]
            if not is_printable(text) or (text and not text.strip(" ")):
                raise _IrregularError
            content.append(text[indent:])
            end += 1
        # Without a line break at the end of the text there is none to keep.
        ending = block.ending if end < len(self.lines) or not self.lines[-1] else ""
        return "\n".join(content).rstrip("\n") + ending, end

    def _quoted(self, value: OpenQuote, start: int, column: int) -> tuple[str, int]:
        """The single-quoted scalar that goes on at `start`, and the index of the line after it.

        Raises _IrregularError unless all of its lines are further to the right than `column`.
        """
        words = [value.text]
        for end in range(start, len(self.lines)):
            closed = close_quote(self.lines[end]) if indent_of(self.lines[end]) > column else None
            if closed is None:
                break
            words.append(closed[0])
            if closed[1]:
                return " ".join(words), end + 1
        raise _IrregularError

    def _build_entry(self, index: int) -> None:
        """Build the entry of the outermost sequence that the line at `index` is in from parser events.

        The scanner ends every token of an entry at the next line that is not further to the right than its dash, unless
        a quoted scalar or a flow collection is open there, and then the entry alone is invalid. So an entry that is
        valid alone means the same alone. Raises _IrregularError when it is not, or when there is no such sequence.
        """
        entries = self.nodes[_LIST_LEVEL] if len(self.nodes) > _LIST_LEVEL else None
        if not isinstance(entries, list):
            raise _IrregularError
        column = self.columns[_LIST_LEVEL]
        dash = " " * column + "- "
        start = index
        while not self.lines[start].startswith(dash):
            start -= 1
        end = start + 1
        while end < len(self.lines) and (is_skipped(self.lines[end]) or indent_of(self.lines[end]) > column):
            end += 1
        if end <= index:
            raise _IrregularError
        del self.columns[_LIST_LEVEL + 1 :], self.nodes[_LIST_LEVEL + 1 :]
        if start == index and self.pending is not None:
            self._set_anchor(self.pending, None)  # of the entry before
        entry = self._build_alone(start, end)
        if start < index:
            self.discarded.append(entries.pop())
        entries.append(entry)
        self.pending, self.resume = None, end

    def _build_alone(self, start: int, end: int) -> object:
        """The value of the only entry of the sequence in these lines, from parser events. Raises _IrregularError."""
        text = "\n".join([*self.lines[start:end], ""])
        try:
            built = build(text, depth=_LIST_LEVEL - 1, anchors=self._anchors_for(text))
        except ParseError as error:
            raise _IrregularError from error
        self.aliased += built.aliased
        entries = built.value
        if not isinstance(entries, list) or len(entries) != 1 or built.duplicates or built.next_line:
            raise _IrregularError
        if self.aliased > MAX_ALIASED:
            raise _IrregularError
        for name, anchored in built.anchors.items():
            if anchored is not None:
                value, size = anchored
                self.anchors[name] = value
                if isinstance(value, (dict, list)):
                    self.sizes[id(value)] = size
                    self.discarded.append(value)  # a merge may have taken its content only
        return entries[0]

    def _anchors_for(self, text: str) -> Anchors:
        """The anchors outside of `text` that may be meant in it; None for one whose collection is not complete."""
        names = set(_ALIAS.findall(text)) & self.anchors.keys()
        anchors: Anchors = {}
        for name in names:
            value = self.anchors[name]
            is_open = any(node is value for node in self.nodes)
            anchors[name] = None if is_open else (value, self._size(value))
        return anchors
