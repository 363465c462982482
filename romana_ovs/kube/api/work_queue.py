"""Provides a rate-limited work queue, as client-go's workqueue. Pure; `now` is an argument.

A key has one entry, however often it is added, and waits for its turn in the order of due times. Failures of a key are
retried with exponential back-off; a token bucket limits the rate of all keys together.
"""

from __future__ import annotations

import heapq
import math
from typing import Generic, TypeVar

from romana_ovs.backoff import exponential
from romana_ovs.kube.api.token_bucket import TokenBucket

K = TypeVar("K")


class WorkQueue(Generic[K]):
    """Keys with due times. A key stays in the queue until `done`."""

    def __init__(self, bucket: TokenBucket, *, first_retry: float, max_retry: float) -> None:
        """The pauses (seconds) are the first one after a failure, and the upper bound of the back-off."""
        self._bucket = bucket
        self._first_retry = first_retry
        self._max_retry = max_retry
        self._entries: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._failures: dict[K, int] = {}
        self._now = -math.inf
        self._sequence = 0

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def add(self, key: K) -> None:
        """Make `key` due now; one that is due already keeps its turn."""
        entry = self._entries.get(key)
        if entry is None or entry[0] > self._now:
            self.add_at(key, self._now)

    def add_at(self, key: K, due: float) -> None:
        """Make `key` due at this time, instead of any other, after all that are due earlier."""
        self._sequence += 1
        entry = self._entries[key] = (max(due, self._now), self._sequence)
        heapq.heappush(self._heap, (*entry, key))

    def add_rate_limited(self, key: K, now: float) -> None:
        """Make `key` due after a pause that doubles with each failure since it was last forgotten."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_at(key, now + exponential(failures, first=self._first_retry, maximum=self._max_retry))

    def forget(self, key: K) -> None:
        """Reset the back-off of `key`, after a success or a change."""
        self._failures.pop(key, None)

    def done(self, key: K) -> None:
        """Remove `key`; its back-off stays until it is forgotten."""
        self._entries.pop(key, None)

    def get(self, now: float) -> K | None:
        """The key whose turn it is, None when none is due. It keeps its turn until it is added again, or done."""
        self._now = max(self._now, now)
        self._discard_outdated()
        return self._heap[0][2] if self._heap and self._heap[0][0] <= self._now else None

    def wait(self, now: float) -> float | None:
        """Seconds until the next key is due, None when the queue is empty."""
        self._discard_outdated()
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def admit(self, now: float) -> float:
        """Take a token; without one, the seconds until there is one."""
        pause = self._bucket.wait(now)
        if pause <= 0:
            self._bucket = self._bucket.take(now)
        return max(0.0, pause)

    def _discard_outdated(self) -> None:
        """Drop heap entries of keys that were added again or are done."""
        while self._heap and self._entries.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
