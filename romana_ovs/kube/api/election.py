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

from romana_ovs.model.errors import InputError, PipelineError

JITTER = 0.2
"""Largest random share that is added to a pause, so that candidates do not stay in step."""
LONGEST_PAUSE = 30.0
"""Seconds that a Retry-After may delay the next request."""
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
    """The state after `event`. Raises PipelineError when `event` cannot happen in `state`."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise PipelineError(f"event {event.value} is impossible in election state {state.value}")
    return following


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The lease lasts for `lease` since its last renewal; after `renew` its holder stops by itself.

    `retry` is the pause between two requests, `request` the deadline of one. The time from `renew` to `lease` is for
    writes that were begun just before the end. Raises InputError when they are inconsistent.
    """

    lease: float = 15.0
    renew: float = 10.0
    retry: float = 2.0
    request: float = 5.0

    def __post_init__(self) -> None:
        if not (self.lease >= 1 and self.lease == int(self.lease)):
            raise InputError.because(f"a lease lasts for whole seconds, at least one, not {self.lease}")
        if not self.lease > self.renew > self.retry * (1 + JITTER) > 0 or self.request <= 0:
            reason = f"lease {self.lease} > renew {self.renew} > retry {self.retry} * {1 + JITTER} > 0 must hold"
            raise InputError.because(reason)

    @property
    def grace(self) -> float:
        """How long a write may take that a holder begins at the last moment."""
        return self.lease - self.renew


@dataclass(frozen=True, slots=True)
class Record:
    """The content of a Lease: `holder` is empty when nobody holds it, `transitions` counts changes of the holder.

    `seconds` is the time that its holder may take between renewals. `version` is its resourceVersion; empty when it
    has to be created.
    """

    holder: str = ""
    transitions: int = 0
    seconds: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A request to read the lease. `deadline` is in seconds."""

    sent: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Write:
    """A request to write `record`, if the lease still has `record.version` (empty: create it)."""

    sent: float
    deadline: float
    record: Record


Request = Read | Write


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
    """The state of candidate `identity`. `since` is when the present `record` (None: no lease) was first read.

    `until` is when our term runs out, `due` when the next request is due.
    """

    identity: str
    timing: Timing = Timing()
    state: State = State.LOOKING
    record: Record | None = None
    since: float = _NEVER
    until: float = _NEVER
    due: float = _NEVER
    gone: Record | None = None
    """The last record of a lease that was deleted; its holder may not know that yet."""

    def term(self, now: float) -> LeadershipTerm | None:
        """Our leadership term at `now`, if any."""
        if self.state not in HOLDING or now >= self.until or self.record is None:
            return None
        return LeadershipTerm(self.record.transitions, self.until)

    def next_due(self) -> float:
        """When `next_request` has to be called next."""
        return min(self.due, self.until) if self.state in HOLDING else self.due


def next_request(election: Election, now: float) -> tuple[Election, Request | None]:
    """The request that is due; None when none is due yet (see `next_due`), or at the end."""
    if election.state in HOLDING and now >= election.until:
        election = _transition(election, Event.EXPIRED, due=now)
    if election.state is State.ENDED or now < election.due:
        return election, None
    deadline = election.timing.request
    if election.state in HOLDING:
        deadline = min(deadline, election.until - now)
    if election.state in WRITING:
        return election, Write(now, deadline, _next_record(election))
    return election, Read(now, deadline)


def on_read(election: Election, record: Record | None, now: float, *, chance: float) -> Election:
    """A Read returned `record`, None when there is no lease. `chance` is a random fraction from 0 to 1, for jitter."""
    election = _observe(election, record, now)
    event = _event_of(election, now)
    due = now if event in (Event.FREE, Event.OURS) else _next_try(election, now, chance)
    return _transition(election, event, due=due)


def on_written(election: Election, done: Write, record: Record, now: float, *, chance: float) -> Election:
    """A Write succeeded, and returned `record`. The term counts from when it was sent."""
    election = replace(election, record=record, since=now, gone=None)
    moved = _transition(election, Event.WON, due=_next_try(election, now, chance))
    return replace(moved, until=done.sent + moved.timing.renew) if moved.state in HOLDING else moved


def on_conflict(election: Election, now: float, *, chance: float) -> Election:
    """A Write failed, because the lease had another version, existed already, or did not exist."""
    return _transition(
        election, Event.CONFLICT, due=now if election.state in HOLDING else _next_try(election, now, chance)
    )


def on_failed(election: Election, now: float, *, chance: float, retry_after: float | None = None) -> Election:
    """A request failed otherwise; `retry_after` is from the server."""
    due = _next_try(election, now, chance)
    if retry_after is not None:
        due = max(due, now + min(retry_after, LONGEST_PAUSE))
    return _transition(election, Event.FAILED, due=due)


def on_stop(election: Election, now: float) -> Election:
    """Stop, and release the lease at once. All writes must have ended before."""
    return election if election.state in (State.RELEASING, State.ENDED) else _transition(election, Event.STOP, due=now)


def _transition(election: Election, event: Event, *, due: float) -> Election:
    state = next_state(election.state, event)
    return replace(election, state=state, due=due, until=election.until if state in HOLDING else _NEVER)


def _next_try(election: Election, now: float, chance: float) -> float:
    return now + election.timing.retry * (1 + JITTER * chance)


def _observe(election: Election, record: Record | None, now: float) -> Election:
    """Record when the lease changed. Versions are only compared for equality."""
    if record is None:
        if election.record is None:
            return election
        return replace(election, record=None, gone=election.record, since=now)
    if election.record is not None and election.record.version == record.version:
        return election
    return replace(election, record=record, gone=None, since=now)


def _event_of(election: Election, now: float) -> Event:
    record = election.record if election.record is not None else election.gone
    if record is None or not record.holder:
        return Event.FREE
    if record.holder == election.identity:
        return Event.OURS if election.record is not None else Event.FREE
    # Its holder uses its own duration, which may differ from ours.
    duration = record.seconds or election.timing.lease
    return Event.FREE if now - election.since >= duration else Event.THEIRS


def _next_record(election: Election) -> Record:
    """The record to write: with us as the holder, or nobody to release it."""
    old = election.record or Record(transitions=election.gone.transitions if election.gone is not None else -1)
    if election.state is State.RELEASING:
        return replace(old, holder="", seconds=1.0)
    transitions = old.transitions if old.holder == election.identity else old.transitions + 1
    return Record(election.identity, transitions, election.timing.lease, old.version)
