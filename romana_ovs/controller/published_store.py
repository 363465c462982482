"""Stores the published numbers and the node reports as last read from the API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.kube.cache.raw_cache import RawCache
from romana_ovs.kube.published import ALLOCATION, COMPLETE_MARKER, PublishedObjects, PublishedReader, decode_report
from romana_ovs.model.derived import DerivedMap
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.registry_types.published import Published
from romana_ovs.registry_types.report import Report

RESOURCES = (ALLOCATIONS, CLASS_SETS, NODE_REPORTS)


class PublishedStore:
    """The Allocation, the ClassSets and the NodeReports, from messages of the Kubernetes process.

    `published` is None while there are none, or as long as only damaged ones were read: `problems` say so.
    """

    def __init__(self) -> None:
        self._objects = RawCache(map(str, RESOURCES))
        self._reader = PublishedReader()
        self._reports: DerivedMap[str, Report] = DerivedMap()
        self._stale = False
        self._numbers = PublishedObjects()
        self._published: Published | None = None
        self._problems: tuple[Problem, ...] = ()
        self.reports: Mapping[str, Report] = MappingProxyType({})

    @property
    def synced(self) -> bool:
        """Whether all of them have been listed once (client-go: HasSynced)."""
        return self._objects.synced

    @property
    def objects(self) -> PublishedObjects:
        """The objects of the numbers: the identical value until one of them changes."""
        self._read_numbers()
        return self._numbers

    @property
    def published(self) -> Published | None:
        """The decoded numbers."""
        self._read_numbers()
        return self._published

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of the objects of the numbers."""
        self._read_numbers()
        return self._problems

    def apply(self, messages: Iterable[object], *, contents: bool = True) -> bool:
        """Apply messages; returns whether a computation is due.

        Of reports only nodes that come or go count without `contents`. None is due while the numbers of a revision are
        incomplete: the registry is still writing their objects.
        """
        was_synced, nodes = self.synced, self.reports.keys()
        changed = self._objects.apply(*messages)
        reports_due = False
        if str(NODE_REPORTS) in changed:
            self._read_reports()
            reports_due = contents or self.reports.keys() != nodes
        if changed - {str(NODE_REPORTS)}:
            self._stale = True
            return reports_due or self.synced is not was_synced or self._is_complete()
        return reports_due or self.synced is not was_synced

    def _is_complete(self) -> bool:
        """Whether the completion marker has the revision of the Allocation, or neither has one."""
        allocation = self._objects.of(str(ALLOCATIONS)).get(ALLOCATION)
        marker = self._objects.of(str(CLASS_SETS)).get(COMPLETE_MARKER)
        return _revision(allocation) == _revision(marker)

    def report_version(self, node: str) -> str | None:
        """The resourceVersion of the stored report of `node`, None when there is none."""
        update = self._objects.of(str(NODE_REPORTS)).get(node)
        return update.version if update is not None else None

    def _read_numbers(self) -> None:
        if not self._stale:
            return
        self._stale = False
        allocation = self._objects.of(str(ALLOCATIONS)).get(ALLOCATION)
        sets = {
            name: update.raw for name, update in self._objects.of(str(CLASS_SETS)).items() if update.raw is not None
        }
        self._numbers = PublishedObjects(allocation.raw if allocation is not None else None, MappingProxyType(sets))
        try:
            self._published, self._problems = self._reader.read(self._numbers)
        except InputError as damaged:
            # The last numbers stay in force: none may be allocated or released by damaged objects.
            self._problems = damaged.problems

    def _read_reports(self) -> None:
        updates = self._objects.of(str(NODE_REPORTS))
        self._reports.retain(updates)
        self.reports = MappingProxyType(
            {
                name: self._reports.get(name, (update,), partial(_decode_report, name))
                for name, update in updates.items()
            }
        )


def _decode_report(name: str, update: Update) -> Report:
    """The report of node `name`; one that cannot be read acknowledges nothing."""
    try:
        return decode_report(update.raw or {})
    except InputError:
        return Report(name)


def _revision(update: Update | None) -> object:
    """The revision in an object's spec; None without one."""
    spec = (update.raw or {}).get("spec") if update is not None else None
    return spec.get("revision") if isinstance(spec, Mapping) else None
