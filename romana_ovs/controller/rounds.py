"""Remembers what each round was about while some switch may have tables of it or of an older one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from romana_ovs.controller.session import DesiredState
from romana_ovs.controller.table_compiler import Compiled
from romana_ovs.engine.node_agents import PendingAck


@dataclass(frozen=True, slots=True)
class Round:
    """The change of the cluster that it was about, and what each node may acknowledge once it has it, by node."""

    generation: int
    acks: Mapping[str, PendingAck | None]


@dataclass(slots=True)
class Rounds:
    """The rounds by number. With a deferred group, tables are of the last round that they have completely."""

    _known: dict[int, Round] = field(default_factory=dict)
    _given: dict[str, int] = field(default_factory=dict)

    def begin(self, number: int, about: Round, nodes: Collection[str]) -> None:
        """A new round for `nodes`; rounds that none of them is at any more are forgotten."""
        self._known[number] = about
        self._given = {node: self._given.get(node, number) for node in nodes}
        oldest = min(self._given.values(), default=number)
        self._known = {at: known for at, known in self._known.items() if at >= oldest}

    def desired(self, node: str, compiled: Compiled, host: int) -> DesiredState:
        """What the switch of `node`, host number `host`, is given."""
        self._given[node] = compiled.current
        known = self._known.get(compiled.current, Round(0, {}))
        return DesiredState(
            compiled.current, known.generation, compiled.program, host, known.acks.get(node), compiled.owners
        )
