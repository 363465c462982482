"""Defines the state machine of the session with one switch as a table: states x events -> state.

`romana_ovs.controller.session` does the I/O.
"""

from __future__ import annotations

from enum import Enum

from romana_ovs.model.errors import SwitchError


class SessionState(Enum):
    """The state of a session."""

    DISCONNECTED = "disconnected"
    """No connection; the switch forwards by its present flows."""
    READING = "reading"
    """Connected; its flows are being read."""
    WAITING = "waiting"
    """Its flows are known; not all inputs are synced yet, so nothing is sent."""
    SENDING = "sending"
    """A bundle was sent; the flows of the switch are uncertain until the barrier."""
    SYNCED = "synced"
    """It has the desired flows, confirmed by a barrier."""
    FAILED = "failed"
    """It answered a request with an error, or in a way that cannot be used; its flows are read again after a pause."""


class SessionEvent(Enum):
    """The events of a session."""

    CONNECTED = "connected"
    READ = "read"
    DESIRED = "desired"
    """There are desired flows (all inputs are synced)."""
    CONFIRMED = "confirmed"
    ERROR = "error"
    """An OpenFlow error, or an answer that cannot be used."""
    RETRY = "retry"
    """The pause is over."""
    LOST = "lost"
    """The connection has ended, or there was no answer in time."""


TRANSITIONS: dict[SessionState, dict[SessionEvent, SessionState]] = {
    SessionState.DISCONNECTED: {
        SessionEvent.CONNECTED: SessionState.READING,
        SessionEvent.LOST: SessionState.DISCONNECTED,
    },
    SessionState.READING: {
        SessionEvent.READ: SessionState.WAITING,
        SessionEvent.ERROR: SessionState.FAILED,
        SessionEvent.LOST: SessionState.DISCONNECTED,
    },
    SessionState.WAITING: {SessionEvent.DESIRED: SessionState.SENDING, SessionEvent.LOST: SessionState.DISCONNECTED},
    SessionState.SENDING: {
        SessionEvent.CONFIRMED: SessionState.SYNCED,
        SessionEvent.ERROR: SessionState.FAILED,
        SessionEvent.LOST: SessionState.DISCONNECTED,
    },
    SessionState.SYNCED: {SessionEvent.DESIRED: SessionState.SENDING, SessionEvent.LOST: SessionState.DISCONNECTED},
    SessionState.FAILED: {SessionEvent.RETRY: SessionState.READING, SessionEvent.LOST: SessionState.DISCONNECTED},
}


def next_state(state: SessionState, event: SessionEvent) -> SessionState:
    """The state after `event`. Raises SwitchError when `event` cannot occur in `state`."""
    following = TRANSITIONS[state].get(event)
    if following is None:
        raise SwitchError(f"internal error: event {event.value} in session state {state.value}, please report")
    return following
