"""The table of session states: complete, reachable, and free of shortcuts past reading or listing."""

from __future__ import annotations

import pytest

from romana_ovs.model.errors import SwitchError
from romana_ovs.sync.session import TRANSITIONS, SessionEvent, SessionState, next_state


def test_every_state_is_declared_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(SessionState)
    reached = {SessionState.DISCONNECTED}
    while True:
        more = {new for state in reached for new in TRANSITIONS[state].values()} - reached
        if not more:
            break
        reached |= more
    assert reached == set(SessionState)


@pytest.mark.parametrize("state", SessionState)
def test_a_lost_connection_starts_over_from_anywhere(state: SessionState) -> None:
    assert next_state(state, SessionEvent.LOST) is SessionState.DISCONNECTED


@pytest.mark.parametrize("state", SessionState)
def test_only_a_confirmation_makes_synced(state: SessionState) -> None:
    for event, following in TRANSITIONS[state].items():
        if following is SessionState.SYNCED:
            assert (state, event) == (SessionState.SENDING, SessionEvent.CONFIRMED)


def test_nothing_is_sent_before_reading_and_listing() -> None:
    assert {state for state in SessionState if SessionState.SENDING in TRANSITIONS[state].values()} == {
        SessionState.WAITING,
        SessionState.SYNCED,
    }
    assert {state for state in SessionState if SessionState.WAITING in TRANSITIONS[state].values()} == {
        SessionState.READING
    }


def test_a_failure_reads_again() -> None:
    assert next_state(next_state(SessionState.SENDING, SessionEvent.ERROR), SessionEvent.RETRY) is SessionState.READING


@pytest.mark.parametrize(
    ("state", "event"), [(s, e) for s in SessionState for e in SessionEvent if e not in TRANSITIONS[s]]
)
def test_anything_else_is_an_error(state: SessionState, event: SessionEvent) -> None:
    with pytest.raises(SwitchError, match=state.value):
        next_state(state, event)
