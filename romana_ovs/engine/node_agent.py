"""Makes one node's view from its own pods, the objects of the cluster that every node needs, and the published numbers.

Once it has had published numbers, it goes on without the registry: it allocates addresses itself, and saves the last
published numbers with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.node_allocator import NodeAllocator
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.endpoints import EndpointRecord, Endpoints, needs_endpoint
from romana_ovs.engine.enforced import EnforcedRules, SharedAgentCache
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
from romana_ovs.policy.view import ForeignRoute, NodeView
from romana_ovs.registry_types.published import Claim, Published
from romana_ovs.registry_types.report import Report

FORMAT = 1
"""Version of what `to_json` gives."""


class EndpointChange(Enum):
    """What an update of the endpoints has changed."""

    INPUTS_UNCHANGED = "inputs unchanged"
    ENDPOINTS_UNCHANGED = "endpoints unchanged"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class SavedIdentity:
    """A pod's identity with its inputs and its endpoint, as saved."""

    labels: Labels
    segment: SegmentKey
    segment_number: int
    identity: int
    endpoint: Endpoint | None


@dataclass(frozen=True, slots=True)
class PendingAck:
    """What a node may report once its switch has a certain view.

    It acknowledges `revision`, relies on no requirement that retires in `released_revision` (0: none of the two), and
    the rules are made of policies with this digest (empty: of no known versions).
    """

    revision: int
    released_revision: int
    policies_digest: str = ""


class NodeAgent:
    """Allocates the addresses of one node's pods, and makes its view.

    After an `update` that increased `changes`, save `to_json` and `published` in one write: both must be durable before
    flows use them. Then read `pending_ack` and program the `view`. When the switch has confirmed it, call
    `on_programmed` with the acknowledgement, and store the `report`. Store the first report before the first `update`
    with published numbers: from then on the registry waits for this node.

    The rules in force are not saved. After a restart in the middle of a stage there is no view until the newest rules
    may come into force, or may no longer wait; until then the switch keeps its flows.
    """

    def __init__(
        self,
        node: str,
        settings: Settings,
        state: Mapping[str, Any] | None = None,
        published: Published | Mapping[str, Any] | None = None,
        shared: SharedAgentCache | None = None,
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
        self._rejected_published: Problem | None = None
        self._shared = shared if shared is not None else SharedAgentCache()
        self._settings = settings
        self._cluster: Cluster | None = None
        self._acknowledged = self._released = 0
        self._report_body: Report | None = None
        self._report: Derived[Report] = Derived(by_value=True)
        self._endpoint_inputs = LastInputs()
        self._pods: Mapping[PodKey, Pod] = MappingProxyType({})
        self._restored: dict[PodKey, SavedIdentity] = {}
        if state is not None:
            self._restore(state)
        if published is not None:
            # The restored allocator has counted the releases of before; the numbers it had then release none.
            freed = self.allocator.freed
            self._apply(published if isinstance(published, Published) else published_from_json(published))
            self.allocator.freed = freed
        self._endpoints = Endpoints(self.allocator, self._shared.addresses_of)
        self._policies = PolicyIndex()
        self._enforced = EnforcedRules(fresh_switch=not self._acknowledged, shared=self._shared)
        self._identities = PodIdentities()
        self._view_builder = NodeViewBuilder()
        self._local_pods: Derived[Mapping[PodKey, Pod]] = Derived(by_value=True)
        self._topology: Derived[Topology] = Derived(by_value=True)
        self._assigned_pods: Derived[tuple[AssignedPod, ...]] = Derived()
        self._foreign_routes: Derived[tuple[ForeignRoute, ...]] = Derived(by_value=True)

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("format") != FORMAT or not isinstance(state.get("addresses"), Mapping):
            raise InputError.because(f"the saved state is not of a node and format {FORMAT}", field="format")
        if state.get("node") != self.node:
            raise InputError.because(f"the saved state is that of node {state.get('node')!r}", field="node")
        self.allocator = NodeAllocator.restored(state["addresses"], self.plan, self.node)
        try:
            self._acknowledged, self._released = int(state["acknowledged"]), int(state["released"])
            # "worn" is the state file's word for the identities that pods have; it stays until the next FORMAT.
            for key, labels, tenant, tier, segment_number, identity in state["worn"]:
                endpoint, segment = self.allocator.endpoint(PodKey(key)), SegmentKey(tenant, tier)
                if endpoint is not None and endpoint.segment == segment:
                    segment = endpoint.segment
                self._restored[PodKey(key)] = SavedIdentity(
                    Labels(labels), segment, int(segment_number), int(identity), endpoint
                )
        except (KeyError, TypeError, ValueError) as broken:
            raise InputError.because(f"not what was saved: {broken}", field="worn") from broken

    def update(
        self,
        cluster: Cluster,
        published: Published | None,
        rules: RuleSet | None = None,
        *,
        pods: Mapping[PodKey, Pod] | None = None,
        may_wait: bool = True,
    ) -> None:
        """Updates addresses, identities and rules in force to `cluster` and the newest `published` numbers, if any.

        `pods` are those of this node, by default found in `cluster`; `rules` are those of the cluster, by default
        normalised here. `may_wait`: the timeout for the registry has not passed. Raises InputError,
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
            self._report_body = None
            return
        changed = self._update_endpoints(cluster, pods, self.published)
        rules = rules if rules is not None else self._policies.update(cluster)
        self._enforced.update(rules, self.published.class_sets, may_wait=may_wait)
        self._update_identities(self.published, changed, may_wait=may_wait)

    def update_rules(self, rules: RuleSet, *, may_wait: bool = True) -> bool:
        """As `update` when nothing else is new; returns whether `rules_waiting` or `pending_ack` may have changed."""
        if self.published is None:
            return False
        before = self._enforced.state
        self._enforced.update(rules, self.published.class_sets, may_wait=may_wait)
        updated = self._update_identities(self.published, EndpointChange.INPUTS_UNCHANGED, may_wait=may_wait)
        return updated or not self._enforced.state.reports_as(before)

    def _update_identities(self, published: Published, endpoints: EndpointChange, *, may_wait: bool) -> bool:
        """Updates the identities of pods after the `endpoints`; returns False when no input is new."""
        matchers, enforced = self._shared.matchers(published.class_sets), self._enforced.state.version
        current = self._identities.is_current(matchers, may_wait=may_wait, enforced=enforced)
        if endpoints is EndpointChange.INPUTS_UNCHANGED and current:
            return False
        previous = self._identities.assigned
        self._identities.update(
            self._endpoints.records, matchers, unnumbered=self._unnumbered(), may_wait=may_wait, enforced=enforced
        )
        if endpoints is EndpointChange.CHANGED or previous != self._identities.assigned:
            self.changes += 1
        return True

    def _update_endpoints(self, cluster: Cluster, pods: Mapping[PodKey, Pod], published: Published) -> EndpointChange:
        """Allocates and releases addresses."""
        inputs = (
            pods,
            cluster.nodes,
            cluster.namespaces,
            cluster.service_cidrs,
            cluster.frontends,
            cluster.settings,
            *_numbers(published),
        )
        if not self._endpoint_inputs.replace(inputs):
            return EndpointChange.INPUTS_UNCHANGED
        old, cluster = self._cluster, replace(cluster, pods=pods)
        self._cluster, self._report_body, first = cluster, None, old is None
        freed, endpoints = self.allocator.freed, dict(self.allocator.endpoints)
        self.allocator.keep_free(
            pod.address for pod in cluster.pods.values() if pod.address is not None and needs_endpoint(pod) is not None
        )
        self._endpoints.update(cluster, Changes.between(old, cluster), first=first)
        if first:
            self._identities.restore(self._restored_identities())
            self._restored = {}
        changed = freed != self.allocator.freed or endpoints != self.allocator.endpoints
        return EndpointChange.CHANGED if changed else EndpointChange.ENDPOINTS_UNCHANGED

    @property
    def revision(self) -> int:
        """The revision of the published numbers that the view uses; 0 without any."""
        return self.published.revision if self.published is not None else 0

    @property
    def rules_waiting(self) -> bool:
        """Whether rules, or relabelled pods, wait for the registry."""
        return self._enforced.state.waiting or self._identities.waiting

    @property
    def needs_registry(self) -> bool:
        """Whether `rules_waiting`, or pods have no address as their segment has none left here, or no range."""
        return self.rules_waiting or bool(self.report.exhausted_segments)

    @property
    def pending_ack(self) -> PendingAck:
        """What may be reported once the switch has the present view, without the digest of policies."""
        revision = self.revision
        return PendingAck(
            revision=revision if self._identities.consistent and self._enforced.state.rules is not None else 0,
            released_revision=revision if self._enforced.state.nothing_retiring else 0,
        )

    def on_programmed(self, ack: PendingAck) -> bool:
        """Records that the switch has the view of `ack`; returns whether the `report` changes."""
        before = (self._acknowledged, self._released)
        self._acknowledged = max(self._acknowledged, ack.revision)
        self._released = max(self._released, ack.released_revision)
        return before != (self._acknowledged, self._released)

    @property
    def report(self) -> Report:
        """The report to the registry; its two revisions are those that the switch has confirmed."""
        if self._report_body is None:
            self._report_body = self._make_report_body()
        return self._report.get(
            (self._report_body, self._acknowledged, self._released),
            lambda body, acknowledged, released: replace(body, acknowledged=acknowledged, released=released),
        )

    def _make_report_body(self) -> Report:
        """The report without the two revisions, which change when the switch confirms a view."""
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
            exhausted_segments=MappingProxyType(dict(sorted(self._exhausted_segments(networked).items()))),
            foreign=frozenset(foreign),
            conflicting=self.allocator.conflicting(),
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each pod without an address, a node without a number, and rejected published numbers; sorted."""
        problems = self._endpoints.problems
        return (self._rejected_published, *problems) if self._rejected_published is not None else problems

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
        pods = self._assigned_pods.get((self._identities.assigned,), _assigned_pods)
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
                [
                    key,
                    dict(sorted(record.pod.labels.items())),
                    *record.segment,
                    record.segment_number,
                    pod_identity.identity,
                ]
                for key, pod_identity in self._identities.assigned.items()
                for record in (pod_identity.record,)
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
            self._rejected_published = None
        except InputError as error:
            self._rejected_published = Problem(
                f"the published numbers are not taken: {error}", kind="Node", name=self.node
            )

    def _apply(self, new: Published) -> None:
        if new.plan != self.plan:
            raise InputError.because("they are of another address plan than the settings", field="published numbers")
        claims = {address: (claim.node, claim.granted) for address, claim in new.foreign.items()}
        if self.published is None or _numbers(self.published) != _numbers(new):
            self.allocator.follow(self._shared.segment_table(self.plan, new), new.hosts, claims)
        self.published = new

    def _on_this_node(self, pods: Mapping[PodKey, Pod]) -> Mapping[PodKey, Pod]:
        return MappingProxyType({key: pod for key, pod in pods.items() if pod.node == self.node})

    def _restored_identities(self) -> dict[PodKey, PodIdentity]:
        """The saved identities of pods that still have their saved endpoint; a new pod of the same name has another."""
        identities = {}
        for key, saved in self._restored.items():
            pod, endpoint = self._pods.get(key), self.allocator.endpoint(key)
            if pod is not None and endpoint is not None and endpoint == saved.endpoint:
                labelled = pod if pod.labels == saved.labels else replace(pod, labels=saved.labels)
                record = EndpointRecord(labelled, saved.segment, saved.segment_number, endpoint)
                identities[key] = PodIdentity(record, saved.identity)
        return identities

    def _unnumbered(self) -> dict[PodKey, EndpointRecord]:
        """The previous records of pods that have their endpoint, but whose new segment has no number yet."""
        return {
            key: pod_identity.record
            for key, pod_identity in self._identities.assigned.items()
            if key not in self._endpoints.records and self.allocator.endpoint(key) == pod_identity.record.endpoint
        }

    def _exhausted_segments(self, networked: list[Pod]) -> dict[SegmentKey, int]:
        exhausted_segments = {}
        for pod in networked:
            if self._cluster is None or pod.key in self._endpoints.records:
                continue
            segment = self._cluster.segment_of(pod)
            indexes = self.allocator.indexes(segment)
            full = pod.address is None and self.node in self.allocator.hosts
            if not indexes or full:
                exhausted_segments[segment] = len(indexes)
        return exhausted_segments


def _numbers(published: Published) -> tuple[Any, ...]:
    return published.blocks, published.indexes, published.hosts, published.foreign


def _routes(claims: Mapping[IPv4Address, Claim], hosts: Mapping[str, int]) -> tuple[ForeignRoute, ...]:
    granted = ((address, hosts.get(claim.node)) for address, claim in claims.items() if claim.granted)
    return tuple(ForeignRoute(address, host) for address, host in sorted(granted) if host is not None)


def _assigned_pods(identities: Mapping[PodKey, PodIdentity]) -> tuple[AssignedPod, ...]:
    return tuple((key, pod.record, AssignedIdentity(pod.identity, pod.previous_ids)) for key, pod in identities.items())
