"""Moves every label requirement through its stages; each step waits until nodes have acknowledged the last one.

    INTRODUCED -> ADOPTED -> ACTIVE -> RETIRING -> removed
                                ^---------'
A requirement may retire only while no other is being rolled out: a node whose newer rules wait still uses older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.policy_index import NO_REQUIREMENTS, LabelRequirements
from romana_ovs.policy.published import Stage
from romana_ovs.policy.requirements import RequirementBudget
from romana_ovs.policy.view import LabelRequirement

ROLLING_OUT = frozenset({Stage.INTRODUCED, Stage.ADOPTED})


class State(NamedTuple):
    """A stage, the first revision that publishes it, and the one that introduced the requirement."""

    stage: Stage
    since: int
    introduced: int


class RequirementLifecycle:
    """The stages of all requirements, by namespace. `changes` counts steps."""

    def __init__(self, published: Mapping[str, Mapping[LabelRequirement, Stage]], now: int) -> None:
        """Begins with those that were `published`; none of it counts as acknowledged before revision `now`."""
        self._states = {
            name: {requirement: State(stage, now, now) for requirement, stage in requirements.items()}
            for name, requirements in published.items()
            if requirements
        }
        self._unsettled = {name for name in self._states if self._has_steps(name)}
        self._required: LabelRequirements = MappingProxyType({})
        self._over_budget: set[str] = set()
        """Namespaces in which a requirement waits until others are removed, as their number is bounded."""
        self._retire_due = False
        self._touched: set[str] = set(self._states)
        self.changes = 0

    @property
    def unsettled(self) -> Collection[str]:
        """The namespaces with a requirement that is not active."""
        return self._unsettled

    @property
    def requirements(self) -> dict[str, frozenset[LabelRequirement]]:
        """All requirements that classes must distinguish, by namespace."""
        return {name: frozenset(states) for name, states in self._states.items()}

    def of(self, namespace: str) -> Mapping[LabelRequirement, Stage]:
        """The requirements of a namespace with their stages."""
        return {requirement: state.stage for requirement, state in self._states.get(namespace, {}).items()}

    def touched(self) -> set[str]:
        """The namespaces in which anything changed since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def adopted(self, namespace: str) -> Mapping[LabelRequirement, int]:
        """The adopted requirements of a namespace, with the revisions that introduced them."""
        states = self._states.get(namespace, {})
        return {requirement: state.introduced for requirement, state in states.items() if state.stage is Stage.ADOPTED}

    def advance(
        self, *, acknowledged: float, released: float, now: int, blocked: Callable[[str], bool] = lambda name: False
    ) -> None:
        """Takes every step that can be taken in revision `now`.

        Every node that is not lagging has acknowledged the revision `acknowledged`; no node relies on requirements that
        were retiring in revision `released`. `blocked` says whether pods of a namespace may
        keep a class that does not match.
        """
        for name in sorted(self._unsettled):
            states = self._states[name]
            for requirement, (stage, since, _) in list(states.items()):
                if stage is Stage.INTRODUCED and since <= acknowledged:
                    self._step(states, requirement, Stage.ADOPTED, now)
                elif stage is Stage.ADOPTED and since <= acknowledged and not blocked(name):
                    self._step(states, requirement, Stage.ACTIVE, now)
                elif stage is Stage.RETIRING and since <= released:
                    self._remove(states, requirement)
            self._update_unsettled(name)

    def set_required(self, required: LabelRequirements, *, with_classes: Collection[str], now: int) -> None:
        """Introduces and retires requirements so that they become those `required`.

        In namespaces that are not `with_classes` no pod has a class yet: there both happen at once.
        """
        if required is not self._required or self._over_budget:
            retried, self._over_budget = self._over_budget, set()
            for name, requirements in required.items():
                if (
                    requirements != self._required.get(name, NO_REQUIREMENTS)
                    or name in self._unsettled
                    or name in retried
                ):
                    self._introduce(name, requirements, Stage.INTRODUCED if name in with_classes else Stage.ACTIVE, now)
            self._required, self._retire_due = required, True
        if self._retire_due and not self._rolling_out():
            for name in list(self._states):
                self._retire(name, required.get(name, NO_REQUIREMENTS), now, at_once=name not in with_classes)
            self._retire_due = False

    def _rolling_out(self) -> bool:
        return any(state.stage in ROLLING_OUT for name in self._unsettled for state in self._states[name].values())

    def _introduce(self, name: str, requirements: frozenset[LabelRequirement], first: Stage, now: int) -> None:
        states = self._states.setdefault(name, {})
        budget = RequirementBudget(times=2)
        budget.admit(states.keys())
        new = requirements - states.keys()
        fitting = budget.admit(new)
        if fitting != new:
            self._over_budget.add(name)
        for requirement in fitting:
            self._step(states, requirement, first, now)
        for requirement in requirements & states.keys():
            if states[requirement].stage is Stage.RETIRING:
                self._step(states, requirement, Stage.ACTIVE, now)
        self._update_unsettled(name)

    def _retire(self, name: str, required: frozenset[LabelRequirement], now: int, *, at_once: bool) -> None:
        states = self._states[name]
        if states.keys() <= required:
            return
        for requirement in states.keys() - required:
            if at_once:
                self._remove(states, requirement)
            elif states[requirement].stage is Stage.ACTIVE:
                self._step(states, requirement, Stage.RETIRING, now)
        self._update_unsettled(name)

    def _step(
        self, states: dict[LabelRequirement, State], requirement: LabelRequirement, stage: Stage, now: int
    ) -> None:
        states[requirement] = State(stage, now, states[requirement].introduced if requirement in states else now)
        self.changes += 1

    def _remove(self, states: dict[LabelRequirement, State], requirement: LabelRequirement) -> None:
        del states[requirement]
        self.changes += 1

    def _update_unsettled(self, name: str) -> None:
        self._touched.add(name)
        if not self._states[name]:
            del self._states[name]
        if name in self._states and self._has_steps(name):
            self._unsettled.add(name)
        else:
            self._unsettled.discard(name)

    def _has_steps(self, name: str) -> bool:
        return any(state.stage is not Stage.ACTIVE for state in self._states[name].values())
