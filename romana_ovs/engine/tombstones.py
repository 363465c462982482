"""Keeps classes without pods, so that a pod that comes back gets its previous number.

Without a tombstone a class would go with its last pod, from the tables of every node that names it, and come back under
another number with the next such pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import PodKey
from romana_ovs.policy.classes import ClassAllocator

MAX_TOMBSTONES = 1024
"""Kept at most; the oldest one is dropped first."""
MAX_TEXT = 4096
"""Characters of labels for which a tombstone is kept at most; a pod may have a million."""


class ClassInputs(NamedTuple):
    """What decides the class of a pod: segment number, namespace and labels. A tombstone is kept as such."""

    segment: int
    namespace: str
    labels: Labels

    @property
    def tombstone_key(self) -> PodKey:
        """The key of a tombstone in the allocator: no pod can have it, as it has no slash before the first blank."""
        return PodKey(f"{self.segment} {self.namespace} {sorted(self.labels.items())}")


class ClassTombstones:
    """The tombstones in an allocator, oldest first; `changes` counts additions and removals."""

    def __init__(self, allocator: ClassAllocator, saved: Iterable[ClassInputs] = ()) -> None:
        """Begins with the `saved` ones, oldest first; `enter_saved` assigns them in the allocator."""
        self._allocator = allocator
        self._tombstones: dict[PodKey, ClassInputs] = {}
        self._saved = list(saved)
        self.changes = 0

    def __contains__(self, key: PodKey) -> bool:
        return key in self._tombstones

    def enter_saved(self) -> None:
        """Assigns the saved tombstones in the allocator; to be called once every pod is in it."""
        for tombstone in self._saved:
            self._enter(tombstone)
        self._saved = []

    def keep(self, tombstone: ClassInputs, class_identity: int) -> None:
        """Keeps `tombstone` in place of the last pod of this class; to be called before that leaves."""
        if sum(len(key) + len(value) for key, value in tombstone.labels.items()) > MAX_TEXT:
            return
        if any(self._allocator.identity_of(key) == class_identity for key in self._tombstones):
            return
        self._enter(tombstone)
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._drop(next(iter(self._tombstones)))

    def retain_namespaces(self, namespaces: Mapping[str, Labels]) -> None:
        """Drops the tombstones of all namespaces but these."""
        for key in [key for key, tombstone in self._tombstones.items() if tombstone.namespace not in namespaces]:
            self._drop(key)

    def discard(self, keys: Iterable[PodKey]) -> None:
        """Drops the tombstones among `keys`."""
        for key in [key for key in keys if key in self._tombstones]:
            self._drop(key)

    def by_namespace(self) -> dict[str, tuple[tuple[int, Labels], ...]]:
        """Segment and labels of each tombstone, oldest first, by namespace."""
        tombstones: dict[str, list[tuple[int, Labels]]] = {}
        for tombstone in [*self._tombstones.values(), *self._saved]:
            tombstones.setdefault(tombstone.namespace, []).append((tombstone.segment, tombstone.labels))
        return {name: tuple(each) for name, each in tombstones.items()}

    def _enter(self, tombstone: ClassInputs) -> None:
        self.changes += 1
        self._tombstones.pop(tombstone.tombstone_key, None)
        self._tombstones[tombstone.tombstone_key] = tombstone
        self._allocator.assign(
            tombstone.tombstone_key, segment=tombstone.segment, namespace=tombstone.namespace, labels=tombstone.labels
        )

    def _drop(self, key: PodKey) -> None:
        self.changes += 1
        del self._tombstones[key]
        self._allocator.forget(key)
