"""Which Events are due: one on each object that is refused, without clock and I/O (`now` is an argument).

An Event's name is made from what it says, so a restart, or another leader, goes on with the one that is there. An
object that is edited over and over gets one new Event in a while; one that stays refused has its Event renewed before
the API server forgets it (an hour, kube-apiserver --event-ttl).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.kube.api.desired import Refused
from romana_ovs.kube.api.token_bucket import Bucket
from romana_ovs.kube.decode.objects import ObjectId

WRITES_A_SECOND, WRITES_AT_ONCE = 5.0, 25.0
QUIET_SECONDS = 10.0
"""Least time between two Events on one object."""
RENEW_SECONDS = 1500.0
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Seconds before an Event that was not taken is tried again; doubled each time."""
MEMORY = 10_000
"""Objects of which it is remembered, after they were put right, when they had their last Event."""
NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Post:
    """To do: create this Event."""

    id: ObjectId
    refused: Refused
    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """To do: read how often the Event of this name was seen."""

    id: ObjectId
    name: str


@dataclass(frozen=True, slots=True)
class Renew:
    """To do: tell that the Event of this name has been seen for the `count`th time."""

    id: ObjectId
    name: str
    count: int


Task = Post | Look | Renew


@dataclass(slots=True)
class _Slot:
    """One object that is refused."""

    refused: Refused
    due: float
    posted: str = ""
    """The name of its Event that is known to be there."""
    count: int = 0
    """How often that one was seen; 0: not known."""
    failures: int = 0


class EventBook:
    """Stateful, but free of clocks: ask for the `task` to do, and tell how it went."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self._bucket = bucket or Bucket.full(WRITES_A_SECOND, WRITES_AT_ONCE)
        self._slots: dict[ObjectId, _Slot] = {}
        self._last: dict[ObjectId, float] = {}
        """When each object had its last Event."""

    # What is refused.

    def want_all(self, objects: Mapping[ObjectId, Refused]) -> None:
        """These and no others are refused now."""
        for gone in self._slots.keys() - objects.keys():
            del self._slots[gone]
        for key, refused in objects.items():
            self._want(key, refused)

    def want(self, changed: Mapping[ObjectId, Refused | None]) -> None:
        """These are refused otherwise than before; None: not any more."""
        for key, refused in changed.items():
            if refused is None:
                self._slots.pop(key, None)
            else:
                self._want(key, refused)

    def _want(self, key: ObjectId, refused: Refused) -> None:
        slot = self._slots.get(key)
        if slot is None or _said(slot.refused) != _said(refused):
            self._slots[key] = _Slot(refused, self._last.get(key, -math.inf) + QUIET_SECONDS)

    # How it went.

    def posted(self, task: Post, now: float) -> None:
        """The Event is there now."""
        self._seen(task, 1, now)

    def exists(self, task: Post) -> None:
        """The Event was there already."""
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count = task.name, 0

    def read(self, task: Look, count: int) -> None:
        """The Event was seen `count` times so far."""
        if (slot := self._slot(task)) is not None:
            slot.count = max(1, count)

    def renewed(self, task: Renew, now: float) -> None:
        """The Event's count is as it should be."""
        self._seen(task, task.count, now)

    def missing(self, task: Look | Renew) -> None:
        """The API server has forgotten the Event."""
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count = "", 0

    def refused(self, task: Task, now: float) -> None:
        """The server does not take it: later again."""
        if (slot := self._slot(task)) is not None:
            slot.due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(slot.failures, 20))
            slot.failures += 1

    def _seen(self, task: Post | Renew, count: int, now: float) -> None:
        self._last.pop(task.id, None)
        self._last[task.id] = now
        while len(self._last) > MEMORY:
            del self._last[next(iter(self._last))]
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count, slot.failures, slot.due = task.name, count, 0, now + RENEW_SECONDS

    def _slot(self, task: Task) -> _Slot | None:
        """The slot that `task` was about, if it is still about the same."""
        slot = self._slots.get(task.id)
        return slot if slot is not None and event_name(task.id, slot.refused) == task.name else None

    # What is to be done.

    def task(self, now: float) -> Task | float | None:
        """What to do now, else the seconds until there may be something, else None. Every task takes a token."""
        if not self._slots:
            return None
        key, slot = min(self._slots.items(), key=lambda item: item[1].due)
        pause = max(slot.due - now, self._bucket.wait(now))
        if pause > 0:
            return pause
        self._bucket = self._bucket.take(now)
        name = event_name(key, slot.refused)
        if not slot.posted:
            return Post(key, slot.refused, name)
        return Renew(key, name, slot.count + 1) if slot.count else Look(key, name)


def event_name(key: ObjectId, refused: Refused) -> str:
    """The name of the Event that says this of `key`: no two that say different things share one."""
    digest = hashlib.sha256("\0".join([*key, *_said(refused)]).encode()).hexdigest()[:32]
    return f"{key.name[:NAME_LENGTH].rstrip('.-')}.{digest}"


def _said(refused: Refused) -> tuple[str, str, str]:
    # Not the generation: an edit that changes nothing about what is wrong is no news.
    return refused.version.uid, refused.reason, refused.note
