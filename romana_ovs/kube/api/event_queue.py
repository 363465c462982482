"""Decides which Events to write when: one for each object with a warning. Pure; `now` is an argument.

The name of an Event is a hash of its content, so a restarted process, or another leader, continues the existing one.
New Events on an object that is edited repeatedly are rate-limited. An Event whose warning persists is renewed before
the API server deletes it (after an hour, kube-apiserver --event-ttl).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.kube.api.desired import ObjectWarning
from romana_ovs.kube.api.token_bucket import TokenBucket
from romana_ovs.kube.api.work_queue import WorkQueue
from romana_ovs.kube.decode.objects import ObjectId

WRITES_A_SECOND, WRITES_AT_ONCE = 5.0, 25.0
QUIET_SECONDS = 10.0
"""Seconds between two Events on one object."""
RENEW_SECONDS = 1500.0
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 600.0
"""Seconds before a refused Event is tried again; doubled each time."""
MEMORY = 10_000
"""Objects whose last Event time is kept after their warning has gone."""
NAME_LENGTH = 200


@dataclass(frozen=True, slots=True)
class CreateEvent:
    """Task: create this Event."""

    id: ObjectId
    warning: ObjectWarning
    name: str


@dataclass(frozen=True, slots=True)
class GetEvent:
    """Task: read the count of this Event."""

    id: ObjectId
    name: str


@dataclass(frozen=True, slots=True)
class RenewEvent:
    """Task: renew this Event with this count."""

    id: ObjectId
    name: str
    count: int


Task = CreateEvent | GetEvent | RenewEvent


@dataclass(slots=True)
class _Slot:
    """One object with a warning."""

    warning: ObjectWarning
    posted: str = ""
    """The name of its Event that is known to exist."""
    count: int = 0
    """The count of that Event; 0: unknown."""


class EventQueue:
    """Keeps the desired warnings; `next_task` is what to do, `on_...` record the results."""

    def __init__(self, bucket: TokenBucket | None = None) -> None:
        self._queue: WorkQueue[ObjectId] = WorkQueue(
            bucket or TokenBucket.full(WRITES_A_SECOND, WRITES_AT_ONCE),
            first_retry=FIRST_RETRY_SECONDS,
            max_retry=MAX_RETRY_SECONDS,
        )
        self._slots: dict[ObjectId, _Slot] = {}
        self._last: dict[ObjectId, float] = {}
        """When each object had its last Event."""

    # Desired.

    def replace_all(self, objects: Mapping[ObjectId, ObjectWarning]) -> None:
        """Replace all desired warnings."""
        for gone in self._slots.keys() - objects.keys():
            self._drop(gone)
        for key, warning in objects.items():
            self._set(key, warning)

    def update(self, changed: Mapping[ObjectId, ObjectWarning | None]) -> None:
        """Change some desired warnings; None removes one."""
        for key, warning in changed.items():
            if warning is None:
                self._drop(key)
            else:
                self._set(key, warning)

    def _set(self, key: ObjectId, warning: ObjectWarning) -> None:
        slot = self._slots.get(key)
        if slot is None or _content(slot.warning) != _content(warning):
            self._slots[key] = _Slot(warning)
            self._queue.forget(key)
            self._queue.add_at(key, self._last.get(key, -math.inf) + QUIET_SECONDS)

    def _drop(self, key: ObjectId) -> None:
        self._slots.pop(key, None)
        self._queue.forget(key)
        self._queue.done(key)

    # Results.

    def on_created(self, task: CreateEvent, now: float) -> None:
        """The Event was created."""
        self._written(task, 1, now)

    def on_exists(self, task: CreateEvent) -> None:
        """The Event exists already."""
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count = task.name, 0

    def on_read(self, task: GetEvent, count: int) -> None:
        """The Event has this count."""
        if (slot := self._slot(task)) is not None:
            slot.count = max(1, count)

    def on_renewed(self, task: RenewEvent, now: float) -> None:
        """The Event was renewed."""
        self._written(task, task.count, now)

    def on_missing(self, task: GetEvent | RenewEvent) -> None:
        """The API server has deleted the Event."""
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count = "", 0

    def on_refused(self, task: Task, now: float) -> None:
        """The server refused it: try again later."""
        if self._slot(task) is not None:
            self._queue.add_rate_limited(task.id, now)

    def _written(self, task: CreateEvent | RenewEvent, count: int, now: float) -> None:
        self._last.pop(task.id, None)
        self._last[task.id] = now
        while len(self._last) > MEMORY:
            del self._last[next(iter(self._last))]
        if (slot := self._slot(task)) is not None:
            slot.posted, slot.count = task.name, count
            self._queue.forget(task.id)
            self._queue.add_at(task.id, now + RENEW_SECONDS)

    def _slot(self, task: Task) -> _Slot | None:
        """The slot of `task`, if its warning is still the same."""
        slot = self._slots.get(task.id)
        return slot if slot is not None and event_name(task.id, slot.warning) == task.name else None

    # Tasks.

    def next_task(self, now: float) -> Task | float | None:
        """The task that is due, else the seconds until one may be, else None. Every task takes a token."""
        key = self._queue.get(now)
        if key is None:
            return self._queue.wait(now)
        if (pause := self._queue.admit(now)) > 0:
            return pause
        slot = self._slots[key]
        name = event_name(key, slot.warning)
        if not slot.posted:
            return CreateEvent(key, slot.warning, name)
        return RenewEvent(key, name, slot.count + 1) if slot.count else GetEvent(key, name)


def event_name(key: ObjectId, warning: ObjectWarning) -> str:
    """The name of the Event for this warning on `key`: different warnings have different names."""
    digest = hashlib.sha256("\0".join([*key, *_content(warning)]).encode()).hexdigest()[:32]
    return f"{key.name[:NAME_LENGTH].rstrip('.-')}.{digest}"


def _content(warning: ObjectWarning) -> tuple[str, str, str]:
    # Without the generation: an edit that does not change the warning needs no new Event.
    return warning.version.uid, warning.reason, warning.note
