"""Classes of pods: what policies can tell apart inside a segment, as numbers that rarely change.

A class is one (segment, namespace, answer to every atom asked there); see docs/dataplane.md, "Identity".
`ClassBook` is the one stateful thing in this package: it must remember which numbers it gave, but does no
I/O, and equal calls in equal order give equal numbers.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import CLASS_MASK, identity, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.atoms import atom_order, atoms_by_namespace, holds
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.view import Atom, ClassInfo

__all__ = ["ClassBook", "atoms_by_namespace"]

FIRST_CLASS = 1
NO_ATOMS: frozenset[Atom] = frozenset()
Home = tuple[int, str]
"""Where classes compete for a pod: (segment, namespace)."""


@dataclass(slots=True, eq=False)
class _Class:
    """A class and its pods by label set. `yes` are the atoms that hold, `no` those that do not."""

    number: int
    home: Home
    yes: frozenset[Atom]
    no: frozenset[Atom]
    members: dict[Labels, set[PodKey]] = field(default_factory=dict)

    def info(self) -> ClassInfo:
        truths = {atom: True for atom in self.yes} | {atom: False for atom in self.no}
        ordered = {atom: truths[atom] for atom in sorted(truths, key=atom_order)}
        return ClassInfo(self.home[1], MappingProxyType(ordered))


@dataclass(slots=True, eq=False)
class _Candidates:
    """The classes of one home: by what holds for them, and those from a file that do not answer everything."""

    complete: dict[frozenset[Atom], list[int]] = field(default_factory=dict)
    partial: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """What a pod was when it was last seen."""

    home: Home
    labels: Labels
    of: _Class


class ClassBook:
    """Who is in which class. Every class answers exactly the atoms now asked in its namespace.

    Classes read from a file have no pods yet: they stay hidden, and their numbers reserved, until a pod
    that fits claims them or `settle` drops them.
    """

    def __init__(self) -> None:
        self._asked: dict[str, frozenset[Atom]] = {}
        self._next: dict[int, int] = {}
        self._classes: dict[int, _Class] = {}
        self._homes: dict[Home, _Candidates] = {}
        self._segments_of: dict[str, set[int]] = {}
        self._places: dict[PodKey, _Place] = {}
        self._pins: dict[PodKey, int] = {}
        self._doubled: set[Home] = set()
        self._reserved: frozenset[int] = frozenset()
        self._infos: dict[int, ClassInfo] = {}
        self._frozen: Mapping[int, ClassInfo] | None = None
        self._homeless: dict[PodKey, AddressError] = {}

    def homeless(self) -> dict[PodKey, AddressError]:
        """The pods that came to be in no class since the last call, and why."""
        found, self._homeless = self._homeless, {}
        return found

    @property
    def classes(self) -> Mapping[int, ClassInfo]:
        """Every identity that a pod has, and what holds for it: the same frozen object until that changes."""
        if self._frozen is None:
            self._frozen = MappingProxyType(dict(sorted(self._infos.items())))
        return self._frozen

    def identity_of(self, pod: PodKey) -> int:
        """The identity of `pod`. Raises KeyError when it was never assigned, or was forgotten."""
        return self._places[pod].of.number

    def reserve(self, identities: frozenset[int]) -> None:
        """Takes `identities`, and no others any more, as not to be given: somebody may still know them."""
        self._reserved = identities

    def require(self, atoms: Mapping[str, frozenset[Atom]]) -> frozenset[PodKey]:
        """Takes `atoms` as what is asked now, and returns the pods whose identity that changed.

        A class splits where its pods answer a new atom differently: those that say no keep the number. Who should
        leave when the segment has no number left is in no class any more, and among the `homeless`. Namespaces that
        are absent from `atoms` are asked nothing.
        """
        moved: set[PodKey] = set()
        for namespace in sorted(self._asked.keys() | atoms.keys()):
            asked = atoms.get(namespace, NO_ATOMS)
            if asked != self._asked.get(namespace, NO_ATOMS):
                moved.update(self._refine(namespace, asked))
        self._asked = {namespace: asked for namespace, asked in atoms.items() if asked}
        return frozenset(moved)

    def assign(self, pod: PodKey, *, segment: int, namespace: str, labels: Labels) -> int:
        """The identity of `pod`, which is of this segment, namespace and labels from now on.

        Its number changes only when its class does not fit it any more. Raises AddressError when the
        segment has no class number left.
        """
        home = (segment, namespace)
        place = self._places.get(pod)
        if place is not None and place.home == home and place.labels == labels:
            return place.of.number
        yes = self._answers(namespace, labels)
        if place is not None and place.home == home and place.of.yes == yes:
            target = place.of
        else:
            target = self._pinned(pod, home, yes) or self._fitting(home, yes) or self._new(home, yes)
        if place is not None:
            self._leave(pod, place, staying=target)
        self._enter(pod, labels, target)
        return target.number

    def renumber(self, number: int) -> frozenset[PodKey]:
        """Gives the class with this identity another number, and returns its pods. Raises AddressError as `assign`."""
        old = self._classes[number]
        new = self._new(old.home, old.yes)
        for labels, pods in old.members.items():
            for pod in pods:
                self._enter(pod, labels, new)
        old.members = {}
        self._drop(old)
        return frozenset(pod for pods in new.members.values() for pod in pods)

    def forget(self, pod: PodKey) -> None:
        """Drops `pod`, and its class when that was its last pod. Unknown pods are fine."""
        self._pins.pop(pod, None)
        place = self._places.pop(pod, None)
        if place is not None:
            self._leave(pod, place, staying=None)

    def settle(self) -> None:
        """Drops the classes from a file that no pod claimed: every pod has been assigned by now."""
        self._pins.clear()
        for found in [found for found in self._classes.values() if not found.members]:
            self._drop(found)

    def to_json(self) -> dict[str, Any]:
        """All that must survive a restart for every pod to get its number again (`ClassBook.from_json`).

        Pods are named only where the rule "lowest number that fits" would not find their class.
        """
        entries = (
            ClassEntry(number, found.home[1], found.yes, found.no) for number, found in sorted(self._classes.items())
        )
        return ClassRecord(self._asked, self._next, tuple(entries), self.pins).to_json()

    @property
    def pins(self) -> dict[PodKey, int]:
        """The pods whose class is not the lowest one that fits."""
        return dict(self._all_pins())

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment."""
        return MappingProxyType(self._next)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassBook:
        """The book that `to_json` described. Raises InputError naming the field that is wrong."""
        return cls.of(ClassRecord.from_json(data))

    @classmethod
    def of(cls, record: ClassRecord) -> ClassBook:
        """The book of which `record` was made."""
        book = cls()
        book._asked.update(record.asked)
        book._next.update(record.next)
        book._pins.update(record.pins)
        for entry in record.classes:
            asked = book._asked.get(entry.namespace, NO_ATOMS)
            home = (segment_of(entry.identity), entry.namespace)
            book._add(_Class(entry.identity, home, entry.yes & asked, entry.no & asked))
        return book

    def _answers(self, namespace: str, labels: Labels) -> frozenset[Atom]:
        return frozenset(atom for atom in self._asked.get(namespace, NO_ATOMS) if holds(atom, labels))

    def _pinned(self, pod: PodKey, home: Home, yes: frozenset[Atom]) -> _Class | None:
        """The class that the file names for this pod, while it fits."""
        found = self._classes.get(self._pins.pop(pod, 0))
        if found is None or found.home != home or not self._fits(found, yes):
            return None
        return self._completed(found, yes)

    def _fitting(self, home: Home, yes: frozenset[Atom]) -> _Class | None:
        """The lowest class of `home` that answers as a pod of which exactly `yes` hold."""
        candidates = self._homes.get(home)
        if candidates is None:
            return None
        if yes in candidates.complete:
            return self._classes[candidates.complete[yes][0]]
        for number in candidates.partial:
            if self._fits(self._classes[number], yes):
                return self._completed(self._classes[number], yes)
        return None

    @staticmethod
    def _fits(found: _Class, yes: frozenset[Atom]) -> bool:
        return found.yes <= yes and not found.no & yes

    def _completed(self, found: _Class, yes: frozenset[Atom]) -> _Class:
        """`found`, which now answers all that is asked."""
        if found.yes != yes or not self._complete(found):
            self._unlist(found)
            found.yes, found.no = yes, self._asked.get(found.home[1], NO_ATOMS) - yes
            self._list(found)
        return found

    def _complete(self, found: _Class) -> bool:
        return len(found.yes) + len(found.no) == len(self._asked.get(found.home[1], NO_ATOMS))

    def _new(self, home: Home, yes: frozenset[Atom]) -> _Class:
        number = self._free_number(home[0])
        found = _Class(number, home, yes, self._asked.get(home[1], NO_ATOMS) - yes)
        self._add(found)
        return found

    def _free_number(self, segment: int) -> int:
        start = self._next.get(segment, FIRST_CLASS)
        for step in range(CLASS_MASK):
            number = (start - FIRST_CLASS + step) % CLASS_MASK + FIRST_CLASS
            found = identity(segment, number)
            if found not in self._classes and found not in self._reserved:
                self._next[segment] = number % CLASS_MASK + FIRST_CLASS
                return found
        raise AddressError(f"segment {segment} has all of its {CLASS_MASK} classes in use")

    def _add(self, found: _Class) -> None:
        self._classes[found.number] = found
        self._segments_of.setdefault(found.home[1], set()).add(found.home[0])
        self._homes.setdefault(found.home, _Candidates())
        self._list(found)

    def _drop(self, found: _Class) -> None:
        del self._classes[found.number]
        self._unlist(found)
        candidates = self._homes[found.home]
        if not candidates.complete and not candidates.partial:
            del self._homes[found.home]
            self._doubled.discard(found.home)
            self._segments_of[found.home[1]].discard(found.home[0])
        if self._infos.pop(found.number, None) is not None:
            self._frozen = None

    def _list(self, found: _Class) -> None:
        candidates = self._homes[found.home]
        if self._complete(found):
            numbers = candidates.complete.setdefault(found.yes, [])
            insort(numbers, found.number)
            if len(numbers) > 1:
                self._doubled.add(found.home)
        else:
            insort(candidates.partial, found.number)

    def _unlist(self, found: _Class) -> None:
        candidates = self._homes[found.home]
        if found.number in candidates.partial:
            candidates.partial.remove(found.number)
            return
        numbers = candidates.complete[found.yes]
        numbers.remove(found.number)
        if not numbers:
            del candidates.complete[found.yes]

    def _enter(self, pod: PodKey, labels: Labels, target: _Class) -> None:
        target.members.setdefault(labels, set()).add(pod)
        self._places[pod] = _Place(target.home, labels, target)
        if target.number not in self._infos:
            self._publish(target)

    def _leave(self, pod: PodKey, place: _Place, *, staying: _Class | None) -> None:
        members = place.of.members
        members[place.labels].discard(pod)
        if not members[place.labels]:
            del members[place.labels]
        if not members and place.of is not staying:
            self._drop(place.of)

    def _publish(self, found: _Class) -> None:
        self._infos[found.number] = found.info()
        self._frozen = None

    def _refine(self, namespace: str, asked: frozenset[Atom]) -> Iterator[PodKey]:
        """Brings the classes of `namespace` to `asked`; yields the pods that had to move."""
        self._asked[namespace] = asked
        for segment in sorted(self._segments_of.get(namespace, ())):
            home = (segment, namespace)
            numbers = self._numbers(home)
            self._homes[home] = _Candidates()
            self._doubled.discard(home)
            leaving: list[tuple[frozenset[Atom], dict[Labels, set[PodKey]]]] = []
            for number in numbers:
                leaving += self._split(self._classes[number], asked)
                self._list(self._classes[number])
            for yes, members in leaving:
                try:
                    target = self._fitting(home, yes) or self._new(home, yes)
                except AddressError as refused:
                    self._evict(members, refused)
                    continue
                for labels, pods in members.items():
                    for pod in pods:
                        self._enter(pod, labels, target)
                    yield from pods

    def _evict(self, members: Mapping[Labels, set[PodKey]], refused: AddressError) -> None:
        for pod in (pod for pods in members.values() for pod in pods):
            del self._places[pod]
            self._homeless[pod] = refused

    def _numbers(self, home: Home) -> list[int]:
        candidates = self._homes[home]
        return sorted([number for numbers in candidates.complete.values() for number in numbers] + candidates.partial)

    def _split(self, found: _Class, asked: frozenset[Atom]) -> list[tuple[frozenset[Atom], dict[Labels, set[PodKey]]]]:
        """Makes `found` answer `asked` for the pods that keep it; returns the others by what holds for them."""
        added = sorted(asked - found.yes - found.no, key=atom_order)
        found.yes, found.no = found.yes & asked, found.no & asked
        parts: dict[frozenset[Atom], dict[Labels, set[PodKey]]] = {}
        for labels, pods in found.members.items():
            parts.setdefault(frozenset(atom for atom in added if holds(atom, labels)), {})[labels] = pods
        if not parts:
            return []
        # Comparing atom by atom, no before yes: the smallest part is the one that keeps the number.
        first, *others = sorted(parts, key=lambda part: [atom in part for atom in added])
        base = found.yes
        found.members = parts[first]
        found.yes, found.no = base | first, asked - base - first
        self._publish(found)
        return [(base | part, parts[part]) for part in others]

    def _all_pins(self) -> Iterator[tuple[PodKey, int]]:
        yield from self._pins.items()
        for home in sorted(self._doubled):
            for numbers in self._homes[home].complete.values():
                for number in numbers[1:]:
                    yield from ((pod, number) for pods in self._classes[number].members.values() for pod in pods)
