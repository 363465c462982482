"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry says that classes may be relied on for it, so that nothing is
interrupted that both the old and the new rules allow. When that takes too long, the rules come into force all the same.
Classes that may not be relied on then match nothing: closed, not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.derived import Derived
from romana_ovs.engine.pod_identities import ClassMatcher, class_infos
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, RuleSet
from romana_ovs.engine.transition import adopt_ready
from romana_ovs.policy.published import ClassSet, Stage
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Namespaces = Mapping[str, ClassSet]
LabelRequirements = frozenset[LabelRequirement]
Usable = Mapping[str, LabelRequirements]
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


@dataclass(frozen=True, slots=True, eq=False)
class EnforcedState:
    """What is in force on a node. Nodes with the same past share one object.

    `rules` is None until there are any; `waiting`: newer ones are held back. `usable` are the requirements that the
    rules use and may rely on, `classes` every class with the answers to these. `nothing_retiring`: no rule in force
    relies on a requirement that is leaving. `version` grows when rules in force come to tell more classes apart.
    """

    rules: RuleSet | None = None
    waiting: bool = False
    usable: Usable = field(default_factory=lambda: NOTHING_USABLE)
    classes: Mapping[int, ClassInfo] = field(default_factory=lambda: MappingProxyType({}))
    nothing_retiring: bool = True
    version: int = 0


NOTHING_ENFORCED = EnforcedState()


class EnforcedRules:
    """The rules in force on one node."""

    def __init__(self, *, fresh_switch: bool, shared: PreparedClasses | None = None) -> None:
        """`fresh_switch`: the switch has no tables of ours yet, so that nothing can stop and no rule has to wait."""
        self._fresh_switch = fresh_switch
        self._shared = shared if shared is not None else PreparedClasses()
        self.state = NOTHING_ENFORCED
        self._seen: tuple[RuleSet, Namespaces, bool] | None = None

    def update(self, target: RuleSet, namespaces: Namespaces, *, patient: bool) -> None:
        """Takes `target` as the rules to come, and `namespaces` as what is known of classes now."""
        seen = self._seen
        if seen is not None and seen[0] is target and seen[1] is namespaces and seen[2] == patient:
            return
        self._seen = (target, namespaces, patient)
        state, adopt_at_once = self.state, not patient or (self._fresh_switch and self.state.rules is None)
        self.state = self._shared.derived.shared(
            "enforced",
            (state, target, namespaces, adopt_at_once),
            lambda: next_state(state, target, self._shared, namespaces, adopt_at_once=adopt_at_once),
        )


def next_state(
    state: EnforcedState, target: RuleSet, shared: PreparedClasses, namespaces: Namespaces, *, adopt_at_once: bool
) -> EnforcedState:
    """The state after `state`, with `target` as the rules to come; with `adopt_at_once` these wait for nothing."""
    prepared = shared.of(namespaces)

    def answered(name: str, asked: LabelRequirements) -> bool:
        return name not in namespaces or asked <= _reliable(prepared[name], state.usable)

    rules, waiting, version = state.rules, state.waiting, state.version
    if rules is None or target is not rules:
        if adopt_at_once or all(answered(name, asked) for name, asked in target.requirements.items()):
            rules, waiting, version = target, False, version + 1
        else:
            before, waiting = rules, True
            rules = adopt_ready(before, target, answered) if before is not None else None
            if before is not None and rules is not None and rules.by_namespace is not before.by_namespace:
                version += 1
    usable = _usable(rules, prepared, state.usable)
    return EnforcedState(
        rules=rules,
        waiting=waiting,
        usable=usable,
        classes=shared.infos(prepared, usable),
        nothing_retiring=not any(asked & prepared[name].retiring for name, asked in usable.items()),
        version=version + (usable is not state.usable),
    )


def _usable(rules: RuleSet | None, prepared: Mapping[str, Prepared], before: Usable) -> Usable:
    asked = rules.requirements if rules is not None else NO_RULES.requirements
    usable = {name: some & _reliable(prepared[name], before) for name, some in asked.items() if name in prepared}
    return usable if usable != before else before


def _reliable(prepared: Prepared, usable: Usable) -> LabelRequirements:
    """What may be relied on: what is active, and what is retiring only by who does already."""
    if not prepared.retiring:
        return prepared.active
    return prepared.active | (prepared.retiring & usable.get(prepared.classes.namespace, NO_REQUIREMENTS))
