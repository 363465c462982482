"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry says that classes may be relied on for it, so that nothing is
interrupted that both the old and the new rules allow. When that takes too long, the rules come into force all the same.
Classes that may not be relied on then match nothing: closed, not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from romana_ovs.engine.pod_identities import class_infos
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, RuleSet
from romana_ovs.engine.transition import adopt_ready
from romana_ovs.policy.published import ClassSet, Stage
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Namespaces = Mapping[str, ClassSet]
Infos = tuple[ClassSet, frozenset[LabelRequirement], dict[int, ClassInfo]]


SortedRequirements = tuple[ClassSet, frozenset[LabelRequirement], frozenset[LabelRequirement]]
"""A class set with the requirements that are settled, and those that are leaving."""


class EnforcedRules:
    """The rules in force on one node. `rules` is None until there are any; `waiting`: newer ones are held back."""

    def __init__(self, *, fresh_switch: bool) -> None:
        """`fresh_switch`: the switch has no tables of ours yet, so that nothing can stop and no rule has to wait."""
        self._fresh_switch = fresh_switch
        self.rules: RuleSet | None = None
        self.waiting = False
        self.nothing_retiring = True
        self.enforced = 0
        self.classes: Mapping[int, ClassInfo] = MappingProxyType({})
        self._usable: dict[str, frozenset[LabelRequirement]] = {}
        self._infos: dict[str, Infos] = {}
        self._stages: dict[str, SortedRequirements] = {}
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
        self._sort(namespaces)
        if self.rules is None or target is not self.rules:
            self._choose_rules(target, namespaces, patient=patient)
        self._update_usable(namespaces)
        self._rebuild_classes(namespaces)

    def _choose_rules(self, target: RuleSet, namespaces: Namespaces, *, patient: bool) -> None:
        ready = (
            not patient
            or (self._fresh_switch and self.rules is None)
            or all(asked <= self._reliable(name) for name, asked in target.requirements.items() if name in namespaces)
        )
        if ready:
            self.rules, self.waiting = target, False
            self.enforced += 1
            return
        self.waiting = True
        if self.rules is not None:
            before = self.rules
            self.rules = adopt_ready(
                before, target, lambda name, asked: name not in namespaces or asked <= self._reliable(name)
            )
            if self.rules.by_namespace is not before.by_namespace:
                self.enforced += 1

    def _sort(self, namespaces: Namespaces) -> None:
        """What is settled and what is leaving in each namespace, worked out once for a class set."""
        stages = {}
        for name, classes in namespaces.items():
            held = self._stages.get(name)
            stages[name] = held if held is not None and held[0] is classes else _stages(classes)
        self._stages = stages

    def _reliable(self, name: str) -> frozenset[LabelRequirement]:
        """What may be relied on: what is settled, and what is leaving only by who does already."""
        _, settled, leaving = self._stages[name]
        return settled | (leaving & self._usable.get(name, NO_REQUIREMENTS)) if leaving else settled

    def _update_usable(self, namespaces: Namespaces) -> None:
        asked = self.rules.requirements if self.rules is not None else NO_RULES.requirements
        relied = {}
        for name, requirements in asked.items():
            if name in namespaces:
                relied[name] = requirements & self._reliable(name)
        if relied != self._usable:
            self.enforced += 1
        self._usable = relied
        self.nothing_retiring = not any(requirements & self._stages[name][2] for name, requirements in relied.items())

    def _rebuild_classes(self, namespaces: Namespaces) -> None:
        """Every class with what may be relied on of it: the same object while that is the same."""
        infos: dict[str, Infos] = {}
        for name, classes in namespaces.items():
            relied = self._stages[name][1] | self._usable.get(name, NO_REQUIREMENTS)
            held = self._infos.get(name)
            if held is None or held[0] is not classes or held[1] != relied:
                held = (classes, relied, class_infos(classes, relied))
            infos[name] = held
        if infos.keys() != self._infos.keys() or any(held is not self._infos[name] for name, held in infos.items()):
            shown = {number: info for _, _, found in infos.values() for number, info in found.items()}
            if shown != self.classes:
                self.classes = MappingProxyType(dict(sorted(shown.items())))
        self._infos = infos


def _stages(classes: ClassSet) -> SortedRequirements:
    settled = frozenset(requirement for requirement, stage in classes.requirements.items() if stage is Stage.ACTIVE)
    return (
        classes,
        settled,
        frozenset(requirement for requirement, stage in classes.requirements.items() if stage is Stage.RETIRING),
    )
