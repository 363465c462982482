"""Which identity each pod wears, and which rules are in force: new numbers are made known before they are used.

A rule that is the first to ask something splits classes. Then nothing that was allowed may stop meanwhile, so
the change takes three steps (DATAPLANE.md, "Identity"), and the switches confirm each before the next:
1. every node learns the new numbers, under the rules in force until now;
2. the pods take them;
3. the new rules come into force, and the old numbers go.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType

from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassBook
from romana_ovs.policy.view import ClassInfo
from romana_ovs.world.members import Member
from romana_ovs.world.rules import NO_RULES, RuleSet, joint_atoms


class Step(IntEnum):
    """How far a change of classes is; the names say what the switches are being told."""

    SETTLED = 0
    NUMBERS_KNOWN = 1
    NUMBERS_WORN = 2


class Identities:
    """The identities of pods, over a `ClassBook`."""

    def __init__(self, book: ClassBook) -> None:
        self._book = book
        self._worn: dict[PodKey, int] = {}
        self._moving: set[PodKey] = set()
        self._kept: dict[int, ClassInfo] = {}
        self._target = NO_RULES
        self._merged: tuple[Mapping[int, ClassInfo], Mapping[int, ClassInfo]] | None = None
        self.rules = NO_RULES
        self.step = Step.SETTLED

    @property
    def classes(self) -> Mapping[int, ClassInfo]:
        """Every identity that a pod has or had a step ago: the same object until that changes."""
        known = self._book.classes
        if not self._kept:
            return known
        if self._merged is None or self._merged[0] is not known:
            self._merged = (known, MappingProxyType(dict(sorted({**self._kept, **known}.items()))))
        return self._merged[1]

    def worn(self, pod: PodKey) -> int:
        """The identity that `pod` wears now. Raises KeyError for a pod without one."""
        return self._worn[pod]

    def follow(self, rules: RuleSet) -> None:
        """Takes `rules` as those to come; they are in force at once unless they split classes of pods."""
        if rules is self._target:
            return
        self._target = rules
        before = self._book.classes
        moved = self._book.require(joint_atoms(self.rules.atoms, rules.atoms))
        if not moved and self.step is Step.SETTLED:
            self._enforce()
            return
        if moved:
            for pod in moved:
                old = self._worn[pod]
                if old not in self._kept:
                    self._kept[old] = before[old]
            self._merged = None
            self._moving |= moved
            self.step = Step.NUMBERS_KNOWN
        self.rules = _until_then(self.rules, rules.namespaces)

    def assign(self, pod: PodKey, member: Member, *, relabelled: bool) -> bool:
        """Whether `pod` wears another identity than before; unless `relabelled`, it waits for its step."""
        old = self._worn.get(pod)
        new = self._book.assign(
            pod, segment=member.number, namespace=member.pod.namespace, labels=member.pod.labels
        )
        if relabelled or pod not in self._moving:
            self._moving.discard(pod)
            self._worn[pod] = new
        return self._worn[pod] != old

    def forget(self, pod: PodKey) -> None:
        """`pod` is gone."""
        self._book.forget(pod)
        self._worn.pop(pod, None)
        self._moving.discard(pod)

    def advance(self) -> frozenset[PodKey]:
        """Takes the next step; returns the pods that wear another identity now."""
        if self.step is Step.NUMBERS_KNOWN:
            moved = frozenset(self._moving)
            self._worn.update((pod, self._book.identity_of(pod)) for pod in moved)
            self._moving.clear()
            self.step = Step.NUMBERS_WORN
            return moved
        if self.step is Step.NUMBERS_WORN:
            self._kept.clear()
            self._merged = None
            self._enforce()
        return frozenset()

    def forget_unclaimed(self) -> None:
        """Drops classes from a file that no pod has: every pod has been assigned by now."""
        self._book.settle()

    def to_json(self) -> dict:
        """The book, in plain values of JSON."""
        return self._book.to_json()

    def _enforce(self) -> None:
        self.step = Step.SETTLED
        self.rules = self._target
        # Only what nobody asks any more goes here; no pod changes its class by that.
        self._book.require(self.rules.atoms)


def _until_then(rules: RuleSet, namespaces: Mapping[str, Labels]) -> RuleSet:
    """`rules` as they are in force, with the namespaces that came since."""
    labels = {name: rules.namespaces.get(name, new) for name, new in namespaces.items()}
    return RuleSet(rules.by_namespace, MappingProxyType(labels), rules.atoms)
