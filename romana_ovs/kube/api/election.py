"""Decides by a Lease which candidate leads, as a state machine. Pure: time, randomness and responses are arguments.

Why two leaders never write at once. A holder counts from the moment *before* it sent the renewal that succeeded. Every
other candidate counts from the moment *after* the response that first showed this renewal, and takes the lease only
when it has not changed for its whole duration since. The second moment is the later one, so a holder that stops `renew`
seconds after its own moment has stopped before any other begins, whatever was lost, delayed or doubled in between. The
times in the record are not read, so wrong wall clocks do no harm. A delayed request does no harm, because it has the
version of the record that it changes. A write that was checked, then delayed, and sent after all is refused by the
version of its object: see `LeadershipTerm`.

Semantics and names follow client-go's leaderelection, except for the moments that are compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from romana_ovs.model.errors import InputError, InternalError

JITTER = 0.2
"""Largest random share that is added to a pause, so that candidates do not stay in step."""
MAX_RETRY_AFTER_SECONDS = 30.0
"""How long a Retry-After may delay the next request: not five minutes as elsewhere (`backoff`), as nobody may lead
meanwhile."""
_NEVER = -math.inf


class State(Enum):
    """The state of a candidate."""

    LOOKING = "looking"
    """The present lease is unknown."""
    WAITING = "waiting"
    """Another candidate holds the lease."""
    CLAIMING = "claiming"
    """The lease is free, or ours by a claim without a response: to be written."""
    LEADING = "leading"
    """We hold the lease."""
    UNSURE = "unsure"
    """We hold the lease, but the last renewal got no response: to be read before the next one."""
    RELEASING = "releasing"
    """We hold the lease, and are about to release it."""
    ENDED = "ended"


class Event(Enum):
    """An event in the election."""

    FREE = "free"
    """Nobody holds the lease, or its holder has not renewed it in time."""
    OURS = "ours"
    THEIRS = "theirs"
    WON = "won"
    """Our write succeeded."""
    CONFLICT = "conflict"
    """Another candidate has written it since we read it."""
    FAILED = "failed"
    """No response, or one that decides nothing: our write may have succeeded or not."""
    EXPIRED = "expired"
    """Our term has run out."""
    STOP = "stop"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.LOOKING: {
        Event.FREE: State.CLAIMING,
        Event.OURS: State.CLAIMING,
        Event.THEIRS: State.WAITING,
        Event.FAILED: State.LOOKING,
        Event.STOP: State.ENDED,
    },
    State.WAITING: {
        Event.FREE: State.CLAIMING,
        Event.OURS: State.CLAIMING,
        Event.THEIRS: State.WAITING,
        Event.FAILED: State.WAITING,
        Event.STOP: State.ENDED,
    },
    State.CLAIMING: {
        Event.WON: State.LEADING,
        Event.CONFLICT: State.LOOKING,
        Event.FAILED: State.LOOKING,
        Event.STOP: State.ENDED,
    },
    State.LEADING: {
        Event.WON: State.LEADING,
        Event.CONFLICT: State.LOOKING,
        Event.FAILED: State.UNSURE,
        Event.EXPIRED: State.LOOKING,
        Event.STOP: State.RELEASING,
    },
    State.UNSURE: {
        Event.FREE: State.LOOKING,
        Event.OURS: State.LEADING,
        Event.THEIRS: State.WAITING,
        Event.FAILED: State.UNSURE,
        Event.EXPIRED: State.LOOKING,
        Event.STOP: State.RELEASING,
    },
    State.RELEASING: {Event.WON: State.ENDED, Event.CONFLICT: State.ENDED, Event.FAILED: State.ENDED},
    State.ENDED: {},
}

HOLDING = frozenset({State.LEADING, State.UNSURE})
"""The states in which we hold the lease as far as we know."""
WRITING = frozenset({State.CLAIMING, State.LEADING, State.RELEASING})
"""The states in which the next request writes; in the others it reads."""


def next_state(state: State, event: Event) -> State:
    """The state after `event`. Raises InternalError when `event` cannot happen in `state`."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise InternalError(f"event {event.value} is impossible in election state {state.value}")
    return following


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The lease lasts for `lease_duration` since its last renewal; after `renew_deadline` its holder stops.

    `retry_period` is the pause between two requests, `request_timeout` the time that one may take. The time from
    `renew_deadline` to `lease_duration` is for writes that were begun just before the end. Raises InputError when they
    are inconsistent.
    """

    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    request_timeout: float = 5.0

    def __post_init__(self) -> None:
        lease, renew, retry = self.lease_duration, self.renew_deadline, self.retry_period
        if not (lease >= 1 and lease == int(lease)):
            raise InputError.because(f"a lease lasts for whole seconds, at least one, not {lease}")
        if not lease > renew > retry * (1 + JITTER) > 0 or self.request_timeout <= 0:
            reason = f"lease {lease} > renew {renew} > retry {retry} * {1 + JITTER} > 0 must hold"
            raise InputError.because(reason)

    @property
    def grace(self) -> float:
        """How long a write may take that a holder begins at the last moment."""
        return self.lease_duration - self.renew_deadline


@dataclass(frozen=True, slots=True)
class Record:
    """The content of a Lease: `holder` is empty when nobody holds it, `transitions` counts changes of the holder.

    `lease_duration` is the time in seconds that its holder may take between renewals. `resource_version` is empty when
    it has to be created.
    """

    holder: str = ""
    transitions: int = 0
    lease_duration: float = 0.0
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class LeaseRead:
    """A request to read the lease. `deadline` is in seconds."""

    sent: float
    deadline: float


@dataclass(frozen=True, slots=True)
class LeaseWrite:
    """A request to write `record`, if the lease still has `record.resource_version` (empty: create it)."""

    sent: float
    deadline: float
    record: Record


Request = LeaseRead | LeaseWrite


@dataclass(frozen=True, slots=True)
class LeadershipTerm:
    """The right to do writes of the leader until `until`; `transitions` counts the changes of the holder.

    Published objects are written with the resourceVersion that was read, and a new leader writes the Allocation first.
    So a delayed write of an earlier leader has an outdated version and is refused.
    """

    transitions: int
    until: float

    def may_write(self, now: float, *, needs: float = 0.0) -> bool:
        """Whether a write that takes up to `needs` seconds may begin at `now`."""
        return now + needs < self.until


@dataclass(frozen=True, slots=True)
class Election:
    """The state of candidate `identity`. `observed_at` is when the present `record` (None: no lease) was first read.

    `until` is when our term runs out, `next_request_at` when the next request is due.
    """

    identity: str
    timing: Timing = Timing()
    state: State = State.LOOKING
    record: Record | None = None
    observed_at: float = _NEVER
    until: float = _NEVER
    next_request_at: float = _NEVER
    deleted_record: Record | None = None
    """The last record of a lease that was deleted; its holder may not know that yet."""

    def term(self, now: float) -> LeadershipTerm | None:
        """Our leadership term at `now`, if any."""
        if self.state not in HOLDING or now >= self.until or self.record is None:
            return None
        return LeadershipTerm(self.record.transitions, self.until)

    def next_due(self) -> float:
        """When `next_request` has to be called next."""
        return min(self.next_request_at, self.until) if self.state in HOLDING else self.next_request_at


def next_request(election: Election, now: float) -> tuple[Election, Request | None]:
    """The request that is due; None when none is due yet (see `next_due`), or at the end."""
    if election.state in HOLDING and now >= election.until:
        election = _transition(election, Event.EXPIRED, due=now)
    if election.state is State.ENDED or now < election.next_request_at:
        return election, None
    deadline = election.timing.request_timeout
    if election.state in HOLDING:
        deadline = min(deadline, election.until - now)
    if election.state in WRITING:
        return election, LeaseWrite(now, deadline, _next_record(election))
    return election, LeaseRead(now, deadline)


def on_read(election: Election, record: Record | None, now: float, *, chance: float) -> Election:
    """A LeaseRead returned `record` (None: no lease exists). `chance` is a random fraction from 0 to 1, for jitter."""
    election = _observe(election, record, now)
    event = _event_of(election, now)
    due = now if event in (Event.FREE, Event.OURS) else _next_try(election, now, chance)
    return _transition(election, event, due=due)


def on_written(election: Election, done: LeaseWrite, record: Record, now: float, *, chance: float) -> Election:
    """A LeaseWrite succeeded, and returned `record`. The term counts from when it was sent."""
    election = replace(election, record=record, observed_at=now, deleted_record=None)
    moved = _transition(election, Event.WON, due=_next_try(election, now, chance))
    return replace(moved, until=done.sent + moved.timing.renew_deadline) if moved.state in HOLDING else moved


def on_conflict(election: Election, now: float, *, chance: float) -> Election:
    """A LeaseWrite failed, because the lease had another version, existed already, or did not exist."""
    return _transition(
        election, Event.CONFLICT, due=now if election.state in HOLDING else _next_try(election, now, chance)
    )


def on_failed(election: Election, now: float, *, chance: float, retry_after: float | None = None) -> Election:
    """A request failed otherwise; `retry_after` is from the server."""
    due = _next_try(election, now, chance)
    if retry_after is not None:
        due = max(due, now + min(retry_after, MAX_RETRY_AFTER_SECONDS))
    return _transition(election, Event.FAILED, due=due)


def on_stop(election: Election, now: float) -> Election:
    """Stop, and release the lease at once. All writes must have ended before."""
    return election if election.state in (State.RELEASING, State.ENDED) else _transition(election, Event.STOP, due=now)


def _transition(election: Election, event: Event, *, due: float) -> Election:
    state = next_state(election.state, event)
    return replace(election, state=state, next_request_at=due, until=election.until if state in HOLDING else _NEVER)


def _next_try(election: Election, now: float, chance: float) -> float:
    return now + election.timing.retry_period * (1 + JITTER * chance)


def _observe(election: Election, record: Record | None, now: float) -> Election:
    """Record when the lease changed. Versions are only compared for equality."""
    if record is None:
        if election.record is None:
            return election
        return replace(election, record=None, deleted_record=election.record, observed_at=now)
    if election.record is not None and election.record.resource_version == record.resource_version:
        return election
    return replace(election, record=record, deleted_record=None, observed_at=now)


def _event_of(election: Election, now: float) -> Event:
    record = election.record if election.record is not None else election.deleted_record
    if record is None or not record.holder:
        return Event.FREE
    if record.holder == election.identity:
        return Event.OURS if election.record is not None else Event.FREE
    # Its holder uses its own duration, which may differ from ours.
    duration = record.lease_duration or election.timing.lease_duration
    return Event.FREE if now - election.observed_at >= duration else Event.THEIRS


def _next_record(election: Election) -> Record:
    """The record to write: with us as the holder, or nobody to release it."""
    deleted = election.deleted_record
    old = election.record or Record(transitions=deleted.transitions if deleted is not None else -1)
    if election.state is State.RELEASING:
        return replace(old, holder="", lease_duration=1.0)
    transitions = old.transitions if old.holder == election.identity else old.transitions + 1
    return Record(election.identity, transitions, election.timing.lease_duration, old.resource_version)
