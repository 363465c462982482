"""The registry's duty: while this process leads, it gives numbers and has them published."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from romana_ovs.controller.shelf import Shelf
from romana_ovs.kube.api.carry import Carried, Carry
from romana_ovs.kube.published import Base, ClassSetObjects, Superseded, Write, next_writes
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Report
from romana_ovs.world.registry import RegistryPart

LOG = logging.getLogger("romana_ovs.registry")

TROUBLE_SECONDS = 2.0
"""Until writes that were refused, or could not be made, are tried again."""
AWAY_SECONDS = 30.0
"""A node that has been behind for so long is not waited for where that is safe."""


class RegistryDuty:
    """`work` may run in a thread aside; nothing else may go on meanwhile."""

    def __init__(self, settings: Settings, shelf: Shelf, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._shelf = shelf
        self._writer = ""
        self._clock = clock
        self._part: RegistryPart | None = None
        self._number = 0
        self._flying: int | None = None
        self._trouble = ""
        self._not_before = 0.0
        self._made = ClassSetObjects()
        self._settled: tuple[object, object] | None = None
        self._moved: dict[str, tuple[Report, float]] = {}
        self.leads = False

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with numbers, or with their writing, while this process leads."""
        if not self.leads:
            return ()
        found = [Problem(self._trouble, kind="Allocation", name="cluster")] if self._trouble else []
        return (*found, *(self._part.problems if self._part is not None else ()))

    @property
    def part(self) -> RegistryPart | None:
        """The numbers themselves, while this process leads and has begun."""
        return self._part

    @property
    def behind(self) -> float | None:
        """Seconds until a node that is behind counts as away; None when nobody is."""
        if self._part is None or not self._part.pending:
            return None
        now, revision = self._clock(), self._part.published.revision
        left = [since + AWAY_SECONDS - now for report, since in self._moved.values() if report.acknowledged < revision]
        return min((seconds for seconds in left if seconds > 0), default=None)

    def lead(self, leads: bool) -> None:
        """Whether this process leads now. A new term begins from the objects as they are then."""
        if leads != self.leads:
            LOG.info("this process %s the registry", "is now" if leads else "is no longer")
        self.leads = leads
        self._part = None
        self._trouble = ""

    def carried(self, answer: Carried) -> None:
        """Writes have been tried."""
        if answer.number == self._flying:
            self._flying = None
            if answer.trouble and answer.trouble != self._trouble:
                LOG.error("numbers cannot be published: %s", answer.trouble)
            self._trouble = answer.trouble
            self._not_before = self._clock() + TROUBLE_SECONDS if answer.trouble else 0.0

    def process_started(self, writer: str) -> None:
        """A Kubernetes process has begun, named `writer` among all: what was on its way will not be answered."""
        self._writer = writer
        self._flying = None
        self.lead(False)

    def work(self, cluster: Cluster) -> Carry | None:
        """Follow the cluster and the nodes; returns what is to be written, None for nothing at the moment."""
        if not self.leads or not self._shelf.listed:
            return None
        try:
            if self._part is None:
                self._part = RegistryPart(self._settings, Base.of(self._shelf.objects), writer=self._writer)
            self._part.update(cluster, self._shelf.reports, away=self._away())
            if self._flying is not None or self._clock() < self._not_before:
                return None
            writes = self._writes(self._part)
        except Superseded as over:
            LOG.warning("%s; beginning anew from what is published", over)
            self._part = None
            return None
        except (InputError, RomanaError) as error:
            self._trouble = str(error)
            self._part = None
            return None
        if not writes:
            return None
        self._number += 1
        self._flying = self._number
        return Carry(self._number, writes, leading=True)

    def _writes(self, part: RegistryPart) -> tuple[Write, ...]:
        """The next writes; that there are none is found out once for what is wanted and what is stored."""
        now = (part.published, self._shelf.objects)
        if self._settled is not None and self._settled[0] is now[0] and self._settled[1] is now[1]:
            return ()
        writes = next_writes(part.published, part.base, self._shelf.objects, self._made)
        self._settled = None if writes else now
        return writes

    def _away(self) -> frozenset[str]:
        """Nodes whose report has stood still behind the newest revision for long."""
        if self._part is None:
            return frozenset()
        now, revision = self._clock(), self._part.published.revision
        moved: dict[str, tuple[Report, float]] = {}
        for name, report in self._shelf.reports.items():
            held = self._moved.get(name)
            still = held is not None and held[0] == report and report.acknowledged < revision
            moved[name] = held if still and held is not None else (report, now)
        self._moved = moved
        return frozenset(
            name for name, (report, since) in moved.items()
            if report.acknowledged < revision and now - since > AWAY_SECONDS
        )


