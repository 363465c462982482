"""Orders the registry's writes so that they are safe even if another process still believes that it leads.

1. The Allocation, which claims every number: numbers may be used only after it was written over the version that was
   read. Its `epoch` and `writer` are a fencing token: a registry whose term is over reads others there, and stops.
2. The ClassSets that changed, over the versions that were read.
3. The marker, a ClassSet named `complete.romana.io`: all ClassSets up to its revision are written. Nodes acknowledge
   that revision.
4. ClassSets that are empty now are deleted.

A ClassSet that is too large is replaced by one without classes: only segment-wide rules apply to the pods of its
namespace, and no other namespace is affected.

The writes are executed in order, without reading in between, up to the first failure. The rest is planned again from
the next reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple

from romana_ovs.kube.published.objects import PublishedObjects, Raw, fields_of
from romana_ovs.kube.published.reading import TermBase, epoch_and_revision
from romana_ovs.kube.published.writing import (
    ALLOCATION,
    COMPLETE_MARKER,
    allocation_object,
    class_set_object,
    marker_object,
)
from romana_ovs.model.derived import DerivedMap
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.registry_types.published import ClassSet, Published


class TermOver(RomanaError):
    """Another registry has written the objects: this one must start a new term from them."""


class Verb(Enum):
    """The verb of a write."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Write:
    """One request. An update has the expected resourceVersion in its body, a deletion in `resource_version`.

    The responses conflict, not found and already exists are normal: read again and plan again.
    """

    verb: Verb
    kind: str
    name: str
    body: Mapping[str, Any] | None = None
    resource_version: str = ""


class ClassSetPlan(NamedTuple):
    """The write of one ClassSet (None: it is stored as desired), and the problem of one that is too large."""

    write: Write | None
    problem: Problem | None = None


class WriteCache:
    """The plans of ClassSets, by namespace, each for the object that is stored and the ClassSet that is desired.

    `problems` are those of ClassSets that are too large, by namespace.
    """

    def __init__(self) -> None:
        self.plans: DerivedMap[str, ClassSetPlan] = DerivedMap()
        self.problems: dict[str, Problem] = {}


def plan_writes(
    desired: Published, base: TermBase | None, objects: PublishedObjects, cache: WriteCache | None = None
) -> tuple[Write, ...]:
    """The writes that bring the stored objects to `desired`, in their order; none when all of it is stored.

    `base` are the objects at the start of the term (None: there were none), `objects` the latest ones. `cache` saves
    time, and its `problems` are set to those of ClassSets that are too large. Raises TermOver when `objects` were
    written neither in this term nor before it, and InputError when they are damaged or the Allocation would be too
    large.
    """
    allocation = _allocation(desired, base, objects.allocation)
    if allocation is not None and objects.allocation is None and objects.class_sets:
        # It was deleted: the remaining ClassSets are taken over only by a term that starts from the new one.
        return (allocation,)
    changed, gone = _class_sets(desired, base, objects.class_sets, WriteCache() if cache is None else cache)
    marker = _write_over(objects.class_sets.get(COMPLETE_MARKER), marker_object(desired))
    return (*filter(None, (allocation,)), *changed, *filter(None, (marker,)), *gone)


def _allocation(desired: Published, base: TermBase | None, stored: Raw | None) -> Write | None:
    if stored is None:
        # It does not exist yet, or was deleted: create it. If two registries do, one gets a conflict.
        return _write_over(None, allocation_object(desired))
    fields = fields_of(stored, "Allocation", "spec")
    epoch, writer, revision = fields.number("epoch"), fields.text("writer", default=""), fields.number("revision")
    own = (epoch, writer) == (desired.epoch, desired.writer) and revision <= desired.revision
    begun = base.published if base is not None else None
    begun_from = begun is not None and (epoch, writer, revision) == (begun.epoch, begun.writer, begun.revision)
    if not own and not begun_from:
        raise TermOver(f"the Allocation is of epoch {epoch}, revision {revision}, by {writer!r}")
    return _write_over(stored, allocation_object(desired))


def _class_sets(
    desired: Published, base: TermBase | None, stored: Mapping[str, Raw], cache: WriteCache
) -> tuple[tuple[Write, ...], tuple[Write, ...]]:
    """The ClassSets to create or replace, and those to delete."""

    def plan(raw: Raw | None, classes: ClassSet) -> ClassSetPlan:
        # Checked once for each stored object: a passed check holds for the whole term.
        if raw is not None:
            _check_term(classes.namespace, raw, desired, base)
        body, problem = _object_or_emptied(classes)
        return ClassSetPlan(_write_over(raw, body), problem)

    cache.plans.retain(desired.class_sets)
    plans = {
        name: cache.plans.get(name, (stored.get(name), classes), plan) for name, classes in desired.class_sets.items()
    }
    cache.problems = {name: problem for name, (_, problem) in plans.items() if problem is not None}
    changed = tuple(write for write, _ in plans.values() if write is not None)
    gone = []
    for name, raw in stored.items():
        if name not in desired.class_sets and name != COMPLETE_MARKER:
            _check_term(name, raw, desired, base)
            gone.append(Write(Verb.DELETE, "ClassSet", name, resource_version=_resource_version(raw)))
    return changed, tuple(gone)


def _object_or_emptied(classes: ClassSet) -> tuple[dict[str, Any], Problem | None]:
    """The object of a ClassSet; when it is too large, of one without classes whose numbers stay reserved, and why."""
    try:
        return class_set_object(classes), None
    except InputError as large:
        reason = f"of its ClassSet, {large.problems[0].reason}; only segment-wide rules apply to its pods"
    empty = replace(
        classes,
        classes=MappingProxyType({}),
        pending=frozenset(),
        retiring=frozenset(),
        overrides=MappingProxyType({}),
        tombstones=(),
        retired=classes.retired | classes.classes.keys(),
    )
    return class_set_object(empty), Problem(reason, kind="Namespace", name=classes.namespace)


def _check_term(name: str, raw: Raw, desired: Published, base: TermBase | None) -> None:
    """Raises TermOver unless the stored object was written in this term, or known at its start."""
    epoch, revision = epoch_and_revision(raw)
    own = epoch == desired.epoch and revision <= desired.revision
    if not own and (base is None or base.versions.get(name) != (epoch, revision)):
        raise TermOver(f"ClassSet {name} is of epoch {epoch}, revision {revision}")


def _write_over(stored: Raw | None, desired: dict[str, Any]) -> Write | None:
    """The write that replaces `stored` by `desired`; None when they are equal."""
    kind, name = desired["kind"], desired["metadata"]["name"]
    if stored is None:
        return Write(Verb.CREATE, kind, name, desired)
    if stored.get("spec") == desired["spec"]:
        return None
    metadata = {"name": name, "resourceVersion": _resource_version(stored)}
    return Write(Verb.UPDATE, kind, name, {**desired, "metadata": metadata})


def _resource_version(raw: Raw) -> str:
    return str(raw.get("metadata", {}).get("resourceVersion", ""))


__all__ = ["ALLOCATION", "TermOver", "Verb", "Write", "plan_writes"]
