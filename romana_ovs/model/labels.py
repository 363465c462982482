"""Represents labels and label selectors of the Kubernetes API.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar, overload

Default = TypeVar("Default")


class Labels(Mapping[str, str]):
    """A frozen, hashable mapping of label keys to values."""

    __slots__ = ("_items", "_hash")

    def __init__(self, items: Mapping[str, str] | None = None) -> None:
        self._items: dict[str, str] = dict(items or {})
        self._hash: int | None = None

    def __getitem__(self, key: str) -> str:
        return self._items[key]

    @overload
    def get(self, key: str, default: None = None, /) -> str | None: ...

    @overload
    def get(self, key: str, default: str, /) -> str: ...

    @overload
    def get(self, key: str, default: Default, /) -> str | Default: ...

    def get(self, key: str, default: object = None, /) -> object:
        """The value of `key`, or `default`. Mapping's own takes five times as long, and is asked for every pod."""
        return self._items.get(key, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._items.items()))
        return self._hash

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Labels):
            return self._items == other._items
        return NotImplemented

    def __repr__(self) -> str:
        return f"Labels({dict(sorted(self._items.items()))})"


NO_LABELS = Labels()


class Operator(Enum):
    """How a requirement compares a label with its values."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label key; `values` is empty for Exists and DoesNotExist."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` match; NotIn and DoesNotExist also match an absent key."""
        value = labels.get(self.key)
        if self.operator is Operator.IN:
            return value is not None and value in self.values
        if self.operator is Operator.NOT_IN:
            return value is None or value not in self.values
        if self.operator is Operator.EXISTS:
            return value is not None
        return value is None


@dataclass(frozen=True, slots=True)
class Selector:
    """All of `requirements` together; an empty selector matches everything.

    An absent selector is `None`, never an empty one: the two mean different things in a peer.
    """

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` match every requirement."""
        return all(requirement.matches(labels) for requirement in self.requirements)

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> Selector:
        """The selector of `matchLabels`, sorted by key."""
        return cls(tuple(Requirement(key, Operator.IN, frozenset({value})) for key, value in sorted(labels.items())))


EVERYTHING = Selector()
