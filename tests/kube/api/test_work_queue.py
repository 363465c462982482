"""The work queue: one entry for each key, turns by due time, back-off, and a common rate."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.api.token_bucket import TokenBucket
from romana_ovs.kube.api.work_queue import WorkQueue


def queue(size: float = 100.0) -> WorkQueue[str]:
    return WorkQueue(TokenBucket.full(1.0, size), first_retry=1.0, max_retry=8.0)


def test_keys_come_in_the_order_in_which_they_were_added() -> None:
    one = queue()
    for key in ("b", "a", "b", "c"):
        one.add(key)
    got = []
    while (turn := one.get(0)) is not None:
        got.append(turn)
        one.done(turn)
    assert got == ["b", "a", "c"] and one.wait(0) is None


def test_a_key_that_is_added_again_keeps_its_turn() -> None:
    one = queue()
    one.add("a")
    one.add("b")
    assert one.get(5) == "a"
    one.add("a")
    assert one.get(6) == "a"
    one.add_at("a", 6)
    assert one.get(6) == "b"


def test_a_failed_key_waits_longer_until_it_is_forgotten() -> None:
    one = queue()
    pauses = []
    for _ in range(5):
        one.add_rate_limited("a", 10)
        pauses.append(one.wait(10))
    assert pauses == [1, 2, 4, 8, 8]
    assert one.get(17.9) is None and one.get(18) == "a"
    one.forget("a")
    one.add_rate_limited("a", 20)
    assert one.wait(20) == 1


def test_adding_a_key_ends_its_pause() -> None:
    one = queue()
    one.get(10)
    one.add_rate_limited("a", 10)
    one.add("a")
    assert one.get(10) == "a"


def test_all_keys_share_the_rate() -> None:
    one = queue(size=2.0)
    assert [one.admit(0), one.admit(0)] == [0, 0]
    assert one.admit(0) == 1 and one.admit(0.5) == 0.5
    assert one.admit(1) == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["add", "at", "fail", "done", "turn"]), st.floats(0, 3))
    )
)
def test_whatever_happens_every_key_in_the_queue_gets_its_turn(steps: list[tuple[str, str, float]]) -> None:
    one, now = queue(), 0.0
    for key, what, seconds in steps:
        now += seconds
        if what == "add":
            one.add(key)
        elif what == "at":
            one.add_at(key, now + seconds)
        elif what == "fail":
            one.add_rate_limited(key, now)
        elif what == "done":
            one.done(key)
        elif (turn := one.get(now)) is not None:
            one.add_at(turn, now)
    left = {key for key in "abcd" if key in one}
    seen: Counter[str] = Counter()
    for _ in range(4):
        if (turn := one.get(now + 10)) is not None:
            seen[turn] += 1
            one.done(turn)
    assert set(seen) == left and set(seen.values()) <= {1}
