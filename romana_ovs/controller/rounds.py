"""Keeps the generation and acknowledgements of each round until all switches have newer tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from romana_ovs.controller.session import DesiredState
from romana_ovs.controller.table_compiler import Compiled
from romana_ovs.engine.node_agent import PendingAck


@dataclass(frozen=True, slots=True)
class Round:
    """The generation that a round is of, and what each node may acknowledge once its switch has the round."""

    generation: int
    acks: Mapping[str, PendingAck | None]


@dataclass(slots=True)
class Rounds:
    """The rounds by number. Tables with a postponed group count as those of the last round that is in them whole."""

    _rounds: dict[int, Round] = field(default_factory=dict)
    _completed_round: dict[str, int] = field(default_factory=dict)

    def begin(self, number: int, new_round: Round, nodes: Collection[str]) -> None:
        """Begin a round for `nodes`, and forget rounds that are older than the tables of all of them."""
        self._rounds[number] = new_round
        self._completed_round = {node: self._completed_round.get(node, number) for node in nodes}
        oldest = min(self._completed_round.values(), default=number)
        self._rounds = {key: value for key, value in self._rounds.items() if key >= oldest}

    def record_compiled(self, node: str, compiled: Compiled, host: int) -> DesiredState:
        """Record that `node`, with host number `host`, has tables of a round; returns its switch's desired state.

        Tables of a round that is forgotten by now, as those of a node that was away may be, are of generation 0, and
        acknowledge nothing.
        """
        self._completed_round[node] = compiled.completed_round
        completed = self._rounds.get(compiled.completed_round, Round(0, {}))
        return DesiredState(
            compiled.completed_round,
            completed.generation,
            compiled.program,
            host,
            completed.acks.get(node),
            compiled.pod_by_address,
        )
