"""Decides which statuses to write when, from desired and observed ones. Pure; `now` is an argument.

Every object has one entry in the queue. The status that is desired when its turn comes is written, so a thousand
changes of one object are a few writes. A status that is stored already is not written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from romana_ovs.kube.api.desired import Condition, ConditionStatus, PolicyStatus, Status, TenantStatus
from romana_ovs.kube.api.token_bucket import TokenBucket
from romana_ovs.kube.api.work_queue import WorkQueue
from romana_ovs.kube.decode.objects import ObjectId, Version

WRITES_A_SECOND, WRITES_AT_ONCE = 20.0, 50.0
COUNT_SECONDS = 5.0
"""Seconds between two writes of a Tenant when only numbers of pods have changed."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 300.0
"""Seconds before a refused write is tried again; doubled each time."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """An object as last read from the server, with its whole status."""

    uid: str
    generation: int
    version: str
    """Its resourceVersion."""
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Observed:
        """From an object of the server."""
        metadata, status = value["metadata"], value.get("status")
        shown = status if isinstance(status, dict) else {}
        return cls(metadata["uid"], metadata.get("generation", 0), metadata["resourceVersion"], shown)


@dataclass(frozen=True, slots=True)
class Get:
    """Task: read this object."""

    id: ObjectId


@dataclass(frozen=True, slots=True)
class Create:
    """Task: create this Tenant."""

    id: ObjectId
    tenant: str


@dataclass(frozen=True, slots=True)
class Patch:
    """Task: write this status (a JSON merge patch) if the object still has the observed version."""

    id: ObjectId
    status: Status
    observed: Observed
    body: Body


Task = Get | Create | Patch


@dataclass(slots=True)
class _Slot:
    """One object with a desired status."""

    status: Status
    written: float = -math.inf
    fresh: bool = False
    """Whether the object was read after the last change of its desired status."""


class StatusQueue:
    """Keeps desired and observed statuses; `next_task` is what to do, `on_...` record the results."""

    def __init__(self, bucket: TokenBucket | None = None) -> None:
        self._slots: dict[ObjectId, _Slot] = {}
        self._observed: dict[ObjectId, Observed | None] = {}
        self._queue: WorkQueue[ObjectId] = WorkQueue(
            bucket or TokenBucket.full(WRITES_A_SECOND, WRITES_AT_ONCE),
            first_retry=FIRST_RETRY_SECONDS,
            max_retry=MAX_RETRY_SECONDS,
        )

    # Desired.

    def replace_all(self, statuses: Mapping[ObjectId, Status]) -> None:
        """Replace all desired statuses."""
        for gone in self._slots.keys() - statuses.keys():
            self._drop(gone)
        for key, status in statuses.items():
            self._set(key, status)

    def update(self, changed: Mapping[ObjectId, Status | None]) -> None:
        """Change some desired statuses; None removes one."""
        for key, status in changed.items():
            if status is None:
                self._drop(key)
            else:
                self._set(key, status)

    def _set(self, key: ObjectId, status: Status) -> None:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(status)
        elif slot.status == status:
            return
        else:
            if slot.status.version not in (status.version, None):
                self._observed.pop(key, None)
            slot.status, slot.fresh = status, False
            self._queue.forget(key)
        self._queue.add(key)

    def _drop(self, key: ObjectId) -> None:
        self._slots.pop(key, None)
        self._observed.pop(key, None)
        self._queue.forget(key)
        self._queue.done(key)

    # Observed.

    def on_listed(self, observed: Mapping[ObjectId, Observed]) -> None:
        """All objects, as just listed."""
        for key, slot in self._slots.items():
            self._observed[key] = observed.get(key)
            slot.fresh = True
            if key not in self._queue:
                self._queue.add(key)

    def on_read(self, key: ObjectId, observed: Observed | None) -> None:
        """One object, as just read; None: it does not exist."""
        if key in self._slots:
            self._observed[key] = observed
            self._slots[key].fresh = True

    def on_written(self, patch: Patch, observed: Observed, now: float) -> None:
        """A Patch succeeded, with this result."""
        slot = self._slots.get(patch.id)
        if slot is None:
            return
        self._observed[patch.id] = observed
        slot.written = now
        self._queue.forget(patch.id)
        if slot.status is patch.status:
            # Even if the server stored less than was written: another write would not help.
            self._queue.done(patch.id)

    def on_conflict(self, key: ObjectId) -> None:
        """The object has changed since it was read: read it again."""
        self._observed.pop(key, None)
        if key in self._slots:
            self._slots[key].fresh = False

    def on_refused(self, key: ObjectId, now: float) -> None:
        """The server refused the write: try again later, or when the desired status changes."""
        if key in self._slots:
            self._queue.add_rate_limited(key, now)
            self.on_conflict(key)

    # Tasks.

    def next_task(self, now: float, at: str) -> Task | float | None:
        """The task that is due, else the seconds until one may be, else None.

        `at` is the time of day as in the API, for changed conditions. Every task takes a token.
        """
        while (key := self._queue.get(now)) is not None:
            slot = self._slots[key]
            task = self._task_for(key, slot, at)
            if task is None:
                self._queue.done(key)
            elif isinstance(task, Patch) and (next_write := slot.written + _min_interval(task)) > now:
                self._queue.add_at(key, next_write)
            elif (pause := self._queue.admit(now)) > 0:
                return pause
            else:
                self._queue.add_at(key, now)  # Unless its result changes that, after all others.
                return task
        return self._queue.wait(now)

    def _task_for(self, key: ObjectId, slot: _Slot, at: str) -> Task | None:
        if key not in self._observed:
            return Get(key)
        observed, status = self._observed[key], slot.status
        if observed is None:
            if isinstance(status, TenantStatus):
                return Create(key, status.tenant)
            return None if slot.fresh else Get(key)
        # A Tenant that was just created has no version yet; its spec does not change.
        version = status.version or Version(observed.uid, observed.generation)
        if observed.uid != version.uid:
            # Another object of that name: either the observed or the desired version is outdated.
            return None if slot.fresh else Get(key)
        if _observed_generation(observed.status) > version.generation:
            return None
        body = rendered(status, version.generation, observed.status, at)
        if all(observed.status.get(name) == value for name, value in body.items()):
            return None
        return Patch(key, status, observed, body)


def rendered(status: Status, generation: int, observed: Mapping[str, Any], at: str) -> Body:
    """The fields of `status` as in the API, merged with `observed`, at the time of day `at`.

    Conditions of others stay. A condition with the same status keeps its lastTransitionTime. `Unknown` does not replace
    a condition of the same generation, so that a restart does not change it for a moment.
    """
    conditions = _conditions(status.conditions, observed.get("conditions"), generation, at)
    body = {"observedGeneration": generation, "conditions": conditions}
    return body | _tenant_body(status) if isinstance(status, TenantStatus) else body


def _tenant_body(status: TenantStatus) -> Body:
    return {
        "ranges": list(status.ranges),
        "tiers": [
            {"name": tier.name, "segment": tier.segment, "ranges": list(tier.ranges), "pods": tier.pods}
            for tier in status.tiers
        ],
        "tierNames": [tier.name for tier in status.tiers],
        "pods": status.pods,
    }


def _conditions(conditions: Iterable[Condition], observed: object, generation: int, at: str) -> list[Body]:
    before = [item for item in observed if isinstance(item, dict)] if isinstance(observed, list) else []
    own = {condition.type: condition for condition in conditions}
    merged = []
    for old in before:
        condition = own.pop(str(old.get("type")), None)
        merged.append(old if condition is None else _condition(condition, generation, old, at))
    return [*merged, *(_condition(condition, generation, {}, at) for condition in own.values())]


def _condition(condition: Condition, generation: int, old: Mapping[str, Any], at: str) -> Body:
    same = old.get("status") == condition.status.value
    if condition.status is ConditionStatus.UNKNOWN and old and old.get("observedGeneration") == generation:
        return dict(old)
    return {
        "type": condition.type,
        "status": condition.status.value,
        "observedGeneration": generation,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": (old.get("lastTransitionTime") or at) if same else at,
    }


def _observed_generation(status: Mapping[str, Any]) -> int:
    generation = status.get("observedGeneration")
    return generation if isinstance(generation, int) else 0


def _min_interval(patch: Patch) -> float:
    """Seconds between the last write and `patch`: 0 unless only numbers of pods have changed."""
    if isinstance(patch.status, PolicyStatus):
        return 0.0
    observed = patch.observed.status
    changed = {name for name, value in patch.body.items() if observed.get(name) != value}
    if not changed <= {"pods", "tiers"} or _without_pods(observed.get("tiers")) != _without_pods(patch.body["tiers"]):
        return 0.0
    return COUNT_SECONDS


def _without_pods(tiers: object) -> list[Body]:
    listed: Iterable[object] = tiers if isinstance(tiers, list) else ()
    return [{k: v for k, v in tier.items() if k != "pods"} for tier in listed if isinstance(tier, dict)]
