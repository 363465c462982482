"""Reconciles the registry while this process leads: computes numbers, and plans their writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.controller.reconciler import earliest
from romana_ovs.controller.write_slot import WriteSlot
from romana_ovs.engine.liveness import AckLag, DeletedNodes
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.api.resources import NODE_REPORTS
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import TermBase, TermOver, Verb, Write, WriteCache, next_writes
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import Derived
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.registry")

TERM_SECONDS = 1.0
"""Before a registry whose term is over begins another: if another process leads too, the two do not race."""
AWAY_SECONDS = 30.0
"""A node that has been behind for so long is not waited for where that is safe."""
GONE_SECONDS = 60.0
"""The report of a node that has not been there for so long is deleted. Not sooner: reports and Nodes are watched each
by itself, so a report may be seen before its Node, and a kubelet may be about to make its Node anew."""


class RegistryController:
    """Runs the registry of one leadership term after another. `writer` names this process among all."""

    def __init__(self, settings: Settings, numbers: PublishedStore, writer: str, slot: WriteSlot) -> None:
        self._settings = settings
        self._numbers = numbers
        self._writer = writer
        self.slot = slot
        self._registry: Registry | None = None
        self._problems: tuple[Problem, ...] = ()
        self._write_cache = WriteCache()
        self._planned: Derived[tuple[Write, ...]] = Derived()
        self._ack_lag = AckLag(AWAY_SECONDS)
        self._deleted_nodes = DeletedNodes(GONE_SECONDS)
        self.leads = False
        self.superseded_at: float | None = None
        """When the last `reconcile` found that its term was over: the next one begins a new term."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with numbers, or with their writing, while this process leads."""
        if not self.leads:
            return ()
        own = self._registry.problems if self._registry is not None else ()
        failed = (Problem(self.slot.error),) if self.slot.error else ()
        return tuple(dict.fromkeys((*self._problems, *failed, *self._write_cache.problems.values(), *own)))

    @property
    def registry(self) -> Registry | None:
        """The numbers themselves, while this process leads and has begun."""
        return self._registry

    def next_check(self, now: float) -> float | None:
        """When to call `reconcile` again although nothing is new, in the seconds of `now`; None for never.

        That is when a pause ends, a node that lags behind counts as away, or one that is gone as deleted.
        """
        if not self.leads:
            return None
        pauses = (self.slot.retry_at(now), None if self.superseded_at is None else self.superseded_at + TERM_SECONDS)
        if self._registry is None:
            return earliest(*pauses)
        away = self._ack_lag.next_check(self._numbers.reports, now) if self._registry.pending else None
        gone = self._deleted_nodes.next_check(now)
        return earliest(*pauses, *(now + seconds for seconds in (away, gone) if seconds is not None))

    def set_leader(self, leads: bool) -> None:
        """Whether this process leads now. A new term begins from the objects as they are then."""
        if leads != self.leads:
            LOG.info("this process %s the registry", "is now" if leads else "is no longer")
        self.leads = leads
        self._registry = None
        self._problems = ()

    def on_write_result(self, result: WriteResult, now: float) -> bool:
        """Take note of a result; returns whether it is that of a request of the registry."""
        before = self.slot.error
        if not self.slot.on_result(result, now):
            return False
        if self.slot.error and self.slot.error != before:
            LOG.error("numbers cannot be published: %s", self.slot.error)
        return True

    def process_started(self) -> None:
        """A Kubernetes process has begun: what was in flight in the one before will not be answered."""
        self.slot.reset()
        self.set_leader(False)

    def reconcile(self, cluster: Cluster, rules: RuleSet, now: float) -> WriteRequest | None:
        """Follow the cluster and the nodes; returns what is to be written, None for nothing at the moment."""
        self.superseded_at = None
        if not self.leads or not self._numbers.listed:
            return None
        stored = (self._numbers.objects, self._numbers.reports)
        try:
            if self._registry is None:
                self._registry = Registry(self._settings, TermBase.of(self._numbers.objects), writer=self._writer)
            self._registry.update(cluster, self._numbers.reports, rules, away=self._away(now))
            if not self.slot.free(stored, now):
                return None
            writes = (*self._writes(self._registry), *self._orphan_reports(cluster, now))
        except TermOver as over:
            LOG.warning("%s; beginning anew from what is published", over)
            self._registry = None
            self.superseded_at = now
            return None
        except RomanaError as error:
            self._problems = error.problems if isinstance(error, InputError) else (Problem(str(error)),)
            self._registry = None
            return None
        self._problems = ()
        return self.slot.request(writes, stored, leading=True) if writes else None

    def _writes(self, registry: Registry) -> tuple[Write, ...]:
        """The next writes, in their order. Raises TermOver and InputError as `next_writes` does."""
        return self._planned.get(
            (registry.published, registry.base, self._numbers.objects),
            lambda desired, base, objects: next_writes(desired, base, objects, self._write_cache),
        )

    def _orphan_reports(self, cluster: Cluster, now: float) -> Iterator[Write]:
        """Deletes the reports of nodes that are gone: nobody else does, and they count no more."""
        for node in self._deleted_nodes.departed(cluster.nodes.keys(), self._numbers.reports, now):
            yield Write(Verb.DELETE, NODE_REPORTS.kind, node, version=self._numbers.report_version(node) or "")

    def _away(self, now: float) -> frozenset[str]:
        """Nodes that have lagged behind what is stored for long."""
        stored = self._numbers.published
        if stored is None:
            return frozenset()
        return self._ack_lag.away(stored.revision, self._numbers.reports, now)
