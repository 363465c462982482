"""Tracks which changes of the cluster were seen, and which every switch has confirmed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Programmed:
    """Every switch has what `generation` asks for; `sent` counts flow- and meter-mods by node since the last time."""

    generation: int
    milliseconds: float
    sent: dict[str, int]


@dataclass(slots=True)
class Progress:
    """`generation` counts changes, `round` the times that switches were given tables; `now` is in seconds."""

    generation: int = 0
    round: int = 0
    _begun: int = 0
    _since: float | None = None
    _sent: dict[str, int] = field(default_factory=dict)

    def change(self, noticed: float) -> None:
        """Something that the tables are made from is different since `noticed`."""
        self.generation += 1
        if self._since is None:
            self._since = noticed

    @property
    def current(self) -> bool:
        """Whether the last round is about the latest change."""
        return self._begun == self.generation

    def next_round(self) -> int:
        """The number of a new round."""
        self.round += 1
        self._begun = self.generation
        return self.round

    def sent(self, node: str, count: int) -> None:
        """Count flow-mods and meter-mods that `node`'s switch confirmed."""
        self._sent[node] = self._sent.get(node, 0) + count

    def finish(self, nodes: Iterable[str], now: float) -> Programmed | None:
        """All of `nodes` have everything: what there is to tell, None when nothing had changed."""
        if self._since is None:
            # A switch that came later than the change: what it needed is no part of the next one.
            self._sent = {}
            return None
        if self._begun != self.generation:
            # What switches have is the round before the latest change: that one is still to come.
            return None
        done = Programmed(
            self.generation,
            round((now - self._since) * 1000, 3),
            {node: self._sent.get(node, 0) for node in sorted({*nodes, *self._sent})},
        )
        self._since = None
        self._sent = {}
        return done
