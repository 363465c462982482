"""Reads the state of a class allocator in the state files of version 0.1.0, and validates it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from romana_ovs.model.errors import InputError
from romana_ovs.model.identity import ALL_BITS, CLASS_MASK, RESERVED_SEGMENT, UNKNOWN_CLASS, segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.view import LabelRequirement


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class: its identity, its namespace, the requirements that its pods match and those that they do not."""

    identity: int
    namespace: str
    matching: frozenset[LabelRequirement]
    not_matching: frozenset[LabelRequirement]


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """The state of a `ClassAllocator`.

    `requirements` are those in use by namespace, `next` the next class number to try by segment. `overrides` map pods
    to the identities of classes that their labels alone would not select.
    """

    requirements: Mapping[str, frozenset[LabelRequirement]]
    next: Mapping[int, int]
    classes: tuple[ClassEntry, ...]
    overrides: Mapping[PodKey, int]

    @classmethod
    def from_json(cls, data: Any) -> ClassRecord:
        """The record in such a file, with the words of that version. Raises InputError naming the invalid field."""
        fields = _object(data, "classes")
        requirements_of = _object(fields.get("asked"), "classes.asked")
        following = _object(fields.get("next"), "classes.next")
        overrides = _object(fields.get("pins"), "classes.pins")
        return cls(
            requirements={
                name: _requirements_from_json(requirements, f"classes.asked.{name}")
                for name, requirements in requirements_of.items()
            },
            next={
                _segment(name, f"classes.next.{name}"): _number(value, f"classes.next.{name}", 1, CLASS_MASK)
                for name, value in following.items()
            },
            classes=_entries(fields.get("classes")),
            overrides={PodKey(pod): _identity(value, f"classes.pins.{pod}") for pod, value in overrides.items()},
        )


def _entries(data: Any) -> tuple[ClassEntry, ...]:
    entries: dict[int, ClassEntry] = {}
    for index, item in enumerate(_list(data, "classes.classes")):
        place = f"classes.classes[{index}]"
        fields = _object(item, place)
        identity = _identity(fields.get("identity"), f"{place}.identity")
        matching = _requirements_from_json(fields.get("yes"), f"{place}.yes")
        not_matching = _requirements_from_json(fields.get("no"), f"{place}.no")
        namespace = fields.get("namespace")
        if identity in entries:
            _refuse(f"{place}.identity", f"{identity:#x} is given to two classes")
        if not isinstance(namespace, str):
            _refuse(f"{place}.namespace", "a name was expected")
        if matching & not_matching:
            _refuse(place, "the same requirement is in yes and no")
        entries[identity] = ClassEntry(identity, namespace, matching, not_matching)
    return tuple(entries.values())


def _requirements_from_json(data: Any, place: str) -> frozenset[LabelRequirement]:
    return frozenset(_requirement_from_json(item, f"{place}[{index}]") for index, item in enumerate(_list(data, place)))


def _requirement_from_json(data: Any, place: str) -> LabelRequirement:
    pair = _list(data, place)
    if len(pair) != 2 or not isinstance(pair[0], str):
        _refuse(place, "a label key and its values were expected")
    if pair[1] is None:
        return LabelRequirement(pair[0])
    values = _list(pair[1], place)
    if not all(isinstance(value, str) for value in values):
        _refuse(place, "label values are text")
    return LabelRequirement(pair[0], frozenset(values))


def _identity(data: Any, place: str) -> int:
    number = _number(data, place, 1, ALL_BITS)
    if segment_of(number) == RESERVED_SEGMENT or number & CLASS_MASK == UNKNOWN_CLASS:
        _refuse(place, f"{number:#x} is not the identity of a class")
    return number


def _segment(text: str, place: str) -> int:
    if not text.isdecimal():
        _refuse(place, "a segment number was expected")
    return _number(int(text), place, 1, RESERVED_SEGMENT - 1)


def _number(data: Any, place: str, low: int, high: int) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or not low <= data <= high:
        _refuse(place, f"a number from {low} to {high} was expected")
    return data


def _object(data: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        _refuse(place, "an object was expected")
    return data


def _list(data: Any, place: str) -> list[Any]:
    if not isinstance(data, list):
        _refuse(place, "a list was expected")
    return data


def _refuse(place: str, reason: str) -> NoReturn:
    raise InputError.because(reason, field=place)
