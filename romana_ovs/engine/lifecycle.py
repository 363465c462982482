"""Takes every label requirement through its stages; a step waits until the nodes have acknowledged the last.

    NEW -> WORN -> SETTLED -> LEAVING -> gone
                      ^----------'
A question may leave only while no other is on its way, for a node whose newer rules wait still goes by older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import NamedTuple

from romana_ovs.engine.policy_index import NO_ATOMS, Atoms
from romana_ovs.policy.atoms import Room
from romana_ovs.policy.published import Stage
from romana_ovs.policy.view import Atom

ON_THE_WAY = frozenset({Stage.INTRODUCED, Stage.ADOPTED})


class State(NamedTuple):
    """A stage, the revision that told it first, and the one in which it was asked first."""

    stage: Stage
    since: int
    asked: int


class RequirementLifecycle:
    """The stages of all atoms, by namespace. `changes` counts steps."""

    def __init__(self, known: Mapping[str, Mapping[Atom, Stage]], now: int) -> None:
        """Those that were `known`, of which nobody has acknowledged anything before revision `now`."""
        self._states = {
            name: {atom: State(stage, now, now) for atom, stage in atoms.items()}
            for name, atoms in known.items()
            if atoms
        }
        self._unsettled = {name for name in self._states if self._has_steps(name)}
        self._asked: Atoms = MappingProxyType({})
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
    def atoms(self) -> dict[str, frozenset[Atom]]:
        """Everything that classes must answer."""
        return {name: frozenset(states) for name, states in self._states.items()}

    def of(self, namespace: str) -> Mapping[Atom, Stage]:
        """The atoms of a namespace with their stages."""
        return {atom: state.stage for atom, state in self._states.get(namespace, {}).items()}

    def touched(self) -> set[str]:
        """The namespaces in which anything changed since the last call."""
        found, self._touched = self._touched, set()
        return found

    def worn(self, namespace: str) -> Mapping[Atom, int]:
        """The atoms of a namespace that pods may be late to wear, with the revisions in which they were asked first."""
        states = self._states.get(namespace, {})
        return {atom: state.asked for atom, state in states.items() if state.stage is Stage.ADOPTED}

    def advance(
        self, *, acknowledged: float, released: float, now: int, blocked: Callable[[str], bool] = lambda name: False
    ) -> None:
        """Takes every step that can be taken.

        `acknowledged`: every node that counts has this revision; `released`: none relies on what left before it.
        `blocked` says whether some pod of a namespace may never come to wear what fits it.
        """
        for name in sorted(self._unsettled):
            states = self._states[name]
            for atom, (stage, since, _) in list(states.items()):
                if stage is Stage.INTRODUCED and since <= acknowledged:
                    self._step(states, atom, Stage.ADOPTED, now)
                elif stage is Stage.ADOPTED and since <= acknowledged and not blocked(name):
                    self._step(states, atom, Stage.ACTIVE, now)
                elif stage is Stage.RETIRING and since <= released:
                    self._end(states, atom)
            self._settle(name)

    def follow(self, asked: Atoms, *, classed: Collection[str], now: int) -> None:
        """Takes `asked` as what rules ask now; in namespaces that are not `classed` no pod wears anything yet."""
        if asked is not self._asked or self._waiting_for_room:
            late, self._waiting_for_room = self._waiting_for_room, set()
            for name, atoms in asked.items():
                if atoms != self._asked.get(name, NO_ATOMS) or name in self._unsettled or name in late:
                    self._ask(name, atoms, Stage.INTRODUCED if name in classed else Stage.ACTIVE, now)
            self._asked, self._may_leave = asked, True
        if self._may_leave and not self._on_the_way():
            for name in list(self._states):
                self._retire(name, asked.get(name, NO_ATOMS), now, at_once=name not in classed)
            self._may_leave = False

    def _on_the_way(self) -> bool:
        return any(state.stage in ON_THE_WAY for name in self._unsettled for state in self._states[name].values())

    def _ask(self, name: str, atoms: frozenset[Atom], first: Stage, now: int) -> None:
        states = self._states.setdefault(name, {})
        room = Room(times=2)
        room.take(states.keys())
        new = atoms - states.keys()
        fitting = room.take(new)
        if fitting != new:
            self._waiting_for_room.add(name)
        for atom in fitting:
            self._step(states, atom, first, now)
        for atom in atoms & states.keys():
            if states[atom].stage is Stage.RETIRING:
                self._step(states, atom, Stage.ACTIVE, now)
        self._settle(name)

    def _retire(self, name: str, asked: frozenset[Atom], now: int, *, at_once: bool) -> None:
        states = self._states[name]
        if states.keys() <= asked:
            return
        for atom in states.keys() - asked:
            if at_once:
                self._end(states, atom)
            elif states[atom].stage is Stage.ACTIVE:
                self._step(states, atom, Stage.RETIRING, now)
        self._settle(name)

    def _step(self, states: dict[Atom, State], atom: Atom, stage: Stage, now: int) -> None:
        states[atom] = State(stage, now, states[atom].asked if atom in states else now)
        self.changes += 1

    def _end(self, states: dict[Atom, State], atom: Atom) -> None:
        del states[atom]
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
