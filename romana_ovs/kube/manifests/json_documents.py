"""Reads a stream of JSON documents, one after another, as Go's JSON decoder does for kubectl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from romana_ovs.kube.decode.objects import Document, DuplicateKey
from romana_ovs.kube.manifests.scalars import ScalarError, as_json
from romana_ovs.kube.manifests.text import ParseError
from romana_ovs.kube.manifests.yaml_documents import build
from romana_ovs.model.syntax import plain

_SPACE = " \t\r\n"
_SEARCHED = 1_000_000
"""Characters of a document in which the lines of doubled keys are looked for."""
_COMMENTS = ("//", "/*")
_LOGS = "==== START logs"
"""How kubectl cluster-info dump starts the logs of a container."""


class JsonStream(NamedTuple):
    """The documents before the first error, and that error, if any; `final`: the text is no YAML either."""

    documents: tuple[Document, ...]
    error: ParseError | None = None
    final: bool = False


def read_json(text: str) -> JsonStream:
    """The documents of a text of JSON values. Numbers without a fraction are integers, as the API server gets them."""
    duplicates: dict[int, list[str]] = {}

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        made = dict(pairs)
        if len(made) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            duplicates[id(made)] = sorted(key for key, count in counts.items() if count > 1)
        return made

    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_float=_number, parse_constant=_refuse_constant)
    documents: list[Document] = []
    position = _skip_space(text, 0)
    while position < len(text):
        duplicates.clear()
        start = position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            final = isinstance(error, ScalarError) or text.startswith(_COMMENTS, getattr(error, "pos", len(text)))
            return JsonStream(tuple(documents), _parse_error(error, text, start), final)
        duplicated = tuple(_duplicate_keys(value, duplicates, text, start, position)) if duplicates else ()
        documents.append(Document(len(documents) + 1, value, duplicated))
        position = _skip_space(text, position)
    return JsonStream(tuple(documents))


def _number(text: str) -> object:
    try:
        return as_json(float(text))
    except ScalarError as error:
        raise ScalarError(f"{text} is no number that JSON has") from error


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def _parse_error(error: ValueError | RecursionError, text: str, start: int) -> ParseError:
    """The error of the document at `start`."""
    if isinstance(error, RecursionError):
        return ParseError("is nested too deeply", text.count("\n", 0, start) + 1)
    if not isinstance(error, json.JSONDecodeError):
        return ParseError(plain(str(error)), text.count("\n", 0, start) + 1)
    if text.startswith(_COMMENTS, error.pos):
        return ParseError("no valid JSON: it has no comments", error.lineno)
    if text.startswith(_LOGS, error.pos):
        reason = "logs of containers follow, as in what kubectl cluster-info dump prints: write that with"
        return ParseError(f"{reason} --output-directory=DIR, and read DIR with -R", error.lineno)
    return ParseError(f"no valid JSON: {error.msg}", error.lineno)


def _duplicate_keys(
    value: object, duplicates: Mapping[int, list[str]], text: str, start: int, end: int
) -> Iterator[DuplicateKey]:
    """The keys that occur twice in the document from `start` to `end`, whose mappings `duplicates` has by their id."""
    lines: dict[str, int] = {}
    if end - start <= _SEARCHED:
        try:
            first = text.count("\n", 0, start)
            lines = {key.path: first + key.line for key in build(text[start:end]).duplicates}
        except ParseError:
            pass  # Not all JSON is YAML of the version that is read here; then the lines stay unknown.
    for path in _duplicate_paths(value, duplicates):
        yield DuplicateKey(path, lines.get(path, 0))


def _duplicate_paths(value: object, duplicates: Mapping[int, list[str]]) -> Iterator[str]:
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        path, inner = pending.pop()
        if isinstance(inner, list):
            pending += [(f"{path}[{index}]", entry) for index, entry in enumerate(inner)]
        elif isinstance(inner, dict):
            start = f"{path}." if path else ""
            yield from (start + plain(key) for key in duplicates.get(id(inner), ()))
            pending += [(start + plain(key), entry) for key, entry in inner.items()]
