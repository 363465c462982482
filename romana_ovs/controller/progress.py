"""Counts changes of the inputs of tables, and tells which of them every switch has confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Programmed:
    """Every switch has confirmed `generation`; `sent` counts the flow- and meter-mods for it, by node.

    `milliseconds` have passed since the first change that was not reported before.
    """

    generation: int
    milliseconds: float
    sent: dict[str, int]


@dataclass(slots=True)
class Progress:
    """`generation` counts changes, `round` the compilations of all tables; `now` is in seconds."""

    generation: int = 0
    round: int = 0
    _round_generation: int = 0
    _since: float | None = None
    _sent: dict[str, int] = field(default_factory=dict)

    def on_change(self, noticed: float) -> None:
        """An input of the tables has changed; `noticed` is when."""
        self.generation += 1
        if self._since is None:
            self._since = noticed

    @property
    def current(self) -> bool:
        """Whether the last round includes the latest change."""
        return self._round_generation == self.generation

    def next_round(self) -> int:
        """Begin a round; returns its number."""
        self.round += 1
        self._round_generation = self.generation
        return self.round

    def count_sent(self, node: str, count: int) -> None:
        """Count flow-mods and meter-mods that `node`'s switch confirmed."""
        self._sent[node] = self._sent.get(node, 0) + count

    def finish(self, nodes: Iterable[str], now: float) -> Programmed | None:
        """To be called when all of `nodes` have confirmed the last round; None when there is no change to report."""
        if self._since is None:
            # A switch that connected after the change: its flow-mods do not count for the next one.
            self._sent = {}
            return None
        if self._round_generation != self.generation:
            # Switches have the round before the latest change.
            return None
        programmed = Programmed(
            self.generation,
            round((now - self._since) * 1000, 3),
            {node: self._sent.get(node, 0) for node in sorted({*nodes, *self._sent})},
        )
        self._since = None
        self._sent = {}
        return programmed
