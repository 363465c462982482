"""Keeps classes without pods, so that a pod that comes back gets its previous number.

Without a tombstone a class would go with its last pod, from the tables of every node that names it, and come back under
another number with the next such pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from romana_ovs.model.errors import InputError
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator

MAX_TOMBSTONES = 1024
"""Beyond that the oldest one goes."""
MAX_TEXT = 4096
"""Characters of labels that are worth it; a pod may have a million."""


class ClassTombstone(NamedTuple):
    """What decided the class of a pod that is gone."""

    segment: int
    namespace: str
    labels: Labels

    @property
    def key(self) -> PodKey:
        """A name in the allocator that no pod can have, for it has no slash before the first blank."""
        return PodKey(f"{self.segment} {self.namespace} {sorted(self.labels.items())}")


class ClassTombstones:
    """The remnants in a allocator, oldest first; `changes` counts what came and went."""

    def __init__(self, allocator: ClassAllocator, saved: Iterable[Any] = ()) -> None:
        """Those that `to_json` gave; they enter the allocator with `settle`.

        Raises InputError when they are no such thing.
        """
        self._allocator = allocator
        self._held: dict[PodKey, ClassTombstone] = {}
        self.changes = 0
        try:
            self._waiting = [ClassTombstone(int(segment), str(name), Labels(labels)) for segment, name, labels in saved]
        except (TypeError, ValueError) as broken:
            raise InputError.because(f"not what was saved: {broken}", field="remnants") from broken

    def __contains__(self, key: PodKey) -> bool:
        return key in self._held

    def settle(self) -> None:
        """Enters what was saved: every pod is in the allocator by now."""
        for remnant in self._waiting:
            self._enter(remnant)
        self._waiting = []

    def keep(self, remnant: ClassTombstone, number: int) -> None:
        """Stands in for the last pod of class `number`, before that leaves."""
        if sum(len(key) + len(value) for key, value in remnant.labels.items()) > MAX_TEXT:
            return
        if any(self._allocator.identity_of(key) == number for key in self._held):
            return
        self._enter(remnant)
        if len(self._held) > MAX_TOMBSTONES:
            self._drop(next(iter(self._held)))

    def keep_to(self, namespaces: Mapping[str, Labels]) -> None:
        """Drops remnants of namespaces that are no more."""
        for key in [key for key, remnant in self._held.items() if remnant.namespace not in namespaces]:
            self._drop(key)

    def let_go(self, keys: Iterable[PodKey]) -> None:
        """Drops those of `keys` that are remnants."""
        for key in [key for key in keys if key in self._held]:
            self._drop(key)

    def by_namespace(self) -> dict[str, tuple[tuple[int, Labels], ...]]:
        """The segments and labels of those of each namespace, oldest first."""
        found: dict[str, list[tuple[int, Labels]]] = {}
        for remnant in [*self._held.values(), *self._waiting]:
            found.setdefault(remnant.namespace, []).append((remnant.segment, remnant.labels))
        return {name: tuple(each) for name, each in found.items()}

    def to_json(self) -> list[Any]:
        """All of them in plain values of JSON, oldest first."""
        remnants = [*self._held.values(), *self._waiting]
        return [[each.segment, each.namespace, dict(sorted(each.labels.items()))] for each in remnants]

    def _enter(self, remnant: ClassTombstone) -> None:
        self.changes += 1
        self._held.pop(remnant.key, None)
        self._held[remnant.key] = remnant
        self._allocator.assign(remnant.key, segment=remnant.segment, namespace=remnant.namespace, labels=remnant.labels)

    def _drop(self, key: PodKey) -> None:
        self.changes += 1
        del self._held[key]
        self._allocator.forget(key)
