"""Tracks which objects an API server has, from listings and changes that may be late, repeated or out of order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.decode.objects import ObjectId, is_older


class Change(NamedTuple):
    """An object of `resource` has changed; with `update` None it is deleted.

    `replaced`: another object (UID) had its name before.
    """

    resource: str
    id: ObjectId
    update: Update | None
    replaced: bool


@dataclass(slots=True)
class _Tracked:
    """The objects of one resource: UID and resourceVersion of each."""

    objects: dict[ObjectId, tuple[str, str]] = field(default_factory=dict)
    listing: set[ObjectId] | None = None
    """The objects of the listing in progress so far; None when there is none."""
    synced: bool = False


class ObjectTracker:
    """Tracks the objects of `resources`. An object that a listing lacks is deleted when the listing is complete."""

    def __init__(self, resources: Iterable[str]) -> None:
        self._resources = {name: _Tracked() for name in resources}

    @property
    def synced(self) -> bool:
        """Whether every resource has been listed once (client-go: HasSynced)."""
        return all(tracked.synced for tracked in self._resources.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The resources that have not been listed yet."""
        return tuple(name for name, tracked in self._resources.items() if not tracked.synced)

    def apply(self, message: object) -> Iterator[Change]:
        """The changes by `message`; other messages, and those of other resources, change nothing."""
        tracked = (
            self._resources.get(message.resource)
            if isinstance(message, ListStarted | ObjectsObserved | ListCompleted)
            else None
        )
        if tracked is None:
            return
        if isinstance(message, ListStarted):
            tracked.listing = set()
        elif isinstance(message, ListCompleted):
            yield from _complete_listing(tracked, message.resource)
        elif isinstance(message, ObjectsObserved):
            if tracked.listing is not None:
                tracked.listing.update(message.kept)
            for update in message.updates:
                yield from _observe(tracked, update, message.resource)


def _observe(tracked: _Tracked, update: Update, resource: str) -> Iterator[Change]:
    before = tracked.objects.get(update.id)
    if tracked.listing is not None and update.exists:
        # A listing counts even if its versions are older: the store of the API server may have been restored.
        tracked.listing.add(update.id)
    elif before is not None and is_older(update.version, before[1]):
        return
    if update.exists:
        tracked.objects[update.id] = (update.uid, update.version)
        yield Change(resource, update.id, update, before is None or before[0] != update.uid)
    elif before is not None:
        del tracked.objects[update.id]
        yield Change(resource, update.id, None, replaced=False)


def _complete_listing(tracked: _Tracked, resource: str) -> Iterator[Change]:
    if tracked.listing is None:
        return
    gone = [key for key in tracked.objects if key not in tracked.listing]
    tracked.listing, tracked.synced = None, True
    for key in gone:
        del tracked.objects[key]
        yield Change(resource, key, None, replaced=False)
