"""Allocates class numbers: classes are what policies can distinguish inside a segment, and keep their numbers.

A class is one combination of segment, namespace and matches of the requirements used there (docs/dataplane.md,
"Identity"). `ClassAllocator` is the only stateful part of this package, as it has to remember the numbers in use. It
does no I/O, and equal calls in equal order allocate equal numbers.
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
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.requirements import requirement_sort_key, requirements_by_namespace
from romana_ovs.policy.view import ClassInfo, LabelRequirement

__all__ = ["ClassAllocator", "requirements_by_namespace"]

FIRST_CLASS = 1
NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()
ClassScope = tuple[int, str]
"""(segment, namespace): a pod gets one of the classes of its scope."""


@dataclass(slots=True, eq=False)
class _Class:
    """A class and its pods by label set. Its pods match the requirements `yes`, and do not match `no`."""

    number: int
    scope: ClassScope
    yes: frozenset[LabelRequirement]
    no: frozenset[LabelRequirement]
    members: dict[Labels, set[PodKey]] = field(default_factory=dict)

    def info(self) -> ClassInfo:
        matches = {requirement: True for requirement in self.yes} | {requirement: False for requirement in self.no}
        ordered = {requirement: matches[requirement] for requirement in sorted(matches, key=requirement_sort_key)}
        return ClassInfo(self.scope[1], MappingProxyType(ordered))


@dataclass(slots=True, eq=False)
class _Candidates:
    """The classes of one scope by what they match, and those from a file that lack the match of some requirement."""

    complete: dict[frozenset[LabelRequirement], list[int]] = field(default_factory=dict)
    partial: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """The class of a pod, and the properties that led to it."""

    scope: ClassScope
    labels: Labels
    of: _Class


class ClassAllocator:
    """The class of each pod. Every class has a match for exactly the requirements in use in its namespace.

    Classes read from a file have no pods yet: they stay hidden, and their numbers reserved, until a pod that fits
    claims them or `drop_unclaimed` drops them.
    """

    def __init__(self) -> None:
        self._requirements: dict[str, frozenset[LabelRequirement]] = {}
        self._next: dict[int, int] = {}
        self._classes: dict[int, _Class] = {}
        self._scopes: dict[ClassScope, _Candidates] = {}
        self._segments_of: dict[str, set[int]] = {}
        self._assignments: dict[PodKey, _Assignment] = {}
        self._pins: dict[PodKey, int] = {}
        self._doubled: set[ClassScope] = set()
        self._reserved: frozenset[int] = frozenset()
        self._infos: dict[int, ClassInfo] = {}
        self._frozen: Mapping[int, ClassInfo] | None = None
        self._unassigned: dict[PodKey, AddressError] = {}

    def drain_unassigned(self) -> dict[PodKey, AddressError]:
        """The pods that lost their class since the last call, and why."""
        unassigned, self._unassigned = self._unassigned, {}
        return unassigned

    @property
    def classes(self) -> Mapping[int, ClassInfo]:
        """Every identity in use with its class: the same frozen object until one changes."""
        if self._frozen is None:
            self._frozen = MappingProxyType(dict(sorted(self._infos.items())))
        return self._frozen

    def identity_of(self, pod: PodKey) -> int:
        """The identity of `pod`. Raises KeyError when it was never assigned, or was forgotten."""
        return self._assignments[pod].of.number

    def reserve(self, identities: frozenset[int]) -> None:
        """Replaces the identities that must not be allocated, because some node may still know them."""
        self._reserved = identities

    def set_requirements(self, requirements: Mapping[str, frozenset[LabelRequirement]]) -> frozenset[PodKey]:
        """Replaces the requirements in use by namespace, and returns the pods whose identity changed.

        A class splits if its pods differ in a new requirement: those that do not match keep the number. If the segment
        has no number left, the others lose their class and come out of `drain_unassigned`.
        """
        moved: set[PodKey] = set()
        for namespace in sorted(self._requirements.keys() | requirements.keys()):
            in_use = requirements.get(namespace, NO_REQUIREMENTS)
            if in_use != self._requirements.get(namespace, NO_REQUIREMENTS):
                moved.update(self._split_classes(namespace, in_use))
        self._requirements = {namespace: in_use for namespace, in_use in requirements.items() if in_use}
        return frozenset(moved)

    def assign(self, pod: PodKey, *, segment: int, namespace: str, labels: Labels) -> int:
        """The identity of `pod` with this segment, namespace and labels.

        Its number changes only if its class does not fit any more. Raises AddressError when the
        segment has no class number left.
        """
        scope = (segment, namespace)
        assignment = self._assignments.get(pod)
        if assignment is not None and assignment.scope == scope and assignment.labels == labels:
            return assignment.of.number
        yes = self._matches(namespace, labels)
        if assignment is not None and assignment.scope == scope and assignment.of.yes == yes:
            target = assignment.of
        else:
            target = self._pinned(pod, scope, yes) or self._lowest_fit(scope, yes) or self._new(scope, yes)
        if assignment is not None:
            self._remove_member(pod, assignment, staying=target)
        self._add_member(pod, labels, target)
        return target.number

    def renumber(self, number: int) -> frozenset[PodKey]:
        """Allocates a new number to the class with this identity; returns its pods. Raises AddressError as `assign`."""
        old = self._classes[number]
        new = self._new(old.scope, old.yes)
        for labels, pods in old.members.items():
            for pod in pods:
                self._add_member(pod, labels, new)
        old.members = {}
        self._drop(old)
        return frozenset(pod for pods in new.members.values() for pod in pods)

    def forget(self, pod: PodKey) -> None:
        """Drops `pod`, and its class with the last pod. Unknown pods are ignored."""
        self._pins.pop(pod, None)
        assignment = self._assignments.pop(pod, None)
        if assignment is not None:
            self._remove_member(pod, assignment, staying=None)

    def drop_unclaimed(self) -> None:
        """Drops the classes from a file that no pod claimed, after every pod was assigned."""
        self._pins.clear()
        for klass in [klass for klass in self._classes.values() if not klass.members]:
            self._drop(klass)

    def to_json(self) -> dict[str, Any]:
        """The state by which every pod gets its number again after a restart (`ClassAllocator.from_json`).

        It names a pod only if the rule "lowest number that fits" would not find its class.
        """
        entries = (
            ClassEntry(number, klass.scope[1], klass.yes, klass.no) for number, klass in sorted(self._classes.items())
        )
        return ClassRecord(self._requirements, self._next, tuple(entries), self.pins).to_json()

    @property
    def pins(self) -> dict[PodKey, int]:
        """The pods whose class is not the lowest one that fits."""
        return dict(self._all_pins())

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment."""
        return MappingProxyType(self._next)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassAllocator:
        """The allocator with the state of `to_json`. Raises InputError naming the invalid field."""
        return cls.of(ClassRecord.from_json(data))

    @classmethod
    def of(cls, record: ClassRecord) -> ClassAllocator:
        """The allocator with the state of `record`."""
        allocator = cls()
        allocator._requirements.update(record.asked)
        allocator._next.update(record.next)
        allocator._pins.update(record.pins)
        for entry in record.classes:
            in_use = allocator._requirements.get(entry.namespace, NO_REQUIREMENTS)
            scope = (segment_of(entry.identity), entry.namespace)
            allocator._add(_Class(entry.identity, scope, entry.yes & in_use, entry.no & in_use))
        return allocator

    def _matches(self, namespace: str, labels: Labels) -> frozenset[LabelRequirement]:
        return frozenset(
            requirement
            for requirement in self._requirements.get(namespace, NO_REQUIREMENTS)
            if requirement.matches(labels)
        )

    def _pinned(self, pod: PodKey, scope: ClassScope, yes: frozenset[LabelRequirement]) -> _Class | None:
        """The class that the file has for this pod, if it fits."""
        klass = self._classes.get(self._pins.pop(pod, 0))
        if klass is None or klass.scope != scope or not self._fits(klass, yes):
            return None
        return self._completed(klass, yes)

    def _lowest_fit(self, scope: ClassScope, yes: frozenset[LabelRequirement]) -> _Class | None:
        """The lowest class of `scope` for a pod that matches exactly `yes`."""
        candidates = self._scopes.get(scope)
        if candidates is None:
            return None
        if yes in candidates.complete:
            return self._classes[candidates.complete[yes][0]]
        for number in candidates.partial:
            if self._fits(self._classes[number], yes):
                return self._completed(self._classes[number], yes)
        return None

    @staticmethod
    def _fits(klass: _Class, yes: frozenset[LabelRequirement]) -> bool:
        return klass.yes <= yes and not klass.no & yes

    def _completed(self, klass: _Class, yes: frozenset[LabelRequirement]) -> _Class:
        """`klass`, with a match for all requirements in use."""
        if klass.yes != yes or not self._complete(klass):
            self._unlist(klass)
            klass.yes, klass.no = yes, self._requirements.get(klass.scope[1], NO_REQUIREMENTS) - yes
            self._list(klass)
        return klass

    def _complete(self, klass: _Class) -> bool:
        return len(klass.yes) + len(klass.no) == len(self._requirements.get(klass.scope[1], NO_REQUIREMENTS))

    def _new(self, scope: ClassScope, yes: frozenset[LabelRequirement]) -> _Class:
        number = self._free_number(scope[0])
        klass = _Class(number, scope, yes, self._requirements.get(scope[1], NO_REQUIREMENTS) - yes)
        self._add(klass)
        return klass

    def _free_number(self, segment: int) -> int:
        start = self._next.get(segment, FIRST_CLASS)
        for step in range(CLASS_MASK):
            number = (start - FIRST_CLASS + step) % CLASS_MASK + FIRST_CLASS
            candidate = identity(segment, number)
            if candidate not in self._classes and candidate not in self._reserved:
                self._next[segment] = number % CLASS_MASK + FIRST_CLASS
                return candidate
        raise AddressError(f"segment {segment} has all of its {CLASS_MASK} classes in use")

    def _add(self, klass: _Class) -> None:
        self._classes[klass.number] = klass
        self._segments_of.setdefault(klass.scope[1], set()).add(klass.scope[0])
        self._scopes.setdefault(klass.scope, _Candidates())
        self._list(klass)

    def _drop(self, klass: _Class) -> None:
        del self._classes[klass.number]
        self._unlist(klass)
        candidates = self._scopes[klass.scope]
        if not candidates.complete and not candidates.partial:
            del self._scopes[klass.scope]
            self._doubled.discard(klass.scope)
            self._segments_of[klass.scope[1]].discard(klass.scope[0])
        if self._infos.pop(klass.number, None) is not None:
            self._frozen = None

    def _list(self, klass: _Class) -> None:
        candidates = self._scopes[klass.scope]
        if self._complete(klass):
            numbers = candidates.complete.setdefault(klass.yes, [])
            insort(numbers, klass.number)
            if len(numbers) > 1:
                self._doubled.add(klass.scope)
        else:
            insort(candidates.partial, klass.number)

    def _unlist(self, klass: _Class) -> None:
        candidates = self._scopes[klass.scope]
        if klass.number in candidates.partial:
            candidates.partial.remove(klass.number)
            return
        numbers = candidates.complete[klass.yes]
        numbers.remove(klass.number)
        if not numbers:
            del candidates.complete[klass.yes]

    def _add_member(self, pod: PodKey, labels: Labels, target: _Class) -> None:
        target.members.setdefault(labels, set()).add(pod)
        self._assignments[pod] = _Assignment(target.scope, labels, target)
        if target.number not in self._infos:
            self._publish(target)

    def _remove_member(self, pod: PodKey, assignment: _Assignment, *, staying: _Class | None) -> None:
        members = assignment.of.members
        members[assignment.labels].discard(pod)
        if not members[assignment.labels]:
            del members[assignment.labels]
        if not members and assignment.of is not staying:
            self._drop(assignment.of)

    def _publish(self, klass: _Class) -> None:
        self._infos[klass.number] = klass.info()
        self._frozen = None

    def _split_classes(self, namespace: str, in_use: frozenset[LabelRequirement]) -> Iterator[PodKey]:
        """Splits the classes of `namespace` by its requirements `in_use`; yields the pods that changed class."""
        self._requirements[namespace] = in_use
        for segment in sorted(self._segments_of.get(namespace, ())):
            scope = (segment, namespace)
            numbers = self._numbers(scope)
            self._scopes[scope] = _Candidates()
            self._doubled.discard(scope)
            leaving: list[tuple[frozenset[LabelRequirement], dict[Labels, set[PodKey]]]] = []
            for number in numbers:
                leaving += self._split(self._classes[number], in_use)
                self._list(self._classes[number])
            for yes, members in leaving:
                try:
                    target = self._lowest_fit(scope, yes) or self._new(scope, yes)
                except AddressError as error:
                    self._unassign(members, error)
                    continue
                for labels, pods in members.items():
                    for pod in pods:
                        self._add_member(pod, labels, target)
                    yield from pods

    def _unassign(self, members: Mapping[Labels, set[PodKey]], error: AddressError) -> None:
        for pod in (pod for pods in members.values() for pod in pods):
            del self._assignments[pod]
            self._unassigned[pod] = error

    def _numbers(self, scope: ClassScope) -> list[int]:
        candidates = self._scopes[scope]
        return sorted([number for numbers in candidates.complete.values() for number in numbers] + candidates.partial)

    def _split(
        self, klass: _Class, in_use: frozenset[LabelRequirement]
    ) -> list[tuple[frozenset[LabelRequirement], dict[Labels, set[PodKey]]]]:
        """Gives `klass` the matches of the pods that keep it; returns the other pods by what they match."""
        added = sorted(in_use - klass.yes - klass.no, key=requirement_sort_key)
        klass.yes, klass.no = klass.yes & in_use, klass.no & in_use
        parts: dict[frozenset[LabelRequirement], dict[Labels, set[PodKey]]] = {}
        for labels, pods in klass.members.items():
            parts.setdefault(frozenset(requirement for requirement in added if requirement.matches(labels)), {})[
                labels
            ] = pods
        if not parts:
            return []
        # Ordered requirement by requirement, no before yes: the first part keeps the number.
        first, *rest = sorted(parts, key=lambda part: [requirement in part for requirement in added])
        base = klass.yes
        klass.members = parts[first]
        klass.yes, klass.no = base | first, in_use - base - first
        self._publish(klass)
        return [(base | part, parts[part]) for part in rest]

    def _all_pins(self) -> Iterator[tuple[PodKey, int]]:
        yield from self._pins.items()
        for scope in sorted(self._doubled):
            for numbers in self._scopes[scope].complete.values():
                for number in numbers[1:]:
                    yield from ((pod, number) for pods in self._classes[number].members.values() for pod in pods)
