"""Keeps which pod is in which class of the book, and leaves a tombstone when the last pod of a class goes."""

from __future__ import annotations

from collections import Counter

from romana_ovs.engine.endpoints import Identified
from romana_ovs.engine.policy_index import LabelRequirements, RuleSet
from romana_ovs.engine.tombstones import ClassTombstone, ClassTombstones
from romana_ovs.model.errors import AddressError
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator


class Identities:
    """The pods of a `ClassAllocator`, with what decides their classes."""

    def __init__(self, allocator: ClassAllocator, remnants: ClassTombstones) -> None:
        """`remnants` are those of `allocator`."""
        self._allocator = allocator
        self._remnants = remnants
        self._known: dict[PodKey, ClassTombstone] = {}
        self._numbers: dict[PodKey, int] = {}
        self._pods: Counter[int] = Counter()

    def refine(self, rules: RuleSet, requirements: LabelRequirements) -> dict[PodKey, AddressError]:
        """Takes `requirements` as what is asked from now on, and keeps no class of namespaces that `rules` do not know.

        Returns the pods for which no class is left, and why.
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
        """Gives `pod` the class that fits it. Raises AddressError when its segment has no class number left."""
        new = _remnant(member)
        old = self._known.get(pod)
        if old is not None and old != new:
            self._stand_in(pod, old)
        self._known[pod] = new
        number = self._allocator.assign(pod, segment=new.segment, namespace=new.namespace, labels=new.labels)
        self._hold(pod, number)

    def forget(self, pod: PodKey) -> None:
        """`pod` is gone. Unknown pods are fine."""
        old = self._known.get(pod)
        if old is not None:
            self._stand_in(pod, old)
            self._release(pod)
            del self._known[pod]
        self._allocator.forget(pod)

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

    def forget_unclaimed(self) -> None:
        """Drops classes from a file that nobody has or has left behind: every pod has been assigned by now."""
        self._remnants.settle()
        self._allocator.drop_unclaimed()


def _remnant(member: Identified) -> ClassTombstone:
    return ClassTombstone(member.number, member.pod.namespace, member.pod.labels)
