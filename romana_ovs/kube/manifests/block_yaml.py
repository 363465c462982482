"""Builds documents in the block style in which kubectl and PyYAML print YAML, faster than from parser events.

It knows a part of YAML, line by line: keys, scalars on one line, plain and single-quoted scalars on several lines,
literal blocks, sequences, anchors and aliases. Every other line is irregular. Of a sequence such as the `items` of a
List, an entry with an irregular line is built from parser events alone, and the other entries line by line. With any
other irregular line nothing is built here, and the caller has to build the whole text from parser events. A property
test compares both ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from romana_ovs.kube.manifests.block_lines import (
    BLANK,
    DASH_KEY,
    DASH_SCALAR,
    IRREGULAR,
    KEY_SCALAR,
    KINDS,
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
"""A code that no line has."""
_LIST_LEVEL = 2
"""Index in the stack of a sequence whose irregular entries are built on their own: after the holder and the root."""
_ROOT_KEY = ""
_ALIAS = re.compile(r"\*([^\s,\[\]{}]+)")
_UNKNOWN = object()

Collection = dict[str, object] | list[object]


class _IrregularTextError(Exception):
    """The text cannot be built here."""


class _IrregularLineError(_IrregularTextError):
    """A line is irregular; the entry that it is in may still be built alone."""


@dataclass(frozen=True, slots=True)
class BlockDocument:
    """The value of a document."""

    value: object


def build_block(text: str) -> BlockDocument | None:
    """The only document of `text`; None when it has an irregular line, except in entries that are valid alone.

    Never raises: an invalid line, or a second equal key in one mapping, is irregular, too.
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
    the numbers of values in collections, by `id`: so no collection may be freed, and `discarded` keeps those that are
    not in the result.
    """

    def __init__(self, text: str) -> None:
        self.lines = (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")
        self.numbered_lines = enumerate(map(Lines().__getitem__, self.lines))
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
        """The root. Raises _IrregularTextError."""
        while (index := self._run()) is not None:
            self._build_entry(index)
        root = self.holder.get(_ROOT_KEY)
        if not isinstance(root, (dict, list)):
            raise _IrregularLineError
        return root

    def _run(self) -> int | None:
        """Build from the next line on. Returns the index of the next irregular line, None at the end of the text.

        Raises _IrregularTextError.
        """
        blank_code = BLANK.code
        innermost: Collection = self.nodes[-1]
        scalar_code = _NO_CODE
        for index, (code, key, value) in self.numbered_lines:
            # Most lines are one more `key: scalar` of the innermost mapping.
            if code == scalar_code and key not in innermost:
                innermost[key] = value  # type: ignore[call-overload] # only a mapping has that code
            elif code != blank_code and index >= self.resume:
                try:
                    self._step(index, code, key, value)
                except _IrregularLineError:
                    return index
                innermost = self.nodes[-1]
                is_plain = self.pending is None and self.resume <= index and type(innermost) is dict
                scalar_code = self.columns[-1] * KINDS + KEY_SCALAR if is_plain else _NO_CODE
        return None

    def _step(self, index: int, code: int, key: str, value: object) -> None:
        """Add one line to the collections. Raises _IrregularLineError and _IrregularTextError."""
        if code == IRREGULAR.code:
            self._continue_plain(index)
            return
        columns, nodes = self.columns, self.nodes
        column, kind = divmod(code, KINDS)
        if isinstance(value, (Literal, OpenQuote)):
            value, self.resume = self._multiline(value, index + 1, column + 2 * (kind == DASH_KEY))
        dash = kind >= DASH_KEY
        if self.pending is not None:
            self._begin_pending(self.pending, column, dash=dash)
        while column < columns[-1]:
            del columns[-1], nodes[-1]
        if not dash and type(nodes[-1]) is list:
            del columns[-1], nodes[-1]
        collection = nodes[-1]
        if column != columns[-1] or (type(collection) is list) is not dash:
            raise _IrregularLineError
        if isinstance(collection, list):
            value = self._resolved(value, key)
            if kind == DASH_SCALAR:
                collection.append(value)
                return
            mapping: dict[str, object] = {}
            collection.append(mapping)
            columns.append(column + 2)
            nodes.append(mapping)
        elif key in collection:
            raise _IrregularLineError
        else:
            mapping = collection
            value = self._resolved(value, key)
        mapping[key] = value

    def _resolved(self, value: object, key: str) -> object:
        """The value of a line: that of its alias, or None when it follows and is pending now.

        Raises what `_anchored` raises.
        """
        if isinstance(value, Alias):
            return self._anchored(value.anchor)
        if isinstance(value, Following):
            self.pending, self.pending_key = value, key
            return None
        return value

    def _begin_pending(self, pending: Following, column: int, *, dash: bool) -> None:
        """Begin the pending value with a line at `column`; it is null when the line is not part of it.

        Raises _IrregularLineError and _IrregularTextError.
        """
        self.pending = None
        outer = self.nodes[-1]
        above = self.columns[-1]
        if column < above or (column == above and (not dash or isinstance(outer, list))):
            self._set_anchor(pending, None)
            return
        # A sequence has one level more to come.
        if len(self.nodes) + dash > MAX_DEPTH:
            raise _IrregularLineError
        collection: Collection = [] if dash else {}
        if isinstance(outer, list):
            outer[-1] = collection
        else:
            outer[self.pending_key] = collection
        self._set_anchor(pending, collection)
        self.columns.append(column)
        self.nodes.append(collection)

    def _set_anchor(self, pending: Following, value: object) -> None:
        """Keep the value of an anchor. Raises _IrregularTextError when the text has the anchor already.

        Not _IrregularLineError: the second one could be in an entry that is built alone, and count after it.
        """
        if pending.anchor in self.anchors:
            raise _IrregularTextError
        if pending.anchor:
            self.anchors[pending.anchor] = value

    def _anchored(self, anchor: str) -> object:
        """The value that an alias stands for.

        Raises _IrregularLineError when there is none, when it is not complete yet, or when the values of all aliases
        are too many; and what `_size` raises.
        """
        value = self.anchors.get(anchor, _UNKNOWN)
        # A float may be one that JSON does not have.
        if value is _UNKNOWN or isinstance(value, float) or any(node is value for node in self.nodes):
            raise _IrregularLineError
        self.aliased += self._size(value)
        if self.aliased > MAX_ALIASED:
            raise _IrregularLineError
        return value

    def _size(self, value: object) -> int:
        """The number of values in a complete value, itself included, with aliases expanded, as for parser events.

        Raises _IrregularTextError when it is nested too deeply.
        """
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
        """Append the lines from `index` on to the plain scalar that they continue. Raises _IrregularLineError."""
        innermost = self.nodes[-1]
        first = plain_text(self.lines[index - 1]) if index else None
        if first is None or self.pending is not None or self.resume >= index or not innermost:
            raise _IrregularLineError
        words = [first]
        end = index
        while end < len(self.lines) and indent_of(self.lines[end]) > self.columns[-1]:
            text = continuation(self.lines[end])
            if text is None:
                raise _IrregularLineError
            words.append(text)
            end += 1
        if end == index:
            raise _IrregularLineError
        if isinstance(innermost, dict):
            innermost[next(reversed(innermost))] = " ".join(words)
        else:
            innermost[-1] = " ".join(words)
        self.resume = end

    def _multiline(self, value: Literal | OpenQuote, start: int, column: int) -> tuple[str, int]:
        """The scalar that begins with `value` and goes on in the line at `start`, and the index of the line after it.

        `column` is that of its key. Raises _IrregularLineError.
        """
        if isinstance(value, Literal):
            return self._literal(value, start, column)
        return self._quoted(value, start, column)

    def _literal(self, block: Literal, start: int, column: int) -> tuple[str, int]:
        """The literal block from the line at `start`, whose key is at `column`, and the index of the line after it.

        Its lines are at least as far to the right as the first one. Raises _IrregularLineError for anything else.
        """
        first = self.lines[start] if start < len(self.lines) else ""
        indent = indent_of(first)
        if indent <= column or indent == len(first):
            raise _IrregularLineError
        margin = " " * indent
        content = []
        end = start
        while end < len(self.lines) and (not self.lines[end] or self.lines[end].startswith(margin)):
            text = self.lines[end]
            if not is_printable(text) or (text and not text.strip(" ")):
                raise _IrregularLineError
            content.append(text[indent:])
            end += 1
        # Without a line break at the end of the text there is none to keep.
        ending = block.ending if end < len(self.lines) or not self.lines[-1] else ""
        return "\n".join(content).rstrip("\n") + ending, end

    def _quoted(self, value: OpenQuote, start: int, column: int) -> tuple[str, int]:
        """The single-quoted scalar that goes on at `start`, and the index of the line after it.

        Raises _IrregularLineError unless all of its lines are further to the right than `column`.
        """
        words = [value.text]
        for end in range(start, len(self.lines)):
            continued = close_quote(self.lines[end]) if indent_of(self.lines[end]) > column else None
            if continued is None:
                break
            text, is_closed = continued
            words.append(text)
            if is_closed:
                return " ".join(words), end + 1
        raise _IrregularLineError

    def _build_entry(self, index: int) -> None:
        """Build the entry of the outermost sequence that the line at `index` is in from parser events.

        The scanner ends every token of an entry at the next line that is not further to the right than its dash, unless
        a quoted scalar or a flow collection is open there, and then the entry alone is invalid. So an entry that is
        valid alone means the same alone. Raises _IrregularLineError when it is not, or when there is no such sequence.
        """
        entries = self.nodes[_LIST_LEVEL] if len(self.nodes) > _LIST_LEVEL else None
        if not isinstance(entries, list):
            raise _IrregularLineError
        column = self.columns[_LIST_LEVEL]
        dash = " " * column + "- "
        start = index
        while not self.lines[start].startswith(dash):
            start -= 1
        end = start + 1
        while end < len(self.lines) and (is_skipped(self.lines[end]) or indent_of(self.lines[end]) > column):
            end += 1
        if end <= index:
            raise _IrregularLineError
        del self.columns[_LIST_LEVEL + 1 :], self.nodes[_LIST_LEVEL + 1 :]
        if start == index and self.pending is not None:
            self._set_anchor(self.pending, None)  # of the entry before
        entry = self._build_alone(start, end)
        if start < index:
            self.discarded.append(entries.pop())
        entries.append(entry)
        self.pending, self.resume = None, end

    def _build_alone(self, start: int, end: int) -> object:
        """The only entry of the sequence in these lines, built from parser events. Raises _IrregularLineError."""
        text = "\n".join([*self.lines[start:end], ""])
        try:
            built = build(text, depth=_LIST_LEVEL - 1, anchors=self._anchors_for(text))
        except ParseError as error:
            raise _IrregularLineError from error
        self.aliased += built.aliased
        entries = built.value
        if not isinstance(entries, list) or len(entries) != 1 or built.duplicates or built.next_line:
            raise _IrregularLineError
        if self.aliased > MAX_ALIASED:
            raise _IrregularLineError
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
