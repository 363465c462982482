"""Gives tenants' ranges, segment indexes, host numbers and classes for the whole cluster.

It sees all objects and every node's report, and takes the steps of make-before-break (`lifecycle`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.tenants import Tenants, named
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.class_registry import ClassRegistry
from romana_ovs.engine.endpoints import Identified, needs_endpoint
from romana_ovs.engine.foreign import ForeignAddresses
from romana_ovs.engine.hosts import HostNumbers
from romana_ovs.engine.lifecycle import RequirementLifecycle
from romana_ovs.engine.policy_index import PolicyIndex, RuleSet
from romana_ovs.engine.unacknowledged import UnacknowledgedPods
from romana_ovs.kube.published import TermBase
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.errors import AddressError, InputError, Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Published, Report

Key = TypeVar("Key")
Value = TypeVar("Value")

NOBODY: Mapping[str, Report] = MappingProxyType({})


class AwayPods(NamedTuple):
    """The pods of nodes that are away, by namespace. `anything`: some of them may be what is not known here."""

    pods: Mapping[str, list[Identified]]
    incomplete: bool


@dataclass(frozen=True, slots=True)
class PlacedPod:
    """A pod with its segment and the number of that."""

    pod: Pod
    segment: SegmentKey
    number: int


class Registry:
    """Follows a cluster and its nodes' reports, and says what is to be published.

    One term of it: what it begins from, `base`, it goes on from, in an epoch of its own. When `next_writes` says that
    it is superseded, another is made of the objects as they are then. `writer` names it among all processes.
    """

    def __init__(self, settings: Settings, base: TermBase | None, *, writer: str) -> None:
        """A term that begins from `base` (None: nothing was ever published).

        Raises AddressError when the plan of `settings` cannot be, or is not the one that was published.
        """
        self.plan = AddressPlan.of(settings)
        self.base = base
        before = base.published if base is not None else Published(self.plan)
        if before.plan != self.plan:
            raise AddressError(
                f"the Allocation was written for another address plan ({_text(before.plan)}) than the settings say "
                f"({_text(self.plan)}): restore the settings, or remove the Allocation and every ClassSet to give "
                "every pod a new address"
            )
        last = max([before.revision, *(classes.revision for classes in before.namespaces.values())])
        self._last = replace(before, epoch=before.epoch + 1, writer=writer, revision=last)
        self._changed = True
        now = last + 1
        self._tenants = Tenants.of(self.plan, before.blocks, before.indexes)
        self._hosts = HostNumbers(before, now)
        self._foreign = ForeignAddresses(before, now)
        self._classes = ClassRegistry(before, now)
        self._lifecycle = RequirementLifecycle(
            {name: each.requirements for name, each in before.namespaces.items()}, now
        )
        self._policies = PolicyIndex()
        self._cluster: Cluster | None = None
        self._placed: dict[PodKey, PlacedPod] = {}
        self._refused: dict[PodKey, Problem] = {}
        self._seen_freed = self._classes.freed
        self._short: tuple[Problem, ...] = ()
        """Of tenants for which a node has no address left, and no further range is left either."""
        self._in_namespace: Counter[str] = Counter()
        self._on_node: Counter[str] = Counter()
        self._segments_on: Counter[tuple[str, SegmentKey]] = Counter()
        self._addresses_on: Counter[tuple[str, IPv4Address]] = Counter()
        self._unacknowledged = UnacknowledgedPods(now)
        self._blocked: frozenset[IPv4Address] = frozenset()
        self._refined: tuple[int, RuleSet | None] = (-1, None)

    @property
    def published(self) -> Published:
        """What is to be published: the same object until it changes."""
        return self._last

    @property
    def exhausted(self) -> str:
        """Why a segment gets no further range, in words that follow "and"."""
        return self._tenants.exhausted()

    @property
    def blocked(self) -> frozenset[IPv4Address]:
        """The nodes' own addresses: never given to a pod."""
        return self._blocked

    @property
    def pending(self) -> bool:
        """Whether a step waits for nodes to acknowledge something."""
        return bool(self._lifecycle.unsettled) or self._classes.pending or self._foreign.pending

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be given to whom, and why; sorted."""
        found = [*self._hosts.problems, *self._refused.values(), *self._short, *self._policies.problems]
        return tuple(sorted(found, key=lambda problem: (problem.kind, problem.name, problem.reason)))

    def update(
        self,
        cluster: Cluster,
        reports: Mapping[str, Report] = NOBODY,
        rules: RuleSet | None = None,
        *,
        away: Collection[str] = frozenset(),
        pods: Collection[PodKey] | None = None,
    ) -> Published:
        """Follows `cluster` and the nodes' `reports`, and returns what is to be published.

        `away` are nodes that have not acknowledged anything for long. Nobody waits for them: others take new classes
        without them. A class that one of their pods may still have, although its matches are no longer those of the
        pod, gets another number (any class may be such a one, while a node has acknowledged nothing in this term), so
        that only segment-wide rules apply to such pods until their nodes are back. But no number is given again and no
        requirement goes before that, or before their Node is deleted.

        `rules` are those of the cluster, by default worked out here; `pods` are those that changed since the last time,
        if that is known. Raises InputError, and changes nothing, when the settings ask for another address plan.
        """
        self._check_plan(cluster)
        first, now = self._cluster is None, self._last.revision + 1
        changes = Changes.between(self._cluster, cluster, pods)
        self._cluster = cluster
        known = {name: report for name, report in reports.items() if name in cluster.nodes}
        here = [report.acknowledged for name, report in known.items() if name not in away]
        everybody = min((report.acknowledged for report in known.values()), default=math.inf)
        reached = min(here, default=math.inf)
        self._follow_nodes(cluster, changes)
        for key in sorted(changes.pods):
            if not _alive(cluster, key):
                self._refused.pop(key, None)
                if key in self._placed:
                    self._drop(key)
        placed = self._place(cluster, changes)
        self._unacknowledged.follow(known, away)
        self._grow(known)
        self._foreign.update(self._without_false_claims(known), self._hosts.hosts, nodes=self._blocked, now=now)
        self._hosts.update(
            cluster.nodes.keys(), self._on_node.keys(), usable=self._free_gateway, acknowledged=everybody, now=now
        )
        rules = rules if rules is not None else self._policies.follow(cluster)
        released = min((report.released for report in known.values()), default=math.inf)
        away_pods = self._absent({name: report for name, report in known.items() if name in away})
        self._lifecycle.advance(
            acknowledged=reached,
            released=released,
            now=now,
            blocked=lambda name: (first and away_pods.incomplete) or self._blocked_by_away_pods(name, away_pods),
        )
        self._lifecycle.follow(rules.requirements, classed=self._classes.namespaces, now=now)
        self._refine(rules)
        for each in placed:
            if self._placed.get(each.pod.key) is each:
                self._identify(each)
        if first:
            self._classes.settle()
        self._classes.publish(self._lifecycle, epoch=self._last.epoch, now=now, reached=reached, everybody=everybody)
        return self._publish(now)

    def _check_plan(self, cluster: Cluster) -> None:
        if AddressPlan.of(cluster.settings) != self.plan:
            raise InputError.because(
                "the address plan (network, segment_bits, host_bits, endpoint_bits) cannot change under live pods"
            )

    def _follow_nodes(self, cluster: Cluster, changes: Changes) -> None:
        if changes.nodes:
            self._blocked = frozenset(address for node in cluster.nodes.values() for address in node.addresses)

    def _place(self, cluster: Cluster, changes: Changes) -> list[PlacedPod]:
        """The changed pods, and those refused before something was freed, that belong to a segment with its number."""
        found = []
        again = self._refused.keys() if self._seen_freed != self._classes.freed else ()
        self._seen_freed = self._classes.freed
        keys = sorted(changes.pods.union(again))
        pods = [pod for key in keys if (pod := needs_endpoint(cluster.pods.get(key))) is not None]
        tiers: dict[str, set[str]] = {}
        segments = [cluster.segment_of(pod) for pod in pods]
        for segment in set(segments):
            if not self._tenants.indexes(segment):
                tiers.setdefault(segment.tenant, set()).add(segment.tier)
        for tenant in sorted(tiers):
            self._tenants.admit(tenant, tiers[tenant])
        for pod, segment in zip(pods, segments, strict=True):
            try:
                each = PlacedPod(pod, segment, self._tenants.number(segment))
            except AddressError as refused:
                self._refuse(pod.key, refused)
                continue
            self._count(pod.key, each)
            found.append(each)
        return found

    def _identify(self, each: PlacedPod) -> None:
        try:
            self._classes.assign(each.pod.key, each)
            self._refused.pop(each.pod.key, None)
        except AddressError as refused:
            self._refuse(each.pod.key, refused)

    def _refuse(self, key: PodKey, refused: AddressError) -> None:
        if key in self._placed:
            self._drop(key)
        self._refused[key] = Problem(str(refused), kind="Pod", name=key)

    def _drop(self, key: PodKey) -> None:
        self._classes.forget(key)
        self._count(key, None)

    def _count(self, key: PodKey, new: PlacedPod | None) -> None:
        old = self._placed.pop(key, None)
        for each, sign in ((old, -1), (new, 1)):
            if each is not None:
                _add(self._in_namespace, each.pod.namespace, sign)
                _add(self._on_node, each.pod.node, sign)
                _add(self._segments_on, (each.pod.node, each.segment), sign)
                if each.pod.address is not None:
                    _add(self._addresses_on, (each.pod.node, each.pod.address), sign)
        if old is not None and (new is None or _class_inputs(old) != _class_inputs(new)):
            self._unacknowledged.note(old, self._last.revision + 1)
        if new is not None:
            self._placed[key] = new

    def _grow(self, reports: Mapping[str, Report]) -> None:
        """A further index for segments that a node has no address left of; a node may ask for its own pods' only."""
        short = []
        for name in sorted(reports):
            for segment, known in sorted(reports[name].exhausted.items()):
                asks = known and (name, segment) in self._segments_on and len(self._tenants.indexes(segment)) == known
                if asks and not self._tenants.grow(segment):
                    why = f"{named(segment)} gets no further range for node {name}: {self._tenants.exhausted()}"
                    short.append(Problem(why, kind="Tenant", name=segment.tenant))
        self._short = tuple(short)

    def _without_false_claims(self, reports: Mapping[str, Report]) -> dict[str, Report]:
        """`reports` without addresses that no pod of the node has: nobody may draw another's traffic to himself."""
        found = {}
        for name, report in reports.items():
            true = frozenset(address for address in report.foreign if (name, address) in self._addresses_on)
            found[name] = report if true == report.foreign else replace(report, foreign=true)
        return found

    def _free_gateway(self, number: int) -> bool:
        address = self.plan.gateway(number)
        return address not in self._blocked and address not in self._foreign.claims

    def _refine(self, rules: RuleSet) -> None:
        steps, before = self._refined
        if steps != self._lifecycle.changes or before is not rules:
            self._refined = (self._lifecycle.changes, rules)
            for key, refused in self._classes.refine(rules, self._lifecycle.requirements).items():
                self._refuse(key, refused)

    def _absent(self, away: Mapping[str, Report]) -> AwayPods:
        """The pods of nodes that are `away`, also as what they were before their nodes went."""
        pods: dict[str, list[Identified]] = {}
        placed = (each for each in self._placed.values() if each.pod.node in away) if away else ()
        for each in (*placed, *(was for node in away for was in self._unacknowledged.of(node))):
            pods.setdefault(each.pod.namespace, []).append(each)
        return AwayPods(pods, any(self._unacknowledged.incomplete(node, away) for node in away))

    def _blocked_by_away_pods(self, namespace: str, away_pods: AwayPods) -> bool:
        """Whether one of the `away_pods` pods may wear a class that answers for it what is not true.

        Such classes get other numbers, which only nodes that are here wear: then it may not any more.
        """
        worn, requirements = self._lifecycle.worn(namespace), self._lifecycle.of(namespace).keys()
        asked = max(worn.values(), default=0)
        contradicted = set(self._classes.older(namespace, before=asked)) if away_pods.incomplete else set()
        for each in away_pods.pods.get(namespace, ()):
            true = frozenset(requirement for requirement in requirements if requirement.matches(each.pod.labels))
            contradicted.update(
                number
                for number, yes in self._classes.answers(each, before=asked).items()
                if yes - worn.keys() == true - worn.keys() and yes != true
            )
        try:
            self._classes.renumber(contradicted)
        except AddressError:
            # No number is left: then the rules that ask wait, and admit nobody of these classes.
            return True
        return bool(contradicted)

    def _publish(self, now: int) -> Published:
        last = self._last
        new = replace(
            last,
            revision=now,
            blocks=self._tenants.blocks,
            indexes=_same(last.indexes, self._tenants.all_indexes),
            next_class=_same(last.next_class, self._classes.next),
            hosts=self._hosts.hosts,
            free_hosts=self._hosts.line,
            retired_hosts=self._hosts.retired,
            foreign=self._foreign.claims,
            namespaces=self._classes.published,
        )
        if self._changed or new != replace(last, revision=now):
            self._last, self._changed = new, False
        return self._last


def _alive(cluster: Cluster, key: PodKey) -> bool:
    return needs_endpoint(cluster.pods.get(key)) is not None


def _class_inputs(placed: PlacedPod) -> tuple[str, int, Labels]:
    """Where a pod is, and what decides its class."""
    return placed.pod.node, placed.number, placed.pod.labels


def _add(counter: Counter[Key], key: Key, sign: int) -> None:
    counter[key] += sign
    if not counter[key]:
        del counter[key]


def _same(old: Mapping[Key, Value], new: Mapping[Key, Value]) -> Mapping[Key, Value]:
    return old if old == new else new


def _text(plan: AddressPlan) -> str:
    return f"{plan.network} = {plan.segment_bits} segment, {plan.node_bits} host, {plan.endpoint_bits} endpoint bits"
