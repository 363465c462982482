"""Reconciles the registry while this process leads: computes numbers, and plans their writes."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from romana_ovs.controller.deadlines import earliest
from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.controller.write_slot import WriteSlot
from romana_ovs.engine.lagging_nodes import AckLag, OrphanReports
from romana_ovs.engine.policy_index import RuleSet
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.api.resources import NODE_REPORTS
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import TermBase, TermOver, Verb, Write, WriteCache, plan_writes
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import Derived
from romana_ovs.model.errors import InputError, Problem, RomanaError
from romana_ovs.model.settings import Settings

LOG = logging.getLogger("romana_ovs.registry")

NEW_TERM_SECONDS = 1.0
"""Until a new term begins after one that is over, unless something changes sooner: another process may lead for a
moment, too."""
MAX_LAG_SECONDS = 30.0
"""A node that lags behind for so long is not waited for where that is safe."""
REPORT_RETENTION_SECONDS = 60.0
"""How long after its Node a report is deleted. Not sooner: reports and Nodes are watched separately, so a report may be
read before its Node, and a kubelet may be about to create its Node again."""


class RegistryController:
    """Runs a `Registry` for each leadership term of this process. `writer` is unique to the process."""

    def __init__(self, settings: Settings, published_store: PublishedStore, writer: str, slot: WriteSlot) -> None:
        self._settings = settings
        self._published_store = published_store
        self._writer = writer
        self.slot = slot
        self._registry: Registry | None = None
        self._problems: tuple[Problem, ...] = ()
        self._write_cache = WriteCache()
        self._planned: Derived[tuple[Write, ...]] = Derived()
        self._ack_lag = AckLag(MAX_LAG_SECONDS)
        self._orphans = OrphanReports(REPORT_RETENTION_SECONDS)
        self.leads = False
        self.superseded_at: float | None = None
        """When `reconcile` found that its term was over, in the seconds of `now`; None while it is not."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems of numbers and of their writes, while this process leads."""
        if not self.leads:
            return ()
        registry_problems = self._registry.problems if self._registry is not None else ()
        slot_problems = (Problem(self.slot.error),) if self.slot.error else ()
        return tuple(
            dict.fromkeys((*self._problems, *slot_problems, *self._write_cache.problems.values(), *registry_problems))
        )

    @property
    def registry(self) -> Registry | None:
        """The registry of the present term; None without one."""
        return self._registry

    def next_check(self, now: float) -> float | None:
        """When to call `reconcile` again although nothing is new, in the seconds of `now`; None for never.

        That is when a pause ends, a node begins to count as lagging, or a report may be deleted after its Node.
        """
        if not self.leads:
            return None
        pauses = (
            self.slot.retry_at(now),
            None if self.superseded_at is None else self.superseded_at + NEW_TERM_SECONDS,
        )
        if self._registry is None:
            return earliest(*pauses)
        lagging = self._ack_lag.next_check(self._published_store.reports, now) if self._registry.pending else None
        expiring = self._orphans.next_check(now)
        return earliest(*pauses, *(now + seconds for seconds in (lagging, expiring) if seconds is not None))

    def set_leader(self, leads: bool) -> None:
        """Set whether this process leads. Either way the present term ends."""
        if leads != self.leads:
            LOG.info("this process %s the registry", "is now" if leads else "is no longer")
        self.leads = leads
        self._registry = None
        self._problems = ()

    def on_write_result(self, result: WriteResult, now: float) -> bool:
        """Handle a result; returns whether it is that of a request of the registry."""
        previous_error = self.slot.error
        if not self.slot.on_result(result, now):
            return False
        if self.slot.error and self.slot.error != previous_error:
            LOG.error("numbers cannot be published: %s", self.slot.error)
        return True

    def process_started(self) -> None:
        """A new Kubernetes process runs: the request in flight will not be answered, and it does not lead yet."""
        self.slot.reset()
        self.set_leader(False)

    def reconcile(self, cluster: Cluster, rules: RuleSet, now: float) -> WriteRequest | None:
        """Compute the numbers; returns the request that writes them, None when there is nothing to write now."""
        self.superseded_at = None
        if not self.leads or not self._published_store.synced:
            return None
        stored = (self._published_store.objects, self._published_store.reports)
        try:
            if self._registry is None:
                self._registry = Registry(
                    self._settings, TermBase.of(self._published_store.objects), writer=self._writer
                )
            self._registry.update(cluster, self._published_store.reports, rules, lagging=self._lagging(now))
            if not self.slot.free(stored, now):
                return None
            writes = (*self._writes(self._registry), *self._orphan_reports(cluster, now))
        except TermOver as over:
            LOG.warning("%s; a new term begins with what is published", over)
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
        """The next writes, in their order. Raises TermOver and InputError as `plan_writes` does."""
        return self._planned.get(
            (registry.published, registry.base, self._published_store.objects),
            lambda desired, base, objects: plan_writes(desired, base, objects, self._write_cache),
        )

    def _orphan_reports(self, cluster: Cluster, now: float) -> Iterator[Write]:
        """The deletions of reports whose nodes are gone: no other process deletes them."""
        for node in self._orphans.expired(cluster.nodes.keys(), self._published_store.reports, now):
            yield Write(
                Verb.DELETE, NODE_REPORTS.kind, node, resource_version=self._published_store.report_version(node) or ""
            )

    def _lagging(self, now: float) -> frozenset[str]:
        """The nodes that have not acknowledged the stored numbers for MAX_LAG_SECONDS."""
        stored = self._published_store.published
        if stored is None:
            return frozenset()
        return self._ack_lag.lagging(stored.revision, self._published_store.reports, now)
