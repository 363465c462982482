"""Compares values with the patterns of the corpus (tests/corpus/README.md)."""

from __future__ import annotations

from collections.abc import Iterator


def mismatches(pattern: object, value: object, path: str = "") -> Iterator[str]:
    """One sentence for each place where `value` does not match `pattern`."""
    place = path or "the value"
    if isinstance(pattern, dict) and any(key.startswith("$") for key in pattern):
        yield from _operators(pattern, value, path)
    elif isinstance(pattern, dict):
        if not isinstance(value, dict):
            yield f"{place} is {value!r}, not an object"
            return
        for key, inner in pattern.items():
            if key not in value:
                yield f"{place} has no {key!r}"
            else:
                yield from mismatches(inner, value[key], f"{path}.{key}" if path else key)
    elif isinstance(pattern, list):
        if not isinstance(value, list) or len(value) != len(pattern):
            yield f"{place} is {value!r}, not a list of {len(pattern)}"
            return
        for index, inner in enumerate(pattern):
            yield from mismatches(inner, value[index], f"{path}[{index}]")
    elif type(pattern) is not type(value) or pattern != value:
        yield f"{place} is {value!r}, not {pattern!r}"


def _operators(pattern: dict[str, object], value: object, path: str) -> Iterator[str]:
    place = path or "the value"
    unknown = set(pattern) - {"$has", "$lacks", "$text"}
    if unknown:
        raise ValueError(f"unknown in a pattern: {sorted(unknown)}")
    text = pattern.get("$text")
    if text is not None and not (isinstance(value, str) and str(text) in value):
        yield f"{place} is {value!r}, without {text!r}"
    for wanted in _entries(pattern.get("$has")):
        if not _has(value, wanted):
            yield f"{place} has no entry like {wanted!r}: {value!r}"
    for unwanted in _entries(pattern.get("$lacks")):
        if _has(value, unwanted):
            yield f"{place} has an entry like {unwanted!r}: {value!r}"


def _has(value: object, pattern: object) -> bool:
    if isinstance(value, dict):
        return pattern in value
    return isinstance(value, list) and any(not list(mismatches(pattern, entry)) for entry in value)


def _entries(value: object) -> list[object]:
    return value if isinstance(value, list) else []
