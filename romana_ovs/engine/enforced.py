"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry has made that active, so that no connection is interrupted that
both the old and the new rules allow. After a timeout (not `may_wait`) the rules come into force all the same. A rule
with a requirement that is not reliable then matches no peers by it: closed, not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.addressing.segments import SegmentTable
from romana_ovs.engine.pod_identities import ClassMatcher, class_infos
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, RuleSet
from romana_ovs.engine.transition import adopt_ready
from romana_ovs.model.derived import Derived, DerivedMap, LastInputs, SharedDerived
from romana_ovs.model.objects import Node
from romana_ovs.policy.published import ClassSet, Stage
from romana_ovs.policy.view import ClassInfo, LabelRequirement

Namespaces = Mapping[str, ClassSet]
Requirements = frozenset[LabelRequirement]
Usable = Mapping[str, Requirements]
"""By namespace, the label requirements that the rules in force use and may rely on."""


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
    """Values that node agents derive from published numbers and nodes, computed once for all agents that share it."""

    def __init__(self) -> None:
        self.segments: SharedDerived[SegmentTable] = SharedDerived()
        self.states: SharedDerived[EnforcedState] = SharedDerived()
        self._node_addresses: SharedDerived[frozenset[int]] = SharedDerived()
        self._prepared: SharedDerived[Mapping[str, PreparedClassSet]] = SharedDerived()
        self._class_sets: DerivedMap[str, PreparedClassSet] = DerivedMap()
        self._matchers: SharedDerived[Mapping[str, ClassMatcher]] = SharedDerived()
        self._infos: SharedDerived[Mapping[int, ClassInfo]] = SharedDerived()
        self._infos_of: DerivedMap[str, dict[int, ClassInfo]] = DerivedMap(by_value=True)
        self._all_infos: Derived[Mapping[int, ClassInfo]] = Derived(by_value=True)

    def addresses_of(self, nodes: Mapping[str, Node]) -> frozenset[int]:
        """The addresses of all `nodes`, as numbers."""
        return self._node_addresses.get((nodes,), _addresses_of)

    def of(self, namespaces: Namespaces) -> Mapping[str, PreparedClassSet]:
        """Every class set, prepared; for unchanged ones the identical objects."""
        return self._prepared.get((namespaces,), lambda new: self._class_sets.update(new, PreparedClassSet.of))

    def matchers(self, namespaces: Namespaces) -> Mapping[str, ClassMatcher]:
        """The matcher of each namespace."""
        return self._matchers.get(
            (namespaces,), lambda new: {name: classes.matcher for name, classes in self.of(new).items()}
        )

    def infos(self, prepared: Mapping[str, PreparedClassSet], usable: Usable) -> Mapping[int, ClassInfo]:
        """Every class with its answers to reliable requirements; the identical mapping while it is equal."""
        return self._infos.get((prepared, usable), self._combined_infos)

    def _combined_infos(self, prepared: Mapping[str, PreparedClassSet], usable: Usable) -> Mapping[int, ClassInfo]:
        by_number: dict[int, ClassInfo] = {}
        for name, each in prepared.items():
            reliable = each.active | usable.get(name, NO_REQUIREMENTS)
            by_number.update(self._infos_of.get(name, (each.classes, reliable), class_infos))
        self._infos_of.retain(prepared)
        return self._all_infos.get((by_number,), lambda infos: MappingProxyType(dict(sorted(infos.items()))))


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

    def reports_as(self, other: EnforcedState) -> bool:
        """Whether a node with this state acknowledges what it would with the `other`, and waits if it would then."""
        return (
            self.waiting is other.waiting
            and self.nothing_retiring is other.nothing_retiring
            and (self.rules is None) is (other.rules is None)
        )


NOTHING_ENFORCED = EnforcedState()


class EnforcedRules:
    """The rules in force on one node."""

    def __init__(self, *, fresh_switch: bool, shared: PreparedClasses | None = None) -> None:
        """`fresh_switch`: the switch has no tables of ours yet, so nothing can be interrupted, and no rule waits."""
        self._fresh_switch = fresh_switch
        self._shared = shared if shared is not None else PreparedClasses()
        self.state = NOTHING_ENFORCED
        self._inputs = LastInputs()

    def update(self, target: RuleSet, namespaces: Namespaces, *, may_wait: bool) -> None:
        """Brings the rules of `target` into force, those at once that may rely on the class sets `namespaces`.

        Unless `may_wait`, all of them come into force at once.
        """
        if not self._inputs.replace((target, namespaces, may_wait)):
            return
        adopt_at_once = not may_wait or (self._fresh_switch and self.state.rules is None)
        self.state = self._shared.states.get(
            (self.state, target, namespaces, adopt_at_once),
            lambda state, target, namespaces, adopt_at_once: next_state(
                state, target, self._shared, namespaces, adopt_at_once=adopt_at_once
            ),
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


def _addresses_of(nodes: Mapping[str, Node]) -> frozenset[int]:
    return frozenset(int(address) for node in nodes.values() for address in node.addresses)


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
