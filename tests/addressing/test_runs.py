"""Free runs: aligned, disjoint, as large as possible, and the same whether kept or computed anew."""

from __future__ import annotations

from ipaddress import IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.addressing.blocks import Block, FreeBlocks
from romana_ovs.addressing.numbers import NumberAllocator
from romana_ovs.addressing.plan import AddressPlan


@given(st.integers(1, 6), st.lists(st.integers(0, 3), max_size=40))
def test_blocks_are_aligned_disjoint_and_use_all_room(bits: int, logs: list[int]) -> None:
    plan = AddressPlan(IPv4Network((10 << 24, 32 - bits - 3)), bits, 1, 2)
    free = FreeBlocks(plan, [])
    taken: list[Block] = []
    for size in (1 << log for log in logs):
        covered = {index for run in taken for index in run.indexes}
        room = any(covered.isdisjoint(Block(base, size).indexes) for base in range(0, (plan.segments) - size + 1, size))
        run = free.take(size)
        assert (run is not None) == room
        if run is not None:
            assert run.size == size and run.base % size == 0 and run.base + size <= plan.segments
            assert covered.isdisjoint(run.indexes)
            taken.append(run)
        assert FreeBlocks(plan, taken).blocks() == free.blocks()


@given(st.integers(0, 3), st.integers(0, 15))
def test_take_exactly_takes_a_free_run_and_no_other(log: int, index: int) -> None:
    size = 1 << log
    taken = [Block(0, 1), Block(8, 4)]
    free = FreeBlocks(AddressPlan(IPv4Network("10.0.0.0/25"), 4, 1, 2), taken)
    run = Block(index // size * size, size)
    whole = {1: [1], 2: [2], 4: [4, 12]}
    assert free.take_exactly(run) == (run.base in whole.get(size, []))
    assert not free.take_exactly(run)


def test_a_run_and_its_buddy_are_one_run() -> None:
    assert Block(4, 4).buddy == Block(0, 4) and Block(8, 4).buddy == Block(12, 4)
    assert Block(12, 4).with_buddy() == Block(8, 8)


def test_a_freed_number_is_reused_after_all_others() -> None:
    numbers = NumberAllocator()
    assert [numbers.allocate(4, lambda _: True) for _ in range(3)] == [0, 1, 2]
    numbers.free(1)
    numbers.free(0)
    assert [numbers.allocate(4, lambda _: True) for _ in range(4)] == [3, 1, 0, None]


def test_a_number_that_is_not_usable_stays_in_the_queue() -> None:
    numbers = NumberAllocator()
    assert numbers.allocate(3, lambda number: number == 2) == 2
    assert numbers.allocate(3, lambda _: False) is None
    assert numbers.allocate(4, lambda _: True) == 3
    assert numbers.allocate(4, lambda _: True) == 0
