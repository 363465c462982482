"""Allocates tenants' blocks, segment indexes, host numbers and classes for the whole cluster.

It reads all objects and every node's report, and takes the steps of make-before-break (`lifecycle`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import SegmentAllocator, named
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.class_registry import ClassRegistry
from romana_ovs.engine.endpoints import NumberedPod, needs_endpoint
from romana_ovs.engine.foreign import ForeignAddresses
from romana_ovs.engine.hosts import HostNumbers
from romana_ovs.engine.lifecycle import RequirementLifecycle
from romana_ovs.engine.policy_index import PolicyIndex, RuleSet
from romana_ovs.engine.report_summary import ReportSummary
from romana_ovs.engine.unacknowledged import UnacknowledgedPods
from romana_ovs.kube.published import TermBase
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.derived import Derived, LastInputs, keep_equal
from romana_ovs.model.errors import AddressError, Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.registry_types.published import Published
from romana_ovs.registry_types.report import Report

Key = TypeVar("Key")
Value = TypeVar("Value")

NO_REPORTS: Mapping[str, Report] = MappingProxyType({})


class LaggingPods(NamedTuple):
    """The pods of nodes that are lagging, by namespace; `incomplete` when some may have had labels not known here."""

    pods: Mapping[str, list[NumberedPod]]
    incomplete: bool


@dataclass(frozen=True, slots=True)
class SegmentMember:
    """A pod with its segment and that segment's number."""

    pod: Pod
    segment: SegmentKey
    segment_number: int


class Registry:
    """Computes the numbers to be published, from a cluster and its nodes' reports.

    One object is one leadership term, which begins with the numbers of `base` and has an epoch of its own. When
    `plan_writes` raises TermOver, another is made from the objects as they are then. `writer` is unique to the process.
    """

    def __init__(self, settings: Settings, base: TermBase | None, *, writer: str) -> None:
        """Begins a term with `base` (None: nothing was ever published).

        Raises AddressError when the plan of `settings` is invalid, or not the one that was published.
        """
        self.plan = AddressPlan.of(settings)
        self.base = base
        before = base.published if base is not None else Published(self.plan)
        if before.plan != self.plan:
            raise AddressError(
                f"the Allocation was written for another address plan ({_plan_text(before.plan)}) than the settings "
                f"say ({_plan_text(self.plan)}): restore the settings, or remove the Allocation and every ClassSet to "
                "give every pod a new address"
            )
        last_revision = max([before.revision, *(classes.revision for classes in before.class_sets.values())])
        self._last = replace(before, epoch=before.epoch + 1, writer=writer, revision=last_revision)
        self._changed = True
        revision = last_revision + 1
        self._segments = SegmentAllocator.of(self.plan, before.blocks, before.indexes)
        self._hosts = HostNumbers(before, revision)
        self._foreign = ForeignAddresses(before, revision)
        self._classes = ClassRegistry(before, revision)
        self._lifecycle = RequirementLifecycle(
            {name: classes.requirements for name, classes in before.class_sets.items()}, revision
        )
        self._policies = PolicyIndex()
        self._cluster: Cluster | None = None
        self._pods: dict[PodKey, SegmentMember] = {}
        self._unallocated: dict[PodKey, Problem] = {}
        self._seen_freed = self._classes.freed
        self._segment_problems: tuple[Problem, ...] = ()
        """One for each segment that a node has no address left of, and for which no further range is left."""
        self._on_node: Counter[str] = Counter()
        self._segments_on: Counter[tuple[str, SegmentKey]] = Counter()
        self._addresses_on: Counter[tuple[str, IPv4Address]] = Counter()
        self._unacknowledged = UnacknowledgedPods(revision)
        self._node_addresses: frozenset[IPv4Address] = frozenset()
        self._refine_inputs = LastInputs()
        self._reports: Derived[ReportSummary] = Derived()

    @property
    def published(self) -> Published:
        """The numbers to be published: the identical object until they change."""
        return self._last

    @property
    def node_addresses(self) -> frozenset[IPv4Address]:
        """The nodes' own addresses: never given to a pod."""
        return self._node_addresses

    @property
    def pending(self) -> bool:
        """Whether a step waits for an acknowledgement of nodes."""
        return bool(self._lifecycle.unsettled) or self._classes.unsettled or self._foreign.pending

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each pod, node or segment without a number, and each namespace with too many requirements; sorted."""
        problems = [
            *self._hosts.problems,
            *self._unallocated.values(),
            *self._segment_problems,
            *self._policies.problems,
        ]
        return tuple(sorted(problems, key=lambda problem: (problem.kind, problem.name, problem.reason)))

    def update(
        self,
        cluster: Cluster,
        reports: Mapping[str, Report] = NO_REPORTS,
        rules: RuleSet | None = None,
        *,
        lagging: Collection[str] = frozenset(),
        pods: Collection[PodKey] | None = None,
    ) -> Published:
        """Updates the numbers to `cluster` and the nodes' `reports`, and returns what is to be published.

        `lagging` nodes have not acknowledged anything for long. Others use new classes without waiting for them.
        A class that one of their pods may still have, although it no longer matches the pod, gets another number (any
        class may be such a one, while a node has acknowledged nothing in this term). So only rules about whole segments
        apply to such pods until their nodes are back. Until then, or until their Node is deleted, no number is reused
        and no requirement is removed.

        `rules` are those of the cluster, by default normalised here; `pods` are those that changed since the last
        update, if known; `reports` that are the identical mapping have not changed. Raises InputError, and changes
        nothing, when the settings ask for another address plan.
        """
        self.plan.require_same(cluster.settings)
        first, revision = self._cluster is None, self._last.revision + 1
        changes = Changes.between(self._cluster, cluster, pods)
        self._cluster = cluster
        known = self._reports.get((reports, cluster.nodes, lagging), ReportSummary.of)
        self._update_node_addresses(cluster, changes)
        self._drop_deleted(cluster, changes)
        # Segments before hosts: a claim counts only for an address that a pod of the node has.
        members = self._allocate_segments(cluster, changes)
        self._unacknowledged.expire(known.by_node, lagging)
        self._grow_segments(known)
        self._update_claims_and_hosts(cluster, known, revision)
        rules = rules if rules is not None else self._policies.update(cluster)
        # Stages go on by what nodes have acknowledged, before new requirements begin; classes follow the stages.
        lagging_pods = self._pods_of(known.lagging)
        self._lifecycle.advance(
            acknowledged=known.acknowledged,
            released=known.released,
            revision=revision,
            hold_back=lambda name: (
                (first and lagging_pods.incomplete) or self._renumber_contradicted(name, lagging_pods)
            ),
        )
        self._lifecycle.set_required(rules.requirements, with_classes=self._classes.namespaces, revision=revision)
        self._refine(rules)
        self._assign_classes(members)
        if first:
            # Every pod has been assigned, so no pod claims what is left of the term before.
            self._classes.drop_unclaimed()
        self._classes.publish(
            self._lifecycle,
            epoch=self._last.epoch,
            revision=revision,
            acknowledged=known.acknowledged,
            acknowledged_by_all=known.acknowledged_by_all,
        )
        return self._publish(revision)

    def _update_claims_and_hosts(self, cluster: Cluster, reports: ReportSummary, revision: int) -> None:
        """Claims first: no node gets a host number whose gateway address a pod has."""
        claims, addresses = self._without_false_claims(reports), self._node_addresses
        self._foreign.update(claims, self._hosts.hosts, node_addresses=addresses, revision=revision)
        self._hosts.update(
            cluster.nodes.keys(),
            self._on_node.keys(),
            usable=self._gateway_is_free,
            acknowledged=reports.acknowledged_by_all,
            revision=revision,
        )

    def _update_node_addresses(self, cluster: Cluster, changes: Changes) -> None:
        if changes.nodes:
            self._node_addresses = frozenset(address for node in cluster.nodes.values() for address in node.addresses)

    def _drop_deleted(self, cluster: Cluster, changes: Changes) -> None:
        for key in sorted(changes.pods):
            if not _needs_endpoint(cluster, key):
                self._unallocated.pop(key, None)
                if key in self._pods:
                    self._drop(key)

    def _allocate_segments(self, cluster: Cluster, changes: Changes) -> dict[PodKey, SegmentMember]:
        """Allocates the segments of changed pods, and returns the pods that have one.

        Unallocated ones are tried again after a class was freed.
        """
        members = {}
        retried = self._unallocated.keys() if self._seen_freed != self._classes.freed else ()
        self._seen_freed = self._classes.freed
        keys = sorted(changes.pods.union(retried))
        pods = {key: pod for key in keys if (pod := needs_endpoint(cluster.pods.get(key))) is not None}
        tiers: dict[str, set[str]] = {}
        segments = [cluster.segment_of(pod) for pod in pods.values()]
        for segment in set(segments):
            if not self._segments.indexes(segment):
                tiers.setdefault(segment.tenant, set()).add(segment.tier)
        for tenant in sorted(tiers):
            self._segments.allocate_tiers(tenant, tiers[tenant])
        for (key, pod), segment in zip(pods.items(), segments, strict=True):
            try:
                member = SegmentMember(pod, segment, self._segments.ensure_number(segment))
            except AddressError as error:
                self._set_unallocated(key, error)
                continue
            self._set_pod(key, member)
            members[key] = member
        return members

    def _assign_classes(self, members: Mapping[PodKey, SegmentMember]) -> None:
        for key, member in members.items():
            # Refined classes may have taken the pod out.
            if self._pods.get(key) is member:
                self._assign_class(key, member)

    def _assign_class(self, key: PodKey, member: SegmentMember) -> None:
        try:
            self._classes.assign(key, member)
            self._unallocated.pop(key, None)
        except AddressError as error:
            self._set_unallocated(key, error)

    def _set_unallocated(self, key: PodKey, error: AddressError) -> None:
        if key in self._pods:
            self._drop(key)
        self._unallocated[key] = Problem(str(error), kind="Pod", name=key)

    def _drop(self, key: PodKey) -> None:
        self._classes.forget(key)
        self._set_pod(key, None)

    def _set_pod(self, key: PodKey, new: SegmentMember | None) -> None:
        old = self._pods.pop(key, None)
        for member, sign in ((old, -1), (new, 1)):
            if member is not None:
                _add(self._on_node, member.pod.node, sign)
                _add(self._segments_on, (member.pod.node, member.segment), sign)
                if member.pod.address is not None:
                    _add(self._addresses_on, (member.pod.node, member.pod.address), sign)
        if old is not None and (new is None or _class_inputs(old) != _class_inputs(new)):
            self._unacknowledged.add(old, self._last.revision + 1)
        if new is not None:
            self._pods[key] = new

    def _grow_segments(self, reports: ReportSummary) -> None:
        """Allocates a further index for each segment that a node has pods and no address left of."""
        problems = []
        for name in reports.nodes_asking_for_range:
            for segment, indexes in sorted(reports.by_node[name].exhausted_segments.items()):
                # A request that names fewer indexes was made before the last one was published.
                current = indexes and len(self._segments.indexes(segment)) == indexes
                if current and (name, segment) in self._segments_on and not self._segments.grow(segment):
                    why = f"{named(segment)} gets no further range for node {name}: {self._segments.exhaustion_reason}"
                    problems.append(Problem(why, kind="Tenant", name=segment.tenant))
        self._segment_problems = tuple(problems)

    def _without_false_claims(self, reports: ReportSummary) -> Mapping[str, Report]:
        """All reports without addresses that no pod of the node has: no node may attract the traffic of others."""
        corrected = {}
        for name in reports.claiming:
            report = reports.by_node[name]
            claimed = frozenset(address for address in report.foreign if (name, address) in self._addresses_on)
            if claimed != report.foreign:
                corrected[name] = replace(report, foreign=claimed)
        return {**reports.by_node, **corrected} if corrected else reports.by_node

    def _gateway_is_free(self, number: int) -> bool:
        address = self.plan.gateway(number)
        return address not in self._node_addresses and address not in self._foreign.claims

    def _refine(self, rules: RuleSet) -> None:
        if self._refine_inputs.replace((self._lifecycle.changes, rules.namespace_labels)):
            for key, error in self._classes.refine(rules, self._lifecycle.requirements).items():
                self._set_unallocated(key, error)

    def _pods_of(self, lagging: Mapping[str, Report]) -> LaggingPods:
        """The pods of `lagging` nodes, and the previous states of their pods that they have not acknowledged."""
        pods: dict[str, list[NumberedPod]] = {}
        members = (member for member in self._pods.values() if member.pod.node in lagging) if lagging else ()
        for member in (*members, *(previous for node in lagging for previous in self._unacknowledged.of(node))):
            pods.setdefault(member.pod.namespace, []).append(member)
        return LaggingPods(pods, any(self._unacknowledged.incomplete(node, lagging) for node in lagging))

    def _renumber_contradicted(self, namespace: str, lagging_pods: LaggingPods) -> bool:
        """Gives other numbers to classes that one of the `lagging_pods` may have although they do not match its labels.

        Returns whether there are any. Pods of lagging nodes do not have the new numbers yet.
        """
        adopted, requirements = self._lifecycle.adopted(namespace), self._lifecycle.of(namespace).keys()
        introduced = max(adopted.values(), default=0)
        contradicted = (
            set(self._classes.published_before(namespace, revision=introduced)) if lagging_pods.incomplete else set()
        )
        for member in lagging_pods.pods.get(namespace, ()):
            matched = frozenset(requirement for requirement in requirements if requirement.matches(member.pod.labels))
            contradicted.update(
                class_identity
                for class_identity, matching in self._classes.classes_pod_may_have(
                    member, published_before=introduced
                ).items()
                if matching - adopted.keys() == matched - adopted.keys() and matching != matched
            )
        try:
            self._classes.renumber(contradicted)
        except AddressError:
            # No number is left: the rules with these requirements wait, and admit no pod of these classes.
            return True
        return bool(contradicted)

    def _publish(self, revision: int) -> Published:
        last = self._last
        new = replace(
            last,
            revision=revision,
            blocks=self._segments.blocks,
            indexes=keep_equal(last.indexes, self._segments.all_indexes),
            next_class=keep_equal(last.next_class, self._classes.next),
            hosts=self._hosts.hosts,
            free_hosts=self._hosts.free,
            retired_hosts=self._hosts.retired,
            foreign=self._foreign.claims,
            class_sets=self._classes.published,
        )
        if self._changed or new != replace(last, revision=revision):
            self._last, self._changed = new, False
        return self._last


def _needs_endpoint(cluster: Cluster, key: PodKey) -> bool:
    return needs_endpoint(cluster.pods.get(key)) is not None


def _class_inputs(member: SegmentMember) -> tuple[str, int, Labels]:
    """The node of a pod, and the inputs of its class."""
    return member.pod.node, member.segment_number, member.pod.labels


def _add(counter: Counter[Key], key: Key, sign: int) -> None:
    counter[key] += sign
    if not counter[key]:
        del counter[key]


def _plan_text(plan: AddressPlan) -> str:
    return f"{plan.network} = {plan.segment_bits} segment, {plan.host_bits} host, {plan.endpoint_bits} endpoint bits"
