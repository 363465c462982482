"""Takes every label requirement through its stages; a step waits until the nodes have acknowledged the last.

    NEW -> WORN -> SETTLED -> LEAVING -> gone
                      ^----------'
A question may leave only while no other is on its way, for a node whose newer rules wait still goes by older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.policy_index import NO_REQUIREMENTS, LabelRequirements
from romana_ovs.policy.published import Stage
from romana_ovs.policy.requirements import RequirementBudget
from romana_ovs.policy.view import LabelRequirement

ON_THE_WAY = frozenset({Stage.INTRODUCED, Stage.ADOPTED})


class State(NamedTuple):
    """A stage, the revision that told it first, and the one in which it was asked first."""

    stage: Stage
    since: int
    asked: int


class RequirementLifecycle:
    """The stages of all requirements, by namespace. `changes` counts steps."""

    def __init__(self, known: Mapping[str, Mapping[LabelRequirement, Stage]], now: int) -> None:
        """Those that were `known`, of which nobody has acknowledged anything before revision `now`."""
        self._states = {
            name: {requirement: State(stage, now, now) for requirement, stage in requirements.items()}
            for name, requirements in known.items()
            if requirements
        }
        self._unsettled = {name for name in self._states if self._has_steps(name)}
        self._asked: LabelRequirements = MappingProxyType({})
        self._waiting_for_room: set[str] = set()
        """Namespaces in which something is asked that has no room before others have left."""
        self._may_leave = False
        self._touched: set[str] = set(self._states)
        self.changes = 0

    @property
    def unsettled(self) -> Collection[str]:
        """The namespaces with a step to come."""
        return self._unsettled

    @property
    def requirements(self) -> dict[str, frozenset[LabelRequirement]]:
        """Everything that classes must answer."""
        return {name: frozenset(states) for name, states in self._states.items()}

    def of(self, namespace: str) -> Mapping[LabelRequirement, Stage]:
        """The requirements of a namespace with their stages."""
        return {requirement: state.stage for requirement, state in self._states.get(namespace, {}).items()}

    def touched(self) -> set[str]:
        """The namespaces in which anything changed since the last call."""
        found, self._touched = self._touched, set()
        return found

    def worn(self, namespace: str) -> Mapping[LabelRequirement, int]:
        """The requirements of a namespace that pods may be late to adopt, with the revisions that introduced them."""
        states = self._states.get(namespace, {})
        return {requirement: state.asked for requirement, state in states.items() if state.stage is Stage.ADOPTED}

    def advance(
        self, *, acknowledged: float, released: float, now: int, blocked: Callable[[str], bool] = lambda name: False
    ) -> None:
        """Takes every step that can be taken.

        `acknowledged`: every node that counts has this revision; `released`: none relies on what left before it.
        `blocked` says whether some pod of a namespace may never come to wear what fits it.
        """
        for name in sorted(self._unsettled):
            states = self._states[name]
            for requirement, (stage, since, _) in list(states.items()):
                if stage is Stage.INTRODUCED and since <= acknowledged:
                    self._step(states, requirement, Stage.ADOPTED, now)
                elif stage is Stage.ADOPTED and since <= acknowledged and not blocked(name):
                    self._step(states, requirement, Stage.ACTIVE, now)
                elif stage is Stage.RETIRING and since <= released:
                    self._end(states, requirement)
            self._settle(name)

    def follow(self, asked: LabelRequirements, *, classed: Collection[str], now: int) -> None:
        """Takes `asked` as what rules ask now; in namespaces that are not `classed` no pod wears anything yet."""
        if asked is not self._asked or self._waiting_for_room:
            late, self._waiting_for_room = self._waiting_for_room, set()
            for name, requirements in asked.items():
                if requirements != self._asked.get(name, NO_REQUIREMENTS) or name in self._unsettled or name in late:
                    self._ask(name, requirements, Stage.INTRODUCED if name in classed else Stage.ACTIVE, now)
            self._asked, self._may_leave = asked, True
        if self._may_leave and not self._on_the_way():
            for name in list(self._states):
                self._retire(name, asked.get(name, NO_REQUIREMENTS), now, at_once=name not in classed)
            self._may_leave = False

    def _on_the_way(self) -> bool:
        return any(state.stage in ON_THE_WAY for name in self._unsettled for state in self._states[name].values())

    def _ask(self, name: str, requirements: frozenset[LabelRequirement], first: Stage, now: int) -> None:
        states = self._states.setdefault(name, {})
        room = RequirementBudget(times=2)
        room.admit(states.keys())
        new = requirements - states.keys()
        fitting = room.admit(new)
        if fitting != new:
            self._waiting_for_room.add(name)
        for requirement in fitting:
            self._step(states, requirement, first, now)
        for requirement in requirements & states.keys():
            if states[requirement].stage is Stage.RETIRING:
                self._step(states, requirement, Stage.ACTIVE, now)
        self._settle(name)

    def _retire(self, name: str, asked: frozenset[LabelRequirement], now: int, *, at_once: bool) -> None:
        states = self._states[name]
        if states.keys() <= asked:
            return
        for requirement in states.keys() - asked:
            if at_once:
                self._end(states, requirement)
            elif states[requirement].stage is Stage.ACTIVE:
                self._step(states, requirement, Stage.RETIRING, now)
        self._settle(name)

    def _step(
        self, states: dict[LabelRequirement, State], requirement: LabelRequirement, stage: Stage, now: int
    ) -> None:
        states[requirement] = State(stage, now, states[requirement].asked if requirement in states else now)
        self.changes += 1

    def _end(self, states: dict[LabelRequirement, State], requirement: LabelRequirement) -> None:
        del states[requirement]
        self.changes += 1

    def _settle(self, name: str) -> None:
        self._touched.add(name)
        if not self._states[name]:
            del self._states[name]
        if name in self._states and self._has_steps(name):
            self._unsettled.add(name)
        else:
            self._unsettled.discard(name)

    def _has_steps(self, name: str) -> bool:
        return any(state.stage is not Stage.ACTIVE for state in self._states[name].values())
