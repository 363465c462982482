"""Allocates classes for pods, and makes the class set of each namespace.

A class passes these states; an arrow waits for what is written at it (`_expire_acknowledged`):

    new -> pending ----> in use ----> [no pod and no tombstone] ----> retired ----> free
             all nodes know it                                   ^     no node has it in its tables
                                                                 |
    renumbered: replaced ----------> retiring -------------------'
                 the new class is    all nodes use the new one
                 not pending any more

In class sets a replaced class is like one in use: `pending`, `retiring` and `retired` are published. *All nodes* are
those that are not lagging; a number becomes free only when the lagging ones have acknowledged, too.
"""

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
from romana_ovs.engine.tombstones import ClassInputs, ClassTombstones
from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.requirements import requirement_sort_key
from romana_ovs.policy.view import ClassInfo, LabelRequirement
from romana_ovs.registry_types.published import ClassSet, Published, Stage

Matches = dict[int, frozenset[LabelRequirement]]


class ClassRegistry:
    """The classes of one leadership term, and a class set of each namespace."""

    def __init__(self, base: Published, revision: int) -> None:
        """Begins with the numbers of `base`; none of it counts as acknowledged before `revision`."""
        self._allocator = ClassAllocator.of(record_of(base))
        saved = [
            ClassInputs(segment, namespace, labels)
            for namespace, class_set in base.class_sets.items()
            for segment, labels in class_set.tombstones
        ]
        self._tombstones = ClassTombstones(self._allocator, saved)
        self._members = ClassMembers(self._allocator, self._tombstones)
        self._published: Mapping[str, ClassSet] = base.class_sets
        self._pending: dict[int, tuple[str, float]] = {
            identity: (namespace, revision)
            for namespace, class_set in base.class_sets.items()
            for identity in class_set.pending
        }
        self._published_in: dict[int, int] = {}
        self._replaced: dict[int, tuple[str, int]] = {}
        self._retiring = {
            identity: (namespace, revision)
            for namespace, class_set in base.class_sets.items()
            for identity in class_set.retiring
        }
        self._retired = {
            identity: (namespace, revision)
            for namespace, class_set in base.class_sets.items()
            for identity in class_set.retired
        }
        self._base_classes = frozenset(
            identity for class_set in base.class_sets.values() for identity in class_set.classes
        )
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._matches: dict[str, Matches] = {}
        for identity, (namespace, _) in self._retiring.items():
            self._matches.setdefault(namespace, {})[identity] = base.class_sets[namespace].classes[identity]
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
        return {namespace for namespace, class_set in self._published.items() if class_set.classes}

    @property
    def next(self) -> Mapping[int, int]:
        """The class number to try next, by segment number."""
        current = self._allocator.next
        if current != self._next:
            self._next = MappingProxyType(dict(sorted(current.items())))
        return self._next

    @property
    def unsettled(self) -> bool:
        """Whether a class is pending, being replaced or retiring, or a number retired."""
        return bool(self._pending or self._replaced or self._retiring or self._retired)

    def classes_pod_may_have(
        self, pod: NumberedPod, *, published_before: int
    ) -> Mapping[int, frozenset[LabelRequirement]]:
        """The classes that `pod` may have got in a revision before this one, each with its matching requirements."""
        classes = self._matches.get(pod.pod.namespace, {})
        return {
            identity: matching
            for identity, matching in classes.items()
            if segment_of(identity) == pod.segment_number and self._published_in.get(identity, 0) < published_before
        }

    def published_before(self, namespace: str, *, revision: int) -> Collection[int]:
        """The classes of a namespace that some pod may have got before `revision`."""
        return [
            identity for identity in self._matches.get(namespace, {}) if self._published_in.get(identity, 0) < revision
        ]

    def renumber(self, identities: Collection[int]) -> None:
        """Replaces the classes with these identities by ones with others, step by step.

        Replaced or deleted ones are skipped.

        Raises AddressError when a segment has no class number left.
        """
        for identity in sorted(set(identities) & self._allocator.classes.keys() - self._replaced.keys()):
            namespace = self._classes[identity].namespace
            replacement = self._members.renumber(identity)
            self._replaced[identity] = (namespace, replacement)
            # Never acknowledged until `_sync_allocator` finds the new class, and sets the revision that publishes it.
            self._pending[replacement] = (namespace, math.inf)

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
        self,
        stages: RequirementLifecycle,
        *,
        epoch: int,
        revision: int,
        acknowledged: float,
        acknowledged_by_all: float,
    ) -> None:
        """Makes the class sets of `revision`.

        Every node that is not lagging has acknowledged revision `acknowledged`: classes published by then are no longer
        pending. Numbers retired by the revision `acknowledged_by_all` are free.
        """
        # A pod that comes back gets the lowest class that matches: no tombstone needs to keep another one.
        self._tombstones.discard(self._allocator.overrides)
        changed_namespaces = stages.take_changed_namespaces()
        self._expire_acknowledged(acknowledged, acknowledged_by_all, changed_namespaces, revision=revision)
        self._sync_allocator(revision, changed_namespaces)
        self._sync_tombstones(changed_namespaces)
        self._reserve()
        updated = {
            namespace: self._class_set(namespace, stages, epoch=epoch, revision=revision)
            for namespace in changed_namespaces
        }
        if any(self._published.get(namespace) is not new for namespace, new in updated.items()):
            class_sets = {
                namespace: new for namespace, new in {**self._published, **updated}.items() if new is not None
            }
            self._published = MappingProxyType(dict(sorted(class_sets.items())))

    def _expire_acknowledged(
        self, acknowledged: float, acknowledged_by_all: float, changed_namespaces: set[str], *, revision: int
    ) -> None:
        """Advances what waited for an acknowledgement: pending, replaced, retiring and retired classes."""
        for identity in [identity for identity, (_, since) in self._pending.items() if since <= acknowledged]:
            changed_namespaces.add(self._pending.pop(identity)[0])
        for identity in [
            identity for identity, (_, replacement) in self._replaced.items() if replacement not in self._pending
        ]:
            namespace, _ = self._replaced.pop(identity)
            self._retiring[identity] = (namespace, revision)
            changed_namespaces.add(namespace)
        for identity in [identity for identity, (_, since) in self._retiring.items() if since <= acknowledged]:
            namespace, _ = self._retiring.pop(identity)
            del self._matches[namespace][identity]
            self._retired[identity] = (namespace, revision)
            changed_namespaces.add(namespace)
        for identity in [identity for identity, (_, since) in self._retired.items() if since <= acknowledged_by_all]:
            changed_namespaces.add(self._retired.pop(identity)[0])
            self.freed += 1

    def _sync_allocator(self, revision: int, changed_namespaces: set[str]) -> None:
        """Compares with the allocator: new classes are pending, deleted ones retired."""
        old, new = self._classes, self._allocator.classes
        if new is old:
            return
        for identity in old.keys() - new.keys():
            namespace = old[identity].namespace
            if identity not in self._replaced:
                self._pending.pop(identity, None)
                self._published_in.pop(identity, None)
                self._retired[identity] = (namespace, revision)
                del self._matches[namespace][identity]
                changed_namespaces.add(namespace)
        for identity, info in new.items():
            previous = old.get(identity)
            if previous is not info:
                if previous is None and identity not in self._base_classes:
                    self._pending[identity] = (info.namespace, revision)
                    self._published_in[identity] = revision
                self._retired.pop(identity, None)
                self._matches.setdefault(info.namespace, {})[identity] = _matching(info)
                changed_namespaces.add(info.namespace)
        for identity in self._base_classes - new.keys() - self._retiring.keys():
            # It was published before this term, and no pod has it now.
            namespace = next(namespace for namespace, classes in self._published.items() if identity in classes.classes)
            self._pending.pop(identity, None)
            self._retired[identity] = (namespace, revision)
            changed_namespaces.add(namespace)
        self._base_classes = frozenset()
        self._classes = new

    def _sync_tombstones(self, changed_namespaces: set[str]) -> None:
        """Sorts tombstones and overrides by namespace."""
        if self._tombstones.changes != self._tombstone_changes:
            tombstones = self._tombstones.by_namespace()
            changed_namespaces |= changed_keys(self._tombstones_by_namespace, tombstones)
            self._tombstones_by_namespace, self._tombstone_changes = tombstones, self._tombstones.changes
        overrides: dict[str, dict[PodKey, int]] = {}
        for pod, identity in self._allocator.overrides.items():
            if pod not in self._tombstones:
                overrides.setdefault(self._classes[identity].namespace, {})[pod] = identity
        changed_namespaces |= changed_keys(self._overrides, overrides)
        self._overrides = overrides

    def _class_set(self, namespace: str, stages: RequirementLifecycle, *, epoch: int, revision: int) -> ClassSet | None:
        """The class set of a namespace: the identical object while nothing in it changed, None for an empty one."""
        old, requirements, classes = (
            self._published.get(namespace),
            stages.of(namespace),
            self._matches.get(namespace, {}),
        )
        introducing = old is not None and any(stage is Stage.INTRODUCED for stage in requirements.values())
        overrides = (
            _kept_overrides(old, classes) if introducing and old is not None else self._overrides.get(namespace, {})
        )
        new = ClassSet(
            namespace=namespace,
            requirements=MappingProxyType(
                {
                    requirement: requirements[requirement]
                    for requirement in sorted(requirements, key=requirement_sort_key)
                }
            ),
            classes=MappingProxyType(dict(sorted(classes.items()))),
            pending=frozenset(identity for identity in classes if identity in self._pending),
            retiring=frozenset(identity for identity in classes if identity in self._retiring),
            overrides=MappingProxyType(dict(sorted(overrides.items()))),
            tombstones=self._tombstones_by_namespace.get(namespace, ()),
            retired=frozenset(
                identity for identity, (retired_in, _) in self._retired.items() if retired_in == namespace
            ),
            epoch=old.epoch if old is not None else epoch,
            revision=old.revision if old is not None else revision,
        )
        if new.empty:
            return None
        return old if old == new else replace(new, epoch=epoch, revision=revision)

    def _reserve(self) -> None:
        self._allocator.reserve(frozenset({*self._retired, *self._replaced, *self._retiring}))


def _matching(info: ClassInfo) -> frozenset[LabelRequirement]:
    return frozenset(requirement for requirement, holds in info.matches.items() if holds)


def _kept_overrides(old: ClassSet, classes: Matches) -> dict[PodKey, int]:
    """The overrides of before, which count until pods use the new classes."""
    return {pod: identity for pod, identity in old.overrides.items() if identity in classes}


def record_of(base: Published) -> ClassRecord:
    """The record that restores the class allocator of `base`."""
    entries = tuple(
        ClassEntry(identity, namespace, matching, frozenset(classes.requirements) - matching)
        for namespace, classes in base.class_sets.items()
        for identity, matching in classes.classes.items()
        if identity not in classes.retiring
    )
    overrides = {pod: identity for classes in base.class_sets.values() for pod, identity in classes.overrides.items()}
    requirements = {
        namespace: frozenset(classes.requirements)
        for namespace, classes in base.class_sets.items()
        if classes.requirements
    }
    return ClassRecord(requirements, dict(base.next_class), entries, overrides)
