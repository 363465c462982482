"""Free runs: aligned, apart, as large as can be, and the same whether remembered or worked out again."""

from __future__ import annotations

# mypy: ignore-errors
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.addressing.numbers import Numbers
from romana_ovs.addressing.runs import FreeRuns, Run


@given(st.integers(1, 6), st.lists(st.integers(0, 3), max_size=40))
def test_runs_are_aligned_and_apart_and_taken_while_there_is_room(bits, logs):
    free = FreeRuns(bits, [])
    taken: list[Run] = []
    for size in (1 << log for log in logs):
        covered = {index for run in taken for index in run.indexes}
        room = any(covered.isdisjoint(Run(base, size).indexes) for base in range(0, (1 << bits) - size + 1, size))
        run = free.take(size)
        assert (run is not None) == room
        if run is not None:
            assert run.size == size and run.base % size == 0 and run.base + size <= 1 << bits
            assert covered.isdisjoint(run.indexes)
            taken.append(run)
        assert FreeRuns(bits, taken)._free == free._free


@given(st.integers(0, 3), st.integers(0, 15))
def test_take_exactly_takes_a_run_that_is_free_as_it_is_and_no_other(log, index):
    size = 1 << log
    taken = [Run(0, 1), Run(8, 4)]
    free = FreeRuns(4, taken)
    run = Run(index // size * size, size)
    whole = {1: [1], 2: [2], 4: [4, 12]}
    assert free.take_exactly(run) == (run.base in whole.get(size, []))
    assert not free.take_exactly(run)


def test_a_run_and_its_buddy_are_one_run():
    assert Run(4, 4).buddy == Run(0, 4) and Run(8, 4).buddy == Run(12, 4)
    assert Run(12, 4).with_buddy() == Run(8, 8)


def test_numbers_given_back_wait_for_all_others():
    numbers = Numbers()
    assert [numbers.take(4, lambda _: True) for _ in range(3)] == [0, 1, 2]
    numbers.give_back(1)
    numbers.give_back(0)
    assert [numbers.take(4, lambda _: True) for _ in range(4)] == [3, 1, 0, None]


def test_numbers_that_are_not_usable_now_stay_in_line():
    numbers = Numbers()
    assert numbers.take(3, lambda number: number == 2) == 2
    assert numbers.take(3, lambda _: False) is None
    assert numbers.take(4, lambda _: True) == 3
    assert numbers.take(4, lambda _: True) == 0
