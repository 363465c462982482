"""Which statuses have to be written when: wanted against known, without clock and I/O (`now` is an argument).

Every object has one place in the queue, whatever happens to it meanwhile: what is written is what is wanted when its
turn comes, so a thousand changes of one object are a few writes. Nothing is written that is there already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from romana_ovs.kube.api.desired import Condition, PolicyStatus, Status, TenantStatus, Truth
from romana_ovs.kube.api.token_bucket import Bucket
from romana_ovs.kube.decode.objects import ObjectId, Version

WRITES_A_SECOND, WRITES_AT_ONCE = 20.0, 50.0
COUNT_SECONDS = 5.0
"""Least time between two writes of a Tenant of which only the numbers of pods differ."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before an object that the server refused to change is tried again; doubled each time."""

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """An object as the server last showed it: of its status, everything."""

    uid: str
    generation: int
    version: str
    """Its resourceVersion."""
    status: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Known:
        """From an object as the server shows it."""
        metadata, status = value["metadata"], value.get("status")
        shown = status if isinstance(status, dict) else {}
        return cls(metadata["uid"], metadata.get("generation", 0), metadata["resourceVersion"], shown)


@dataclass(frozen=True, slots=True)
class Look:
    """To do: read this object."""

    id: ObjectId


@dataclass(frozen=True, slots=True)
class Make:
    """To do: create this Tenant, which nobody has."""

    id: ObjectId
    tenant: str


@dataclass(frozen=True, slots=True)
class Patch:
    """To do: give this object this status (a JSON merge patch) if it is still the one that is known."""

    id: ObjectId
    status: Status
    known: Known
    body: Body


Task = Look | Make | Patch


@dataclass(slots=True)
class _Slot:
    """One object that is wanted to have a status."""

    status: Status
    due: float = -math.inf
    written: float = -math.inf
    failures: int = 0
    looked: bool = False
    """Whether what is known was read after the last change of what is wanted."""


class StatusBook:
    """Stateful, but free of clocks: ask for the `task` to do, and tell how it went."""

    def __init__(self, bucket: Bucket | None = None) -> None:
        self._bucket = bucket or Bucket.full(WRITES_A_SECOND, WRITES_AT_ONCE)
        self._slots: dict[ObjectId, _Slot] = {}
        self._known: dict[ObjectId, Known | None] = {}
        self._waiting: dict[ObjectId, None] = {}

    # What is wanted.

    def want_all(self, statuses: Mapping[ObjectId, Status]) -> None:
        """These and no others are wanted from now on."""
        for gone in self._slots.keys() - statuses.keys():
            self._drop(gone)
        for key, status in statuses.items():
            self._want(key, status)

    def want(self, changed: Mapping[ObjectId, Status | None]) -> None:
        """These are wanted otherwise than before; None: not any more."""
        for key, status in changed.items():
            if status is None:
                self._drop(key)
            else:
                self._want(key, status)

    def _want(self, key: ObjectId, status: Status) -> None:
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = _Slot(status)
        elif slot.status == status:
            return
        else:
            if slot.status.version not in (status.version, None):
                self._known.pop(key, None)
            slot.status, slot.looked, slot.failures, slot.due = status, False, 0, -math.inf
        self._waiting.setdefault(key)

    def _drop(self, key: ObjectId) -> None:
        self._slots.pop(key, None)
        self._known.pop(key, None)
        self._waiting.pop(key, None)

    # What is known.

    def learn_all(self, known: Mapping[ObjectId, Known]) -> None:
        """All objects there are, as just listed."""
        for key, slot in self._slots.items():
            self._known[key] = known.get(key)
            slot.looked = True
            self._waiting.setdefault(key)

    def learn(self, key: ObjectId, known: Known | None) -> None:
        """One object as just read; None: there is none."""
        if key in self._slots:
            self._known[key] = known
            self._slots[key].looked = True

    def wrote(self, patch: Patch, known: Known, now: float) -> None:
        """A Patch succeeded, and this is the object now."""
        slot = self._slots.get(patch.id)
        if slot is None:
            return
        self._known[patch.id] = known
        slot.written, slot.failures = now, 0
        if slot.status is patch.status:
            # Even if the server kept less than it was told: telling it again would not help.
            self._waiting.pop(patch.id, None)

    def conflicted(self, key: ObjectId) -> None:
        """The object is not the one that was known (any more): it must be read."""
        self._known.pop(key, None)
        if key in self._slots:
            self._slots[key].looked = False

    def refused(self, key: ObjectId, now: float) -> None:
        """The server does not take what it was told about this object: later again, or when it is wanted otherwise."""
        slot = self._slots.get(key)
        if slot is not None:
            slot.due = now + min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(slot.failures, 20))
            slot.failures += 1
            self.conflicted(key)

    # What is to be done.

    def task(self, now: float, at: str) -> Task | float | None:
        """What to do now, else the seconds until there may be something, else None.

        `at` is the time of day as the API writes it, for conditions that change. Every task takes a token.
        """
        soonest = math.inf
        for key in list(self._waiting):
            slot = self._slots[key]
            if slot.due > now:
                soonest = min(soonest, slot.due - now)
                continue
            task = self._task_for(key, slot, at)
            if task is None:
                del self._waiting[key]
                continue
            if isinstance(task, Patch) and (pause := slot.written + _pace(task) - now) > 0:
                soonest = min(soonest, pause)
                continue
            if (pause := self._bucket.wait(now)) > 0:
                return pause
            self._bucket = self._bucket.take(now)
            # The next turn is the others'.
            self._waiting[key] = self._waiting.pop(key)
            return task
        return soonest if soonest < math.inf else None

    def _task_for(self, key: ObjectId, slot: _Slot, at: str) -> Task | None:
        if key not in self._known:
            return Look(key)
        known, status = self._known[key], slot.status
        if known is None:
            if isinstance(status, TenantStatus):
                return Make(key, status.tenant)
            return None if slot.looked else Look(key)
        # A Tenant that was just made is all that it will be: its spec is its name.
        version = status.version or Version(known.uid, known.generation)
        if known.uid != version.uid:
            # Another object of that name: one of the two is older, and what is wanted may be.
            return None if slot.looked else Look(key)
        if _observed(known.status) > version.generation:
            return None
        body = rendered(status, version.generation, known.status, at)
        if all(known.status.get(name) == value for name, value in body.items()):
            return None
        return Patch(key, status, known, body)


def rendered(status: Status, generation: int, known: Mapping[str, Any], at: str) -> Body:
    """The fields of `status` as the API writes them, over those in `known`, at the time of day `at`.

    Conditions of others stay, and a condition that is as true or false as before keeps its lastTransitionTime. What
    is not known (yet) does not replace what was said of the same generation: a restart makes nothing flicker.
    """
    conditions = _conditions(status.conditions, known.get("conditions"), generation, at)
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


def _conditions(conditions: Iterable[Condition], known: object, generation: int, at: str) -> list[Body]:
    before = [one for one in known if isinstance(one, dict)] if isinstance(known, list) else []
    own = {condition.type: condition for condition in conditions}
    made = []
    for old in before:
        condition = own.pop(str(old.get("type")), None)
        made.append(old if condition is None else _condition(condition, generation, old, at))
    return [*made, *(_condition(condition, generation, {}, at) for condition in own.values())]


def _condition(condition: Condition, generation: int, old: Mapping[str, Any], at: str) -> Body:
    same = old.get("status") == condition.truth.value
    if condition.truth is Truth.UNKNOWN and old and old.get("observedGeneration") == generation:
        return dict(old)
    return {
        "type": condition.type,
        "status": condition.truth.value,
        "observedGeneration": generation,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": (old.get("lastTransitionTime") or at) if same else at,
    }


def _observed(status: Mapping[str, Any]) -> int:
    found = status.get("observedGeneration")
    return found if isinstance(found, int) else 0


def _pace(patch: Patch) -> float:
    """Seconds since its last write that `patch` must wait: none, unless only the numbers of pods differ."""
    if isinstance(patch.status, PolicyStatus):
        return 0.0
    known = patch.known.status
    changed = {name for name, value in patch.body.items() if known.get(name) != value}
    if not changed <= {"pods", "tiers"} or _without_pods(known.get("tiers")) != _without_pods(patch.body["tiers"]):
        return 0.0
    return COUNT_SECONDS


def _without_pods(tiers: object) -> list[Body]:
    listed: Iterable[object] = tiers if isinstance(tiers, list) else ()
    return [{k: v for k, v in tier.items() if k != "pods"} for tier in listed if isinstance(tier, dict)]
