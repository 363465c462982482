"""Allocates identities for classes: what policies can distinguish inside a segment keeps its identity.

A class is one combination of segment, namespace and matches of the requirements used there. Its identity has 32 bits:
the number of the segment, and the class number (docs/dataplane.md, "Identity"). `ClassAllocator` is the only stateful
part of this package, as it has to remember the identities in use. It does no I/O, and equal calls in equal order
allocate equal identities.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType

from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import CLASS_MASK, identity, segment_of
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement

FIRST_CLASS = 1
NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()
ClassScope = tuple[int, str]
"""(segment, namespace): a pod gets one of the classes of its scope."""


@dataclass(slots=True, eq=False)
class _Class:
    """A class and its pods by label set. They match the requirements `matching`, and do not match `not_matching`."""

    identity: int
    scope: ClassScope
    matching: frozenset[LabelRequirement]
    not_matching: frozenset[LabelRequirement]
    members: dict[Labels, set[PodKey]] = field(default_factory=dict)

    def info(self) -> ClassInfo:
        matches = dict.fromkeys(self.matching, True) | dict.fromkeys(self.not_matching, False)
        ordered = {requirement: matches[requirement] for requirement in sorted(matches, key=requirement_sort_key)}
        return ClassInfo(self.scope[1], MappingProxyType(ordered))


@dataclass(slots=True, eq=False)
class _Candidates:
    """The classes of one scope by what they match, and restored ones that lack the match of some requirement."""

    complete: dict[frozenset[LabelRequirement], list[int]] = field(default_factory=dict)
    partial: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Assignment:
    """The class of a pod, and the properties that led to it."""

    scope: ClassScope
    labels: Labels
    assigned_class: _Class


class ClassAllocator:
    """The class of each pod. Every class has a match for exactly the requirements in use in its namespace.

    Restored classes have no pods yet: they stay hidden, and their identities reserved, until a pod that fits claims
    them or `drop_unclaimed` drops them.
    """

    def __init__(self) -> None:
        self._requirements: dict[str, frozenset[LabelRequirement]] = {}
        self._next: dict[int, int] = {}
        self._classes: dict[int, _Class] = {}
        self._scopes: dict[ClassScope, _Candidates] = {}
        self._segments_of: dict[str, set[int]] = {}
        self._assignments: dict[PodKey, _Assignment] = {}
        self._overrides: dict[PodKey, int] = {}
        self._ambiguous_scopes: set[ClassScope] = set()
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
        return self._assignments[pod].assigned_class.identity

    def reserve(self, identities: frozenset[int]) -> None:
        """Replaces the identities that must not be allocated, because some node may still know them."""
        self._reserved = identities

    def set_requirements(self, requirements: Mapping[str, frozenset[LabelRequirement]]) -> frozenset[PodKey]:
        """Replaces the requirements in use by namespace, and returns the pods whose identity changed.

        A class splits if its pods differ in a new requirement: those that do not match keep the identity. If the
        segment has no class number left, the others lose their class and come out of `drain_unassigned`.
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

        It changes only if its class does not fit any more. Raises AddressError when the segment has no class number
        left.
        """
        scope = (segment, namespace)
        assignment = self._assignments.get(pod)
        if assignment is not None and assignment.scope == scope and assignment.labels == labels:
            return assignment.assigned_class.identity
        matching = self._matches(namespace, labels)
        if assignment is not None and assignment.scope == scope and assignment.assigned_class.matching == matching:
            target = assignment.assigned_class
        else:
            target = (
                self._overriding_class(pod, scope, matching)
                or self._lowest_fit(scope, matching)
                or self._new(scope, matching)
            )
        if assignment is not None:
            self._remove_member(pod, assignment, staying=target)
        self._add_member(pod, labels, target)
        return target.identity

    def renumber(self, class_identity: int) -> tuple[int, frozenset[PodKey]]:
        """Gives the class another identity; returns that, and its pods. Raises AddressError as `assign`."""
        old = self._classes[class_identity]
        new = self._new(old.scope, old.matching)
        for labels, pods in old.members.items():
            for pod in pods:
                self._add_member(pod, labels, new)
        old.members = {}
        self._drop(old)
        return new.identity, frozenset(pod for pods in new.members.values() for pod in pods)

    def forget(self, pod: PodKey) -> None:
        """Drops `pod`, and its class with the last pod. Unknown pods are ignored."""
        self._overrides.pop(pod, None)
        assignment = self._assignments.pop(pod, None)
        if assignment is not None:
            self._remove_member(pod, assignment, staying=None)

    def drop_unclaimed(self) -> None:
        """Drops the restored classes that no pod claimed, after every pod was assigned."""
        self._overrides.clear()
        for klass in [klass for klass in self._classes.values() if not klass.members]:
            self._drop(klass)

    @property
    def record(self) -> ClassRecord:
        """The state by which `ClassAllocator.of` gives every pod its identity again.

        It names a pod only if the rule "lowest identity that fits" would not find its class.
        """
        entries = (
            ClassEntry(class_identity, klass.scope[1], klass.matching, klass.not_matching)
            for class_identity, klass in sorted(self._classes.items())
        )
        return ClassRecord(dict(self._requirements), dict(self._next), tuple(entries), self.overrides)

    @property
    def overrides(self) -> dict[PodKey, int]:
        """The pods whose class is not the one with the lowest identity that fits, with its identity."""
        return dict(self._all_overrides())

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment."""
        return MappingProxyType(self._next)

    @classmethod
    def of(cls, record: ClassRecord) -> ClassAllocator:
        """The allocator with the state of `record`."""
        allocator = cls()
        allocator._requirements.update(record.requirements)
        allocator._next.update(record.next)
        allocator._overrides.update(record.overrides)
        for entry in record.classes:
            in_use = allocator._requirements.get(entry.namespace, NO_REQUIREMENTS)
            scope = (segment_of(entry.identity), entry.namespace)
            allocator._add(_Class(entry.identity, scope, entry.matching & in_use, entry.not_matching & in_use))
        return allocator

    def _matches(self, namespace: str, labels: Labels) -> frozenset[LabelRequirement]:
        return frozenset(
            requirement
            for requirement in self._requirements.get(namespace, NO_REQUIREMENTS)
            if requirement.matches(labels)
        )

    def _overriding_class(self, pod: PodKey, scope: ClassScope, matching: frozenset[LabelRequirement]) -> _Class | None:
        """The class that an override restored for this pod, if it fits."""
        klass = self._classes.get(self._overrides.pop(pod, 0))
        if klass is None or klass.scope != scope or not self._fits(klass, matching):
            return None
        return self._completed(klass, matching)

    def _lowest_fit(self, scope: ClassScope, matching: frozenset[LabelRequirement]) -> _Class | None:
        """The class of `scope` with the lowest identity for a pod that matches exactly `matching`."""
        candidates = self._scopes.get(scope)
        if candidates is None:
            return None
        if matching in candidates.complete:
            return self._classes[candidates.complete[matching][0]]
        for class_identity in candidates.partial:
            if self._fits(self._classes[class_identity], matching):
                return self._completed(self._classes[class_identity], matching)
        return None

    @staticmethod
    def _fits(klass: _Class, matching: frozenset[LabelRequirement]) -> bool:
        return klass.matching <= matching and not klass.not_matching & matching

    def _completed(self, klass: _Class, matching: frozenset[LabelRequirement]) -> _Class:
        """`klass`, with a match for all requirements in use."""
        if klass.matching != matching or not self._complete(klass):
            self._unindex(klass)
            klass.matching, klass.not_matching = (
                matching,
                self._requirements.get(klass.scope[1], NO_REQUIREMENTS) - matching,
            )
            self._index(klass)
        return klass

    def _complete(self, klass: _Class) -> bool:
        return len(klass.matching) + len(klass.not_matching) == len(
            self._requirements.get(klass.scope[1], NO_REQUIREMENTS)
        )

    def _new(self, scope: ClassScope, matching: frozenset[LabelRequirement]) -> _Class:
        class_identity = self._free_identity(scope[0])
        klass = _Class(class_identity, scope, matching, self._requirements.get(scope[1], NO_REQUIREMENTS) - matching)
        self._add(klass)
        return klass

    def _free_identity(self, segment: int) -> int:
        start = self._next.get(segment, FIRST_CLASS)
        for step in range(CLASS_MASK):
            class_number = (start - FIRST_CLASS + step) % CLASS_MASK + FIRST_CLASS
            class_identity = identity(segment, class_number)
            if class_identity not in self._classes and class_identity not in self._reserved:
                self._next[segment] = class_number % CLASS_MASK + FIRST_CLASS
                return class_identity
        raise AddressError(f"segment {segment} has all of its {CLASS_MASK} classes in use")

    def _add(self, klass: _Class) -> None:
        self._classes[klass.identity] = klass
        self._segments_of.setdefault(klass.scope[1], set()).add(klass.scope[0])
        self._scopes.setdefault(klass.scope, _Candidates())
        self._index(klass)

    def _drop(self, klass: _Class) -> None:
        del self._classes[klass.identity]
        self._unindex(klass)
        candidates = self._scopes[klass.scope]
        if not candidates.complete and not candidates.partial:
            del self._scopes[klass.scope]
            self._ambiguous_scopes.discard(klass.scope)
            self._segments_of[klass.scope[1]].discard(klass.scope[0])
        if self._infos.pop(klass.identity, None) is not None:
            self._frozen = None

    def _index(self, klass: _Class) -> None:
        candidates = self._scopes[klass.scope]
        if self._complete(klass):
            identities = candidates.complete.setdefault(klass.matching, [])
            insort(identities, klass.identity)
            if len(identities) > 1:
                self._ambiguous_scopes.add(klass.scope)
        else:
            insort(candidates.partial, klass.identity)

    def _unindex(self, klass: _Class) -> None:
        candidates = self._scopes[klass.scope]
        if klass.identity in candidates.partial:
            candidates.partial.remove(klass.identity)
            return
        identities = candidates.complete[klass.matching]
        identities.remove(klass.identity)
        if not identities:
            del candidates.complete[klass.matching]

    def _add_member(self, pod: PodKey, labels: Labels, target: _Class) -> None:
        target.members.setdefault(labels, set()).add(pod)
        self._assignments[pod] = _Assignment(target.scope, labels, target)
        if target.identity not in self._infos:
            self._update_info(target)

    def _remove_member(self, pod: PodKey, assignment: _Assignment, *, staying: _Class | None) -> None:
        members = assignment.assigned_class.members
        members[assignment.labels].discard(pod)
        if not members[assignment.labels]:
            del members[assignment.labels]
        if not members and assignment.assigned_class is not staying:
            self._drop(assignment.assigned_class)

    def _update_info(self, klass: _Class) -> None:
        self._infos[klass.identity] = klass.info()
        self._frozen = None

    def _split_classes(self, namespace: str, in_use: frozenset[LabelRequirement]) -> Iterator[PodKey]:
        """Splits the classes of `namespace` by its requirements `in_use`; yields the pods that changed class."""
        self._requirements[namespace] = in_use
        for segment in sorted(self._segments_of.get(namespace, ())):
            scope = (segment, namespace)
            identities = self._identities(scope)
            self._scopes[scope] = _Candidates()
            self._ambiguous_scopes.discard(scope)
            leaving: list[tuple[frozenset[LabelRequirement], dict[Labels, set[PodKey]]]] = []
            for class_identity in identities:
                leaving += self._split(self._classes[class_identity], in_use)
                self._index(self._classes[class_identity])
            for matching, members in leaving:
                try:
                    target = self._lowest_fit(scope, matching) or self._new(scope, matching)
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

    def _identities(self, scope: ClassScope) -> list[int]:
        candidates = self._scopes[scope]
        return sorted([*chain.from_iterable(candidates.complete.values()), *candidates.partial])

    def _split(
        self, klass: _Class, in_use: frozenset[LabelRequirement]
    ) -> list[tuple[frozenset[LabelRequirement], dict[Labels, set[PodKey]]]]:
        """Gives `klass` the matches of the pods that keep it; returns the other pods by what they match."""
        added = sorted(in_use - klass.matching - klass.not_matching, key=requirement_sort_key)
        klass.matching, klass.not_matching = klass.matching & in_use, klass.not_matching & in_use
        parts: dict[frozenset[LabelRequirement], dict[Labels, set[PodKey]]] = {}
        for labels, pods in klass.members.items():
            parts.setdefault(frozenset(requirement for requirement in added if requirement.matches(labels)), {})[
                labels
            ] = pods
        if not parts:
            return []
        # Ordered requirement by requirement, not matching before matching: the first part keeps the identity.
        first, *rest = sorted(parts, key=lambda part: [requirement in part for requirement in added])
        base = klass.matching
        klass.members = parts[first]
        klass.matching, klass.not_matching = base | first, in_use - base - first
        self._update_info(klass)
        return [(base | part, parts[part]) for part in rest]

    def _all_overrides(self) -> Iterator[tuple[PodKey, int]]:
        yield from self._overrides.items()
        for scope in sorted(self._ambiguous_scopes):
            for identities in self._scopes[scope].complete.values():
                for class_identity in identities[1:]:
                    members = self._classes[class_identity].members
                    yield from ((pod, class_identity) for pods in members.values() for pod in pods)
