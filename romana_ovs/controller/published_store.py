"""Stores the published numbers and the node reports as last read from the API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.kube.cache.raw_cache import RawCache
from romana_ovs.kube.published import ALLOCATION, COMPLETE_MARKER, PublishedObjects, PublishedReader, decode_report
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.policy.published import Published, Report

RESOURCES = (ALLOCATIONS, CLASS_SETS, NODE_REPORTS)


class PublishedStore:
    """Takes what the Kubernetes process tells of the objects that carry numbers.

    `published` is None while there is nothing, or what there is is damaged: `problems` say so.
    """

    def __init__(self) -> None:
        self._objects = RawCache(map(str, RESOURCES))
        self._reader = PublishedReader()
        self._reports: dict[str, tuple[object, Report]] = {}
        self._stale = False
        self._held = PublishedObjects()
        self._published: Published | None = None
        self._problems: tuple[Problem, ...] = ()
        self.reports: Mapping[str, Report] = MappingProxyType({})

    @property
    def listed(self) -> bool:
        """Whether all of them have been listed."""
        return self._objects.listed

    @property
    def objects(self) -> PublishedObjects:
        """The objects of the numbers: the same value until one of them is another."""
        self._read_numbers()
        return self._held

    @property
    def published(self) -> Published | None:
        """The numbers themselves."""
        self._read_numbers()
        return self._published

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the objects of the numbers."""
        self._read_numbers()
        return self._problems

    def apply(self, messages: Iterable[object]) -> bool:
        """Take note; returns whether there is something new to act on.

        Numbers of which the last object is still to come are not: who writes them is about to.
        """
        listed = self.listed
        changed = self._objects.apply(*messages)
        reports = str(NODE_REPORTS) in changed
        if reports:
            self._read_reports()
        if changed - {str(NODE_REPORTS)}:
            self._stale = True
            return reports or self.listed is not listed or self._is_complete()
        return bool(changed)

    def _is_complete(self) -> bool:
        """Whether the marker is of the Allocation's revision, or there is no saying."""
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
        sets = {name: one.raw for name, one in self._objects.of(str(CLASS_SETS)).items() if one.raw is not None}
        self._held = PublishedObjects(allocation.raw if allocation is not None else None, MappingProxyType(sets))
        try:
            self._published, self._problems = self._reader.read(self._held)
        except InputError as damaged:
            # What is held stays in force: nobody may give, or take, a number by what cannot be read.
            self._problems = damaged.problems

    def _read_reports(self) -> None:
        found: dict[str, tuple[object, Report]] = {}
        for name, update in self._objects.of(str(NODE_REPORTS)).items():
            held = self._reports.get(name)
            if held is not None and held[0] is update:
                found[name] = held
                continue
            try:
                found[name] = (update, decode_report(update.raw or {}))
            except InputError:
                # A report that cannot be read acknowledges nothing.
                found[name] = (update, Report(name))
        self._reports = found
        self.reports = MappingProxyType({name: report for name, (_, report) in found.items()})


def _revision(update: Update | None) -> object:
    """The revision that an object says it is of; None when it says none."""
    spec = (update.raw or {}).get("spec") if update is not None else None
    return spec.get("revision") if isinstance(spec, Mapping) else None
