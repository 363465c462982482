"""Pauses after trouble that grow, are spread by chance, and obey what the server asks for."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds."""
SPREAD = 0.5
"""Largest share by which a pause is longer."""


@dataclass(slots=True)
class Patience:
    """For one activity; `now` is in seconds of any clock."""

    first: float = FIRST_PAUSE
    longest: float = LONGEST_PAUSE
    _failures: int = 0
    _until: float = 0.0
    _random: random.Random = field(default_factory=random.Random)

    def lost(self, now: float, asked: float | None = None) -> float:
        """It failed: seconds to wait before the next try, of which the server asked for `asked` at least."""
        pause = min(self.longest, self.first * 2 ** min(self._failures, 20))
        pause = max(pause, min(asked or 0.0, self.longest)) * (1 + SPREAD * self._random.random())
        self._failures += 1
        self._until = now + pause
        return pause

    def found(self) -> None:
        """It succeeded."""
        self._failures, self._until = 0, 0.0

    def left(self, now: float) -> float:
        """Seconds of the pause that are still to be waited."""
        return max(0.0, self._until - now)
