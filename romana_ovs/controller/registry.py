"""Reconciles the registry while this process leads: computes numbers, and plans their writes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.engine.liveness import AckLag, DeletedNodes
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.api.resources import NODE_REPORTS
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import TermBase, TermOver, Verb, Write, WriteCache, next_writes
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.registry")

TROUBLE_SECONDS = 2.0
"""Until writes that were refused, or could not be made, are tried again."""
LATE_SECONDS = 1.0
"""Until writes that came too late are tried again although nothing newer has been told: the watch may be away."""
AWAY_SECONDS = 30.0
"""A node that has been behind for so long is not waited for where that is safe."""
GONE_SECONDS = 60.0
"""The report of a node that has not been there for so long is deleted. Not sooner: reports and Nodes are watched each
by itself, so a report may be seen before its Node, and a kubelet may be about to make its Node anew."""


class RegistryController:
    """`writer` names this process among all. `work` may run in a thread aside; nothing else may go on meanwhile."""

    def __init__(
        self, settings: Settings, numbers: PublishedStore, writer: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._numbers = numbers
        self._writer = writer
        self._clock = clock
        self._part: Registry | None = None
        self._number = 0
        self._in_flight: int | None = None
        self._planned: tuple[object, object] = (None, None)
        """What was stored when the last writes were planned: numbers and reports."""
        self._late = False
        self._wrong: tuple[Problem, ...] = ()
        self._checked = WriteCache()
        self._not_before = 0.0
        self._up_to_date: tuple[object, object] | None = None
        self._ack_lag = AckLag(AWAY_SECONDS)
        self._deleted_nodes = DeletedNodes(GONE_SECONDS)
        self.leads = False
        self.superseded = False
        """Whether the last `work` found its term over: the next one begins anew."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with numbers, or with their writing, while this process leads."""
        if not self.leads:
            return ()
        own = self._part.problems if self._part is not None else ()
        return (*self._wrong, *self._checked.problems.values(), *own)

    @property
    def part(self) -> Registry | None:
        """The numbers themselves, while this process leads and has begun."""
        return self._part

    @property
    def next_check(self) -> float | None:
        """Seconds until a node that is behind counts as away, or one that is gone as departed; None when nobody is."""
        if self._part is None:
            return None
        now = self._clock()
        away = self._ack_lag.next_check(self._numbers.reports, now) if self._part.pending else None
        return min((due for due in (away, self._deleted_nodes.next_check(now)) if due is not None), default=None)

    def set_leader(self, leads: bool) -> None:
        """Whether this process leads now. A new term begins from the objects as they are then."""
        if leads != self.leads:
            LOG.info("this process %s the registry", "is now" if leads else "is no longer")
        self.leads = leads
        self._part = None
        self._wrong = ()

    def on_write_result(self, answer: WriteResult) -> None:
        """Writes have been tried."""
        if answer.number == self._in_flight:
            self._in_flight = None
            wrong = (Problem(answer.error),) if answer.error else ()
            if wrong and wrong != self._wrong:
                LOG.error("numbers cannot be published: %s", answer.error)
            self._wrong = wrong
            self._late = answer.conflict
            pause = TROUBLE_SECONDS if answer.error else LATE_SECONDS
            self._not_before = self._clock() + pause if answer.error or answer.conflict else 0.0

    def process_started(self) -> None:
        """A Kubernetes process has begun: what was on its way in the one before will not be answered."""
        self._in_flight = None
        self.set_leader(False)

    def reconcile(self, cluster: Cluster, rules: RuleSet) -> WriteRequest | None:
        """Follow the cluster and the nodes; returns what is to be written, None for nothing at the moment."""
        if not self.leads or not self._numbers.listed:
            return None
        self.superseded = False
        try:
            if self._part is None:
                self._part = Registry(self._settings, TermBase.of(self._numbers.objects), writer=self._writer)
            self._part.update(cluster, self._numbers.reports, rules, away=self._away())
            if self._in_flight is not None or self._paused():
                return None
            writes = (*self._writes(self._part), *self._orphan_reports(cluster))
        except TermOver as over:
            LOG.warning("%s; beginning anew from what is published", over)
            self._part = None
            self.superseded = True
            return None
        except InputError as error:
            self._wrong = error.problems
            self._part = None
            return None
        except RomanaError as error:
            self._wrong = (Problem(str(error)),)
            self._part = None
            return None
        if not writes:
            return None
        self._number += 1
        self._in_flight = self._number
        self._planned = self._stored()
        return WriteRequest(self._number, writes, leading=True)

    def _stored(self) -> tuple[object, object]:
        return self._numbers.objects, self._numbers.reports

    def _paused(self) -> bool:
        """Whether the last writes failed a moment ago, and nothing has been told since that makes it worth trying."""
        news = self._late and any(now is not then for now, then in zip(self._stored(), self._planned, strict=True))
        return self._clock() < self._not_before and not news

    def _writes(self, part: Registry) -> tuple[Write, ...]:
        """The next writes; that there are none is found out once for what is wanted and what is stored."""
        now = (part.published, self._numbers.objects)
        if self._up_to_date is not None and self._up_to_date[0] is now[0] and self._up_to_date[1] is now[1]:
            return ()
        writes = next_writes(part.published, part.base, self._numbers.objects, self._checked)
        self._up_to_date = None if writes else now
        return writes

    def _orphan_reports(self, cluster: Cluster) -> Iterator[Write]:
        """What deletes the reports of nodes that are gone: nobody else does, and what they say counts no more."""
        for node in self._deleted_nodes.departed(cluster.nodes.keys(), self._numbers.reports, self._clock()):
            yield Write(Verb.DELETE, NODE_REPORTS.kind, node, version=self._numbers.report_version(node) or "")

    def _away(self) -> frozenset[str]:
        """Nodes that have lagged behind what is stored for long."""
        stored = self._numbers.published
        if stored is None:
            return frozenset()
        return self._ack_lag.away(stored.revision, self._numbers.reports, self._clock())
