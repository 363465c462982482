"""The states of the conversation with one switch, as a table: states x events -> state.

All logic about what may follow what is here; `romana_ovs.controller.session` only carries it out.
"""

from __future__ import annotations

from enum import Enum

from romana_ovs.model.errors import SwitchError


class State(Enum):
    """How far the conversation with a switch is."""

    DISCONNECTED = "disconnected"
    """No connection; the switch forwards by the flows that it has."""
    READING = "reading"
    """Connected; its flows are being read."""
    WAITING = "waiting"
    """Its flows are known; not all sources are listed yet, so nothing is changed."""
    SENDING = "sending"
    """A bundle is under way; what the switch has is not certain until the barrier."""
    SYNCED = "synced"
    """It has what it should have, confirmed by a barrier."""
    FAILED = "failed"
    """It refused or did not answer; its flows are read again after a pause."""


class Event(Enum):
    """What happens in a conversation."""

    CONNECTED = "connected"
    READ = "read"
    DESIRED = "desired"
    """There is something that it should have (all sources are listed)."""
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    """An error, or no answer in time."""
    RETRY = "retry"
    LOST = "lost"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.DISCONNECTED: {Event.CONNECTED: State.READING, Event.LOST: State.DISCONNECTED},
    State.READING: {Event.READ: State.WAITING, Event.REFUSED: State.FAILED, Event.LOST: State.DISCONNECTED},
    State.WAITING: {Event.DESIRED: State.SENDING, Event.LOST: State.DISCONNECTED},
    State.SENDING: {
        Event.CONFIRMED: State.SYNCED,
        Event.REFUSED: State.FAILED,
        Event.LOST: State.DISCONNECTED,
    },
    State.SYNCED: {Event.DESIRED: State.SENDING, Event.LOST: State.DISCONNECTED},
    State.FAILED: {Event.RETRY: State.READING, Event.LOST: State.DISCONNECTED},
}


def after(state: State, event: Event) -> State:
    """The state after `event`. Raises SwitchError when `event` cannot happen in `state`."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise SwitchError(f"a switch that is {state.value} cannot become {event.value}")
    return following
