"""Describes how labels differ from what a selector requires, and finds the nearest name among several."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

from romana_ovs.model.labels import Operator, Requirement, Selector

MAX_VALUES = 4
"""How many values of a requirement, or labels, a sentence lists."""


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
        for name in sorted(set(names))
        if name != text and (distance := _distance(text, name)) is not None
    ]
    return min(ranked)[1] if ranked else ""


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
    distance = edit_distance(short, long)
    numbered = re.sub("[0-9]+", "0", short) == re.sub("[0-9]+", "0", long)
    if len(short) < 3 or numbered or distance > max(1, len(short) // 3):
        return None
    # `api` and `app` are both words: with so few letters only swapped, missing or doubled ones count.
    replaced = len(short) == len(long) == 3 and sorted(short) != sorted(long)
    return None if replaced else distance


def _words(text: str) -> set[str]:
    """The beginnings and ends of `text` at `-`, `_`, `.` and `/`."""
    cuts = [index for index, char in enumerate(text) if char in "-_./"]
    return {text[:cut] for cut in cuts} | {text[cut + 1 :] for cut in cuts}


def requirement_text(requirement: Requirement) -> str:
    """A requirement in the notation of `kubectl get -l`: `app=web`, `app in (a,b)`, `app`, `!app`."""
    values = sorted(requirement.values)
    if requirement.operator is Operator.EXISTS:
        return requirement.key
    if requirement.operator is Operator.DOES_NOT_EXIST:
        return f"!{requirement.key}"
    if len(values) == 1:
        return f"{requirement.key}{'=' if requirement.operator is Operator.IN else '!='}{values[0]}"
    shown = ",".join(values[:MAX_VALUES]) + (",..." if len(values) > MAX_VALUES else "")
    return f"{requirement.key} {'in' if requirement.operator is Operator.IN else 'notin'} ({shown})"


def selector_text(selector: Selector) -> str:
    """A selector in the notation of `kubectl get -l`, or `{}`."""
    return ",".join(requirement_text(one) for one in selector.requirements) or "{}"


def label_differences(selector: Selector, labels: Mapping[str, str]) -> Iterator[str]:
    """A phrase for each requirement that `labels` do not meet: `app=web is required and app is db`."""
    for requirement in selector.requirements:
        if not requirement.matches(labels):
            value = labels.get(requirement.key)
            present = (
                f"{requirement.key} is {value or 'empty'}"
                if value is not None
                else f"there is no label {requirement.key}"
            )
            yield f"{requirement_text(requirement)} is required and {present}"


def listed(names: Collection[str], limit: int = MAX_VALUES) -> str:
    """`a, b and c`, or the first `limit` names and how many more there are."""
    shown = list(names)[:limit]
    if len(names) > limit:
        shown.append(f"{len(names) - limit} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""
