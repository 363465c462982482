"""Makes one node's view from its own pods, the objects of the cluster that every node needs, and the published numbers.

It works without the registry: it allocates addresses itself, and saves the last published numbers with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.node_allocator import NodeAllocator
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.addressing.segments import SegmentTable
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.endpoints import EndpointRecord, Endpoints, needs_endpoint
from romana_ovs.engine.enforced import EnforcedRules, PreparedClasses
from romana_ovs.engine.pod_identities import PodIdentities, PodIdentity
from romana_ovs.engine.policy_index import PolicyIndex, RuleSet
from romana_ovs.engine.topology import Topology, topology_of
from romana_ovs.engine.view_builder import AssignedIdentity, AssignedPod, NodeViewBuilder, ViewInputs
from romana_ovs.kube.published import published_from_json
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.derived import Derived, LastInputs
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Claim, Published, Report
from romana_ovs.policy.view import ForeignRoute, NodeView

SavedIdentities = dict[PodKey, tuple[Labels, SegmentKey, int, int, Endpoint | None]]
"""Labels, segment, segment number, identity and endpoint of each pod, as saved."""
FORMAT = 1
"""Version of what `to_json` gives."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The revision that a view acknowledges, and the one of which it relies on no retiring requirement; 0 for none."""

    acknowledged: int
    released: int


class NodeAgent:
    """Allocates the addresses of one node's pods, and makes its view.

    After an `update` that moved `changes`, save `to_json` and `published` in one write: both must be durable before
    flows use them. Then read the `acknowledgement` and program the `view`. When the switch has confirmed it, call
    `on_programmed` with the acknowledgement, and store the `report`. Store the first report before the first `update`
    with published numbers: from then on the registry waits for this node.

    The rules in force are not saved. After a restart in the middle of a step there is no view until the newest rules
    may come into force, or `patience_over`; until then the switch keeps its flows.
    """

    def __init__(
        self,
        node: str,
        settings: Settings,
        state: Mapping[str, Any] | None = None,
        published: Published | Mapping[str, Any] | None = None,
        shared: PreparedClasses | None = None,
    ) -> None:
        """The agent of `node` with the endpoints of `state` and the `published` numbers, both as saved.

        Raises AddressError when the plan of `settings` is invalid, or not the one that `state` was saved under;
        InputError when one of the two is no saved value.
        """
        self.node = node
        self.plan = AddressPlan.of(settings)
        self.allocator = NodeAllocator(self.plan, node)
        self.published: Published | None = None
        self.changes = 0
        self._refused: Problem | None = None
        self._shared = shared if shared is not None else PreparedClasses()
        self._settings = settings
        self._cluster: Cluster | None = None
        self._acknowledged = self._released = 0
        self._unconfirmed_report: Report | None = None
        self._report: Derived[Report] = Derived(by_value=True)
        self._endpoint_inputs = LastInputs()
        self._pods: Mapping[PodKey, Pod] = MappingProxyType({})
        self._restored: SavedIdentities = {}
        if state is not None:
            self._restore(state)
        if published is not None:
            freed = self.allocator.freed
            self._apply(published if isinstance(published, Published) else published_from_json(published))
            self.allocator.freed = freed
        self._endpoints = Endpoints(self.allocator)
        self._policies = PolicyIndex()
        self._enforced = EnforcedRules(fresh_switch=not self._acknowledged, shared=self._shared)
        self._identities = PodIdentities()
        self._view_builder = NodeViewBuilder()
        self._local_pods: Derived[Mapping[PodKey, Pod]] = Derived(by_value=True)
        self._topology: Derived[Topology] = Derived(by_value=True)
        self._assigned: Derived[tuple[AssignedPod, ...]] = Derived()
        self._foreign_routes: Derived[tuple[ForeignRoute, ...]] = Derived(by_value=True)

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("format") != FORMAT or not isinstance(state.get("addresses"), Mapping):
            raise InputError.because(f"the saved state is not of a node and format {FORMAT}", field="format")
        if state.get("node") != self.node:
            raise InputError.because(f"the saved state is that of node {state.get('node')!r}", field="node")
        self.allocator = NodeAllocator.restored(state["addresses"], self.plan, self.node)
        try:
            self._acknowledged, self._released = int(state["acknowledged"]), int(state["released"])
            for key, labels, tenant, tier, number, assigned in state["worn"]:
                endpoint = self.allocator.endpoint(PodKey(key))
                segment = SegmentKey(tenant, tier)
                self._restored[PodKey(key)] = (Labels(labels), segment, int(number), int(assigned), endpoint)
        except (KeyError, TypeError, ValueError) as broken:
            raise InputError.because(f"not what was saved: {broken}", field="worn") from broken

    def update(
        self,
        cluster: Cluster,
        published: Published | None,
        rules: RuleSet | None = None,
        *,
        pods: Mapping[PodKey, Pod] | None = None,
        patience_over: bool = False,
    ) -> None:
        """Updates addresses, identities and rules in force to `cluster` and the newest `published` numbers, if any.

        `pods` are those of this node, by default found in `cluster`; `rules` are those of the cluster, by default
        normalised here. `patience_over`: what is `waiting` has waited for the registry long enough. Raises InputError,
        and changes nothing, when the settings ask for another address plan (AddressError when that is invalid).
        Published numbers of an older revision than the last are not used. Nor are those of an older epoch, of another
        address plan, or that contradict addresses in use: these are a problem.
        """
        if cluster.settings is not self._settings:
            self.plan.require_same(cluster.settings)
        self._settings = cluster.settings
        if published is not None:
            self._accept(published)
        if pods is None:
            pods = self._local_pods.get((cluster.pods,), self._on_this_node)
        self._pods = pods
        if self.published is None:
            self._unconfirmed_report = None
            return
        changed = self._update_endpoints(cluster, pods, self.published)
        rules = rules if rules is not None else self._policies.update(cluster)
        self._enforced.update(rules, self.published.namespaces, patient=not patience_over)
        self._update_identities(self.published, changed, patient=not patience_over)

    def update_rules(self, rules: RuleSet, *, patience_over: bool = False) -> bool:
        """As `update` when nothing else is new; returns whether `waiting` or the `acknowledgement` may have changed."""
        if self.published is None:
            return False
        before = self._enforced.state
        self._enforced.update(rules, self.published.namespaces, patient=not patience_over)
        updated = self._update_identities(self.published, None, patient=not patience_over)
        return updated or not self._enforced.state.reports_as(before)

    def _update_identities(self, published: Published, endpoints_changed: bool | None, *, patient: bool) -> bool:
        """Updates the identities of pods; False when no input is new (`endpoints_changed` as `_update_endpoints`)."""
        matchers, enforced = self._shared.matchers(published.namespaces), self._enforced.state.version
        if endpoints_changed is None and self._identities.is_current(matchers, patient=patient, enforced=enforced):
            return False
        previous = self._identities.assigned
        self._identities.update(
            self._endpoints.records, matchers, unnumbered=self._unnumbered(), patient=patient, enforced=enforced
        )
        if endpoints_changed or previous != self._identities.assigned:
            self.changes += 1
        return True

    def _update_endpoints(self, cluster: Cluster, pods: Mapping[PodKey, Pod], published: Published) -> bool | None:
        """Allocates and releases addresses; returns whether any changed, None when no input is new."""
        inputs = (pods, cluster.nodes, cluster.namespaces, cluster.settings, *_numbers(published))
        if not self._endpoint_inputs.replace(inputs):
            return None
        old, cluster = self._cluster, replace(cluster, pods=pods)
        self._cluster, self._unconfirmed_report, first = cluster, None, old is None
        freed, endpoints = self.allocator.freed, dict(self.allocator.endpoints)
        self.allocator.keep_free(
            pod.address for pod in cluster.pods.values() if pod.address is not None and needs_endpoint(pod) is not None
        )
        self._endpoints.update(cluster, Changes.between(old, cluster), first=first)
        if first:
            self._identities.restore(self._restored_identities())
            self._restored = {}
        return freed != self.allocator.freed or endpoints != self.allocator.endpoints

    @property
    def revision(self) -> int:
        """The revision of the published numbers that the view uses; 0 without any."""
        return self.published.revision if self.published is not None else 0

    @property
    def waiting(self) -> bool:
        """Whether rules, or relabelled pods, wait for the registry."""
        return self._enforced.state.waiting or self._identities.waiting

    @property
    def needs_registry(self) -> bool:
        """Whether it is `waiting`, or has pods without an address as their segment has none left here, or no range."""
        return self.waiting or bool(self.report.exhausted)

    @property
    def acknowledgement(self) -> Acknowledgement:
        """What may be reported once the switch has the present view."""
        revision = self.revision
        return Acknowledgement(
            acknowledged=revision if self._identities.consistent and self._enforced.state.rules is not None else 0,
            released=revision if self._enforced.state.nothing_retiring else 0,
        )

    def on_programmed(self, acknowledgement: Acknowledgement) -> bool:
        """Takes note that the switch has the view of `acknowledgement`; returns whether the `report` changes."""
        before = (self._acknowledged, self._released)
        self._acknowledged = max(self._acknowledged, acknowledgement.acknowledged)
        self._released = max(self._released, acknowledgement.released)
        return before != (self._acknowledged, self._released)

    @property
    def report(self) -> Report:
        """The report to the registry, as far as the switch has confirmed it."""
        if self._unconfirmed_report is None:
            self._unconfirmed_report = self._make_report()
        return self._report.get(
            (self._unconfirmed_report, self._acknowledged, self._released),
            lambda report, acknowledged, released: replace(report, acknowledged=acknowledged, released=released),
        )

    def _make_report(self) -> Report:
        """The report without the revisions that the switch has confirmed."""
        networked = [pod for pod in self._pods.values() if needs_endpoint(pod) is not None]
        endpoints = {pod.key: self.allocator.endpoint(pod.key) for pod in networked}
        foreign = [
            pod.address
            for pod in networked
            if pod.address is not None
            and ((end := endpoints[pod.key]) is None or end.foreign or end.address != pod.address)
        ]
        return Report(
            node=self.node,
            exhausted=MappingProxyType(dict(sorted(self._exhausted_segments(networked).items()))),
            foreign=frozenset(foreign),
            conflicting=self.allocator.contested(),
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each pod without an address, for this node without a number, and for refused numbers; sorted."""
        problems = [
            problem for problem in self._endpoints.problems if problem.kind != "Node" or problem.name == self.node
        ]
        return (self._refused, *problems) if self._refused is not None else tuple(problems)

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts] | None = None) -> NodeView | None:
        """The view for the bridge of `facts`; None while there are no numbers or rules: what is programmed stays.

        `all_facts` are those of every known bridge, by node; by default only of this one. The identical object is
        returned while it is equal to the last view.
        """
        cluster, published, rules = self._cluster, self.published, self._enforced.state.rules
        if cluster is None or published is None or rules is None or self.node not in published.hosts:
            return None
        facts_by_node = {self.node: facts} if all_facts is None else all_facts
        links = tuple((name, other.links, other.tunnel) for name, other in facts_by_node.items())
        topology = self._topology.get(
            (links, cluster.nodes, published.hosts), lambda _, nodes, hosts: topology_of(facts_by_node, nodes, hosts)
        )
        shared = ViewInputs(
            cluster=cluster,
            plan=self.plan,
            tenants=self.allocator.tenants,
            segments=self.allocator.segments,
            hosts=self.allocator.hosts,
            classes=self._enforced.state.classes,
            rules=rules,
            foreign=self._foreign_routes.get((published.foreign, published.hosts), _routes),
        )
        pods = self._assigned.get((self._identities.assigned,), _assigned)
        return self._view_builder.view(facts, shared, topology=topology, pods=pods)

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of `pod`, or None while it has none here."""
        pod_identity = self._identities.assigned.get(pod)
        return pod_identity.record.endpoint.address if pod_identity is not None else None

    def uid_of(self, pod: PodKey) -> str:
        """The UID of the pod that has the address of `pod` here; empty when it is not known, or there is none."""
        pod_identity = self._identities.assigned.get(pod)
        return pod_identity.record.endpoint.uid if pod_identity is not None else ""

    def identity_of(self, pod: PodKey) -> int | None:
        """The identity of `pod` now, or None while it has no address here."""
        pod_identity = self._identities.assigned.get(pod)
        return pod_identity.identity if pod_identity is not None else None

    def to_json(self) -> dict[str, Any]:
        """The endpoints and identities of this node, which must survive a restart, as plain values of JSON."""
        return {
            "format": FORMAT,
            "node": self.node,
            "addresses": self.allocator.to_json(),
            "worn": [
                [key, dict(sorted(record.pod.labels.items())), *record.segment, record.number, assigned.identity]
                for key, assigned in self._identities.assigned.items()
                for record in (assigned.record,)
            ],
            "acknowledged": self._acknowledged,
            "released": self._released,
        }

    def _accept(self, new: Published) -> None:
        last = self.published
        try:
            if last is not None and new.epoch < last.epoch:
                reason = f"they are of epoch {new.epoch}, the last ones of epoch {last.epoch}"
                raise InputError.because(reason, field="published numbers")
            if new is not last and (last is None or new.revision >= last.revision):
                self._apply(new)
                self.changes += 1
            self._refused = None
        except InputError as refused:
            self._refused = Problem(f"the published numbers are not taken: {refused}", kind="Node", name=self.node)

    def _apply(self, new: Published) -> None:
        if new.plan != self.plan:
            raise InputError.because("they are of another address plan than the settings", field="published numbers")
        claims = {address: (claim.node, claim.granted) for address, claim in new.foreign.items()}
        if self.published is None or _numbers(self.published) != _numbers(new):
            # Agents that share have equal plans, but each its own object.
            segments = self._shared.segments.get(
                (new.blocks, new.indexes), lambda blocks, indexes: SegmentTable(self.plan, blocks, indexes)
            )
            self.allocator.follow(segments, new.hosts, claims)
        self.published = new

    def _on_this_node(self, pods: Mapping[PodKey, Pod]) -> Mapping[PodKey, Pod]:
        return MappingProxyType({key: pod for key, pod in pods.items() if pod.node == self.node})

    def _restored_identities(self) -> dict[PodKey, PodIdentity]:
        """The saved identities of pods that still have their saved endpoint; a new pod of the same name has another."""
        identities = {}
        for key, (labels, segment, number, assigned, saved) in self._restored.items():
            pod, endpoint = self._pods.get(key), self.allocator.endpoint(key)
            if pod is not None and endpoint is not None and endpoint == saved:
                identities[key] = PodIdentity(
                    EndpointRecord(replace(pod, labels=labels), segment, number, endpoint), assigned
                )
        return identities

    def _unnumbered(self) -> dict[PodKey, EndpointRecord]:
        """The previous records of pods that have their endpoint, but whose new segment has no number yet."""
        return {
            key: assigned.record
            for key, assigned in self._identities.assigned.items()
            if key not in self._endpoints.records and self.allocator.endpoint(key) == assigned.record.endpoint
        }

    def _exhausted_segments(self, networked: list[Pod]) -> dict[SegmentKey, int]:
        exhausted = {}
        for pod in networked:
            if self._cluster is None or pod.key in self._endpoints.records:
                continue
            segment = self._cluster.segment_of(pod)
            indexes = self.allocator.indexes(segment)
            full = pod.address is None and self.node in self.allocator.hosts
            if not indexes or full:
                exhausted[segment] = len(indexes)
        return exhausted


def _numbers(published: Published) -> tuple[Any, ...]:
    return published.blocks, published.indexes, published.hosts, published.foreign


def _routes(claims: Mapping[IPv4Address, Claim], hosts: Mapping[str, int]) -> tuple[ForeignRoute, ...]:
    granted = ((address, hosts.get(claim.node)) for address, claim in claims.items() if claim.granted)
    return tuple(ForeignRoute(address, host) for address, host in sorted(granted) if host is not None)


def _assigned(identities: Mapping[PodKey, PodIdentity]) -> tuple[AssignedPod, ...]:
    return tuple((key, pod.record, AssignedIdentity(pod.identity, pod.previous_ids)) for key, pod in identities.items())
