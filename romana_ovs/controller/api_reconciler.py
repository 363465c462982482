"""Reconciles the cluster of an API server: updates registry and node agents, and requests writes.

Views are made of it in each round, by `TableCompiler.compile`.

    ClusterCache -> Registry (while this process leads) -> Allocation, ClassSets -> agents of the driven nodes
                                                                                       -> NodeReports -> Registry

Numbers and reports go through the API server, also inside one process: what is not stored there is not used.
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Collection, Mapping
from itertools import count
from typing import Any

from romana_ovs.addressing.overlaps import overlaps
from romana_ovs.controller.deadlines import earliest
from romana_ovs.controller.kubernetes import ProcessStarted
from romana_ovs.controller.published_store import PublishedStore
from romana_ovs.controller.reconciler import EventsLost, Inputs, Outcome
from romana_ovs.controller.registry_controller import RegistryController
from romana_ovs.controller.state_saver import Durable
from romana_ovs.controller.status_reporter import StatusInputs, StatusReporter, Versions, digest
from romana_ovs.controller.write_slot import WriteSlot
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.kube.api.desired import JoinElection, Leadership
from romana_ovs.kube.api.messages import ObjectsObserved
from romana_ovs.kube.api.write_executor import WriteResult
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.published import Verb, Write
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import Derived, keep_equal
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.settings import Settings
from romana_ovs.registry_types.report import Report

LOG = logging.getLogger("romana_ovs")

REGISTRY_TIMEOUT_SECONDS = 10.0
"""How long rules and pods wait for the registry; then agents go on without its answer, failing closed."""
REPORT_SECONDS = 1.0
"""Between two reports in which only the digest of policies differs."""


class ApiReconciler:
    """Registry (if this process `runs_registry`) and node agents over the objects of an API server."""

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None, *, runs_registry: bool) -> None:
        """Raises AddressError and InputError as `NodeAgents` does."""
        self.agents = NodeAgents(settings, state)
        self.durable_state: Durable = self.agents
        self.snapshot: ClusterSnapshot | None = None
        self.noticed = 0.0
        self.object_problems: tuple[str, ...] = ()
        self.published = PublishedStore()
        request_numbers = count(1)
        self._name = _unique_name()
        self._cache = ClusterCache(settings)
        self._report_slot = WriteSlot(request_numbers)
        self.registry = (
            RegistryController(settings, self.published, self._name, WriteSlot(request_numbers))
            if runs_registry
            else None
        )
        self._policies = PolicyIndex()
        self._status_reporter = StatusReporter(self._cache)
        self._status_error = ""
        self._overlaps: tuple[Problem, ...] | None = None
        """Addresses of Services and nodes in the pods' network; None before the first computation."""
        self._overlapping: Derived[tuple[Problem, ...]] = Derived()
        self._versions: Versions = {}
        """The versions of the policies in the last computation."""
        self._policies_digest = ""
        self._digest: Derived[str] = Derived()
        self._outbox: list[object] = []
        """Messages to send; they are kept when a step fails."""
        self._retry = False
        self._waiting_since: float | None = None
        self._compute_at: float | None = None
        self._reported_at = float("-inf")
        self._report_at: float | None = None

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems of numbers, reports and pods of the driven nodes, in sentences."""
        error = self._report_slot.error
        report_problems = [Problem(error, kind="NodeReport")] if error else []
        registry_problems: tuple[Problem, ...] = ()
        if self.registry is not None and self.registry.leads:
            registry_problems = (*self.registry.problems, *self._policies.problems)
        number_problems = dict.fromkeys((*self.published.problems, *registry_problems, *report_problems))
        overlap_problems = self._overlaps or ()
        listed = (*overlap_problems, *number_problems, *self.agents.problems)
        return (*map(str, listed), *filter(None, [self._status_error]))

    @property
    def _leads(self) -> bool:
        return self.registry is not None and self.registry.leads

    @property
    def unsettled(self) -> bool:
        """Whether pods or rules wait for the registry, for less than REGISTRY_TIMEOUT_SECONDS."""
        return self.agents.awaits_registry

    @property
    def policies_digest(self) -> str:
        """A digest of the policies' versions in the last computation; empty before the first."""
        return self._policies_digest

    def may_be_slow(self, inputs: Inputs) -> bool:
        """True: every step compares the reports and statuses of all nodes and policies."""
        return True

    def step(self, inputs: Inputs, now: float) -> Outcome:
        """Apply the messages of the Kubernetes process; update registry and agents when any of them can change these.

        Raises EventsLost after an internal error in applying them, and whatever the computation raises: then the next
        step computes again.
        """
        try:
            due = self._apply_inputs(inputs, now)
        except Exception as error:
            raise EventsLost(f"messages of the Kubernetes process cannot be applied: {error!r}") from error
        due |= inputs.resync or self._retry or (self._compute_at is not None and now >= self._compute_at)
        computed = due and self.snapshot is not None and inputs.synced
        if self.snapshot is not None and computed:
            self._retry = True
            self._compute(self.snapshot.cluster, inputs.driven, now)
            self._retry = False
        else:
            self._retry = due
        self._report(now)
        self._report_statuses(inputs, now)
        self._compute_at = self._next_computation(now)
        messages, self._outbox = self._outbox, []
        return Outcome(computed, tuple(messages), self._next_step(now))

    def pending_ack(self, node: str) -> PendingAck | None:
        """What `node` may report once its switch has the present view."""
        return self.agents.pending_ack(node, self.policies_digest)

    def status(self) -> Mapping[str, Any]:
        """Whether this process leads, and the revision of the numbers."""
        published = self.published.published
        return {"registry": {"leads": self._leads, "revision": published.revision if published is not None else 0}}

    # What is new.

    def _apply_inputs(self, inputs: Inputs, now: float) -> bool:
        """Apply `inputs`; returns whether numbers and agents are to be computed."""
        if inputs.all_confirmed and not self._others_drive_nodes():
            self._status_reporter.programmed(self._versions)
        for node, ack in inputs.acks:
            self.agents.on_programmed(node, ack)
        self.agents.observed = inputs.observed
        return self._apply_objects(inputs.received, now) | self._apply_answers(inputs.received, now)

    def _process_started(self) -> None:
        """Join the election in the new process, and forget requests to the one before."""
        self._outbox.clear()
        self._report_slot.reset()
        self._status_reporter.reset()
        if self.registry is not None:
            self.registry.process_started()
            self._outbox.append(JoinElection(self._name))

    def _apply_objects(self, received: tuple[object, ...], now: float) -> bool:
        # Only the registry acts on the contents of reports.
        due = self.published.apply(received, contents=self.registry is not None)
        self._status_reporter.observe(received)
        snapshot = self._cache.apply(*received)
        if snapshot is not None:
            if self.snapshot is None or self.snapshot.cluster is not snapshot.cluster:
                self.noticed = min(
                    (message.at for message in received if isinstance(message, ObjectsObserved)), default=now
                )
                due = True
            self.snapshot = snapshot
            self.object_problems = tuple(map(str, snapshot.problems))
        return due

    def _apply_answers(self, received: tuple[object, ...], now: float) -> bool:
        """Apply the results of writes and of the election, in the order in which they came."""
        due = False
        for message in received:
            if isinstance(message, ProcessStarted):
                self._process_started()
                due = True
            elif isinstance(message, Leadership) and self.registry is not None:
                self.registry.set_leader(message.leads)
                due = True
            elif isinstance(message, WriteResult) and not self._report_slot.on_result(message, now):
                due |= self.registry is not None and self.registry.on_write_result(message, now)
        return due

    # What follows from it.

    def _compute(self, cluster: Cluster, nodes: Collection[str], now: float) -> None:
        """Update the registry and the agents of `nodes`. Raises InputError for an address plan that cannot begin."""
        self._check_overlaps(cluster)
        self._versions = self._cache.policies
        self._policies_digest = self._digest.get((self._versions,), digest)
        rules = self._policies.update(cluster)
        request = self.registry.reconcile(cluster, rules, now) if self.registry is not None else None
        if request is not None:
            self._outbox.append(request)
        published = self.published.published
        self.agents.ensure(nodes)
        self.agents.published = published if published is not None else self.agents.published
        self.agents.stored = keep_equal(self.agents.stored, frozenset(self.published.reports))
        since = self._waiting_since
        self.agents.may_wait = since is None or now - since < REGISTRY_TIMEOUT_SECONDS
        self.agents.update(cluster, rules)
        if not self.agents.needs_registry:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = now

    def _check_overlaps(self, cluster: Cluster) -> None:
        """Refuse to begin with an address plan that overlaps Services or nodes. Raises InputError.

        What overlaps later is a problem, and such a range counts as no Services' range: live pods keep their network.
        """
        problems = self._overlapping.get(
            (cluster.nodes, cluster.service_cidrs, cluster.settings),
            lambda *_: tuple(overlaps(cluster, self.agents.plan)),
        )
        if problems and self._overlaps is None:
            raise InputError(*problems)
        self._overlaps = problems

    def _next_computation(self, now: float) -> float | None:
        """When to compute again although nothing is new."""
        timeout = self._waiting_since + REGISTRY_TIMEOUT_SECONDS if self._waiting_since is not None else None
        next_check = self.registry.next_check(now) if self.registry is not None else None
        return earliest(timeout if timeout is not None and timeout > now else None, next_check)

    def _next_step(self, now: float) -> float | None:
        statuses = self._status_reporter.next_report if self._leads else None
        return earliest(self._compute_at, self._report_at, self._report_slot.retry_at(now), statuses)

    # What is written back.

    def _report(self, now: float) -> None:
        """Request the writes of our nodes' reports that differ from the stored ones."""
        self._report_at = None
        stored = (self.published.reports,)
        if not self.published.synced or not self._report_slot.free(stored, now):
            return
        policies_due = now - self._reported_at >= REPORT_SECONDS
        writes = self._report_writes(policies=policies_due)
        if writes:
            self._reported_at = now
            self._outbox.append(self._report_slot.request(writes, stored))
        elif not policies_due and self._report_writes(policies=True):
            self._report_at = self._reported_at + REPORT_SECONDS

    def _report_writes(self, *, policies: bool) -> tuple[Write, ...]:
        """The writes of reports; without `policies`, none of which only the digest of policies differs.

        No report is created without a Node: the registry would delete it.
        """
        reports = self.published.reports
        versions = {node: version for node in reports if (version := self.published.report_version(node))}
        writes = self.agents.report_writes(reports, versions, policies_too=policies)
        nodes = self.snapshot.cluster.nodes if self.snapshot is not None else {}
        return tuple(write for write in writes if write.verb is not Verb.CREATE or write.name in nodes)

    def _report_statuses(self, inputs: Inputs, now: float) -> None:
        """Send the changes of statuses, while this process leads."""
        if not self._leads or self.snapshot is None:
            return
        if not self._status_reporter.due(now):
            return
        previous_error, self._status_error = self._status_error, ""
        try:
            self._outbox += self._status_reporter.report(self._status_inputs(self.snapshot, inputs), now)
        except Exception as error:  # An internal error here must not keep switches from being programmed.
            self._status_error = f"statuses are not reported: internal error: {error!r}"
            if self._status_error != previous_error:
                LOG.exception("internal error; statuses are not reported; please report this")

    def _status_inputs(self, snapshot: ClusterSnapshot, inputs: Inputs) -> StatusInputs:
        """The inputs of statuses."""
        reports = self._reports()
        if self._others_drive_nodes() and all(report.policies == self.policies_digest for report in reports):
            self._status_reporter.programmed(self._versions)
        # While agents wait for the registry, a missing number is no problem yet.
        unallocated = () if self.agents.awaits_registry else self.agents.problems
        registry_problems = self.registry.problems if self.registry is not None else ()
        return StatusInputs(
            snapshot=snapshot,
            published=self.published.published,
            unallocated=tuple(dict.fromkeys((*unallocated, *registry_problems))),
            failing=inputs.failing,
            observed={report.node: report.observed for report in reports},
        )

    def _others_drive_nodes(self) -> bool:
        """Whether some node is driven by another process."""
        return any(report.node not in self.agents.nodes for report in self._reports())

    def _reports(self) -> tuple[Report, ...]:
        """The reports of all nodes; those of nodes that are gone may stay."""
        nodes = self.snapshot.cluster.nodes if self.snapshot is not None else {}
        return tuple(report for node, report in self.published.reports.items() if node in nodes)


def _unique_name() -> str:
    """A name that no other process ever has; it begins with the machine's."""
    return f"{socket.gethostname()}_{uuid.uuid4()}"
