"""What is published: numbers and reports, as they were last read from the API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS
from romana_ovs.kube.live import LiveObjects
from romana_ovs.kube.published import ALLOCATION, Objects, Reader, decode_report
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.policy.published import Published, Report

RESOURCES = (ALLOCATIONS, CLASS_SETS, NODE_REPORTS)


class Shelf:
    """Takes what the Kubernetes process tells of the objects that carry numbers.

    `published` is None while there is nothing, or what there is is damaged: `problems` say so.
    """

    def __init__(self) -> None:
        self._objects = LiveObjects(map(str, RESOURCES))
        self._reader = Reader()
        self._reports: dict[str, tuple[object, Report]] = {}
        self.objects = Objects()
        self.published: Published | None = None
        self.reports: Mapping[str, Report] = MappingProxyType({})
        self.problems: tuple[Problem, ...] = ()

    @property
    def listed(self) -> bool:
        """Whether all of them have been listed."""
        return self._objects.listed

    def take(self, messages: Iterable[object]) -> bool:
        """Take note; returns whether anything is other than before."""
        changed = self._objects.apply(*messages)
        if changed & {str(ALLOCATIONS), str(CLASS_SETS)}:
            self._read_numbers()
        if str(NODE_REPORTS) in changed:
            self._read_reports()
        return bool(changed)

    def report_version(self, node: str) -> str | None:
        """The resourceVersion of the stored report of `node`, None when there is none."""
        update = self._objects.of(str(NODE_REPORTS)).get(node)
        return update.version if update is not None else None

    def _read_numbers(self) -> None:
        allocation = self._objects.of(str(ALLOCATIONS)).get(ALLOCATION)
        sets = {name: one.raw for name, one in self._objects.of(str(CLASS_SETS)).items() if one.raw is not None}
        self.objects = Objects(allocation.raw if allocation is not None else None, MappingProxyType(sets))
        try:
            self.published, self.problems = self._reader.read(self.objects)
        except InputError as damaged:
            # What is held stays in force: nobody may give, or take, a number by what cannot be read.
            self.problems = damaged.problems

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
