"""A token bucket as a value: how many writes may be made, and when the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Bucket:
    """`rate` tokens a second come in, at most `size` are kept; there were `tokens` at `moment` (seconds)."""

    rate: float
    size: float
    tokens: float
    moment: float = 0.0

    @classmethod
    def full(cls, rate: float, size: float) -> Bucket:
        """A bucket with all the tokens that it can keep."""
        return cls(rate, size, size)

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 when there is one."""
        lacking = 1.0 - self._at(now)
        return lacking / self.rate if lacking > _ROUNDING else 0.0

    def take(self, now: float) -> Bucket:
        """The bucket with one token less, as of `now`."""
        return replace(self, tokens=self._at(now) - 1.0, moment=max(now, self.moment))

    def _at(self, now: float) -> float:
        return min(self.size, self.tokens + max(0.0, now - self.moment) * self.rate)
