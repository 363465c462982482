"""The one stateful value behind every node's view."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.engine.changes import Changes
from romana_ovs.engine.derived import Derived
from romana_ovs.engine.endpoints import EndpointRecord, Endpoints
from romana_ovs.engine.identities import Identities, Step
from romana_ovs.engine.policy_index import PolicyIndex
from romana_ovs.engine.topology import topology_of
from romana_ovs.engine.view_builder import AssignedIdentity, NodeViewBuilder, ViewInputs
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import AddressError, InputError, Problem
from romana_ovs.model.objects import Node, PodKey, same_uid
from romana_ovs.model.settings import Settings
from romana_ovs.policy.view import ClassInfo, ForeignRoute, NodeView

FORMAT = 1
"""Version of what `to_json` gives."""
PARTS = ("addresses", "identities")
Residents = tuple[tuple[PodKey, EndpointRecord, AssignedIdentity], ...]


class World:
    """Follows a cluster, gives out numbers, and makes every node's view.

    After `update`, program the views; while `pending`, `advance` when every switch has confirmed, and program
    the views again. `revision` counts the changes that `to_json` shows.
    """

    def __init__(self, settings: Settings, state: Mapping[str, Any] | None = None) -> None:
        """A world without pods, with the numbers of `state`.

        Raises AddressError when the plan of `settings` cannot be, or is not the one that `state` was saved under;
        InputError when `state` is not what `to_json` gave.
        """
        self.plan = AddressPlan.of(settings)
        self.registry, self._identities = Allocator(self.plan), Identities.none()
        if state is not None:
            addresses, identities = _parts(state)
            self.registry = Allocator.from_json(addresses, self.plan)
            self._identities = Identities.from_json(identities)
        self.revision = 0
        self._members = Endpoints(self.registry)
        self._rules = PolicyIndex()
        self._refused: dict[PodKey, Problem] = {}
        self._refused_with: Mapping[int, ClassInfo] | None = None
        self._cluster: Cluster | None = None
        self._on_node: dict[str, set[PodKey]] = {}
        self._residents: dict[str, Residents] = {}
        self._foreign: dict[PodKey, Endpoint] = {}
        self._foreign_moves = 0
        self._assemblies: dict[str, NodeViewBuilder] = {}
        self._memo = Derived()

    def update(self, cluster: Cluster) -> None:
        """Follows `cluster`; what did not change since the last update costs next to nothing.

        Raises InputError, and changes nothing, when the settings ask for another address plan (AddressError when
        that cannot be): it takes a restart with a new state. What cannot be given to a pod or node is among the
        `problems`; everyone else is served.
        """
        if AddressPlan.of(cluster.settings) != self.plan:
            raise InputError.because(
                "the address plan (network, segment_bits, host_bits, endpoint_bits) cannot change under live pods"
            )
        first = self._cluster is None
        changes = Changes.between(self._cluster, cluster)
        before = (self.registry.freed, self.registry.hosts, self.registry.segments)
        old = {key: self._members.members.get(key) for key in changes.pods}
        done = self._members.update(cluster, changes, first=first)
        self._rules.follow(cluster, changes.pods)
        self._cluster = cluster
        classes = self._identities.classes
        for key in done.members - self._members.members.keys():
            self._identities.forget(key)
            self._refused.pop(key, None)
        for key, refused in self._identities.follow(self._rules.rule_set).items():
            self._refuse(key, refused)
        for key in sorted(done.members):
            self._follow_member(key, old.get(key))
        if self._refused and self._refused_with is not self._identities.classes:
            self._try_again()
        if first:
            self._identities.forget_unclaimed()
        for node in done.nodes:
            self._residents.pop(node, None)
        if (
            done.members
            or classes is not self._identities.classes
            or before != (self.registry.freed, self.registry.hosts, self.registry.segments)
        ):
            self.revision += 1

    @property
    def pending(self) -> bool:
        """Whether rules or identities wait for the switches to confirm what they were told."""
        return self._identities.step is not Step.SETTLED

    @property
    def step(self) -> int:
        """Counts the steps of what is `pending`, the ones that began anew too."""
        return self._identities.steps

    def advance(self) -> None:
        """Takes the next step of what is `pending`: every connected switch has confirmed the views so far."""
        if self.pending:
            for pod in self._identities.advance():
                self._residents.pop(self._members.members[pod].endpoint.node, None)
            self.revision += 1

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What could not be given to whom, and why; sorted."""
        return tuple(
            sorted(
                [*self._members.problems, *self._refused.values(), *self._rules.problems],
                key=lambda problem: (problem.kind, problem.name, problem.reason),
            )
        )

    def view(self, facts: BridgeFacts, all_facts: Mapping[str, BridgeFacts]) -> NodeView:
        """What the node of `facts` must know; `all_facts` are those of every bridge that is known, by node.

        It is the same object as the last view of the node while it is equal to it. Raises InputError for a node
        that the cluster does not have, or that got no host number.
        """
        hosts = self.registry.hosts
        if self._cluster is None or facts.node not in hosts:
            reason = "it is no node of the cluster, or got no host number"
            raise InputError(Problem(reason, kind="Node", name=facts.node))
        cluster = self._cluster
        known = tuple((name, other.links, other.tunnel) for name, other in all_facts.items())
        topology = self._memo.value(
            "topology", (known, cluster.nodes, hosts), lambda: topology_of(all_facts, cluster.nodes, hosts)
        )
        shared = ViewInputs(
            cluster=cluster,
            plan=self.plan,
            tenants=self.registry.tenants,
            segments=self.registry.segments,
            hosts=hosts,
            classes=self._identities.classes,
            rules=self._identities.rules,
            foreign=self._foreign_routes(hosts, cluster.nodes),
        )
        assembly = self._assemblies.setdefault(facts.node, NodeViewBuilder())
        return assembly.view(facts, shared, topology=topology, pods=self._pods_on(facts.node))

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of `pod`, or None while it has none."""
        member = self._members.members.get(pod)
        return member.endpoint.address if member is not None else None

    def mac_of(self, pod: PodKey) -> str | None:
        """The MAC that goes with the address of `pod`, or None while it has none."""
        address = self.address_of(pod)
        return self.plan.mac(address) if address is not None else None

    def node_of(self, pod: PodKey) -> str | None:
        """The node that `pod` has its address on, or None."""
        member = self._members.members.get(pod)
        return member.endpoint.node if member is not None else None

    def uid_of(self, pod: PodKey) -> str:
        """The UID of the pod that has the address of `pod`; empty when it is not known, or there is none."""
        member = self._members.members.get(pod)
        return member.endpoint.uid if member is not None else ""

    def identity_of(self, pod: PodKey) -> int | None:
        """The identity that `pod` wears now, or None while it has no address."""
        return self._identities.worn(pod) if pod in self._members.members else None

    def host_number(self, node: str) -> int | None:
        """The host number of `node`, or None."""
        return self.registry.hosts.get(node)

    def to_json(self) -> dict[str, Any]:
        """All numbers that must survive a restart, in plain values of JSON."""
        return {"format": FORMAT, "addresses": self.registry.to_json(), "identities": self._identities.to_json()}

    def to_save(self) -> dict[str, Any]:
        """`to_json`."""
        return self.to_json()

    def _refuse(self, key: PodKey, refused: AddressError) -> None:
        """Nothing is left that tells the pod from others of its segment."""
        self._refused[key] = Problem(str(refused), kind="Pod", name=key)
        self._residents.pop(self._members.members[key].endpoint.node, None)

    def _try_again(self) -> None:
        """Classes have changed: maybe there is one now for pods that got none."""
        full: set[int] = set()
        for key in sorted(self._refused):
            member = self._members.members[key]
            if member.number not in full and not self._identify(key, member):
                full.add(member.number)
        self._refused_with = self._identities.classes

    def _identify(self, key: PodKey, member: EndpointRecord) -> bool:
        """Whether the pod has a class now."""
        try:
            self._identities.assign(key, member)
        except AddressError as refused:
            self._identities.leave_out(key, member)
            self._refuse(key, refused)
            return False
        if self._refused.pop(key, None) is not None:
            self._residents.pop(member.endpoint.node, None)
        return True

    def _follow_member(self, key: PodKey, old: EndpointRecord | None) -> None:
        """Identity, place and route of a member that is new, gone or different."""
        if old is not None:
            self._on_node[old.endpoint.node].discard(key)
        if self._foreign.pop(key, None) is not None:
            self._foreign_moves += 1
        member = self._members.members.get(key)
        if member is None:
            return
        if old is not None and not same_uid(old.endpoint.uid, member.endpoint.uid):
            # Another pod of the name: it was never anything else.
            self._identities.forget(key)
        self._identify(key, member)
        self._on_node.setdefault(member.endpoint.node, set()).add(key)
        if member.endpoint.foreign:
            self._foreign[key] = member.endpoint
            self._foreign_moves += 1

    def _pods_on(self, node: str) -> Residents:
        if node not in self._residents:
            members = self._members.members
            self._residents[node] = tuple(
                (key, members[key], AssignedIdentity(self._identities.worn(key), self._identities.formerly(key)))
                for key in sorted(self._on_node.get(node, ()))
            )
        return self._residents[node]

    def _foreign_routes(self, hosts: Mapping[str, int], nodes: Mapping[str, Node]) -> tuple[ForeignRoute, ...]:
        """The ways to addresses that are not from the plan; none to one that a node has got since."""

        def work_out() -> tuple[ForeignRoute, ...]:
            blocked = self.registry.reserved
            ends = sorted(self._foreign.values(), key=lambda end: end.address)
            routed = [end for end in ends if end.node in hosts and end.address not in blocked]
            return tuple(ForeignRoute(end.address, hosts[end.node]) for end in routed)

        return self._memo.value("foreign", (self._foreign_moves, hosts, nodes), work_out)


def _parts(state: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if state.get("format") != FORMAT or not all(isinstance(state.get(name), Mapping) for name in PARTS):
        raise InputError.because(f"the saved state is not of format {FORMAT}", field="format")
    return state[PARTS[0]], state[PARTS[1]]
