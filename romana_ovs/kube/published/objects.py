"""Reads single fields of published objects, with an error that names the field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any, NoReturn

from romana_ovs.model.errors import InputError, Problem

Raw = Mapping[str, Any]
LARGEST_NUMBER = 2**53
"""JSON numbers are exact up to here in every implementation."""


@dataclass(frozen=True, slots=True)
class PublishedObjects:
    """The Allocation and the ClassSets by name (with the marker), as last read, each with its resourceVersion."""

    allocation: Raw | None = None
    class_sets: Mapping[str, Raw] = field(default_factory=lambda: MappingProxyType({}))


def name_of(raw: Raw) -> str:
    """The object's name; empty when it has none."""
    metadata = raw.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of an object, or of a part of it at `path`. Every method raises InputError with the field."""

    kind: str
    name: str
    path: str
    values: Mapping[str, Any]

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raises InputError for the field `key`."""
        location = f"{self.path}.{key}" if key else self.path
        raise InputError(Problem(reason, kind=self.kind, name=self.name, field=location))

    def number(self, key: str, *, default: int | None = None, low: int = 0, high: int = LARGEST_NUMBER) -> int:
        """An integer from `low` to `high`; `default` when the field is absent."""
        value = self.values.get(key, default)
        return self._number(key, value, low, high)

    def numbers(self, key: str, *, low: int = 0, high: int = LARGEST_NUMBER) -> tuple[int, ...]:
        """A list of integers; empty when the field is absent."""
        return tuple(self._number(f"{key}[{at}]", value, low, high) for at, value in enumerate(self._list(key)))

    def text(self, key: str, *, default: str | None = None) -> str:
        """A string; `default` when the field is absent."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            self.refuse(key, "a string was expected")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when the field is absent."""
        values = self._list(key)
        for at, value in enumerate(values):
            if not isinstance(value, str):
                self.refuse(f"{key}[{at}]", "a string was expected")
        return tuple(values)

    def addresses(self, key: str) -> tuple[IPv4Address, ...]:
        """A list of IPv4 addresses; empty when the field is absent."""
        parsed = []
        for at, value in enumerate(self.texts(key)):
            try:
                parsed.append(IPv4Address(value))
            except ValueError as bad:
                self.refuse(f"{key}[{at}]", f"an IPv4 address was expected: {bad}")
        return tuple(parsed)

    def part(self, key: str) -> Fields:
        """An object in a field; empty when it is absent."""
        return Fields(self.kind, self.name, f"{self.path}.{key}", self._mapping(key, self.values.get(key, {})))

    def parts(self, key: str) -> Iterator[Fields]:
        """A list of objects; empty when the field is absent."""
        for at, value in enumerate(self._list(key)):
            location = f"{key}[{at}]"
            yield Fields(self.kind, self.name, f"{self.path}.{location}", self._mapping(location, value))

    def lists(self, key: str, *, length: int) -> Iterator[tuple[int, ...]]:
        """A list of lists of `length` integers each."""
        for at, value in enumerate(self._list(key)):
            location = f"{key}[{at}]"
            if not isinstance(value, list) or len(value) != length:
                self.refuse(location, f"{length} numbers were expected")
            yield tuple(self._number(location, each, 0, LARGEST_NUMBER) for each in value)

    def number_map(self, key: str, *, low: int = 0, high: int = LARGEST_NUMBER) -> dict[str, int]:
        """Names with an integer each; empty when the field is absent."""
        values = self._mapping(key, self.values.get(key, {}))
        return {name: self._number(f"{key}.{name}", value, low, high) for name, value in values.items()}

    def text_map(self, key: str) -> dict[str, str]:
        """Names with a string each; empty when the field is absent."""
        values = self._mapping(key, self.values.get(key, {}))
        for name, value in values.items():
            if not isinstance(value, str):
                self.refuse(f"{key}.{name}", "a string was expected")
        return dict(values)

    def _number(self, location: str, value: Any, low: int, high: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(location, f"a number from {low} to {high} was expected")
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.values.get(key, [])
        if not isinstance(value, list):
            self.refuse(key, "a list was expected")
        return value

    def _mapping(self, location: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            self.refuse(location, "an object was expected")
        return value


def fields_of(raw: Any, kind: str, part: str) -> Fields:
    """The fields in `spec` or `status` of an object. Raises InputError when it has another kind, or no such part."""
    whole = raw if isinstance(raw, Mapping) else {}
    name = name_of(whole)
    if whole.get("kind") != kind:
        raise InputError(Problem(f"the kind {kind} was expected", kind=str(whole.get("kind")), name=name, field="kind"))
    values = whole.get(part)
    if not isinstance(values, Mapping):
        raise InputError(Problem("an object was expected", kind=kind, name=name, field=part))
    return Fields(kind, name, part, values)
