"""Leadership: the table of its states, and electors in virtual time, of which never two may write."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.api import election
from romana_ovs.kube.api.election import (
    HOLDING,
    TRANSITIONS,
    Election,
    Event,
    LeaseRead,
    LeaseWrite,
    Record,
    State,
    Timing,
    next_state,
)
from romana_ovs.model.errors import InputError, InternalError
from tests.kube.api.simulated_election import LOST, Clocks, Fate, World

# The table.


def test_every_state_is_declared_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.LOOKING}
    for _ in State:
        reached |= {new for state in reached for new in TRANSITIONS[state].values()}
    assert reached == set(State)


def test_leading_begins_with_a_write_that_succeeded() -> None:
    for state, row in TRANSITIONS.items():
        for event, following in row.items():
            if following in HOLDING and state not in HOLDING:
                assert (state, event) == (State.CLAIMING, Event.WON)


@pytest.mark.parametrize("event", [Event.CONFLICT, Event.EXPIRED, Event.STOP])
def test_what_ends_the_right_to_write(event: Event) -> None:
    assert next_state(State.LEADING, event) not in HOLDING


@pytest.mark.parametrize("state", [state for state in State if state not in (State.RELEASING, State.ENDED)])
def test_an_orderly_end_gives_back_what_is_held_and_nothing_else(state: State) -> None:
    assert next_state(state, Event.STOP) is (State.RELEASING if state in HOLDING else State.ENDED)


@pytest.mark.parametrize(("state", "event"), [(s, e) for s in State for e in Event if e not in TRANSITIONS[s]])
def test_anything_else_is_an_error(state: State, event: Event) -> None:
    with pytest.raises(InternalError, match=state.value):
        next_state(state, event)


@pytest.mark.parametrize(
    "timing",
    [
        {"lease_duration": 10.0, "renew_deadline": 10.0},
        {"retry_period": 9.0},
        {"lease_duration": 15.5},
        {"retry_period": 0.0},
        {"request_timeout": 0.0},
    ],
    ids=str,
)
def test_a_timing_that_cannot_be_safe_is_refused(timing: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Timing(**timing)


# Single decisions.


def asked(state: Election, now: float) -> tuple[Election, LeaseRead | LeaseWrite]:
    state, ask = election.next_request(state, now)
    assert ask is not None
    return state, ask


def written(state: Election, now: float) -> Record:
    """What `state` asks to write."""
    _, write = asked(state, now)
    assert isinstance(write, LeaseWrite)
    return write.record


def leading(now: float = 0.0, *, record: Record | None = None) -> Election:
    state, _ = asked(Election("me"), now)
    state = election.on_read(state, record, now, chance=0)
    state, write = asked(state, now)
    assert isinstance(write, LeaseWrite)
    return election.on_written(state, write, Record("me", write.record.transitions, 15, "1"), now, chance=0)


def test_leadership_counts_from_when_the_renewal_was_sent() -> None:
    state, _ = asked(Election("me"), 100)
    state = election.on_read(state, None, 100, chance=0)
    state, write = asked(state, 100)
    assert isinstance(write, LeaseWrite)
    state = election.on_written(state, write, Record("me", 0, 15, "1"), 104.5, chance=0)
    assert state.until == 110
    term = state.term(109.9)
    assert term is not None
    assert term.may_write(109.9) and not term.may_write(109.9, needs=0.2)
    assert state.term(110) is None


def test_every_request_of_a_holder_ends_before_its_right_does() -> None:
    state = leading()
    state, first = asked(state, 2)
    assert first.deadline == 5
    state = election.on_failed(state, 7, chance=0)
    state, second = asked(state, 9)
    assert isinstance(second, LeaseRead) and second.deadline == 1


def test_the_term_ends_by_itself_without_answers() -> None:
    state, ask = election.next_request(leading(), 10.5)
    assert state.state is State.LOOKING and isinstance(ask, LeaseRead)
    assert state.term(10.5) is None


def test_a_lease_expires_after_its_own_duration_as_observed() -> None:
    state = election.on_read(Election("me"), Record("other", 4, 60, "7"), 1000, chance=0)
    for now in (1015, 1059):
        state = election.on_read(state, Record("other", 4, 60, "7"), now, chance=0)
        assert state.state is State.WAITING
    state = election.on_read(state, Record("other", 4, 60, "8"), 1060, chance=0)
    assert state.state is State.WAITING
    state = election.on_read(state, Record("other", 4, 60, "8"), 1120, chance=0)
    state, write = asked(state, 1120)
    assert write == LeaseWrite(1120, 5, Record("me", 5, 15, "8"))


def test_a_lease_given_back_is_free_at_once() -> None:
    state = election.on_read(Election("me"), Record("", 4, 1, "9"), 0, chance=0)
    assert written(state, 0) == Record("me", 5, 15, "9")


def test_a_deleted_lease_stays_its_last_holders_for_a_while() -> None:
    state = election.on_read(Election("me"), Record("other", 4, 15, "7"), 0, chance=0)
    state = election.on_read(state, None, 3, chance=0)
    assert state.state is State.WAITING
    state = election.on_read(state, None, 17.9, chance=0)
    assert state.state is State.WAITING
    state = election.on_read(state, None, 18, chance=0)
    assert written(state, 18) == Record("me", 5, 15, "")


def test_our_deleted_lease_is_created_again_after_a_read() -> None:
    state = leading(record=Record("", 7, 1, "0"))
    state, _ = asked(state, 2)
    state = election.on_conflict(state, 2, chance=0)
    assert state.term(2) is None
    state, read = asked(state, 2)
    assert isinstance(read, LeaseRead)
    state = election.on_read(state, None, 2, chance=0)
    assert written(state, 2) == Record("me", 9, 15, "")


def test_a_renewal_without_answer_is_looked_for_before_the_next() -> None:
    state, _ = asked(leading(), 2)
    state = election.on_failed(state, 3, chance=0)
    assert state.term(5) is not None
    state, read = asked(state, 5)
    assert isinstance(read, LeaseRead)
    state = election.on_read(state, Record("me", 0, 15, "2"), 5, chance=0)
    assert state.until == 10, "reading renews nothing"
    assert asked(state, 5)[1] == LeaseWrite(5, 5, Record("me", 0, 15, "2"))


def test_patience_is_obeyed_within_reason() -> None:
    state = Election("me")
    assert election.on_failed(state, 0, chance=0, retry_after=7).next_request_at == 7
    assert election.on_failed(state, 0, chance=0, retry_after=1e9).next_request_at == election.MAX_RETRY_AFTER_SECONDS


def test_a_conflict_that_lasts_makes_no_storm() -> None:
    state, requests, now = Election("me"), 0, 0.0
    while now < 60:
        state, ask = election.next_request(state, now)
        if ask is None:
            now = max(state.next_due(), now + 0.001)
            continue
        requests += 1
        if isinstance(ask, LeaseRead):
            state = election.on_read(state, Record("", 0, 1, str(requests)), now, chance=0)
        else:
            state = election.on_conflict(state, now, chance=0)
    assert requests <= 2 * 60 / 2 + 2


# Electors in virtual time.

DELAYS = st.one_of(st.floats(0, 0.2), st.floats(0, 0.2), st.floats(0, 12), st.floats(0, 40), st.just(LOST))
FATES = st.builds(Fate, DELAYS, DELAYS, st.one_of(st.none(), st.none(), st.floats(0, 40)))
JUMPS = st.sampled_from([0.0, 0.0, -3600.0, 86400.0, -1e8])


@st.composite
def clocks(draw: st.DrawFn) -> Clocks:
    """A clock of its own, and a wall clock that is stuck, or jumps now and then."""
    jumps, stuck = draw(st.lists(JUMPS, min_size=1, max_size=5)), draw(st.booleans())
    return Clocks(
        start=draw(st.sampled_from([0.0, 5.5, 1e9])),
        rate=draw(st.floats(0.97, 1.03)),
        wall=lambda now: (0.0 if stuck else now) + jumps[int(now / 7) % len(jumps)],
    )


PAUSES = st.lists(st.builds(lambda begin, last: (begin, begin + last), st.floats(0, 150), st.floats(0, 60)), max_size=2)


TIGHT = Timing(lease_duration=15, renew_deadline=14, retry_period=2, request_timeout=12)
"""As little between the end of one right and the beginning of the next as clocks at these rates allow."""


@given(
    electors=st.lists(st.tuples(clocks(), PAUSES, st.floats(0, 20)), min_size=2, max_size=3),
    fates=st.lists(FATES, max_size=60),
    end=st.none() | st.floats(20, 150),
)
def test_two_leaders_never_write_at_once(electors: list[Any], fates: list[Fate], end: float | None) -> None:
    """docs/hazards.md C12: wall clocks jump, writes hang, are late or doubled, processes stand still."""
    coming = iter(fates)
    world = World(lambda: next(coming, Fate()), TIGHT)
    for number, (clock, pauses, begins) in enumerate(electors):
        world.add(f"elector{number}", clock, pauses, begins=begins)
    if end is not None:
        world.at(end, world.nodes[0].elector.stop)
    world.run(200)
    # However it went: once the network is well, one leads, and goes on leading.
    world.healthy = True
    world.run(300)
    first = world.writers()
    world.run(400)
    assert len(first) == 1 and world.writers() == first


def test_without_trouble_leadership_never_changes() -> None:
    world = World(Fate)
    for name in "abc":
        world.add(name, Clocks(), [])
    world.run(3600)
    assert len(world.terms) == 1
    (leader,) = world.writers()
    assert [change.leads for _, change in leader.told] == [False, True] or [c.leads for _, c in leader.told] == [True]


def test_a_leader_that_was_suspended_has_lost_its_term() -> None:
    world = World(Fate)
    world.add("a", Clocks(), [(30, 90)])
    world.add("b", Clocks(), [], begins=5)
    world.run(29)
    assert [node.name for node in world.writers()] == ["a"]
    world.run(41)
    assert world.writers() == []
    world.run(89.9)
    assert [node.name for node in world.writers()] == ["b"]
    world.run(200)
    assert world.terms == [(0, "a"), (1, "b")]


def test_an_orderly_end_hands_over_within_a_retry() -> None:
    world = World(Fate)
    leader = world.add("a", Clocks(), [])
    world.add("b", Clocks(), [], begins=1)
    world.at(30, leader.elector.stop)
    world.run(34.9)
    assert world.terms == [(0, "a"), (1, "b")]


def test_a_wall_clock_that_stands_still_renews_all_the_same() -> None:
    world = World(Fate)
    world.add("a", Clocks(wall=lambda now: 0.0), [])
    world.add("b", Clocks(wall=lambda now: math.pi), [], begins=1)
    world.run(300)
    assert world.terms == [(0, "a")]
    assert world.server.writes > 100
