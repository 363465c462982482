"""Makes one node's view from its own pods, the objects that everyone sees, and the published numbers.

It goes on without the registry: it gives addresses itself, and saves the last published numbers with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from operator import is_
from types import MappingProxyType
from typing import Any

from romana_ovs.addressing.allocator import Endpoint
from romana_ovs.addressing.node_allocator import NodeAllocator, PublishedTenants
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.derived import Derived
from romana_ovs.engine.endpoints import EndpointRecord, Endpoints, needs_endpoint
from romana_ovs.engine.enforced import EnforcedRules, PreparedClasses
from romana_ovs.engine.pod_identities import PodIdentities, PodIdentity
from romana_ovs.engine.policy_index import PolicyIndex, RuleSet
from romana_ovs.engine.topology import topology_of
from romana_ovs.engine.view_builder import AssignedIdentity, NodeViewBuilder, ViewInputs
from romana_ovs.kube.published import published_from_json
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.errors import InputError, Problem
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.published import Published, Report
from romana_ovs.policy.view import ForeignRoute, NodeView

Saved = dict[PodKey, tuple[Labels, SegmentKey, int, int, Endpoint | None]]
"""Labels, segment, its number, identity and endpoint of each pod, as they were when they were saved."""
FORMAT = 1
"""Version of what `to_json` gives."""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a view makes true: the revision it may acknowledge, and the one in which it relies on nothing leaving."""

    acknowledged: int
    released: int


class NodeAgent:
    """Follows what one node sees of a cluster, and makes its view.

    After an `update` that moved `changes`, save `to_json` and `published` in one write: both must be durable before
    flows use them. Then take the `acknowledgement` and program the `view`. When the switch has confirmed it, call
    `on_programmed` with the acknowledgement, and store the `report`. Store the first report before the first `update`
    with published numbers: from then on the registry waits for this node.

    The rules in force are not saved. After a restart in the middle of a step there is no view until the newest rules
    may come into force, or patience is over; until then the switch keeps its flows.
    """

    def __init__(
        self,
        node: str,
        settings: Settings,
        state: Mapping[str, Any] | None = None,
        published: Published | Mapping[str, Any] | None = None,
        shared: PreparedClasses | None = None,
    ) -> None:
        """The part of `node` with the endpoints of `state` and the `published` numbers, both as they were saved.

        Raises AddressError when the plan of `settings` cannot be, or is not the one that `state` was saved under;
        InputError when one of the two is not what was saved.
        """
        self.node = node
        self.plan = AddressPlan.of(settings)
        self.registry = NodeAllocator(self.plan, node)
        self.published: Published | None = None
        self.changes = 0
        self._refused: Problem | None = None
        self._shared = shared if shared is not None else PreparedClasses()
        self._settings = settings
        self._cluster: Cluster | None = None
        self._acknowledged = self._released = 0
        self._needs: Report | None = None
        self._report: tuple[Report, int, int, Report] | None = None
        self._given_for: tuple[object, ...] | None = None
        """What addresses were given for last."""
        self._pods: Mapping[PodKey, Pod] = MappingProxyType({})
        self._restored: Saved = {}
        if state is not None:
            self._restore(state)
        if published is not None:
            freed = self.registry.freed
            self._apply(published if isinstance(published, Published) else published_from_json(published))
            self.registry.freed = freed
        self._members = Endpoints(self.registry)
        self._policies = PolicyIndex()
        self._enforced = EnforcedRules(fresh_switch=not self._acknowledged, shared=self._shared)
        self._identities = PodIdentities()
        self._view_builder = NodeViewBuilder()
        self._derived = Derived()

    def _restore(self, state: Mapping[str, Any]) -> None:
        if state.get("format") != FORMAT or not isinstance(state.get("addresses"), Mapping):
            raise InputError.because(f"the saved state is not of a node and format {FORMAT}", field="format")
        if state.get("node") != self.node:
            raise InputError.because(f"the saved state is that of node {state.get('node')!r}", field="node")
        self.registry = NodeAllocator.restored(state["addresses"], self.plan, self.node)
        try:
            self._acknowledged, self._released = int(state["acknowledged"]), int(state["released"])
            for key, labels, tenant, tier, number, worn in state["worn"]:
                held = self.registry.endpoint(PodKey(key))
                self._restored[PodKey(key)] = (Labels(labels), SegmentKey(tenant, tier), int(number), int(worn), held)
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
        """Follows `cluster`, and the newest `published` numbers, if any came.

        `pods` are those of this node, by default looked for in `cluster`; `rules` are those of the cluster, by default
        of what this node sees. `patience_over`: what is `waiting` has
        waited for the registry long enough. Raises InputError, and changes nothing, when the settings ask for another
        address plan (AddressError when that cannot be). Published numbers that are older than those held are not taken;
        nor are such as contradict them, which is a problem.
        """
        if cluster.settings is not self._settings and AddressPlan.of(cluster.settings) != self.plan:
            raise InputError.because(
                "the address plan (network, segment_bits, host_bits, endpoint_bits) cannot change under live pods"
            )
        self._settings = cluster.settings
        if published is not None:
            self._accept(published)
        if pods is None:
            pods = self._derived.value("own", cluster.pods, lambda: self._own(cluster.pods))
        self._pods = pods
        if self.published is None:
            self._needs = None
            return
        moved = self._update_endpoints(cluster, pods, self.published)
        rules = rules if rules is not None else self._policies.follow(cluster)
        namespaces, patient = self.published.namespaces, not patience_over
        self._enforced.update(rules, namespaces, patient=patient)
        matchers, enforced = self._shared.matchers(namespaces), self._enforced.state.version
        if moved is None and self._identities.stay(matchers, patient=patient, enforced=enforced):
            return
        worn = self._identities.worn
        self._identities.update(self._members.members, matchers, late=self._late(), patient=patient, enforced=enforced)
        if moved or worn != self._identities.worn:
            self.changes += 1

    def _update_endpoints(self, cluster: Cluster, pods: Mapping[PodKey, Pod], published: Published) -> bool | None:
        """Gives addresses; returns whether any moved, None when there was nothing to look at."""
        before = self._given_for
        self._given_for = (pods, cluster.nodes, cluster.namespaces, cluster.settings, *_numbers(published))
        if before is not None and all(map(is_, before, self._given_for)):
            return None
        old, cluster = self._cluster, replace(cluster, pods=pods)
        self._cluster, self._needs, first = cluster, None, old is None
        freed, endpoints = self.registry.freed, dict(self.registry.endpoints)
        self.registry.keep_free(
            pod.address for pod in cluster.pods.values() if pod.address is not None and needs_endpoint(pod) is not None
        )
        self._members.update(cluster, Changes.between(old, cluster), first=first)
        if first:
            self._identities.restore(self._former())
        return freed != self.registry.freed or endpoints != self.registry.endpoints

    @property
    def revision(self) -> int:
        """The revision of the published numbers that the view is of; 0 without any."""
        return self.published.revision if self.published is not None else 0

    @property
    def waiting(self) -> bool:
        """Whether rules, or pods that are something else by now, wait for the registry."""
        return self._enforced.state.waiting or self._identities.waiting

    @property
    def waits(self) -> bool:
        """Whether it is `waiting`, or has pods without an address because their segment has none left or no range."""
        return self.waiting or bool(self.report.exhausted)

    @property
    def acknowledgement(self) -> Acknowledgement:
        """What the registry may be told once the switch has the present view."""
        revision = self.revision
        return Acknowledgement(
            acknowledged=revision if self._identities.consistent and self._enforced.state.rules is not None else 0,
            released=revision if self._enforced.state.nothing_retiring else 0,
        )

    def on_programmed(self, acknowledgement: Acknowledgement) -> bool:
        """The switch has the view that `acknowledgement` was made with; returns whether the `report` changes."""
        before = (self._acknowledged, self._released)
        self._acknowledged = max(self._acknowledged, acknowledgement.acknowledged)
        self._released = max(self._released, acknowledgement.released)
        return before != (self._acknowledged, self._released)

    @property
    def report(self) -> Report:
        """What the registry must know of this node, as far as its switch has confirmed it."""
        if self._needs is None:
            self._needs = self._what_it_needs()
        held = self._report
        if held is None or held[0] is not self._needs or held[1:3] != (self._acknowledged, self._released):
            report = replace(self._needs, acknowledged=self._acknowledged, released=self._released)
            held = self._report = (self._needs, self._acknowledged, self._released, report)
        return held[3]

    def _what_it_needs(self) -> Report:
        """The report without what switches have confirmed."""
        alive = [pod for pod in self._pods.values() if needs_endpoint(pod) is not None]
        held = {pod.key: self.registry.endpoint(pod.key) for pod in alive}
        foreign = [
            pod.address
            for pod in alive
            if pod.address is not None and ((end := held[pod.key]) is None or end.foreign or end.address != pod.address)
        ]
        return Report(
            node=self.node,
            exhausted=MappingProxyType(dict(sorted(self._wants(alive).items()))),
            foreign=frozenset(foreign),
            conflicting=self.registry.contested(),
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be given to whom, and why; sorted."""
        others = [problem for problem in self._members.problems if problem.kind != "Node" or problem.name == self.node]
        return (self._refused, *others) if self._refused is not None else tuple(others)

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts] | None = None) -> NodeView | None:
        """What the bridge of `facts` must know; None while that cannot be said: what is programmed stays.

        `all_facts` are those of every bridge that is known, by node, this one's alone by default. It is the same
        object as the last view while it is equal to it.
        """
        cluster, published, rules = self._cluster, self.published, self._enforced.state.rules
        if cluster is None or published is None or rules is None or self.node not in published.hosts:
            return None
        every = {self.node: facts} if all_facts is None else all_facts
        known = tuple((name, other.links, other.tunnel) for name, other in every.items())
        topology = self._derived.value(
            "topology",
            (known, cluster.nodes, published.hosts),
            lambda: topology_of(every, cluster.nodes, published.hosts),
        )
        shared = ViewInputs(
            cluster=cluster,
            plan=self.plan,
            tenants=self.registry.tenants,
            segments=self.registry.segments,
            hosts=self.registry.hosts,
            classes=self._enforced.state.classes,
            rules=rules,
            foreign=self._derived.value("foreign", (published.foreign, published.hosts), lambda: _routes(published)),
        )
        pods = tuple(
            (key, worn.member, AssignedIdentity(worn.identity, worn.formerly))
            for key, worn in self._identities.worn.items()
        )
        return self._view_builder.view(facts, shared, topology=topology, pods=pods)

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of `pod`, or None while it has none here."""
        worn = self._identities.worn.get(pod)
        return worn.member.endpoint.address if worn is not None else None

    def uid_of(self, pod: PodKey) -> str:
        """The UID of the pod that has the address of `pod` here; empty when it is not known, or there is none."""
        worn = self._identities.worn.get(pod)
        return worn.member.endpoint.uid if worn is not None else ""

    def identity_of(self, pod: PodKey) -> int | None:
        """The identity that `pod` wears now, or None while it has no address here."""
        worn = self._identities.worn.get(pod)
        return worn.identity if worn is not None else None

    def to_json(self) -> dict[str, Any]:
        """All of this node's own that must survive a restart, in plain values of JSON."""
        return {
            "format": FORMAT,
            "node": self.node,
            "addresses": self.registry.to_json(),
            "worn": [
                [key, dict(sorted(was.pod.labels.items())), *was.segment, was.number, worn.identity]
                for key, worn in self._identities.worn.items()
                for was in (worn.member,)
            ],
            "acknowledged": self._acknowledged,
            "released": self._released,
        }

    def _accept(self, new: Published) -> None:
        held = self.published
        try:
            if held is not None and new.epoch < held.epoch:
                reason = f"they are of epoch {new.epoch}, those held of epoch {held.epoch}"
                raise InputError.because(reason, field="published numbers")
            if new is not held and (held is None or new.revision >= held.revision):
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
            tenants = self._shared.derived.shared(
                "tenants", (new.blocks, new.indexes), lambda: PublishedTenants(self.plan, new.blocks, new.indexes)
            )
            self.registry.follow(tenants, new.hosts, claims)
        self.published = new

    def _own(self, pods: Mapping[PodKey, Pod]) -> Mapping[PodKey, Pod]:
        return MappingProxyType({key: pod for key, pod in pods.items() if pod.node == self.node})

    def _former(self) -> dict[PodKey, PodIdentity]:
        """The pods that were here when this node was saved, as they were then; none that took another's name since."""
        found = {}
        for key, (labels, segment, number, worn, held) in self._restored.items():
            pod, endpoint = self._pods.get(key), self.registry.endpoint(key)
            if pod is not None and endpoint is not None and endpoint == held:
                found[key] = PodIdentity(EndpointRecord(replace(pod, labels=labels), segment, number, endpoint), worn)
        return found

    def _late(self) -> dict[PodKey, EndpointRecord]:
        """Pods that have their endpoint but no number for what they were relabelled to, as they were."""
        return {
            key: worn.member
            for key, worn in self._identities.worn.items()
            if key not in self._members.members and self.registry.endpoint(key) == worn.member.endpoint
        }

    def _wants(self, alive: list[Pod]) -> dict[SegmentKey, int]:
        found = {}
        for pod in alive:
            if self._cluster is None or pod.key in self._members.members:
                continue
            segment = self._cluster.segment_of(pod)
            indexes = self.registry.indexes(segment)
            full = pod.address is None and self.node in self.registry.hosts
            if not indexes or full:
                found[segment] = len(indexes)
        return found


def _numbers(published: Published) -> tuple[Any, ...]:
    return published.blocks, published.indexes, published.hosts, published.foreign


def _routes(published: Published) -> tuple[ForeignRoute, ...]:
    granted = (
        (address, published.hosts.get(claim.node)) for address, claim in published.foreign.items() if claim.granted
    )
    return tuple(ForeignRoute(address, host) for address, host in sorted(granted) if host is not None)
