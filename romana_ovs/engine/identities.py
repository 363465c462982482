"""Which identity each pod wears, and which rules are in force: new numbers are made known before they are used.

A rule that is the first to ask something splits classes. Then nothing that was allowed may stop meanwhile, so
the change takes three steps (docs/dataplane.md, "Identity"), and the switches confirm each before the next:
1. every node learns the new numbers, under the rules in force until now;
2. the pods take them;
3. the new rules come into force, and the old numbers go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from romana_ovs.engine.endpoints import Identified
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, LabelRequirements, RuleSet, joint_requirements
from romana_ovs.engine.tombstones import ClassTombstone, ClassTombstones
from romana_ovs.engine.transition import adopt_ready
from romana_ovs.model.errors import AddressError
from romana_ovs.model.identity import UNKNOWN_CLASS, identity
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.view import ClassInfo


class Step(IntEnum):
    """How far a change of classes is; the names say what the switches are being told."""

    SETTLED = 0
    NUMBERS_KNOWN = 1
    NUMBERS_WORN = 2


class Identities:
    """The identities of pods, over a `ClassAllocator`."""

    def __init__(self, allocator: ClassAllocator, remnants: ClassTombstones) -> None:
        """`remnants` are those of `allocator`."""
        self._allocator = allocator
        self._remnants = remnants
        self._known: dict[PodKey, ClassTombstone] = {}
        self._numbers: dict[PodKey, int] = {}
        self._pods: Counter[int] = Counter()
        self._worn: dict[PodKey, int] = {}
        self._formerly: dict[PodKey, tuple[int, ...]] = {}
        self._moving: set[PodKey] = set()
        self._kept: dict[int, ClassInfo] = {}
        self._target = NO_RULES
        self._merged: tuple[Mapping[int, ClassInfo], Mapping[int, ClassInfo]] | None = None
        self.rules = NO_RULES
        self.step = Step.SETTLED
        self.steps = 0

    @property
    def classes(self) -> Mapping[int, ClassInfo]:
        """Every identity that a pod has, had a step ago, or may have again: the same object until that changes."""
        known = self._allocator.classes
        if not self._kept:
            return known
        if self._merged is None or self._merged[0] is not known:
            self._merged = (known, MappingProxyType(dict(sorted({**self._kept, **known}.items()))))
        return self._merged[1]

    def worn(self, pod: PodKey) -> int:
        """The identity that `pod` wears now. Raises KeyError for a pod without one."""
        return self._worn[pod]

    def formerly(self, pod: PodKey) -> tuple[int, ...]:
        """The identities that `pod` had before this one and that no rule in force tells from it.

        A change of its labels ends that at once, and so do the rules that the split was for when they come into force.
        """
        return self._formerly.get(pod, ())

    def follow(self, rules: RuleSet) -> dict[PodKey, AddressError]:
        """Takes `rules` as those to come; they are in force at once unless they split classes of pods.

        Returns the pods for which no class is left, and why: they are only of their segments now.
        """
        if rules is self._target:
            return {}
        self._target = rules
        self._remnants.keep_to(rules.namespaces)
        before = self._allocator.classes
        moved = [
            pod
            for pod in self._allocator.set_requirements(joint_requirements(self.rules.requirements, rules.requirements))
            if pod not in self._remnants
        ]
        lost = self._lost()
        for pod in lost:
            self._wear_segment(pod, self._known[pod].segment)
        if not moved and self.step is Step.SETTLED:
            self._enforce()
            return lost
        for pod in moved:
            self._hold(pod, self._allocator.identity_of(pod))
            old = self._worn[pod]
            if old not in self._kept:
                self._kept[old] = before[old]
        if moved:
            self._merged = None
            self._moving.update(moved)
            self.step = Step.NUMBERS_KNOWN
            self.steps += 1
        in_force = self.rules.requirements
        self.rules = adopt_ready(self.rules, rules, lambda name, asked: asked <= in_force.get(name, NO_REQUIREMENTS))
        return lost

    def _wear_segment(self, pod: PodKey, segment: int) -> None:
        self._worn[pod] = identity(segment, UNKNOWN_CLASS)
        self._formerly.pop(pod, None)
        self._moving.discard(pod)

    def refine(self, rules: RuleSet, requirements: LabelRequirements) -> dict[PodKey, AddressError]:
        """Takes `requirements` as what is asked from now on, and keeps no class of namespaces that `rules` do not know.

        Returns the pods for which no class is left, and why. Who publishes the steps elsewhere uses this in place of
        `follow`.
        """
        self._remnants.keep_to(rules.namespaces)
        for pod in self._allocator.set_requirements(requirements):
            if pod not in self._remnants:
                self._hold(pod, self._allocator.identity_of(pod))
        return self._lost()

    def _lost(self) -> dict[PodKey, AddressError]:
        """The pods that have come to be in no class, and why; remnants just go."""
        found = self._allocator.drain_unassigned()
        self._remnants.let_go(found)
        lost = {pod: refused for pod, refused in found.items() if pod in self._known}
        for pod in lost:
            self._release(pod)
        return lost

    def renumber(self, number: int) -> None:
        """Gives a class another number. Raises AddressError when there is none."""
        for pod in self._allocator.renumber(number):
            if pod not in self._remnants:
                self._hold(pod, self._allocator.identity_of(pod))

    def assign(self, pod: PodKey, member: Identified) -> None:
        """Gives `pod` the identity that fits it; one that its labels do not ask for waits for its step."""
        new = _remnant(member)
        old = self._known.get(pod)
        if old is not None and old != new:
            self._stand_in(pod, old)
        self._known[pod] = new
        number = self._allocator.assign(pod, segment=new.segment, namespace=new.namespace, labels=new.labels)
        self._hold(pod, number)
        if old != new or pod not in self._moving:
            self._moving.discard(pod)
            self._worn[pod] = number
        if old != new:
            self._formerly.pop(pod, None)

    def leave_out(self, pod: PodKey, member: Identified) -> None:
        """There is no class for `pod`, which is only of its segment now."""
        self.forget(pod)
        self._wear_segment(pod, member.number)

    def forget(self, pod: PodKey) -> None:
        """`pod` is gone. Unknown pods are fine."""
        old = self._known.get(pod)
        if old is not None:
            self._stand_in(pod, old)
            self._release(pod)
            del self._known[pod]
        self._allocator.forget(pod)
        self._worn.pop(pod, None)
        self._formerly.pop(pod, None)
        self._moving.discard(pod)

    def _stand_in(self, pod: PodKey, was: ClassTombstone) -> None:
        """Leaves a remnant when `pod` is the last of its class."""
        number = self._numbers.get(pod)
        if number is not None and self._pods[number] == 1:
            self._remnants.keep(was, number)

    def _hold(self, pod: PodKey, number: int) -> None:
        self._release(pod)
        self._numbers[pod] = number
        self._pods[number] += 1

    def _release(self, pod: PodKey) -> None:
        number = self._numbers.pop(pod, None)
        if number is not None:
            self._pods[number] -= 1
            if not self._pods[number]:
                del self._pods[number]

    def advance(self) -> frozenset[PodKey]:
        """Takes the next step; returns the pods whose identity or whose former ones are others now."""
        if self.step is Step.NUMBERS_KNOWN:
            moved = frozenset(self._moving)
            self._formerly.update((pod, (*self.formerly(pod), self._worn[pod])) for pod in moved)
            self._worn.update((pod, self._allocator.identity_of(pod)) for pod in moved)
            self._moving.clear()
            self.step = Step.NUMBERS_WORN
            self.steps += 1
            return moved
        if self.step is Step.NUMBERS_WORN:
            moved = frozenset(self._formerly)
            self._formerly.clear()
            self._kept.clear()
            self._merged = None
            self._enforce()
            return moved
        return frozenset()

    def forget_unclaimed(self) -> None:
        """Drops classes from a file that nobody has or has left behind: every pod has been assigned by now."""
        self._remnants.settle()
        self._allocator.drop_unclaimed()

    def to_json(self) -> dict[str, Any]:
        """The allocator and its remnants, in plain values of JSON."""
        return {"classes": self._allocator.to_json(), "remnants": self._remnants.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Identities:
        """What `to_json` described. Raises InputError when it is no such thing."""
        allocator = ClassAllocator.from_json(data.get("classes", {}))
        return cls(allocator, ClassTombstones(allocator, data.get("remnants", ())))

    @classmethod
    def none(cls) -> Identities:
        """No identity yet."""
        allocator = ClassAllocator()
        return cls(allocator, ClassTombstones(allocator))

    def _enforce(self) -> None:
        self.step = Step.SETTLED
        self.rules = self._target
        # Only what nobody asks any more goes here; no pod changes its class by that.
        self._allocator.set_requirements(self.rules.requirements)


def _remnant(member: Identified) -> ClassTombstone:
    return ClassTombstone(member.number, member.pod.namespace, member.pod.labels)
