"""Allocates classes for pods, and makes the class set of each namespace."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from romana_ovs.engine.changes import changed_keys
from romana_ovs.engine.class_members import ClassMembers
from romana_ovs.engine.endpoints import NumberedPod
from romana_ovs.engine.lifecycle import RequirementLifecycle
from romana_ovs.engine.policy_index import LabelRequirements, RuleSet
from romana_ovs.engine.tombstones import ClassTombstone, ClassTombstones
from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.published import ClassSet, Published, Stage
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Matches = dict[int, frozenset[LabelRequirement]]


class ClassRegistry:
    """The classes of one leadership term, and a class set of each namespace."""

    def __init__(self, before: Published, now: int) -> None:
        """Begins with what was published `before`; none of it counts as acknowledged before revision `now`."""
        self._allocator = ClassAllocator.of(record_of(before))
        saved = [
            ClassTombstone(segment, name, labels)
            for name, classes in before.namespaces.items()
            for segment, labels in classes.tombstones
        ]
        self._tombstones = ClassTombstones(self._allocator, saved)
        self._members = ClassMembers(self._allocator, self._tombstones)
        self._published: Mapping[str, ClassSet] = before.namespaces
        self._pending: dict[int, tuple[str, float]] = {
            number: (name, now) for name, classes in before.namespaces.items() for number in classes.pending
        }
        self._published_in: dict[int, int] = {}
        self._replaced: dict[int, tuple[str, int]] = {}
        self._retiring = {
            number: (name, now) for name, classes in before.namespaces.items() for number in classes.retiring
        }
        self._retired = {
            number: (name, now) for name, classes in before.namespaces.items() for number in classes.retired
        }
        self._from_base = frozenset(number for classes in before.namespaces.values() for number in classes.classes)
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._matches: dict[str, Matches] = {}
        for number, (name, _) in self._retiring.items():
            self._matches.setdefault(name, {})[number] = before.namespaces[name].classes[number]
        self._tombstones_by_namespace = self._tombstones.by_namespace()
        self._tombstone_changes = self._tombstones.changes
        self._overrides: dict[str, dict[PodKey, int]] = {}
        self._next: Mapping[int, int] = MappingProxyType({})
        self.freed = 0
        """Counts the numbers that became free: while it is the same, a pod that got none would get none again."""
        self._reserve()

    @property
    def published(self) -> Mapping[str, ClassSet]:
        """The class set of every namespace that has one: the identical mapping until one changes."""
        return self._published

    @property
    def namespaces(self) -> Collection[str]:
        """The namespaces in which pods may have a class by now."""
        return {name for name, classes in self._published.items() if classes.classes}

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment number."""
        now = self._allocator.next
        if now != self._next:
            self._next = MappingProxyType(dict(sorted(now.items())))
        return self._next

    @property
    def pending(self) -> bool:
        """Whether a class is pending, being replaced or retiring, or a number retired."""
        return bool(self._pending or self._replaced or self._retiring or self._retired)

    def matches(self, pod: NumberedPod, *, before: int) -> Mapping[int, frozenset[LabelRequirement]]:
        """The matching requirements of each class that `pod` may have got in a revision before `before`."""
        classes = self._matches.get(pod.pod.namespace, {})
        return {
            number: matching
            for number, matching in classes.items()
            if segment_of(number) == pod.number and self._published_in.get(number, 0) < before
        }

    def published_before(self, namespace: str, *, before: int) -> Collection[int]:
        """The classes of a namespace that some pod may have got in a revision before `before`."""
        return [number for number in self._matches.get(namespace, {}) if self._published_in.get(number, 0) < before]

    def renumber(self, numbers: Collection[int]) -> None:
        """Replaces these classes by ones with other numbers, step by step; replaced or deleted ones are skipped.

        Raises AddressError when a segment has no class number left.
        """
        for number in sorted(set(numbers) & self._allocator.classes.keys() - self._replaced.keys()):
            name = self._classes[number].namespace
            matching = self._matches[name][number]
            self._members.renumber(number)
            replacement = next(
                other
                for other, info in self._allocator.classes.items()
                if other not in self._classes
                and info.namespace == name
                and segment_of(other) == segment_of(number)
                and matching == _matching(info)
            )
            self._replaced[number] = (name, replacement)
            self._pending[replacement] = (name, math.inf)

    def refine(self, rules: RuleSet, requirements: LabelRequirements) -> Mapping[PodKey, AddressError]:
        """Sets the `requirements` that classes distinguish. Returns the pods for which no class is left, and why."""
        return self._members.refine(rules, requirements)

    def assign(self, key: PodKey, pod: NumberedPod) -> None:
        """Assigns `pod` its class. Raises AddressError when its segment has no class number left."""
        self._members.assign(key, pod)

    def forget(self, key: PodKey) -> None:
        """Removes a pod."""
        self._members.forget(key)

    def drop_unclaimed(self) -> None:
        """Drops the classes of before this term that no pod has; to be called once every pod has been assigned."""
        self._members.drop_unclaimed()

    def publish(
        self, stages: RequirementLifecycle, *, epoch: int, now: int, acknowledged: float, acknowledged_by_all: float
    ) -> None:
        """Makes the class sets of revision `now`.

        Every node that is not lagging has acknowledged revision `acknowledged`: classes published by then are no longer
        pending. Numbers retired by the revision `acknowledged_by_all` are free.
        """
        # A pod that comes back gets the lowest class that matches: no tombstone needs to keep another one.
        self._tombstones.discard(self._allocator.overrides)
        changed_namespaces = stages.touched()
        self._expire_acknowledged(acknowledged, acknowledged_by_all, changed_namespaces, now=now)
        self._sync_allocator(now, changed_namespaces)
        self._sync_tombstones(changed_namespaces)
        self._reserve()
        updated = {name: self._class_set(name, stages, epoch=epoch, now=now) for name in changed_namespaces}
        if any(self._published.get(name) is not new for name, new in updated.items()):
            class_sets = {name: new for name, new in {**self._published, **updated}.items() if new is not None}
            self._published = MappingProxyType(dict(sorted(class_sets.items())))

    def _expire_acknowledged(
        self, acknowledged: float, acknowledged_by_all: float, changed_namespaces: set[str], *, now: int
    ) -> None:
        """Advances what waited for an acknowledgement: pending, replaced, retiring and retired classes."""
        for number in [number for number, (_, since) in self._pending.items() if since <= acknowledged]:
            changed_namespaces.add(self._pending.pop(number)[0])
        for number in [
            number for number, (_, replacement) in self._replaced.items() if replacement not in self._pending
        ]:
            name, _ = self._replaced.pop(number)
            self._retiring[number] = (name, now)
            changed_namespaces.add(name)
        for number in [number for number, (_, since) in self._retiring.items() if since <= acknowledged]:
            name, _ = self._retiring.pop(number)
            del self._matches[name][number]
            self._retired[number] = (name, now)
            changed_namespaces.add(name)
        for number in [number for number, (_, since) in self._retired.items() if since <= acknowledged_by_all]:
            changed_namespaces.add(self._retired.pop(number)[0])
            self.freed += 1

    def _sync_allocator(self, now: int, changed_namespaces: set[str]) -> None:
        """Compares with the allocator: new classes are pending, deleted ones retired."""
        old, new = self._classes, self._allocator.classes
        if new is old:
            return
        for number in old.keys() - new.keys():
            name = old[number].namespace
            if number not in self._replaced:
                self._pending.pop(number, None)
                self._published_in.pop(number, None)
                self._retired[number] = (name, now)
                del self._matches[name][number]
                changed_namespaces.add(name)
        for number, info in new.items():
            previous = old.get(number)
            if previous is not info:
                if previous is None and number not in self._from_base:
                    self._pending[number] = (info.namespace, now)
                    self._published_in[number] = now
                self._retired.pop(number, None)
                self._matches.setdefault(info.namespace, {})[number] = _matching(info)
                changed_namespaces.add(info.namespace)
        for number in self._from_base - new.keys() - self._retiring.keys():
            # It was published before this term, and no pod has it now.
            name = next(name for name, classes in self._published.items() if number in classes.classes)
            self._pending.pop(number, None)
            self._retired[number] = (name, now)
            changed_namespaces.add(name)
        self._from_base = frozenset()
        self._classes = new

    def _sync_tombstones(self, changed_namespaces: set[str]) -> None:
        """Sorts tombstones and overrides by namespace."""
        if self._tombstones.changes != self._tombstone_changes:
            tombstones = self._tombstones.by_namespace()
            changed_namespaces |= changed_keys(self._tombstones_by_namespace, tombstones)
            self._tombstones_by_namespace, self._tombstone_changes = tombstones, self._tombstones.changes
        overrides: dict[str, dict[PodKey, int]] = {}
        for pod, number in self._allocator.overrides.items():
            if pod not in self._tombstones:
                overrides.setdefault(self._classes[number].namespace, {})[pod] = number
        changed_namespaces |= changed_keys(self._overrides, overrides)
        self._overrides = overrides

    def _class_set(self, name: str, stages: RequirementLifecycle, *, epoch: int, now: int) -> ClassSet | None:
        """The class set of a namespace: the identical object while nothing in it changed, None for an empty one."""
        old, requirements, classes = self._published.get(name), stages.of(name), self._matches.get(name, {})
        introducing = old is not None and any(stage is Stage.INTRODUCED for stage in requirements.values())
        overrides = _kept_overrides(old, classes) if introducing and old is not None else self._overrides.get(name, {})
        new = ClassSet(
            namespace=name,
            requirements=MappingProxyType(
                {
                    requirement: requirements[requirement]
                    for requirement in sorted(requirements, key=requirement_sort_key)
                }
            ),
            classes=MappingProxyType(dict(sorted(classes.items()))),
            pending=frozenset(number for number in classes if number in self._pending),
            retiring=frozenset(number for number in classes if number in self._retiring),
            overrides=MappingProxyType(dict(sorted(overrides.items()))),
            tombstones=self._tombstones_by_namespace.get(name, ()),
            retired=frozenset(number for number, (namespace, _) in self._retired.items() if namespace == name),
            epoch=old.epoch if old is not None else epoch,
            revision=old.revision if old is not None else now,
        )
        if new.empty:
            return None
        return old if old == new else replace(new, epoch=epoch, revision=now)

    def _reserve(self) -> None:
        self._allocator.reserve(frozenset({*self._retired, *self._replaced, *self._retiring}))


def _matching(info: ClassInfo) -> frozenset[LabelRequirement]:
    return frozenset(requirement for requirement, holds in info.matches.items() if holds)


def _kept_overrides(old: ClassSet, classes: Matches) -> dict[PodKey, int]:
    """The overrides of before, which count until pods use the new classes."""
    return {pod: number for pod, number in old.overrides.items() if number in classes}


def record_of(before: Published) -> ClassRecord:
    """The record that restores the class allocator of what was published `before`."""
    entries = tuple(
        ClassEntry(number, name, matching, frozenset(classes.requirements) - matching)
        for name, classes in before.namespaces.items()
        for number, matching in classes.classes.items()
        if number not in classes.retiring
    )
    overrides = {pod: number for classes in before.namespaces.values() for pod, number in classes.overrides.items()}
    asked = {
        name: frozenset(classes.requirements) for name, classes in before.namespaces.items() if classes.requirements
    }
    return ClassRecord(asked, dict(before.next_class), entries, overrides)
