"""Values that are kept until an input changes: never another result, and no call that an input does not ask for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.derived import MAX_SHARED, Derived, DerivedMap, LastInputs, SharedDerived, keep_equal


class Counted:
    """Adds up numbers, and counts how often it did."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *numbers: list[int]) -> tuple[int, ...]:
        self.calls += 1
        return tuple(sum(each) for each in numbers)


Get = Callable[[tuple[list[int], list[int]], Counted], tuple[int, ...]]
SHAPES: dict[str, Callable[[], Get]] = {
    "one": lambda: Derived[tuple[int, ...]]().get,
    "one by value": lambda: Derived[tuple[int, ...]](by_value=True).get,
    "of a key": lambda: partial(DerivedMap[str, tuple[int, ...]]().get, "key"),
    "shared": lambda: SharedDerived[tuple[int, ...]]().get,
}


@pytest.mark.parametrize("shape", SHAPES)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_the_value_is_that_of_the_inputs(shape: str, picks: list[tuple[int, int]]) -> None:
    objects = [[number // 2] for number in range(10)]  # two equal ones of each
    get, compute = SHAPES[shape](), Counted()
    for one, two in picks:
        inputs = (objects[one], objects[two])
        assert get(inputs, compute) == Counted()(*inputs)
        calls = compute.calls
        get(inputs, compute)
        assert compute.calls == calls


def test_inputs_are_compared_as_objects_or_by_value() -> None:
    compute = Counted()
    objects, values = Derived[tuple[int, ...]](), Derived[tuple[int, ...]](by_value=True)
    first = objects.get(([1],), compute)
    assert objects.get(([1],), compute) is first and compute.calls == 2  # computed again, and the equal one kept
    values.get(([1],), compute)
    values.get(([1],), compute)
    assert compute.calls == 3


def test_an_error_keeps_what_there_was() -> None:
    def fail(_: list[int]) -> tuple[int, ...]:
        raise ValueError

    value, mapping, inputs, compute = Derived[tuple[int, ...]](), DerivedMap[str, tuple[int, ...]](), ([1],), Counted()
    value.get(inputs, compute)
    mapping.get("key", inputs, compute)
    for _ in range(2):
        with pytest.raises(ValueError):
            value.get(([2],), fail)
        with pytest.raises(ValueError):
            mapping.get("key", ([2],), fail)
    value.get(inputs, compute)
    mapping.get("key", inputs, compute)
    assert compute.calls == 2


def test_keys_stay_until_they_are_dropped() -> None:
    values, compute, one, two = DerivedMap[str, tuple[int, ...]](), Counted(), [1], [2]
    assert values.update({"b": one, "a": two}, compute) == {"b": (1,), "a": (2,)}
    assert list(values.update({"a": two, "b": one}, compute)) == ["a", "b"] and compute.calls == 2
    values.update({"a": two}, compute)
    assert (len(values), compute.calls) == (1, 2)
    values.put("c", (one,), (5,))
    assert values.get("c", (one,), compute) == (5,)
    values.retain({"c"})
    values.get("a", (two,), compute)
    assert compute.calls == 3


def test_shared_values_are_few() -> None:
    shared, compute = SharedDerived[tuple[int, ...]](), Counted()
    users = [[number] for number in range(MAX_SHARED)]
    for _ in range(3):
        for user in users:
            shared.get((user,), compute)
    assert compute.calls == MAX_SHARED
    shared.get(([0],), compute)  # an equal object is another user; the oldest value goes
    shared.get((users[-1],), compute)
    assert compute.calls == MAX_SHARED + 1
    shared.get((users[0],), compute)
    assert compute.calls == MAX_SHARED + 2


def test_an_equal_value_gives_way() -> None:
    old, other = (1, [2]), (1, [3])
    assert keep_equal(old, (1, [2])) is old
    assert keep_equal(old, other) is other


def test_last_inputs_are_compared_as_objects() -> None:
    last, one, other = LastInputs(), [1], [1]
    assert last.replace((one, True)) and not last.replace((one, True))
    assert last.replace((other, True)) and last.replace((other, False)) and not last.replace((other, False))
