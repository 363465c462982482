"""What a registry writes next, in an order that is safe whoever else may think that he is the registry.

1. The Allocation, which claims every number: only who has written it over what he read may use them. Its `epoch`
   and `writer` are the fence: a registry whose term is over finds another's there, and stops.
2. The class sets that changed, over what was read.
3. The marker, which says that all of them are there: what nodes acknowledge is its revision.
4. Class sets that are empty now are deleted.

A class set that is too large to be stored gives way to one without classes: the pods of its namespace get what their
whole segments get, and nobody else is kept waiting.

They may be carried out one after the other without reading in between, by who stops at the first that is not accepted:
what is not known to be written is planned again from what is read then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from romana_ovs.kube.published.objects import Objects, Raw, fields_of
from romana_ovs.kube.published.reading import Base, version_of
from romana_ovs.kube.published.writing import (
    ALLOCATION,
    MARKER,
    allocation_object,
    class_set_object,
    marker_object,
)
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.policy.published import ClassSet, Published


class Superseded(RomanaError):
    """Somebody else wrote what this registry goes by: it must begin anew from the objects as they are."""


class Verb(Enum):
    """What is asked of the API server."""

    CREATE = "create"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Write:
    """One request. A replacement names the resourceVersion that it is over in its body, a deletion in `version`.

    An answer of conflict, not found or already there is none to worry about: read again and plan again.
    """

    verb: Verb
    kind: str
    name: str
    body: Mapping[str, Any] | None = None
    version: str = ""


class Checked:
    """The class sets that were found as they should be: with it the next look costs only what is another object.

    `problems` are, by namespace, those of sets that are too large to be stored.
    """

    def __init__(self) -> None:
        self._found: dict[str, tuple[Raw, ClassSet]] = {}
        self.problems: dict[str, Problem] = {}

    def knows(self, name: str, stored: Raw, wanted: ClassSet) -> bool:
        """Whether just these two were noted."""
        held = self._found.get(name)
        return held is not None and held[0] is stored and held[1] is wanted

    def note(self, name: str, stored: Raw, wanted: ClassSet) -> None:
        """`stored` is what is `wanted`."""
        self._found[name] = (stored, wanted)


def next_writes(
    desired: Published, base: Base | None, objects: Objects, checked: Checked | None = None
) -> tuple[Write, ...]:
    """The writes of all stages, in their order; none when all of `desired` is there.

    `base` is what the registry of `desired` began from (None: from nothing), `objects` what was read last; the answer
    is the same with and without what was `checked` before, only sooner. Raises Superseded when `objects` hold what
    neither of the two accounts for, and InputError when they are damaged or the Allocation would be too large.
    """
    allocation = _allocation(desired, base, objects.allocation)
    if allocation is not None and objects.allocation is None and objects.class_sets:
        # Somebody deleted it: what is left of its class sets is taken over only by who begins from the new one.
        return (allocation,)
    changed, gone = _class_sets(desired, base, objects.class_sets, Checked() if checked is None else checked)
    marker = _over(objects.class_sets.get(MARKER), marker_object(desired))
    return (*filter(None, (allocation,)), *changed, *filter(None, (marker,)), *gone)


def _allocation(desired: Published, base: Base | None, stored: Raw | None) -> Write | None:
    if stored is None:
        # There is none yet, or somebody deleted it: these are the numbers all the same. Whoever is quicker wins.
        return _over(None, allocation_object(desired))
    fields = fields_of(stored, "Allocation", "spec")
    epoch, writer, revision = fields.number("epoch"), fields.text("writer", default=""), fields.number("revision")
    own = (epoch, writer) == (desired.epoch, desired.writer) and revision <= desired.revision
    begun = base.published if base is not None else None
    begun_from = begun is not None and (epoch, writer, revision) == (begun.epoch, begun.writer, begun.revision)
    if not own and not begun_from:
        raise Superseded(f"the Allocation is of epoch {epoch}, revision {revision}, by {writer!r}")
    return _over(stored, allocation_object(desired))


def _class_sets(
    desired: Published, base: Base | None, stored: Mapping[str, Raw], checked: Checked
) -> tuple[tuple[Write, ...], tuple[Write, ...]]:
    """What to create or replace, and what to delete."""
    changed = []
    for name, classes in desired.namespaces.items():
        raw = stored.get(name)
        if raw is not None:
            if checked.knows(name, raw, classes):
                continue
            _account(name, raw, desired, base)
        write = _over(raw, _storable(classes, checked))
        if write is not None:
            changed.append(write)
        elif raw is not None:
            checked.note(name, raw, classes)
    for name in checked.problems.keys() - desired.namespaces.keys():
        del checked.problems[name]
    gone = []
    for name, raw in stored.items():
        if name not in desired.namespaces and name != MARKER:
            _account(name, raw, desired, base)
            gone.append(Write(Verb.DELETE, "ClassSet", name, version=_version(raw)))
    return tuple(changed), tuple(gone)


def _storable(classes: ClassSet, checked: Checked) -> dict[str, Any]:
    """The object of a class set, or what stands in for one that is too large: no number of it is given meanwhile."""
    checked.problems.pop(classes.namespace, None)
    try:
        return class_set_object(classes)
    except InputError as large:
        reason = f"of its ClassSet, {large.problems[0].reason}; its pods get what their whole segments get"
        checked.problems[classes.namespace] = Problem(reason, kind="Namespace", name=classes.namespace)
        everything = classes.retired | classes.classes.keys()
        return class_set_object(
            replace(
                classes,
                classes=MappingProxyType({}),
                pending=frozenset(),
                retiring=frozenset(),
                overrides=MappingProxyType({}),
                tombstones=(),
                retired=everything,
            )
        )


def _account(name: str, raw: Raw, desired: Published, base: Base | None) -> None:
    """Raises Superseded unless this registry wrote what is stored, or knew of it when it began."""
    epoch, revision = version_of(raw)
    own = epoch == desired.epoch and revision <= desired.revision
    if not own and (base is None or base.versions.get(name) != (epoch, revision)):
        raise Superseded(f"ClassSet {name} is of epoch {epoch}, revision {revision}")


def _over(stored: Raw | None, wanted: dict[str, Any]) -> Write | None:
    """The write that makes `wanted` of what is stored; None when it is that already."""
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    if stored is None:
        return Write(Verb.CREATE, kind, name, wanted)
    if stored.get("spec") == wanted["spec"]:
        return None
    metadata = {"name": name, "resourceVersion": _version(stored)}
    return Write(Verb.REPLACE, kind, name, {**wanted, "metadata": metadata})


def _version(raw: Raw) -> str:
    return str(raw.get("metadata", {}).get("resourceVersion", ""))


__all__ = ["ALLOCATION", "Superseded", "Verb", "Write", "next_writes"]
