"""How long clients, sessions and computations wait after failures."""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.backoff import FIRST_SECONDS, MAX_RETRY_AFTER_SECONDS, MAX_SECONDS, Backoff

CHANCES = st.floats(0, 1, exclude_max=True)


def test_waits_grow_up_to_a_limit_and_begin_anew() -> None:
    backoff = Backoff(lambda: 0.0, first=1, maximum=30)
    assert [backoff.failed() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.failures == 7
    backoff.succeeded()
    assert backoff.failed() == 1


@given(failures=st.integers(0, 5000), chance=CHANCES)
def test_no_wait_is_short_or_endless(failures: int, chance: float) -> None:
    backoff = Backoff(lambda: chance)
    backoff.failures = failures
    assert FIRST_SECONDS / 2 <= backoff.failed() <= MAX_SECONDS


@given(asked=st.floats(0, 1e12), chance=CHANCES)
def test_the_servers_retry_after_is_the_least(asked: float, chance: float) -> None:
    wait = Backoff(lambda: chance).failed(asked)
    assert min(asked, MAX_RETRY_AFTER_SECONDS) <= wait <= max(1.5 * MAX_RETRY_AFTER_SECONDS, MAX_SECONDS)


def test_clients_that_failed_together_come_back_apart() -> None:
    chances = [number / 500 for number in range(500)]
    waits = sorted(Backoff(lambda chance=chance: chance).failed(10) for chance in chances)  # type: ignore[misc]
    assert waits[0] == 10 and waits[-1] > 14
    assert max(later - sooner for sooner, later in zip(waits, waits[1:], strict=False)) < 0.1


AGENTS = 500
DOWN = 300
"""Seconds for which the server answers nobody."""
SERVED = 20
"""Requests that it serves in a second after that; whoever else comes is to come again a second later."""


def test_a_fleet_that_restarts_at_once_stays_under_its_budget() -> None:
    """docs/hazards.md C3: 500 agents begin together, at a server that is away first and then overwhelmed."""
    backoffs = [Backoff(Random(number).random) for number in range(AGENTS)]
    coming = [(0.0, number) for number in range(AGENTS)]
    asked: Counter[int] = Counter()
    waiting = set(range(AGENTS))
    now = 0.0
    while coming:
        now, agent = heappop(coming)
        second = int(now)
        asked[second] += 1
        if second >= DOWN and asked[second] <= SERVED:
            backoffs[agent].succeeded()
            waiting.remove(agent)
        else:
            wait = backoffs[agent].failed(1.0 if second >= DOWN else None)
            heappush(coming, (now + wait, agent))
    assert asked[0] >= AGENTS, "they begin together"
    assert sum(asked[second] for second in range(60)) < 8 * AGENTS
    # An agent that asks all the time, as the generated client does, asks 23 times a second.
    steady = [asked[second] for second in range(60, DOWN)]
    assert max(steady) < AGENTS / 8 and sum(steady) / len(steady) < AGENTS / 20
    assert not waiting and now < DOWN + 120, "and everybody is served soon"
