"""Reconciles the registry (when leading) and the local nodes through objects in the API server.

    registry (while this process leads) -> Allocation, ClassSets -> agents of the nodes that are driven -> NodeReports

All of it goes through the API server, also inside one process: what is not stored there is not used.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.controller.registry import LATE_SECONDS, TROUBLE_SECONDS, RegistryController
from romana_ovs.controller.status_reporter import Snapshot, StatusReporter, digest
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.kube.api.desired import JoinElection, Leadership
from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.published import Verb, Write
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Observed, Report

PATIENCE_SECONDS = 10.0
"""How long rules and pods wait for the registry before nodes go on without it, failing closed."""
STATUS_SECONDS, TENANT_SECONDS = 1.0, 5.0
"""Between two times that statuses are compared with what was told, and that the pods of tenants are counted."""
ANEW_SECONDS = 1.0
"""Before a registry whose term is over begins anew: if another one leads too, the two do not race."""
REPORT_SECONDS = 1.0
"""Between two reports that only say that policies have been programmed."""


class Environment(Protocol):
    """What the reconciler asks of the process that it runs in (`ApiBackend`)."""

    def send(self, message: object) -> None:
        """Send a message to the Kubernetes process."""

    def schedule_round(self, after: float) -> None:
        """Compute everything again, in so many seconds."""

    def wake(self, after: float) -> None:
        """Call `report_statuses` again in so many seconds."""


class ApiReconciler:
    """Registry and node agents over an API server. While `step` runs in another thread, call nothing else.

    `store` has the objects of the API server.
    """

    def __init__(
        self,
        settings: Settings,
        parts: NodeAgents,
        store: ClusterCache,
        environment: Environment,
        *,
        registers: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.parts = parts
        self.numbers = PublishedStore()
        self._me = _unique_name()
        self.registry = RegistryController(settings, self.numbers, self._me, clock) if registers else None
        self.status_reporter = StatusReporter(store, environment)
        self._store = store
        self._policies = PolicyIndex()
        self._environment = environment
        self._clock = clock
        self._outbox: list[object] = []
        self._reporting: int | None = None
        self._reports = 0
        self._reported = 0.0
        self._report_due = 0.0
        self._report_not_before = 0.0
        self._reported_over: Mapping[str, Report] | None = None
        """The reports that were stored when the last one was sent, if that came too late."""
        self._waiting_since: float | None = None
        self._digest: tuple[object, str] | None = None
        self._told = self._counted = 0.0
        self._status_later = self._count_later = False
        self._nodes: Collection[str] = ()
        self._alarm = 0.0
        self._report_trouble = ""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with numbers and reports."""
        own = [Problem(self._report_trouble, kind="NodeReport")] if self._report_trouble else []
        leads = self.registry is not None and self.registry.leads
        registry = (*self.registry.problems, *self._policies.problems) if self.registry is not None and leads else ()
        return tuple(dict.fromkeys((*self.numbers.problems, *registry, *own)))

    def process_started(self) -> None:
        """A Kubernetes process has begun: it takes part in the election in the place of the one before."""
        self._reporting = None
        # What the last one was told may never have been done, and what this one lists may be no news.
        self._environment.schedule_round(0.0)
        self.status_reporter.reset()
        if self.registry is not None:
            self.registry.process_started()
            self._environment.send(JoinElection(self._me))

    def observe_messages(self, messages: Iterable[object]) -> bool:
        """Process what the Kubernetes process says; returns whether another `step` is due."""
        messages = tuple(messages)
        stored = self.numbers.reports
        due = self.numbers.apply(messages)
        if self.registry is None and self.numbers.reports is not stored and stored:
            # What nodes report is the registry's to act on.
            due = due and self.numbers.reports.keys() != stored.keys()
        self.status_reporter.observe(messages)
        for message in messages:
            if isinstance(message, Leadership) and self.registry is not None:
                self.registry.set_leader(message.leads)
                due = True
            elif isinstance(message, WriteResult):
                due |= self._on_write_result(message)
        return due

    def step(self, cluster: Cluster, nodes: Collection[str]) -> None:
        """Compute what the registry publishes, and what the agents of `nodes` make of what is published."""
        self._nodes = cluster.nodes.keys()
        rules = self._policies.follow(cluster)
        if self.registry is not None:
            carry = self.registry.reconcile(cluster, rules)
            if carry is not None:
                self._outbox.append(carry)
        self.parts.ensure(nodes)
        self.parts.published = self.numbers.published if self.numbers.published is not None else self.parts.published
        self.parts.stored = frozenset(self.numbers.reports)
        self.parts.patience_over = self._impatient()
        self.parts.update(cluster, rules)

    def _impatient(self) -> bool:
        return self._waiting_since is not None and self._clock() - self._waiting_since >= PATIENCE_SECONDS

    def flush_writes(self) -> None:
        """Send pending writes, and schedule a round for when something may have waited too long."""
        for message in self._outbox:
            self._environment.send(message)
        self._outbox.clear()
        self.report()
        if not self.parts.waiting:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = self._clock()
            self._environment.schedule_round(PATIENCE_SECONDS)
        if self.registry is not None and self.registry.superseded:
            self._environment.schedule_round(ANEW_SECONDS)
        behind = self.registry.next_check if self.registry is not None else None
        if behind is not None and self._clock() >= self._alarm:
            self._alarm = self._clock() + behind
            self._environment.schedule_round(behind)

    def report(self) -> None:
        """Write the reports of our nodes, unless a write of them is in flight."""
        if self._reporting is not None or not self.numbers.listed or self._paused():
            return
        versions = {node: version for node in self.numbers.reports if (version := self.numbers.report_version(node))}
        now = self._clock()
        calm = now - self._reported >= REPORT_SECONDS
        writes = self._report_writes(versions, all_of_it=calm)
        if not writes and now >= self._report_due and self._report_writes(versions, all_of_it=True):
            # Whatever is told until then, it is looked at again.
            self._report_due = now + REPORT_SECONDS
            self._environment.schedule_round(REPORT_SECONDS)
        if writes:
            self._reported = now
            # Negative: those that the registry asks for count upwards.
            self._reports -= 1
            self._reporting = self._reports
            self._reported_over = self.numbers.reports
            self._environment.send(WriteRequest(self._reports, writes))

    def observe(self, seen: Mapping[str, Observed]) -> None:
        """Have told what has been `seen` of the switches of our nodes."""
        self.parts.observed = seen
        self.report()

    def _paused(self) -> bool:
        """Whether the last report failed a moment ago, and nothing has been told since that makes it worth trying."""
        news = self._reported_over is not None and self._reported_over is not self.numbers.reports
        return self._clock() < self._report_not_before and not news

    def _report_writes(self, versions: Mapping[str, str], *, all_of_it: bool) -> tuple[Write, ...]:
        """A node that there is not begins no report: the registry would only delete it."""
        writes = self.parts.report_writes(self.numbers.reports, versions, all_of_it=all_of_it)
        return tuple(write for write in writes if write.verb is not Verb.CREATE or write.name in self._nodes)

    def policies_digest(self) -> str:
        """A digest of the versions of all policies that are known."""
        if self._digest is None or self._digest[0] is not self._store.policies:
            self._digest = (self._store.policies, digest(self._store.policies))
        return self._digest[1]

    def programmed(self) -> None:
        """Every switch that this process drives has confirmed all that is known."""
        if not self._others_drive_nodes():
            self.status_reporter.programmed(self._store.policies)

    def report_statuses(self, loaded: ClusterSnapshot, *, unplaced: tuple[Problem, ...], failing: bool) -> None:
        """Have the API server told what it should say of its objects; to be called often, it keeps to a pace."""
        if self.registry is None or not self.registry.leads:
            return
        now = self._clock()
        if now - self._told < STATUS_SECONDS:
            if not self._status_later:
                self._status_later = True
                self._environment.wake(STATUS_SECONDS)
            return
        self._told, self._status_later = now, False
        if self._others_drive_nodes() and all(report.policies == self.policies_digest() for report in self._known()):
            self.status_reporter.programmed(self._store.policies)
        tenants = now - self._counted >= TENANT_SECONDS
        if tenants:
            self._counted, self._count_later = now, False
        elif not self._count_later:
            self._count_later = True
            self._environment.wake(self._counted + TENANT_SECONDS - now)
        known = tuple(dict.fromkeys((*unplaced, *self.registry.problems)))
        seen = {report.node: report.observed for report in self._known()}
        self.status_reporter.report(Snapshot(loaded, self.numbers.published, known, failing, seen), tenants=tenants)

    def _known(self) -> tuple[Report, ...]:
        """The reports of all nodes; of nodes that are no more reports may stay."""
        return tuple(report for node, report in self.numbers.reports.items() if node in self._nodes)

    def _others_drive_nodes(self) -> bool:
        """Whether other processes drive some node."""
        return any(report.node not in self.parts.nodes for report in self._known())

    def _on_write_result(self, answer: WriteResult) -> bool:
        """Take note of an answer; returns whether all must be computed again."""
        if answer.error:
            # Whatever is wrong there, asking again at once makes it no better.
            self._environment.schedule_round(TROUBLE_SECONDS)
        elif answer.conflict:
            self._environment.schedule_round(LATE_SECONDS)
        if answer.number == self._reporting:
            self._reporting, self._report_trouble = None, answer.error
            pause = TROUBLE_SECONDS if answer.error else LATE_SECONDS
            self._report_not_before = self._clock() + pause if answer.error or answer.conflict else 0.0
            if not answer.conflict:
                self._reported_over = None
            self.report()
            return False
        if self.registry is not None:
            self.registry.on_write_result(answer)
        return True

    def status(self) -> dict[str, Any]:
        """What the status feed says of it."""
        published = self.numbers.published
        return {
            "leads": self.registry is not None and self.registry.leads,
            "revision": published.revision if published is not None else 0,
        }


def _unique_name() -> str:
    """A name for this process that no other has or will have; it begins with the machine's."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"
