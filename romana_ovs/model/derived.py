"""Keeps values that are computed from other values until one of these changes.

The idea is that of OVN's incremental engine (lib/inc-proc-eng.h: a node is computed again when one of its inputs has
changed, and a node whose result is unchanged ends the change there) and of derived tables in cilium's statedb
(`Derive`). Whatever is kept is a function of its inputs, and the function gets just these: keeping its value saves time
and changes no result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import eq, is_
from typing import Generic, TypeVar, TypeVarTuple

Key = TypeVar("Key")
Source = TypeVar("Source")
Value = TypeVar("Value")
Args = TypeVarTuple("Args")
Inputs = tuple[object, ...]

MAX_SHARED = 8
"""Values that one `SharedDerived` keeps: users that differ in their inputs are few at any moment."""


def same_objects(old: Inputs, new: Inputs) -> bool:
    """Whether two tuples have the same objects."""
    return len(old) == len(new) and all(map(is_, old, new))


def keep_equal(old: Value, new: Value) -> Value:
    """`old` if it equals `new`, else `new`: who compares objects then sees no change."""
    return old if old is new or old == new else new


class LastInputs:
    """The inputs of the last update of something that keeps state: with the same ones there is nothing to update."""

    __slots__ = ("_inputs",)

    def __init__(self) -> None:
        self._inputs: Inputs | None = None

    def same(self, inputs: Inputs) -> bool:
        """Whether `inputs` are the same objects as last time."""
        return self._inputs is not None and same_objects(self._inputs, inputs)

    def replace(self, inputs: Inputs) -> bool:
        """Remembers `inputs`; returns whether one of them is another object than last time."""
        if self._inputs is not None and same_objects(self._inputs, inputs):
            return False
        self._inputs = inputs
        return True


class Derived(Generic[Value]):
    """One value with the inputs that it was computed from. A new value gives way to the old one if it is equal."""

    __slots__ = ("_inputs", "_same", "_value")

    def __init__(self, *, by_value: bool = False) -> None:
        """Inputs are compared as objects; `by_value`: with `==`, which takes equal new objects for the same."""
        self._same: Callable[[Inputs, Inputs], bool] = eq if by_value else same_objects
        self._inputs: Inputs | None = None
        self._value: Value

    def get(self, inputs: tuple[*Args], compute: Callable[[*Args], Value]) -> Value:
        """`compute` of `inputs`; it is called if these are others than last time. Raises what `compute` raises."""
        if self._inputs is None:
            self._value = compute(*inputs)
        elif self._same(self._inputs, inputs):
            return self._value
        else:
            self._value = keep_equal(self._value, compute(*inputs))
        self._inputs = inputs
        return self._value


class DerivedMap(Generic[Key, Value]):
    """A value with its inputs for each key. Keys stay until they are dropped; values are not compared."""

    __slots__ = ("_entries", "_same")

    def __init__(self, *, by_value: bool = False) -> None:
        """Inputs are compared as in `Derived`."""
        self._same: Callable[[Inputs, Inputs], bool] = eq if by_value else same_objects
        self._entries: dict[Key, tuple[Inputs, Value]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, inputs: tuple[*Args], compute: Callable[[*Args], Value]) -> Value:
        """The value of `key`: `compute` of `inputs`, called if these are others than last time for this key."""
        entry = self._entries.get(key)
        if entry is not None and self._same(entry[0], inputs):
            return entry[1]
        value = compute(*inputs)
        self._entries[key] = (inputs, value)
        return value

    def put(self, key: Key, inputs: Inputs, value: Value) -> None:
        """Keeps a `value` that was computed from `inputs` elsewhere."""
        self._entries[key] = (inputs, value)

    def retain(self, keys: Collection[Key]) -> None:
        """Drops all keys but these."""
        for key in [key for key in self._entries if key not in keys]:
            del self._entries[key]

    def update(self, sources: Mapping[Key, Source], compute: Callable[[Source], Value]) -> dict[Key, Value]:
        """The value of each of `sources`, in their order; all other keys are dropped."""
        values = {key: self.get(key, (source,), compute) for key, source in sources.items()}
        if len(self._entries) != len(values):
            self.retain(values)
        return values


class SharedDerived(Generic[Value]):
    """A value for several users with inputs that may differ, compared as objects: the last `MAX_SHARED` values."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[tuple[int, ...], tuple[Inputs, Value]] = {}

    def get(self, inputs: tuple[*Args], compute: Callable[[*Args], Value]) -> Value:
        """`compute` of `inputs`; it is called unless some user had these inputs lately."""
        key = tuple(map(id, inputs))
        entry = self._entries.get(key)
        if entry is None:
            value = compute(*inputs)
            if len(self._entries) >= MAX_SHARED:
                del self._entries[next(iter(self._entries))]
            # The inputs are kept, so that no other object can come to have the same id.
            entry = self._entries[key] = (inputs, value)
        return entry[1]
