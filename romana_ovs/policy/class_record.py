"""What is written down of the classes, and its reading back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from romana_ovs.model.errors import InputError
from romana_ovs.model.identity import ALL_BITS, CLASS_MASK, RESERVED_SEGMENT, UNKNOWN_CLASS, segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.atoms import atom_order
from romana_ovs.policy.view import Atom


@dataclass(frozen=True, slots=True)
class ClassEntry:
    """One class: its identity, its namespace, the atoms that hold for its pods and those that do not."""

    identity: int
    namespace: str
    yes: frozenset[Atom]
    no: frozenset[Atom]


@dataclass(frozen=True, slots=True)
class ClassRecord:
    """A `ClassBook` without its pods, but for `pins`: pods whose class the book would not find again.

    `asked` are the atoms by namespace, `next` the next class number to try by segment.
    """

    asked: Mapping[str, frozenset[Atom]]
    next: Mapping[int, int]
    classes: tuple[ClassEntry, ...]
    pins: Mapping[PodKey, int]

    def to_json(self) -> dict[str, Any]:
        """This record in plain values of JSON, sorted."""
        return {
            "asked": {name: _atoms_out(atoms) for name, atoms in sorted(self.asked.items())},
            "next": {str(segment): number for segment, number in sorted(self.next.items())},
            "classes": [
                {
                    "identity": entry.identity,
                    "namespace": entry.namespace,
                    "yes": _atoms_out(entry.yes),
                    "no": _atoms_out(entry.no),
                }
                for entry in self.classes
            ],
            "pins": dict(sorted(self.pins.items())),
        }

    @classmethod
    def from_json(cls, data: Any) -> ClassRecord:
        """The record that `to_json` gave. Raises InputError naming the field that is wrong."""
        fields = _object(data, "classes")
        asked = _object(fields.get("asked"), "classes.asked")
        following = _object(fields.get("next"), "classes.next")
        pins = _object(fields.get("pins"), "classes.pins")
        return cls(
            asked={name: _atoms_in(atoms, f"classes.asked.{name}") for name, atoms in asked.items()},
            next={
                _segment(name, f"classes.next.{name}"): _number(value, f"classes.next.{name}", 1, CLASS_MASK)
                for name, value in following.items()
            },
            classes=_entries(fields.get("classes")),
            pins={PodKey(pod): _identity(value, f"classes.pins.{pod}") for pod, value in pins.items()},
        )


def _entries(data: Any) -> tuple[ClassEntry, ...]:
    found: dict[int, ClassEntry] = {}
    for index, item in enumerate(_list(data, "classes.classes")):
        place = f"classes.classes[{index}]"
        fields = _object(item, place)
        number = _identity(fields.get("identity"), f"{place}.identity")
        yes = _atoms_in(fields.get("yes"), f"{place}.yes")
        no = _atoms_in(fields.get("no"), f"{place}.no")
        namespace = fields.get("namespace")
        if number in found:
            _refuse(f"{place}.identity", f"{number:#x} is given to two classes")
        if not isinstance(namespace, str):
            _refuse(f"{place}.namespace", "a name was expected")
        if yes & no:
            _refuse(place, "the same question is answered yes and no")
        found[number] = ClassEntry(number, namespace, yes, no)
    return tuple(found.values())


def _atoms_out(atoms: Iterable[Atom]) -> list[list[Any]]:
    return [[atom.key, None if atom.values is None else sorted(atom.values)] for atom in sorted(atoms, key=atom_order)]


def _atoms_in(data: Any, place: str) -> frozenset[Atom]:
    return frozenset(_atom_in(item, f"{place}[{index}]") for index, item in enumerate(_list(data, place)))


def _atom_in(data: Any, place: str) -> Atom:
    pair = _list(data, place)
    if len(pair) != 2 or not isinstance(pair[0], str):
        _refuse(place, "a label key and its values were expected")
    if pair[1] is None:
        return Atom(pair[0])
    values = _list(pair[1], place)
    if not all(isinstance(value, str) for value in values):
        _refuse(place, "label values are text")
    return Atom(pair[0], frozenset(values))


def _identity(data: Any, place: str) -> int:
    number = _number(data, place, 1, ALL_BITS)
    if segment_of(number) == RESERVED_SEGMENT or number & CLASS_MASK == UNKNOWN_CLASS:
        _refuse(place, f"{number:#x} is no identity of a class")
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
