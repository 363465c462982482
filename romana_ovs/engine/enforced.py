"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry has made that active, so that no connection is interrupted that
both the old and the new rules allow. After a time limit (`patient`) the rules come into force all the same. A rule with
a requirement that is not reliable then matches no peers by it: closed, not open.
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
Requirements = frozenset[LabelRequirement]
Usable = Mapping[str, Requirements]
"""By namespace, the label requirements that the rules in force use and may rely on."""
Infos = tuple[ClassSet, frozenset[LabelRequirement], dict[int, ClassInfo]]


NOTHING_USABLE: Usable = MappingProxyType({})


class PreparedClassSet(NamedTuple):
    """A class set with its active and retiring requirements, and the matcher that finds a pod's class in it."""

    classes: ClassSet
    active: frozenset[LabelRequirement]
    retiring: frozenset[LabelRequirement]
    matcher: ClassMatcher

    @classmethod
    def of(cls, classes: ClassSet) -> PreparedClassSet:
        """Prepares `classes`."""
        active, retiring = (
            frozenset(requirement for requirement, current in classes.requirements.items() if current is stage)
            for stage in (Stage.ACTIVE, Stage.RETIRING)
        )
        return cls(classes, active, retiring, ClassMatcher(classes))


class PreparedClasses:
    """Values that node agents derive from published classes, computed once for all agents that share it."""

    def __init__(self) -> None:
        self.derived = Derived()
        self._prepared: Mapping[str, PreparedClassSet] = {}
        self._infos: dict[str, Infos] = {}
        self._classes: Mapping[int, ClassInfo] = MappingProxyType({})

    def of(self, namespaces: Namespaces) -> Mapping[str, PreparedClassSet]:
        """Every class set, prepared; for unchanged ones the identical objects."""

        def compute() -> Mapping[str, PreparedClassSet]:
            before = self._prepared
            self._prepared = {
                name: previous
                if (previous := before.get(name)) is not None and previous.classes is classes
                else PreparedClassSet.of(classes)
                for name, classes in namespaces.items()
            }
            return self._prepared

        return self.derived.shared("prepared", (namespaces,), compute)

    def matchers(self, namespaces: Namespaces) -> Mapping[str, ClassMatcher]:
        """The matcher of each namespace."""
        prepared = self.of(namespaces)
        return self.derived.shared(
            "matchers", (prepared,), lambda: {name: classes.matcher for name, classes in prepared.items()}
        )

    def infos(self, prepared: Mapping[str, PreparedClassSet], usable: Usable) -> Mapping[int, ClassInfo]:
        """Every class with its answers to reliable requirements; the identical mapping while it is equal."""

        def compute() -> Mapping[int, ClassInfo]:
            infos: dict[str, Infos] = {}
            for name, classes in prepared.items():
                relied = classes.active | usable.get(name, NO_REQUIREMENTS)
                previous = self._infos.get(name)
                if previous is None or previous[0] is not classes.classes or previous[1] != relied:
                    previous = (classes.classes, relied, class_infos(classes.classes, relied))
                infos[name] = previous
            self._infos = infos
            by_number = {number: info for _, _, class_info in infos.values() for number, info in class_info.items()}
            if by_number != self._classes:
                self._classes = MappingProxyType(dict(sorted(by_number.items())))
            return self._classes

        return self.derived.shared("infos", (prepared, usable), compute)


@dataclass(frozen=True, slots=True, eq=False)
class EnforcedState:
    """The rules in force on a node, and the classes that they distinguish. Nodes with equal histories share one object.

    `rules` is None until there are any; `waiting`: newer ones are not in force yet. `usable` are the requirements that
    the rules use and may rely on, `classes` every class with its answers to these. `nothing_retiring`: no rule in force
    relies on a retiring requirement. `version` grows when rules in force may distinguish more classes.
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
        """`fresh_switch`: the switch has no tables of ours yet, so nothing can be interrupted, and no rule waits."""
        self._fresh_switch = fresh_switch
        self._shared = shared if shared is not None else PreparedClasses()
        self.state = NOTHING_ENFORCED
        self._seen: tuple[RuleSet, Namespaces, bool] | None = None

    def update(self, target: RuleSet, namespaces: Namespaces, *, patient: bool) -> None:
        """Brings the rules of `target` into force, those at once that may rely on the class sets `namespaces`.

        Unless `patient`, all of them come into force at once.
        """
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
    """The state after `state` when rules should become those of `target`; with `adopt_at_once` none of them waits."""
    prepared = shared.of(namespaces)

    def reliable(name: str, required: Requirements) -> bool:
        return name not in namespaces or required <= _reliable(prepared[name], state.usable)

    rules, waiting, version = state.rules, state.waiting, state.version
    if rules is None or target is not rules:
        if adopt_at_once or all(reliable(name, required) for name, required in target.requirements.items()):
            rules, waiting, version = target, False, version + 1
        else:
            before, waiting = rules, True
            rules = adopt_ready(before, target, reliable) if before is not None else None
            if before is not None and rules is not None and rules.by_namespace is not before.by_namespace:
                version += 1
    usable = _usable(rules, prepared, state.usable)
    return EnforcedState(
        rules=rules,
        waiting=waiting,
        usable=usable,
        classes=shared.infos(prepared, usable),
        nothing_retiring=not any(required & prepared[name].retiring for name, required in usable.items()),
        version=version + (usable is not state.usable),
    )


def _usable(rules: RuleSet | None, prepared: Mapping[str, PreparedClassSet], before: Usable) -> Usable:
    required = rules.requirements if rules is not None else NO_RULES.requirements
    usable = {
        name: requirements & _reliable(prepared[name], before)
        for name, requirements in required.items()
        if name in prepared
    }
    return usable if usable != before else before


def _reliable(prepared: PreparedClassSet, usable: Usable) -> Requirements:
    """The requirements that rules may rely on: active ones, and retiring ones that rules in force rely on already."""
    if not prepared.retiring:
        return prepared.active
    return prepared.active | (prepared.retiring & usable.get(prepared.classes.namespace, NO_REQUIREMENTS))
