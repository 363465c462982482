"""Limits a rate by a token bucket, as an immutable value (client-go: flowcontrol.RateLimiter)."""

from __future__ import annotations

from dataclasses import dataclass, replace

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`rate` tokens are added each second, up to `burst`; there were `tokens` at `updated_at` (seconds)."""

    rate: float
    burst: float
    tokens: float
    updated_at: float = 0.0

    @classmethod
    def full(cls, rate: float, burst: float) -> TokenBucket:
        """A full bucket."""
        return cls(rate, burst, burst)

    def wait(self, now: float) -> float:
        """Seconds until there is a token; 0 when there is one."""
        lacking = 1.0 - self._at(now)
        return lacking / self.rate if lacking > _ROUNDING else 0.0

    def take(self, now: float) -> TokenBucket:
        """The bucket with one token less, as of `now`."""
        return replace(self, tokens=self._at(now) - 1.0, updated_at=max(now, self.updated_at))

    def _at(self, now: float) -> float:
        return min(self.burst, self.tokens + max(0.0, now - self.updated_at) * self.rate)
