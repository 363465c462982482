"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry says that classes may be relied on for it, so that nothing is
interrupted that both the old and the new rules allow. When that takes too long, the rules come into force all the same.
Classes that may not be relied on then match nothing: closed, not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.derived import Derived
from romana_ovs.engine.pod_identities import ClassMatcher, class_infos
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, RuleSet
from romana_ovs.engine.transition import adopt_ready
from romana_ovs.policy.published import ClassSet, Stage
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Namespaces = Mapping[str, ClassSet]
Usable = Mapping[str, frozenset[LabelRequirement]]
"""By namespace, the label requirements that the rules in force use and may rely on."""
Infos = tuple[ClassSet, frozenset[LabelRequirement], dict[int, ClassInfo]]


NOTHING_USABLE: Usable = MappingProxyType({})


class Prepared(NamedTuple):
    """A class set with its active and its retiring requirements, and what finds a pod's class in it."""

    classes: ClassSet
    active: frozenset[LabelRequirement]
    retiring: frozenset[LabelRequirement]
    matcher: ClassMatcher

    @classmethod
    def of(cls, classes: ClassSet) -> Prepared:
        """Prepares `classes`."""
        active, retiring = (
            frozenset(atom for atom, each in classes.requirements.items() if each is stage)
            for stage in (Stage.ACTIVE, Stage.RETIRING)
        )
        return cls(classes, active, retiring, ClassMatcher(classes))


class PreparedClasses:
    """What node agents derive from published classes, once for all agents that share it."""

    def __init__(self) -> None:
        self.derived = Derived()
        self._prepared: Mapping[str, Prepared] = {}
        self._infos: dict[str, Infos] = {}
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})

    def of(self, namespaces: Namespaces) -> Mapping[str, Prepared]:
        """Every class set, prepared; those that did not change are the same objects as before."""

        def compute() -> Mapping[str, Prepared]:
            before = self._prepared
            self._prepared = {
                name: held
                if (held := before.get(name)) is not None and held.classes is classes
                else Prepared.of(classes)
                for name, classes in namespaces.items()
            }
            return self._prepared

        return self.derived.shared("prepared", (namespaces,), compute)

    def matchers(self, namespaces: Namespaces) -> Mapping[str, ClassMatcher]:
        """What finds the class of a pod, by namespace."""
        prepared = self.of(namespaces)
        return self.derived.shared(
            "matchers", (prepared,), lambda: {name: each.matcher for name, each in prepared.items()}
        )

    def infos(self, prepared: Mapping[str, Prepared], usable: Usable) -> Mapping[int, ClassInfo]:
        """Every class with what may be relied on of it: the same object as before while it is equal to that."""

        def compute() -> Mapping[int, ClassInfo]:
            infos: dict[str, Infos] = {}
            for name, each in prepared.items():
                relied = each.active | usable.get(name, NO_REQUIREMENTS)
                held = self._infos.get(name)
                if held is None or held[0] is not each.classes or held[1] != relied:
                    held = (each.classes, relied, class_infos(each.classes, relied))
                infos[name] = held
            self._infos = infos
            shown = {number: info for _, _, found in infos.values() for number, info in found.items()}
            if shown != self._classes:
                self._classes = MappingProxyType(dict(sorted(shown.items())))
            return self._classes

        return self.derived.shared("infos", (prepared, usable), compute)


class EnforcedRules:
    """The rules in force on one node. `rules` is None until there are any; `waiting`: newer ones are held back."""

    def __init__(self, *, fresh_switch: bool, shared: PreparedClasses | None = None) -> None:
        """`fresh_switch`: the switch has no tables of ours yet, so that nothing can stop and no rule has to wait."""
        self._fresh_switch = fresh_switch
        self._shared = shared if shared is not None else PreparedClasses()
        self.rules: RuleSet | None = None
        self.waiting = False
        self.nothing_retiring = True
        self.enforced = 0
        self.classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._usable = NOTHING_USABLE
        self._prepared: Mapping[str, Prepared] = {}
        self._seen: tuple[RuleSet, Namespaces, bool] | None = None

    def update(self, target: RuleSet, namespaces: Namespaces, *, patient: bool) -> None:
        """Takes `target` as the rules to come, and `namespaces` as what is known of classes now.

        Afterwards `nothing_retiring` says whether no rule in force relies on a requirement that is leaving; `enforced`
        has another value when rules in force have come to tell more classes apart.
        """
        seen = self._seen
        if seen is not None and seen[0] is target and seen[1] is namespaces and seen[2] == patient:
            return
        self._seen = (target, namespaces, patient)
        self._prepared = self._shared.of(namespaces)
        if self.rules is None or target is not self.rules:
            self._choose_rules(target, namespaces, patient=patient)
        self._update_usable(namespaces)
        self.classes = self._shared.infos(self._prepared, self._usable)

    def _choose_rules(self, target: RuleSet, namespaces: Namespaces, *, patient: bool) -> None:
        ready = (
            not patient
            or (self._fresh_switch and self.rules is None)
            or self._shared.derived.shared(
                "ready",
                (target, self._prepared, self._usable),
                lambda: all(
                    asked <= self._reliable(name) for name, asked in target.requirements.items() if name in namespaces
                ),
            )
        )
        if ready:
            self.rules, self.waiting = target, False
            self.enforced += 1
            return
        self.waiting = True
        if self.rules is not None:
            before = self.rules
            self.rules = self._shared.derived.shared(
                "adopt",
                (before, target, self._prepared, self._usable),
                lambda: adopt_ready(
                    before, target, lambda name, asked: name not in namespaces or asked <= self._reliable(name)
                ),
            )
            if self.rules.by_namespace is not before.by_namespace:
                self.enforced += 1

    def _reliable(self, name: str) -> frozenset[LabelRequirement]:
        """What may be relied on: what is settled, and what is leaving only by who does already."""
        prepared = self._prepared[name]
        retiring = prepared.retiring & self._usable.get(name, NO_REQUIREMENTS) if prepared.retiring else NO_REQUIREMENTS
        return prepared.active | retiring if retiring else prepared.active

    def _update_usable(self, namespaces: Namespaces) -> None:
        asked = self.rules.requirements if self.rules is not None else NO_RULES.requirements
        before, prepared = self._usable, self._prepared

        def compute() -> Usable:
            relied = {name: atoms & self._reliable(name) for name, atoms in asked.items() if name in namespaces}
            return relied if relied != before else before

        self._usable = self._shared.derived.shared("usable", (asked, prepared, before), compute)
        if self._usable is not before:
            self.enforced += 1
        usable = self._usable
        self.nothing_retiring = self._shared.derived.shared(
            "nothing retiring",
            (usable, prepared),
            lambda: not any(atoms & prepared[name].retiring for name, atoms in usable.items()),
        )
