"""Builds documents in the plain block style in which kubectl prints YAML, faster than from parser events.

It knows a small part of YAML, line by line: keys, scalars on the line of their key, sequences, literal blocks. Every
other line is irregular. An irregular entry of a sequence such as the `items` of a List is built from parser events on
its own, so that it does not slow down the others; after any other irregular line the whole text is. A property test
compares both ways.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from romana_ovs.kube.manifests.scalars import ScalarError, as_json, as_key, resolve
from romana_ovs.kube.manifests.text import ParseError
from romana_ovs.kube.manifests.yaml_documents import MAX_ALIASED, MAX_DEPTH, build

_LINE = re.compile(
    r"(?P<indent> *)(?P<dash>- )?"
    r"""(?:(?:(?P<key>[A-Za-z0-9_./][A-Za-z0-9_./-]{0,200})|"(?P<quoted>[ !#-\[\]-~]{0,200})"):(?: +|\Z))?"""
    r"""(?:"(?P<double>[ !#-\[\]-~]*)"|'(?P<single>[ -&(-~]*)'|(?P<empty>\{\}|\[\])|(?P<block>\|-?)"""
    r"|(?P<plain>[A-Za-z0-9_./+$(;<=^~][ -~]*|-[A-Za-z0-9_.][ -~]*))?\Z"
)
_SKIPPED = re.compile(r" *(?:#[ -~]*)?\Z")
_PRINTABLE = re.compile(r"[ -~]*\Z")
_FOLLOWS = object()
"""In place of a value: it is in the lines that follow."""
_LITERAL = {"|": "\n", "|-": ""}
_LIST_LEVEL = 2
"""Index in the stack of a sequence whose irregular entries are built on their own: after the holder and the root."""
_ROOT_KEY = ""

Collection = dict[str, object] | list[object]


class _IrregularError(Exception):
    """A line is not in the plain block style."""


class _Line(NamedTuple):
    """What a line says: the column of its dash or key times four, plus its kind; its key and value."""

    code: int
    key: str
    value: object


_SCALAR, _NESTED, _DASH_KEY, _DASH_SCALAR = range(4)
"""Kinds of lines: `key: scalar`; `key:` before its value; `- key: ...`; `- scalar`."""
_KINDS = 4
_BLANK = _Line(-1, "", None)
"""A blank line or a comment."""
_IRREGULAR = _Line(-2, "", None)
"""A line that is not in the plain block style."""
_NO_CODE = -3


@dataclass(frozen=True, slots=True)
class _Block:
    """In place of a value: a literal block follows, which ends with `ending`."""

    ending: str


@dataclass(frozen=True, slots=True)
class BlockDocument:
    """The value of a document."""

    value: object


def build_block(text: str) -> BlockDocument | None:
    """The only document of `text`; None when it is not in the plain block style.

    Never raises: what is invalid, or has equal keys in one mapping, is not in that style either.
    """
    try:
        return BlockDocument(_BlockBuilder(text).build())
    except _IrregularError:
        return None


class _Lines(dict[str, _Line]):
    """What each text of a line says, read at its first occurrence: most lines occur many times."""

    def __missing__(self, text: str) -> _Line:
        line = self[text] = _BLANK if _SKIPPED.match(text) else _read_line(text)
        return line


class _BlockBuilder:
    """Builds one document line by line.

    `columns` and `nodes` are the stack of open collections, below them a holder of the root. A sequence may have the
    column of the mapping that it is in. `pending` is the key of the innermost mapping whose value follows, if any.
    Lines before the one at `resume` are read already.
    """

    def __init__(self, text: str) -> None:
        self.lines = (text.replace("\r\n", "\n") if "\r" in text else text).split("\n")
        self.steps = enumerate(map(_Lines().__getitem__, self.lines))
        self.holder: dict[str, object] = {}
        self.columns = [-1]
        self.nodes: list[Collection] = [self.holder]
        self.pending: str | None = _ROOT_KEY
        self.resume = 0
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
                scalar_code = self.columns[-1] * _KINDS + _SCALAR if is_plain else _NO_CODE
        return None

    def _step(self, index: int, code: int, key: str, value: object) -> None:
        """Read one line. Raises _IrregularError."""
        if code == _IRREGULAR.code:
            raise _IrregularError
        columns, nodes = self.columns, self.nodes
        column, kind = divmod(code, _KINDS)
        if type(value) is _Block:
            value, self.resume = self._literal(value, index + 1, column + 2 * (kind == _DASH_KEY))
        dash = kind >= _DASH_KEY
        if self.pending is not None:
            if column > columns[-1] or (dash and column == columns[-1]):
                self._open(self.pending, [] if dash else {}, column)
            self.pending = None
        while column < columns[-1]:
            del columns[-1], nodes[-1]
        if not dash and type(nodes[-1]) is list:
            del columns[-1], nodes[-1]
        collection = nodes[-1]
        if column != columns[-1] or (type(collection) is list) is not dash:
            raise _IrregularError
        if isinstance(collection, list):
            if kind == _DASH_SCALAR:
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
        if value is _FOLLOWS:
            value, self.pending = None, key
        mapping[key] = value

    def _open(self, key: str, collection: Collection, column: int) -> None:
        """Begin the collection that is the value of `key` in the innermost mapping. Raises _IrregularError."""
        mapping = self.nodes[-1]
        # A sequence has one level more to come.
        if len(self.nodes) + isinstance(collection, list) > MAX_DEPTH or not isinstance(mapping, dict):
            raise _IrregularError
        mapping[key] = collection
        self.columns.append(column)
        self.nodes.append(collection)

    def _literal(self, block: _Block, start: int, column: int) -> tuple[str, int]:
        """The literal block from the line at `start`, whose key is at `column`, and the index of the line after it.

        Its lines are at least as far to the right as the first one. Raises _IrregularError for anything else.
        """
        first = self.lines[start] if start < len(self.lines) else ""
        indent = len(first) - len(first.lstrip(" "))
        if indent <= column or indent == len(first):
            raise _IrregularError
        margin = " " * indent
        content = []
        end = start
        while end < len(self.lines) and (not self.lines[end] or self.lines[end].startswith(margin)):
            text = self.lines[end]
            if not _PRINTABLE.match(text) or (text and not text.strip(" ")):
                raise _IrregularError
            content.append(text[indent:])
            end += 1
        return "\n".join(content).rstrip("\n") + block.ending, end

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
        while end < len(self.lines) and not _ends_entry(self.lines[end], column):
            end += 1
        if end <= index:
            raise _IrregularError
        entry = self._build_alone(start, end)
        if start < index:
            del entries[-1]
        entries.append(entry)
        del self.columns[_LIST_LEVEL + 1 :], self.nodes[_LIST_LEVEL + 1 :]
        self.pending, self.resume = None, end

    def _build_alone(self, start: int, end: int) -> object:
        """The value of the only entry of the sequence in these lines, from parser events. Raises _IrregularError."""
        try:
            built = build("\n".join([*self.lines[start:end], ""]), depth=_LIST_LEVEL - 1)
        except ParseError as error:
            raise _IrregularError from error
        self.aliased += built.aliased
        entries = built.value
        if not isinstance(entries, list) or len(entries) != 1 or built.duplicates or built.next_line:
            raise _IrregularError
        if self.aliased > MAX_ALIASED:
            raise _IrregularError
        return entries[0]


def _ends_entry(text: str, column: int) -> bool:
    """Whether an entry of a sequence whose dash is at `column` ends before this line."""
    return not _SKIPPED.match(text) and len(text) - len(text.lstrip(" ")) <= column


def _read_line(text: str) -> _Line:
    """What a line says that is neither blank nor a comment."""
    match = _LINE.match(text)
    if match is None:
        return _IRREGULAR
    indent, dash, key, quoted, double, single, empty, block, plain = match.groups()
    value: object = _FOLLOWS
    try:
        if key is not None:
            key = as_key(resolve(key))
        if plain is not None:
            if ": " in plain or " #" in plain or plain.endswith((":", " ")):
                return _IRREGULAR
            value = as_json(resolve(plain))
    except ScalarError:
        return _IRREGULAR
    if double is not None or single is not None:
        value = double if double is not None else single
    elif empty is not None:
        value = {} if empty == "{}" else []
    elif block is not None:
        value = _Block(_LITERAL[block])
    name = key if key is not None else quoted
    if name is not None:
        kind = _DASH_KEY if dash else _NESTED if value is _FOLLOWS or block is not None else _SCALAR
        return _Line(len(indent) * _KINDS + kind, name, value)
    if dash is None or value is _FOLLOWS or block is not None:
        return _IRREGULAR
    return _Line(len(indent) * _KINDS + _DASH_SCALAR, "", value)
