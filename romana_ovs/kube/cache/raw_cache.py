"""Keeps the objects of resources that are not decoded (Allocation, ClassSet, NodeReport, Tenant) as last observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.cache.cow_dict import CowDict
from romana_ovs.kube.cache.object_tracker import ObjectTracker


class RawCache:
    """The objects that are not decoded: by resource and name, as they were last told."""

    def __init__(self, resources: Iterable[str]) -> None:
        names = tuple(resources)
        self._ledger = ObjectTracker(names)
        self._objects: dict[str, CowDict] = {name: CowDict() for name in names}

    @property
    def listed(self) -> bool:
        """Whether all of them have been listed."""
        return self._ledger.listed

    def apply(self, *messages: object) -> frozenset[str]:
        """The resources of which `messages` change anything (or which they list for the first time)."""
        changed: set[str] = set()
        for message in messages:
            before = self._ledger.missing
            for change in self._ledger.take(message):
                self._objects[change.resource].put(change.id.name, change.update)
                changed.add(change.resource)
            changed.update(set(before) - set(self._ledger.missing))
        return frozenset(changed)

    def of(self, resource: str) -> Mapping[str, Update]:
        """The objects of `resource` by name, read-only; those that did not change are the same as before."""
        return self._objects[resource].copy()
