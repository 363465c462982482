"""Which objects of an API server there are, by listings and changes that come in any order, twice, or late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from romana_ovs.kube.api.messages import Began, Listed, Seen, Update
from romana_ovs.kube.decode.objects import ObjectId, older


class Change(NamedTuple):
    """An object of `resource` is other than it was: with `update` None it is gone.

    `anew`: it is not the one that had its name before.
    """

    resource: str
    id: ObjectId
    update: Update | None
    anew: bool


@dataclass(slots=True)
class _Known:
    """What is there of one resource: uid and version by object."""

    objects: dict[ObjectId, tuple[str, str]] = field(default_factory=dict)
    named: set[ObjectId] | None = None
    """What the listing in progress has named so far; None when there is none."""
    listed: bool = False


class ObjectTracker:
    """Keeps account of `resources`. What is missing in a listing is gone when the listing is complete, not before."""

    def __init__(self, resources: Iterable[str]) -> None:
        self._known = {name: _Known() for name in resources}

    @property
    def listed(self) -> bool:
        """Whether every resource has been listed, so that what is not there does not exist."""
        return all(known.listed for known in self._known.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The resources that have not been listed yet."""
        return tuple(name for name, known in self._known.items() if not known.listed)

    def take(self, message: object) -> Iterator[Change]:
        """What `message` changes; messages of other kinds, or of other resources, change nothing."""
        known = self._known.get(message.resource) if isinstance(message, Began | Seen | Listed) else None
        if known is None:
            return
        if isinstance(message, Began):
            known.named = set()
        elif isinstance(message, Listed):
            yield from _complete(known, message.resource)
        elif isinstance(message, Seen):
            if known.named is not None:
                known.named.update(message.kept)
            for update in message.updates:
                yield from _one(known, update, message.resource)


def _one(known: _Known, update: Update, resource: str) -> Iterator[Change]:
    before = known.objects.get(update.id)
    if known.named is not None and update.there:
        # A listing is the truth, even where its versions are older: an API server's store may have been restored.
        known.named.add(update.id)
    elif before is not None and older(update.version, before[1]):
        return
    if update.there:
        known.objects[update.id] = (update.uid, update.version)
        yield Change(resource, update.id, update, before is None or before[0] != update.uid)
    elif before is not None:
        del known.objects[update.id]
        yield Change(resource, update.id, None, anew=False)


def _complete(known: _Known, resource: str) -> Iterator[Change]:
    if known.named is None:
        return
    gone = [key for key in known.objects if key not in known.named]
    known.named, known.listed = None, True
    for key in gone:
        del known.objects[key]
        yield Change(resource, key, None, anew=False)
