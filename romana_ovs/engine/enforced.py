"""Decides which rules a node has in force, and which label requirements they may rely on.

A rule with a new requirement waits until the registry has made that active, so that no connection is interrupted that
both the old and the new rules allow. After a timeout (not `may_wait`) the rules come into force all the same. A rule
with a requirement that it may not rely on then matches no peers by it: closed, not open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import WAITS_FOR_REGISTRY, SegmentTable
from romana_ovs.engine.pod_identities import ClassMatcher, class_infos
from romana_ovs.engine.policy_index import NO_REQUIREMENTS, NO_RULES, RuleSet
from romana_ovs.engine.transition import enforce_ready
from romana_ovs.model.derived import Derived, DerivedMap, LastInputs, SharedDerived
from romana_ovs.model.objects import Node
from romana_ovs.policy.view import ClassInfo, LabelRequirement
from romana_ovs.registry_types.published import ClassSet, Published, Stage

ClassSets = Mapping[str, ClassSet]
"""By namespace."""
Requirements = frozenset[LabelRequirement]
ReliedOn = Mapping[str, Requirements]
"""By namespace, the label requirements that the rules in force have and rely on."""


NOTHING_RELIED_ON: ReliedOn = MappingProxyType({})


class PreparedClassSet(NamedTuple):
    """A class set with its active and retiring requirements, and the matcher that finds a pod's class in it."""

    class_set: ClassSet
    active_requirements: frozenset[LabelRequirement]
    retiring_requirements: frozenset[LabelRequirement]
    matcher: ClassMatcher

    @classmethod
    def of(cls, class_set: ClassSet) -> PreparedClassSet:
        """Prepares `class_set`."""
        active, retiring = (
            frozenset(requirement for requirement, current in class_set.requirements.items() if current is stage)
            for stage in (Stage.ACTIVE, Stage.RETIRING)
        )
        return cls(class_set, active, retiring, ClassMatcher(class_set))


class SharedAgentCache:
    """Values that node agents derive from published numbers and nodes, computed once for all that share it.

    `exhaustion_reason`: as in `SegmentTable`.
    """

    def __init__(self, exhaustion_reason: str = WAITS_FOR_REGISTRY) -> None:
        self._exhaustion_reason = exhaustion_reason
        self._segments: SharedDerived[SegmentTable] = SharedDerived()
        self.states: SharedDerived[EnforcedState] = SharedDerived()
        self._node_addresses: SharedDerived[frozenset[int]] = SharedDerived()
        self._prepared: SharedDerived[Mapping[str, PreparedClassSet]] = SharedDerived()
        self._class_sets: DerivedMap[str, PreparedClassSet] = DerivedMap()
        self._matchers: SharedDerived[Mapping[str, ClassMatcher]] = SharedDerived()
        self._infos: SharedDerived[Mapping[int, ClassInfo]] = SharedDerived()
        self._infos_of: DerivedMap[str, dict[int, ClassInfo]] = DerivedMap(by_value=True)
        self._all_infos: Derived[Mapping[int, ClassInfo]] = Derived(by_value=True)

    def segment_table(self, plan: AddressPlan, published: Published) -> SegmentTable:
        """The `published` blocks and indexes. Agents that share have equal plans, but each its own object."""
        return self._segments.get(
            (published.blocks, published.indexes),
            lambda blocks, indexes: SegmentTable(plan, blocks, indexes, exhaustion_reason=self._exhaustion_reason),
        )

    def addresses_of(self, nodes: Mapping[str, Node]) -> frozenset[int]:
        """The addresses of all `nodes`, as numbers."""
        return self._node_addresses.get((nodes,), _addresses_of)

    def of(self, class_sets: ClassSets) -> Mapping[str, PreparedClassSet]:
        """Every class set, prepared; for unchanged ones the identical objects."""
        return self._prepared.get((class_sets,), lambda new: self._class_sets.update(new, PreparedClassSet.of))

    def matchers(self, class_sets: ClassSets) -> Mapping[str, ClassMatcher]:
        """The matcher of each namespace."""
        return self._matchers.get(
            (class_sets,), lambda new: {namespace: prepared.matcher for namespace, prepared in self.of(new).items()}
        )

    def infos(self, prepared: Mapping[str, PreparedClassSet], relied_on: ReliedOn) -> Mapping[int, ClassInfo]:
        """Every class with its answers to requirements that rules may rely on; identical while it is equal."""
        return self._infos.get((prepared, relied_on), self._combined_infos)

    def _combined_infos(self, prepared: Mapping[str, PreparedClassSet], relied_on: ReliedOn) -> Mapping[int, ClassInfo]:
        by_number: dict[int, ClassInfo] = {}
        for namespace, each in prepared.items():
            answered = each.active_requirements | relied_on.get(namespace, NO_REQUIREMENTS)
            by_number.update(self._infos_of.get(namespace, (each.class_set, answered), class_infos))
        self._infos_of.retain(prepared)
        return self._all_infos.get((by_number,), lambda infos: MappingProxyType(dict(sorted(infos.items()))))


@dataclass(frozen=True, slots=True, eq=False)
class EnforcedState:
    """The rules in force on a node, and the classes that they distinguish. Nodes with equal histories share one object.

    `rules` is None until there are any; `waiting`: newer ones are not in force yet. `relied_on` are the requirements
    that the rules have and rely on, `classes` every class with its answers to these. `nothing_retiring`: no rule in
    force relies on a retiring requirement. `version` grows when rules in force may distinguish more classes.
    """

    rules: RuleSet | None = None
    waiting: bool = False
    relied_on: ReliedOn = field(default_factory=lambda: NOTHING_RELIED_ON)
    classes: Mapping[int, ClassInfo] = field(default_factory=lambda: MappingProxyType({}))
    nothing_retiring: bool = True
    version: int = 0

    def reports_as(self, other: EnforcedState) -> bool:
        """Whether a node's report would be the same with either state."""
        return (
            self.waiting is other.waiting
            and self.nothing_retiring is other.nothing_retiring
            and (self.rules is None) is (other.rules is None)
        )


NOTHING_ENFORCED = EnforcedState()


class EnforcedRules:
    """The rules in force on one node."""

    def __init__(self, *, fresh_switch: bool, shared: SharedAgentCache | None = None) -> None:
        """`fresh_switch`: the switch has no tables of ours yet, so nothing can be interrupted, and no rule waits."""
        self._fresh_switch = fresh_switch
        self._shared = shared if shared is not None else SharedAgentCache()
        self.state = NOTHING_ENFORCED
        self._inputs = LastInputs()

    def update(self, target: RuleSet, class_sets: ClassSets, *, may_wait: bool) -> None:
        """Brings the rules of `target` into force, those at once whose requirements `class_sets` answer for all pods.

        Unless `may_wait`, all of them come into force at once.
        """
        if not self._inputs.replace((target, class_sets, may_wait)):
            return
        enforce_at_once = not may_wait or (self._fresh_switch and self.state.rules is None)
        self.state = self._shared.states.get(
            (self.state, target, class_sets, enforce_at_once),
            lambda state, target, class_sets, enforce_at_once: next_state(
                state, target, self._shared, class_sets, enforce_at_once=enforce_at_once
            ),
        )


def next_state(
    state: EnforcedState, target: RuleSet, shared: SharedAgentCache, class_sets: ClassSets, *, enforce_at_once: bool
) -> EnforcedState:
    """The state after `state` when rules should become those of `target`; with `enforce_at_once` none of them waits."""
    prepared = shared.of(class_sets)

    def may_rely_on(namespace: str, required: Requirements) -> bool:
        return namespace not in class_sets or required <= _may_rely_on(prepared[namespace], state.relied_on)

    rules, waiting, version = state.rules, state.waiting, state.version
    if target is not rules:
        if enforce_at_once or all(
            may_rely_on(namespace, required) for namespace, required in target.requirements.items()
        ):
            rules, waiting, version = target, False, version + 1
        else:
            before, waiting = rules, True
            rules = enforce_ready(before, target, may_rely_on) if before is not None else None
            if before is not None and rules is not None and rules.by_namespace is not before.by_namespace:
                version += 1
    relied_on = _relied_on(rules, prepared, state.relied_on)
    return EnforcedState(
        rules=rules,
        waiting=waiting,
        relied_on=relied_on,
        classes=shared.infos(prepared, relied_on),
        nothing_retiring=not any(
            required & prepared[namespace].retiring_requirements for namespace, required in relied_on.items()
        ),
        version=version + (relied_on is not state.relied_on),
    )


def _addresses_of(nodes: Mapping[str, Node]) -> frozenset[int]:
    return frozenset(int(address) for node in nodes.values() for address in node.addresses)


def _relied_on(rules: RuleSet | None, prepared: Mapping[str, PreparedClassSet], before: ReliedOn) -> ReliedOn:
    required = rules.requirements if rules is not None else NO_RULES.requirements
    relied_on = {
        namespace: requirements & _may_rely_on(prepared[namespace], before)
        for namespace, requirements in required.items()
        if namespace in prepared
    }
    return relied_on if relied_on != before else before


def _may_rely_on(prepared: PreparedClassSet, relied_on: ReliedOn) -> Requirements:
    """The requirements that rules may rely on: active ones, and retiring ones that rules in force rely on already."""
    if not prepared.retiring_requirements:
        return prepared.active_requirements
    return prepared.active_requirements | (
        prepared.retiring_requirements & relied_on.get(prepared.class_set.namespace, NO_REQUIREMENTS)
    )
