"""The table of session states: complete, reachable, and free of shortcuts past reading or listing."""

from __future__ import annotations

import pytest

from romana_ovs.model.errors import SwitchError
from romana_ovs.sync.session import TRANSITIONS, Event, State, after


def test_every_state_is_declared_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.DISCONNECTED}
    while True:
        more = {new for state in reached for new in TRANSITIONS[state].values()} - reached
        if not more:
            break
        reached |= more
    assert reached == set(State)


@pytest.mark.parametrize("state", State)
def test_a_lost_connection_starts_over_from_anywhere(state: State) -> None:
    assert after(state, Event.LOST) is State.DISCONNECTED


@pytest.mark.parametrize("state", State)
def test_only_a_confirmation_makes_synced(state: State) -> None:
    for event, following in TRANSITIONS[state].items():
        if following is State.SYNCED:
            assert (state, event) == (State.SENDING, Event.CONFIRMED)


def test_nothing_is_sent_before_reading_and_listing() -> None:
    assert {state for state in State if State.SENDING in TRANSITIONS[state].values()} == {State.WAITING, State.SYNCED}
    assert {state for state in State if State.WAITING in TRANSITIONS[state].values()} == {State.READING}


def test_a_failure_reads_again() -> None:
    assert after(after(State.SENDING, Event.REFUSED), Event.RETRY) is State.READING


@pytest.mark.parametrize(("state", "event"), [(s, e) for s in State for e in Event if e not in TRANSITIONS[s]])
def test_anything_else_is_an_error(state: State, event: Event) -> None:
    with pytest.raises(SwitchError, match=state.value):
        after(state, event)
