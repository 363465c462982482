"""Keeps the objects of resources that are not decoded (Allocation, ClassSet, NodeReport, Tenant) as last observed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.cache.cow_dict import CowDict
from romana_ovs.kube.cache.object_tracker import ObjectTracker


class RawCache:
    """The objects of these resources, not decoded, by resource and name."""

    def __init__(self, resources: Iterable[str]) -> None:
        names = tuple(resources)
        self._tracker = ObjectTracker(names)
        self._objects: dict[str, CowDict] = {name: CowDict() for name in names}

    @property
    def synced(self) -> bool:
        """Whether all of them have been listed once (client-go: HasSynced)."""
        return self._tracker.synced

    def apply(self, *messages: object) -> frozenset[str]:
        """The resources of which `messages` change any object, or complete the first listing."""
        changed: set[str] = set()
        for message in messages:
            before = self._tracker.missing
            for change in self._tracker.apply(message):
                self._objects[change.resource].set(change.id.name, change.update)
                changed.add(change.resource)
            changed.update(set(before) - set(self._tracker.missing))
        return frozenset(changed)

    def of(self, resource: str) -> Mapping[str, Update]:
        """The objects of `resource` by name, read-only; unchanged ones are identical to before."""
        return self._objects[resource].view()
