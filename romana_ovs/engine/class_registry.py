"""Gives classes to pods, and publishes the class set of each namespace."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from romana_ovs.engine.changes import changed_keys
from romana_ovs.engine.endpoints import Identified
from romana_ovs.engine.identities import Identities
from romana_ovs.engine.lifecycle import RequirementLifecycle
from romana_ovs.engine.policy_index import LabelRequirements, RuleSet
from romana_ovs.engine.tombstones import ClassTombstones
from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.published import ClassSet, Published, Stage
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Answers = dict[int, frozenset[LabelRequirement]]


class ClassRegistry:
    """Gives classes to pods, and makes a class set of each namespace's."""

    def __init__(self, before: Published, now: int) -> None:
        """Those that were published `before`; nothing of them was acknowledged before revision `now`."""
        self._allocator = ClassAllocator.of(record_of(before))
        saved = [
            [segment, name, dict(labels)]
            for name, classes in before.namespaces.items()
            for segment, labels in classes.tombstones
        ]
        self._remnants = ClassTombstones(self._allocator, saved)
        self._identities = Identities(self._allocator, self._remnants)
        self._published: Mapping[str, ClassSet] = before.namespaces
        self._coming: dict[int, tuple[str, float]] = {
            number: (name, now) for name, each in before.namespaces.items() for number in each.pending
        }
        self._born: dict[int, int] = {}
        self._leaving: dict[int, tuple[str, int]] = {}
        self._going = {number: (name, now) for name, each in before.namespaces.items() for number in each.retiring}
        self._retired = {number: (name, now) for name, each in before.namespaces.items() for number in each.retired}
        self._known = frozenset(number for each in before.namespaces.values() for number in each.classes)
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._answers: dict[str, Answers] = {}
        for number, (name, _) in self._going.items():
            self._answers.setdefault(name, {})[number] = before.namespaces[name].classes[number]
        self._left = self._remnants.by_namespace()
        self._seen = self._remnants.changes
        self._pins: dict[str, dict[PodKey, int]] = {}
        self._next: Mapping[int, int] = MappingProxyType({})
        self.freed = 0
        """Counts the numbers that may be given again: while it stands still, who got none would get none again."""
        self._reserve()

    @property
    def published(self) -> Mapping[str, ClassSet]:
        """The class set of every namespace that has one: the same object until one changes."""
        return self._published

    @property
    def namespaces(self) -> Collection[str]:
        """The namespaces in which pods may wear a class by now."""
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
        """Whether some class is coming still, or a number retired."""
        return bool(self._coming or self._leaving or self._going or self._retired)

    def answers(self, pod: Identified, *, before: int) -> Mapping[int, frozenset[LabelRequirement]]:
        """What holds for each of the classes that `pod` may have come to wear in a revision `before` this one."""
        classes = self._answers.get(pod.pod.namespace, {})
        return {
            number: yes
            for number, yes in classes.items()
            if segment_of(number) == pod.number and self._born.get(number, 0) < before
        }

    def older(self, namespace: str, *, before: int) -> Collection[int]:
        """The classes of a namespace that some pod may have come to wear in a revision `before` this one."""
        return [number for number in self._answers.get(namespace, {}) if self._born.get(number, 0) < before]

    def renumber(self, numbers: Collection[int]) -> None:
        """Gives these classes other numbers, step by step; those that are on their way, or gone by now, go on."""
        for number in sorted(set(numbers) & self._allocator.classes.keys() - self._leaving.keys()):
            name, yes = self._classes[number].namespace, self._answers[self._classes[number].namespace][number]
            self._identities.renumber(number)
            successor = next(
                each
                for each, info in self._allocator.classes.items()
                if each not in self._classes
                and info.namespace == name
                and segment_of(each) == segment_of(number)
                and yes == _yes(info)
            )
            self._leaving[number] = (name, successor)
            self._coming[successor] = (name, math.inf)

    def refine(self, rules: RuleSet, requirements: LabelRequirements) -> Mapping[PodKey, AddressError]:
        """Takes `requirements` as what classes answer. Returns the pods for which no class is left, and why."""
        return self._identities.refine(rules, requirements)

    def assign(self, key: PodKey, pod: Identified) -> None:
        """Takes `pod` as what it is now. Raises AddressError when its segment has no class number left."""
        self._identities.assign(key, pod)

    def forget(self, key: PodKey) -> None:
        """The pod is gone."""
        self._identities.forget(key)

    def settle(self) -> None:
        """Every pod has been assigned: what nobody claimed goes."""
        self._identities.forget_unclaimed()

    def publish(self, stages: RequirementLifecycle, *, epoch: int, now: int, reached: float, everybody: float) -> None:
        """Makes the class sets of revision `now`.

        Nodes that count have acknowledged `reached`: what came before is not coming any more. What was retired
        before the revision that `everybody` has is free.
        """
        # Who comes back takes the lowest class that fits: a remnant of another one keeps that for nobody.
        self._remnants.let_go(self._allocator.pins)
        dirty = stages.touched()
        self._expire_acknowledged(reached, everybody, dirty, now=now)
        self._follow_book(now, dirty)
        self._sync_tombstones(dirty)
        self._reserve()
        made = {name: self._made(name, stages, epoch=epoch, now=now) for name in dirty}
        if any(self._published.get(name) is not new for name, new in made.items()):
            whole = {name: new for name, new in {**self._published, **made}.items() if new is not None}
            self._published = MappingProxyType(dict(sorted(whole.items())))

    def _expire_acknowledged(self, reached: float, everybody: float, dirty: set[str], *, now: int) -> None:
        """Ends what nodes have acknowledged."""
        for number in [number for number, (_, since) in self._coming.items() if since <= reached]:
            dirty.add(self._coming.pop(number)[0])
        for number in [number for number, (_, successor) in self._leaving.items() if successor not in self._coming]:
            name, _ = self._leaving.pop(number)
            self._going[number] = (name, now)
            dirty.add(name)
        for number in [number for number, (_, since) in self._going.items() if since <= reached]:
            name, _ = self._going.pop(number)
            del self._answers[name][number]
            self._retired[number] = (name, now)
            dirty.add(name)
        for number in [number for number, (_, since) in self._retired.items() if since <= everybody]:
            dirty.add(self._retired.pop(number)[0])
            self.freed += 1

    def _follow_book(self, now: int, dirty: set[str]) -> None:
        """Takes over what the allocator says now: new classes are coming, gone ones retired."""
        old, new = self._classes, self._allocator.classes
        if new is old:
            return
        for number in old.keys() - new.keys():
            name = old[number].namespace
            if number not in self._leaving:
                self._coming.pop(number, None)
                self._born.pop(number, None)
                self._retired[number] = (name, now)
                del self._answers[name][number]
                dirty.add(name)
        for number, info in new.items():
            was = old.get(number)
            if was is not info:
                if was is None and number not in self._known:
                    self._coming[number] = (info.namespace, now)
                    self._born[number] = now
                self._retired.pop(number, None)
                self._answers.setdefault(info.namespace, {})[number] = _yes(info)
                dirty.add(info.namespace)
        for number in self._known - new.keys() - self._going.keys():
            # It was published before this term, and nobody has claimed it since.
            name = next(name for name, each in self._published.items() if number in each.classes)
            self._coming.pop(number, None)
            self._retired[number] = (name, now)
            dirty.add(name)
        self._known = frozenset()
        self._classes = new

    def _sync_tombstones(self, dirty: set[str]) -> None:
        """ClassTombstones and pins of the allocator, by namespace."""
        if self._remnants.changes != self._seen:
            remnants = self._remnants.by_namespace()
            dirty |= changed_keys(self._left, remnants)
            self._left, self._seen = remnants, self._remnants.changes
        pins: dict[str, dict[PodKey, int]] = {}
        for pod, number in self._allocator.pins.items():
            if pod not in self._remnants:
                pins.setdefault(self._classes[number].namespace, {})[pod] = number
        dirty |= changed_keys(self._pins, pins)
        self._pins = pins

    def _made(self, name: str, stages: RequirementLifecycle, *, epoch: int, now: int) -> ClassSet | None:
        """The class set of a namespace: the same object while nothing in it changed, None when there is nothing."""
        old, requirements, classes = self._published.get(name), stages.of(name), self._answers.get(name, {})
        fresh = old is not None and any(stage is Stage.INTRODUCED for stage in requirements.values())
        pinned = _kept(old, classes) if fresh and old is not None else self._pins.get(name, {})
        new = ClassSet(
            namespace=name,
            requirements=MappingProxyType(
                {
                    requirement: requirements[requirement]
                    for requirement in sorted(requirements, key=requirement_sort_key)
                }
            ),
            classes=MappingProxyType(dict(sorted(classes.items()))),
            pending=frozenset(number for number in classes if number in self._coming),
            retiring=frozenset(number for number in classes if number in self._going),
            overrides=MappingProxyType(dict(sorted(pinned.items()))),
            tombstones=self._left.get(name, ()),
            retired=frozenset(number for number, (home, _) in self._retired.items() if home == name),
            epoch=old.epoch if old is not None else epoch,
            revision=old.revision if old is not None else now,
        )
        if new.empty:
            return None
        return old if old == new else replace(new, epoch=epoch, revision=now)

    def _reserve(self) -> None:
        self._allocator.reserve(frozenset({*self._retired, *self._leaving, *self._going}))


def _yes(info: ClassInfo) -> frozenset[LabelRequirement]:
    return frozenset(requirement for requirement, holds in info.matches.items() if holds)


def _kept(old: ClassSet, classes: Answers) -> dict[PodKey, int]:
    """While pods do not go by what is new, they are pinned as they were."""
    return {pod: number for pod, number in old.overrides.items() if number in classes}


def record_of(before: Published) -> ClassRecord:
    """The allocator of classes that was published `before`, as it is written down."""
    entries = tuple(
        ClassEntry(number, name, yes, frozenset(classes.requirements) - yes)
        for name, classes in before.namespaces.items()
        for number, yes in classes.classes.items()
        if number not in classes.retiring
    )
    pins = {pod: number for classes in before.namespaces.values() for pod, number in classes.overrides.items()}
    asked = {
        name: frozenset(classes.requirements) for name, classes in before.namespaces.items() if classes.requirements
    }
    return ClassRecord(asked, dict(before.next_class), entries, pins)
