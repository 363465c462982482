"""Provides a token bucket as an immutable value."""

from __future__ import annotations

from dataclasses import dataclass, replace

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`rate` tokens are added each second, up to `size`; there were `tokens` at `moment` (seconds)."""

    rate: float
    size: float
    tokens: float
    moment: float = 0.0

    @classmethod
    def full(cls, rate: float, size: float) -> TokenBucket:
        """A full bucket."""
        return cls(rate, size, size)

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 when there is one."""
        lacking = 1.0 - self._at(now)
        return lacking / self.rate if lacking > _ROUNDING else 0.0

    def take(self, now: float) -> TokenBucket:
        """The bucket with one token less, as of `now`."""
        return replace(self, tokens=self._at(now) - 1.0, moment=max(now, self.moment))

    def _at(self, now: float) -> float:
        return min(self.size, self.tokens + max(0.0, now - self.moment) * self.rate)
