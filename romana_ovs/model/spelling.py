"""Finds the name that a misspelt one probably means."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

MAX_CANDIDATES = 100
"""How many names are compared with one: each comparison takes some 0.1 ms."""


def edit_distance(left: str, right: str) -> int:
    """The number of characters to insert, delete, replace, or swap with their neighbour (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for index, char in enumerate(left, 1):
        older, before, row = before, row, [index]
        for place, other in enumerate(right, 1):
            cost = min(before[place] + 1, row[place - 1] + 1, before[place - 1] + (char != other))
            if index > 1 and place > 1 and char == right[place - 2] and left[index - 2] == other:
                cost = min(cost, older[place - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest(text: str, names: Iterable[str]) -> str:
    """The name most like `text`: a few characters differ, or one contains the other; empty when there is none.

    `front-end` is near `front` and `frontend`, `cart` near `carts`. Equal names are not near, and neither are names
    that differ in numbers only, such as `v1` and `v2`.
    """
    ranked = [
        (distance, name)
        for name in _candidates(text, set(names) - {text})
        if (distance := _distance(text, name)) is not None
    ]
    return min(ranked)[1] if ranked else ""


def _candidates(text: str, names: Collection[str]) -> Iterable[str]:
    """`names`, or of very many those that begin or end like `text` and are of about its length."""
    if len(names) <= MAX_CANDIDATES:
        return names
    alike = [name for name in names if name[:2] == text[:2] or name[-2:] == text[-2:]]
    return sorted(alike, key=lambda name: (abs(len(name) - len(text)), name))[:MAX_CANDIDATES]


def is_misspelt(text: str, name: str) -> bool:
    """Whether `text` is probably `name` with a typing error or one word more, rather than a name of its own.

    `prometheus-adapter` may be another component than `prometheus`, while `front-end` is probably what `front` is.
    """
    return _typing_distance(text, name) is not None or name.lower() in _words(text.lower())


def _distance(text: str, name: str) -> int | None:
    """How far apart the two are; None when they are not alike."""
    distance = _typing_distance(text, name)
    short, long = sorted((text.lower(), name.lower()), key=len)
    if distance is not None:
        return distance
    # One of them is the other with a word before or after it, such as `web` and `web-server`.
    return len(long) if len(short) > 2 and short in _words(long) else None


def _typing_distance(text: str, name: str) -> int | None:
    """The edit distance when it is as small as typing errors make it, else None. Capitals do not count."""
    short, long = sorted((text.lower(), name.lower()), key=len)
    if short == long:
        return 0
    allowed = max(1, len(short) // 3)
    if len(short) < 3 or len(long) - len(short) > allowed:
        return None
    distance = edit_distance(short, long)
    numbered = re.sub("[0-9]+", "0", short) == re.sub("[0-9]+", "0", long)
    if numbered or distance > allowed:
        return None
    # `api` and `app` are both words: with so few letters only swapped, missing or doubled ones count.
    replaced = len(short) == len(long) == 3 and sorted(short) != sorted(long)
    return None if replaced else distance


def _words(text: str) -> set[str]:
    """The beginnings and ends of `text` at `-`, `_`, `.` and `/`."""
    cuts = [index for index, char in enumerate(text) if char in "-_./"]
    return {text[:cut] for cut in cuts} | {text[cut + 1 :] for cut in cuts}
