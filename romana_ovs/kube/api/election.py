"""Leadership by a Lease as a state machine: no clock, no I/O, no chance; `now` and the answers are arguments.

Why two never write at once. A holder counts from the moment *before* it sent the renewal that succeeded. Everyone
else counts from the moment *after* the answer that first showed this renewal, and takes the lease only when it has
stood still for its whole duration since. The second moment is the later one, so a holder that stops `renew` seconds
after its own has stopped before anyone else begins, whatever was lost, late or doubled in between. Nobody reads the
times in the record, so wall clocks may say what they like. A request that comes late takes nothing away: it names the
version of the record that it changes. What is left, a write that was checked, then delayed, and sent after all, is
refused by the version of the object that it is for: see `Mandate`.

Meaning and names follow client-go's leaderelection; its choices differ where they compare moments otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import Enum

from romana_ovs.model.errors import InputError, PipelineError

JITTER = 0.2
"""Largest share by which a pause is longer than asked for, so that electors do not stay in step."""
LONGEST_PAUSE = 30.0
"""Seconds that a server's Retry-After may put off the next look."""
_NEVER = -math.inf


class State(Enum):
    """How far leadership is."""

    LOOKING = "looking"
    """What the lease says now is not known."""
    WAITING = "waiting"
    """It is somebody else's."""
    CLAIMING = "claiming"
    """It is free, or ours from a claim that we heard no more of: to be written."""
    LEADING = "leading"
    """It is ours."""
    UNSURE = "unsure"
    """It is ours, but the last renewal got no answer: to be read before the next one."""
    RELEASING = "releasing"
    """It is ours, and about to be given back."""
    ENDED = "ended"


class Event(Enum):
    """What happens."""

    FREE = "free"
    """An answer shows that nobody holds it, or that its holder has not renewed it in time."""
    OURS = "ours"
    THEIRS = "theirs"
    WON = "won"
    """What we wrote is what it says."""
    CONFLICT = "conflict"
    """Somebody has written it since we read it."""
    FAILED = "failed"
    """No answer, or one that decides nothing: what we wrote may be there or not."""
    EXPIRED = "expired"
    """Our own count has run out."""
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
"""The states in which the lease is ours as far as we know."""
WRITING = frozenset({State.CLAIMING, State.LEADING, State.RELEASING})
"""The states in which the next request writes; in the others it reads."""


def after(state: State, event: Event) -> State:
    """The state after `event`. Raises PipelineError when `event` cannot happen in `state`."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise PipelineError(f"an election that is {state.value} cannot meet {event.value}")
    return following


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The lease lasts for `lease` since its last renewal, `renew` is when its holder gives up by itself.

    `retry` is the pause between two requests, `request` the longest that one may take. What is left between `renew`
    and `lease` is for writes that were begun just before the end. Raises InputError when they do not fit.
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
        """The longest that a write may take which a holder begins at the last moment."""
        return self.lease - self.renew


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says: `holder` is empty when nobody's, `transitions` counts its changes of hands.

    `seconds` is how long its holder may take between renewals. `version` is its resourceVersion; empty when it is
    yet to be created.
    """

    holder: str = ""
    transitions: int = 0
    seconds: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """A request: what does the lease say? `deadline` is in seconds."""

    sent: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Write:
    """A request: make the lease say `record`, if it is still at `record.version` (empty: create it)."""

    sent: float
    deadline: float
    record: Record


Ask = Read | Write


@dataclass(frozen=True, slots=True)
class Mandate:
    """The right to write what only the leader writes, until `until`; `epoch` grows with every change of hands.

    What is published is written with the resourceVersion that its writer has read, and who comes to power writes the
    Allocation first: so a write that an earlier leader sends late, having been stopped between check and sending,
    meets another version and is refused.
    """

    epoch: int
    until: float

    def may_write(self, now: float, *, needs: float = 0.0) -> bool:
        """Whether a write that takes up to `needs` seconds may begin at `now`."""
        return now + needs < self.until


@dataclass(frozen=True, slots=True)
class Election:
    """Where we (`me`) stand. `since` is when `record` was first seen as it is, None when no lease was seen then.

    `until` is when our count runs out, `due` when the next request is to be made.
    """

    me: str
    timing: Timing = Timing()
    state: State = State.LOOKING
    record: Record | None = None
    since: float = _NEVER
    until: float = _NEVER
    due: float = _NEVER
    gone: Record | None = None
    """The last record of a lease that somebody deleted: its holder may not know yet."""

    def mandate(self, now: float) -> Mandate | None:
        """Our right to write as of `now`, None without."""
        if self.state not in HOLDING or now >= self.until or self.record is None:
            return None
        return Mandate(self.record.transitions, self.until)

    def wakes(self) -> float:
        """When `ask` has to be called next, at the latest."""
        return min(self.due, self.until) if self.state in HOLDING else self.due


def ask(election: Election, now: float) -> tuple[Election, Ask | None]:
    """What to ask the server now, None when it is not time yet (see `wakes`) or all is over."""
    if election.state in HOLDING and now >= election.until:
        election = _moved(election, Event.EXPIRED, due=now)
    if election.state is State.ENDED or now < election.due:
        return election, None
    deadline = election.timing.request
    if election.state in HOLDING:
        deadline = min(deadline, election.until - now)
    if election.state in WRITING:
        return election, Write(now, deadline, _next_record(election))
    return election, Read(now, deadline)


def saw(election: Election, record: Record | None, now: float, *, chance: float) -> Election:
    """The answer to a Read: the lease says `record`, or there is none. `chance` is from 0 to 1, for jitter."""
    election = _noted(election, record, now)
    event = _meaning(election, now)
    due = now if event in (Event.FREE, Event.OURS) else _later(election, now, chance)
    return _moved(election, event, due=due)


def wrote(election: Election, done: Write, record: Record, now: float, *, chance: float) -> Election:
    """The answer to a Write: the lease now says `record`. Leadership counts from when it was sent."""
    election = replace(election, record=record, since=now, gone=None)
    moved = _moved(election, Event.WON, due=_later(election, now, chance))
    return replace(moved, until=done.sent + moved.timing.renew) if moved.state in HOLDING else moved


def conflicted(election: Election, now: float, *, chance: float) -> Election:
    """The answer to a Write: the lease was at another version, or there (or not there) against expectation."""
    return _moved(election, Event.CONFLICT, due=now if election.state in HOLDING else _later(election, now, chance))


def failed(election: Election, now: float, *, chance: float, patience: float | None = None) -> Election:
    """No answer that decides anything; the server asked for `patience` seconds, if it said anything."""
    due = _later(election, now, chance)
    if patience is not None:
        due = max(due, now + min(patience, LONGEST_PAUSE))
    return _moved(election, Event.FAILED, due=due)


def stopped(election: Election, now: float) -> Election:
    """An orderly end: what is ours is given back at once. All writers must have stopped before."""
    return election if election.state in (State.RELEASING, State.ENDED) else _moved(election, Event.STOP, due=now)


def _moved(election: Election, event: Event, *, due: float) -> Election:
    state = after(election.state, event)
    return replace(election, state=state, due=due, until=election.until if state in HOLDING else _NEVER)


def _later(election: Election, now: float, chance: float) -> float:
    return now + election.timing.retry * (1 + JITTER * chance)


def _noted(election: Election, record: Record | None, now: float) -> Election:
    """Take note of when the record became what it is. A version is only ever compared for being the same."""
    if record is None:
        if election.record is None:
            return election
        return replace(election, record=None, gone=election.record, since=now)
    if election.record is not None and election.record.version == record.version:
        return election
    return replace(election, record=record, gone=None, since=now)


def _meaning(election: Election, now: float) -> Event:
    record = election.record if election.record is not None else election.gone
    if record is None or not record.holder:
        return Event.FREE
    if record.holder == election.me:
        return Event.OURS if election.record is not None else Event.FREE
    # Its holder counts by its own duration, which need not be ours.
    still = record.seconds or election.timing.lease
    return Event.FREE if now - election.since >= still else Event.THEIRS


def _next_record(election: Election) -> Record:
    """What the lease is to say: ours, or nobody's when it is given back."""
    old = election.record or Record(transitions=election.gone.transitions if election.gone is not None else -1)
    if election.state is State.RELEASING:
        return replace(old, holder="", seconds=1.0)
    transitions = old.transitions if old.holder == election.me else old.transitions + 1
    return Record(election.me, transitions, election.timing.lease, old.version)
