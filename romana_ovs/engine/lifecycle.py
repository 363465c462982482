"""Moves every label requirement through its stages; each step waits until nodes have acknowledged the last one.

    INTRODUCED -> ADOPTED -> ACTIVE -> RETIRING -> removed
                                ^---------'
A requirement may retire only while no other is being rolled out: a node whose newer rules wait still uses older ones.

An example: a policy of a namespace with pods begins to select `tier in (db)`, and is deleted later.

    revision 7   INTRODUCED   class sets have the new classes; pods keep theirs, and the rules wait
    all nodes acknowledge 7
    revision 8   ADOPTED      pods use the new classes; the rules still wait
    all nodes acknowledge 8
    revision 9   ACTIVE       nodes that have read 9 bring the rules into force
    the policy is deleted
    revision 10  RETIRING     rules that rely on it may go on, no others begin to
    all nodes report `released` 10: no table relies on it
    revision 11  removed      classes that differed by it alone are one again
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.policy_index import NO_REQUIREMENTS, LabelRequirements
from romana_ovs.policy.requirements import RequirementBudget
from romana_ovs.policy.view import LabelRequirement
from romana_ovs.registry_types.published import Stage

ROLLING_OUT = frozenset({Stage.INTRODUCED, Stage.ADOPTED})


class RequirementState(NamedTuple):
    """A stage, the first revision that publishes it, and the one that introduced the requirement."""

    stage: Stage
    since: int
    introduced: int


class RequirementLifecycle:
    """The stages of all requirements, by namespace. `changes` counts steps."""

    def __init__(self, published: Mapping[str, Mapping[LabelRequirement, Stage]], revision: int) -> None:
        """Begins with those that were `published`; none of it counts as acknowledged before `revision`."""
        self._states = {
            namespace: {
                requirement: RequirementState(stage, revision, revision) for requirement, stage in requirements.items()
            }
            for namespace, requirements in published.items()
            if requirements
        }
        self._unsettled = {namespace for namespace in self._states if self._is_unsettled(namespace)}
        self._required: LabelRequirements = MappingProxyType({})
        self._over_budget: set[str] = set()
        """Namespaces in which a requirement waits until others are removed, as their number is bounded."""
        self._retire_due = False
        self._changed_namespaces: set[str] = set(self._states)
        self.changes = 0

    @property
    def unsettled(self) -> Collection[str]:
        """The namespaces with a requirement that is not active."""
        return self._unsettled

    @property
    def requirements(self) -> dict[str, frozenset[LabelRequirement]]:
        """All requirements that classes must distinguish, by namespace."""
        return {namespace: frozenset(states) for namespace, states in self._states.items()}

    def of(self, namespace: str) -> Mapping[LabelRequirement, Stage]:
        """The requirements of a namespace with their stages."""
        return {requirement: state.stage for requirement, state in self._states.get(namespace, {}).items()}

    def take_changed_namespaces(self) -> set[str]:
        """The namespaces in which anything changed since the last call."""
        changed, self._changed_namespaces = self._changed_namespaces, set()
        return changed

    def adopted(self, namespace: str) -> Mapping[LabelRequirement, int]:
        """The adopted requirements of a namespace, with the revisions that introduced them."""
        states = self._states.get(namespace, {})
        return {requirement: state.introduced for requirement, state in states.items() if state.stage is Stage.ADOPTED}

    def advance(
        self,
        *,
        acknowledged: float,
        released: float,
        revision: int,
        hold_back: Callable[[str], bool] = lambda namespace: False,
    ) -> None:
        """Takes every step that can be taken in `revision`.

        Every node that is not lagging has acknowledged the revision `acknowledged`; no node relies on requirements that
        were retiring in revision `released`. `hold_back` returns whether adopted requirements of a namespace may not
        become active yet, as pods may keep a class that does not match.
        """
        for namespace in sorted(self._unsettled):
            states = self._states[namespace]
            for requirement, (stage, since, _) in list(states.items()):
                if stage is Stage.INTRODUCED and since <= acknowledged:
                    self._set_stage(states, requirement, Stage.ADOPTED, revision)
                elif stage is Stage.ADOPTED and since <= acknowledged and not hold_back(namespace):
                    self._set_stage(states, requirement, Stage.ACTIVE, revision)
                elif stage is Stage.RETIRING and since <= released:
                    self._remove(states, requirement)
            self._update_unsettled(namespace)

    def set_required(self, required: LabelRequirements, *, with_classes: Collection[str], revision: int) -> None:
        """Introduces and retires requirements so that they become those `required`.

        In namespaces that are not `with_classes` no pod has a class yet: there both happen at once.
        """
        if required is not self._required or self._over_budget:
            retried, self._over_budget = self._over_budget, set()
            for namespace, requirements in required.items():
                if (
                    requirements != self._required.get(namespace, NO_REQUIREMENTS)
                    or namespace in self._unsettled
                    or namespace in retried
                ):
                    self._introduce(
                        namespace,
                        requirements,
                        Stage.INTRODUCED if namespace in with_classes else Stage.ACTIVE,
                        revision,
                    )
            self._required, self._retire_due = required, True
        if self._retire_due and not self._rolling_out():
            for namespace in list(self._states):
                self._retire(
                    namespace, required.get(namespace, NO_REQUIREMENTS), revision, at_once=namespace not in with_classes
                )
            self._retire_due = False

    def _rolling_out(self) -> bool:
        return any(
            state.stage in ROLLING_OUT for namespace in self._unsettled for state in self._states[namespace].values()
        )

    def _introduce(
        self, namespace: str, requirements: frozenset[LabelRequirement], first: Stage, revision: int
    ) -> None:
        states = self._states.setdefault(namespace, {})
        # Twice: old requirements and those that replace them are side by side until the old ones have retired.
        budget = RequirementBudget(times=2)
        budget.admit(states.keys())
        new = requirements - states.keys()
        fitting = budget.admit(new)
        if fitting != new:
            self._over_budget.add(namespace)
        for requirement in fitting:
            self._set_stage(states, requirement, first, revision)
        for requirement in requirements & states.keys():
            if states[requirement].stage is Stage.RETIRING:
                self._set_stage(states, requirement, Stage.ACTIVE, revision)
        self._update_unsettled(namespace)

    def _retire(self, namespace: str, required: frozenset[LabelRequirement], revision: int, *, at_once: bool) -> None:
        states = self._states[namespace]
        if states.keys() <= required:
            return
        for requirement in states.keys() - required:
            if at_once:
                self._remove(states, requirement)
            elif states[requirement].stage is Stage.ACTIVE:
                self._set_stage(states, requirement, Stage.RETIRING, revision)
        self._update_unsettled(namespace)

    def _set_stage(
        self,
        states: dict[LabelRequirement, RequirementState],
        requirement: LabelRequirement,
        stage: Stage,
        revision: int,
    ) -> None:
        states[requirement] = RequirementState(
            stage, revision, states[requirement].introduced if requirement in states else revision
        )
        self.changes += 1

    def _remove(self, states: dict[LabelRequirement, RequirementState], requirement: LabelRequirement) -> None:
        del states[requirement]
        self.changes += 1

    def _update_unsettled(self, namespace: str) -> None:
        self._changed_namespaces.add(namespace)
        if not self._states[namespace]:
            del self._states[namespace]
        if namespace in self._states and self._is_unsettled(namespace):
            self._unsettled.add(namespace)
        else:
            self._unsettled.discard(namespace)

    def _is_unsettled(self, namespace: str) -> bool:
        return any(state.stage is not Stage.ACTIVE for state in self._states[namespace].values())
