"""Evaluates whether a connection is allowed, by plain code over cluster objects: the reference of the compiled tables.

Written from docs/design.md section 5 and the text of the Kubernetes API, which is quoted beside the checks:
  [types] the field comments of networking.k8s.io/v1 NetworkPolicy
  [docs]  https://kubernetes.io/docs/concepts/services-networking/network-policies/
It uses neither the normal form nor identities nor OpenFlow. It does not cover fragments and replies: a reply is allowed
while its connection is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.model.cluster import NO_TENANT, Cluster, SegmentKey
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef, end_of_pod
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import (
    Direction,
    IpBlock,
    KubernetesPolicy,
    Pod,
    PodKey,
    Policy,
    PolicyPeer,
    PolicyPort,
    RomanaPolicy,
)
from romana_ovs.model.settings import Isolation
from romana_ovs.policy import explain
from romana_ovs.policy.explain import Decision, DirectionResult, RuleRef

__all__ = ["Decision", "TrafficPeer", "Reference", "RuleRef", "allowed", "decide"]


@dataclass(frozen=True, slots=True)
class TrafficPeer:
    """One end of a connection with its policies; `pod` is None for nodes and outside addresses.

    `ingress` and `egress` are the policies that select the pod in that direction. `absent` says why this pod has no
    network, and is empty otherwise.
    """

    name: str
    pod: Pod | None = None
    node: str = ""
    address: IPv4Address | None = None
    segment: SegmentKey = SegmentKey(NO_TENANT, "")
    ingress: tuple[Policy, ...] = ()
    egress: tuple[KubernetesPolicy, ...] = ()
    absent: str = ""


class _Admission(NamedTuple):
    """A rule that admits a connection: its policy, the list that it is in, and its place there (from 0)."""

    policy: Policy
    side: str
    place: int


@dataclass(frozen=True, slots=True)
class Reference:
    """Evaluates connections of one cluster. Construct it with `of`."""

    cluster: Cluster
    addresses: Mapping[PodKey, IPv4Address]
    policies: Mapping[str, tuple[Policy, ...]]

    @classmethod
    def of(cls, cluster: Cluster, addresses: Mapping[PodKey, IPv4Address]) -> Reference:
        """The evaluation of `cluster`, whose pods have `addresses` (only ipBlock depends on these)."""
        by_namespace: dict[str, list[Policy]] = {}
        for _, policy in sorted(cluster.policies.items()):
            by_namespace.setdefault(policy.namespace, []).append(policy)
        return cls(cluster, addresses, {namespace: tuple(policies) for namespace, policies in by_namespace.items()})

    def decide(self, connection: Connection) -> Decision:
        """Whether `connection` may be opened and why; raises InputError for a pod that does not exist."""
        source, destination = self.traffic_peer(connection.source), self.traffic_peer(connection.destination)
        decided = self._before_policies(source, destination)
        decision = decided or self._by_policies(source, destination, connection.port)
        reason = explain.sentence(connection, decision.allowed, decision.reason)
        return Decision(decision.allowed, reason, decision.rules)

    def allowed(self, connection: Connection) -> bool:
        """The same answer as `decide` without the reason; raises InputError for a pod that does not exist."""
        return self.allows(
            self.traffic_peer(connection.source), self.traffic_peer(connection.destination), connection.port
        )

    def allowed_by_service(self, connection: Connection, backends: Iterable[tuple[ConnectionEnd, PortRef]]) -> bool:
        """Whether a pod's connection to one of the `backends` is allowed when it opens it by the Service's address.

        As without the Service. But the pod's node sees the Service's address only, and not which backend the host
        chooses: policies that select the pod for egress must allow all `backends` that are no pods, but for its own
        node. Raises InputError for a pod that does not exist.
        """
        source = self.traffic_peer(connection.source)
        peers = [(self.traffic_peer(end), port) for end, port in backends]
        no_pods = [(peer, port) for peer, port in peers if peer.pod is None and peer.node != source.node]
        if self.tenants_separated(source, TrafficPeer("the Service")):
            return False
        return self.allowed(connection) and all(self.allows_egress(source, peer, port) for peer, port in no_pods)

    def allows(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> bool:
        """The same answer for two ends that are looked up already."""
        decided = self._before_policies(source, destination)
        if decided is not None:
            return decided.allowed
        # [docs] "both the egress policy on the source pod and the ingress policy on the destination pod need to
        # allow the connection. If either side does not allow the connection, it will not happen."
        return self.allows_egress(source, destination, port) and self.allows_ingress(source, destination, port)

    def allows_egress(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> bool:
        """Whether the policies of the source allow it (step 6, egress)."""
        return not source.egress or any(self._egress(source, destination, port))

    def allows_ingress(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> bool:
        """Whether the policies of the destination, or else its isolation level, allow it (steps 6 and 7)."""
        if destination.ingress:
            return any(self._ingress(source, destination, port))
        return self._isolation_allows(source, destination)

    def tenants_separated(self, source: TrafficPeer, destination: TrafficPeer) -> bool:
        """Whether tenants alone forbid it (step 5), for two ends that are not a pod and its own node."""
        if self.cluster.settings.isolation is Isolation.NONE:
            return False
        if any(end.pod is not None and end.segment.tenant == NO_TENANT for end in (source, destination)):
            return True
        if source.pod is None or destination.pod is None:
            return False
        return source.segment.tenant != destination.segment.tenant and not self._shared(destination)

    def traffic_peer(self, endpoint: ConnectionEnd) -> TrafficPeer:
        """`endpoint` with its policies; raises InputError for a pod that does not exist."""
        if endpoint.pod is None:
            return TrafficPeer(str(endpoint), node=endpoint.node, address=endpoint.address)
        pod = self.cluster.pods.get(endpoint.pod)
        if pod is None:
            raise InputError.because(f"there is no pod {endpoint.pod}")
        if pod.finished:
            return TrafficPeer(pod.key, absent=f"pod {pod.key} has finished and takes part in nothing")
        if pod.host_network:
            # [docs] leaves it open how policies see such pods and names this as the most common way: they are
            # treated like the node they run on, so selectors do not match them and an ipBlock may.
            node = end_of_pod(pod, self.cluster)
            return TrafficPeer(f"{pod.key} (on the network of node {pod.node})", node=node.node, address=node.address)
        if not pod.networked:
            return TrafficPeer(pod.key, absent=f"pod {pod.key} has no address (yet)")
        selecting = [policy for policy in self.policies.get(pod.namespace, ()) if selects(policy, pod, self.cluster)]
        return TrafficPeer(
            pod.key,
            pod=pod,
            node=pod.node,
            address=self.addresses.get(pod.key, pod.address),
            segment=self.cluster.segment_of(pod),
            # [types] "policyTypes ... is a list of rule types that the NetworkPolicy relates to"
            ingress=tuple(policy for policy in selecting if isolates(policy, Direction.INGRESS)),
            egress=tuple(
                policy
                for policy in selecting
                if isinstance(policy, KubernetesPolicy) and isolates(policy, Direction.EGRESS)
            ),
        )

    def _before_policies(self, source: TrafficPeer, destination: TrafficPeer) -> Decision | None:
        """Steps 1, 3 and 5, in this order; None when none of them decides."""
        for end in (source, destination):
            if end.absent:
                return Decision(False, end.absent)
        if source.pod is None and destination.pod is None:
            return Decision(True, "neither end is a pod, so it is not this cluster's network that decides")
        if source.pod is not None and destination.pod is not None and source.pod.key == destination.pod.key:
            # [docs] "exception: a pod cannot block access to itself"
            return Decision(True, "a pod always reaches itself", (RuleRef(explain.NODE, "", source.node),))
        if (source.pod is None or destination.pod is None) and source.node == destination.node != "":
            # [docs] "traffic to and from the node where a Pod is running is always allowed, regardless of the IP
            # address of the Pod or the node"
            why = f"node {source.node} and the pods that run on it always reach each other"
            return Decision(True, why, (RuleRef(explain.NODE, "", source.node),))
        if self.tenants_separated(source, destination):
            return _separate_tenants(source, destination)
        return None

    def _by_policies(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> Decision:
        """Steps 6 and 7."""
        egress = DirectionResult(
            tuple(policy.key for policy in source.egress),
            tuple(self._rule_ref(one, destination) for one in self._egress(source, destination, port)),
        )
        ingress = DirectionResult(
            tuple(policy.key for policy in destination.ingress),
            tuple(self._rule_ref(one, source) for one in self._ingress(source, destination, port)),
        )
        if egress.denies or ingress.denies:
            denying = [key for side in (egress, ingress) if side.denies for key in side.selecting]
            why = explain.denials(egress, ingress, (source.name, destination.name))
            return Decision(False, why, tuple(map(RuleRef.of, denying)))
        rules = egress.admitting + ingress.admitting
        reasons = [explain.permissions(egress, ingress)] if rules else []
        if destination.pod is None:
            reasons = reasons or [f"no policy selects {source.name} for egress"]
        elif not ingress.selecting and source.pod is None:
            reasons.append(f"no policy selects {destination.name} for ingress")
        elif not ingress.selecting:
            decision = self._by_isolation(source, destination)
            if not decision.allowed:
                return decision
            reasons.append(decision.reason)
            rules += decision.rules
        return Decision(True, ", and ".join(reasons), rules)

    def _by_isolation(self, source: TrafficPeer, destination: TrafficPeer) -> Decision:
        """Step 7: "the isolation level, for ingress from other pods (a shared tenant's pods: from every tenant's)"."""
        admitted = self._isolation_allows(source, destination)
        level = self.cluster.settings.isolation.value
        shared = self._shared(destination) and level != Isolation.NONE.value
        why = explain.isolation(level, destination.name, segment=destination.segment, admitted=admitted, shared=shared)
        return Decision(admitted, why, (RuleRef(explain.ISOLATION, "", level),))

    def _isolation_allows(self, source: TrafficPeer, destination: TrafficPeer) -> bool:
        if source.pod is None or destination.pod is None or self._shared(destination):
            return True
        if self.cluster.settings.isolation is Isolation.TIER:
            return source.segment == destination.segment
        if self.cluster.settings.isolation is Isolation.TENANT:
            return source.segment.tenant == destination.segment.tenant
        return True

    def _shared(self, end: TrafficPeer) -> bool:
        return end.segment.tenant != NO_TENANT and end.segment.tenant in self.cluster.settings.shared_tenants

    def _egress(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> Iterator[_Admission]:
        """Every egress rule of the source's policies that admits the connection."""
        for policy in source.egress:
            for index, rule in enumerate(policy.egress):
                if ports_match(rule.ports, port, destination) and self.peers_match(rule.peers, policy, destination):
                    yield _Admission(policy, "egress", index)

    def _ingress(self, source: TrafficPeer, destination: TrafficPeer, port: PortRef) -> Iterator[_Admission]:
        """Every ingress rule of the destination's policies that admits the connection.

        [types] "Traffic is allowed to a pod ... if the traffic matches at least one ingress rule across all of the
        NetworkPolicy objects whose podSelector matches the pod."
        """
        for policy in destination.ingress:
            if isinstance(policy, RomanaPolicy):
                yield from self._romana(policy, source, destination, port)
                continue
            for index, rule in enumerate(policy.ingress):
                if ports_match(rule.ports, port, destination) and self.peers_match(rule.peers, policy, source):
                    yield _Admission(policy, "ingress", index)

    def _romana(
        self, policy: RomanaPolicy, source: TrafficPeer, destination: TrafficPeer, port: PortRef
    ) -> Iterator[_Admission]:
        """The rules of a Romana policy that admit it; a policy without tenant is invalid and admits nothing."""
        tenant = self.cluster.tenant_of_policy(policy)
        if tenant == NO_TENANT:
            return
        for index, rule in enumerate(policy.rules):
            # "absent `from` any source; `from[].pods` selects pods of the same tenant in any namespace"
            known = not rule.sources or (
                source.pod is not None
                and source.segment.tenant == tenant
                and any(selector.matches(source.pod.labels) for selector in rule.sources)
            )
            if known and ports_match(rule.ports, port, destination):
                yield _Admission(policy, "allowIncoming", index)

    def _rule_ref(self, admission: _Admission, other: TrafficPeer) -> RuleRef:
        """The rule, with the ipBlock that has the other end when none of the rule's selectors matches it."""
        policy, side, place = admission
        rule = f"{side}[{place}]"
        if isinstance(policy, RomanaPolicy):
            return RuleRef.of(policy.key, rule)
        peers = (policy.egress if side == "egress" else policy.ingress)[place].peers
        matching = [peer for peer in peers if self.peer_matches(peer, policy, other)]
        blocks = [peer.ip_block for peer in matching if peer.ip_block is not None]
        if not blocks or len(blocks) < len(matching):
            return RuleRef.of(policy.key, rule)
        return RuleRef.of(policy.key, rule, address=str(other.address), block=str(blocks[0].cidr))

    def peers_match(self, peers: tuple[PolicyPeer, ...], policy: KubernetesPolicy, traffic_peer: TrafficPeer) -> bool:
        """Whether a rule of `policy` with these peers applies to the other end."""
        # [types] "If this field is empty or missing, this rule matches all sources (traffic not restricted by
        # source). If this field is present and contains at least one item, this rule allows traffic only if the
        # traffic matches at least one item in the from list." The same of `to` and destinations.
        return not peers or any(self.peer_matches(peer, policy, traffic_peer) for peer in peers)

    def peer_matches(self, peer: PolicyPeer, policy: KubernetesPolicy, other: TrafficPeer) -> bool:
        """Whether one peer of a rule of `policy` is the other end."""
        selectors = (peer.pods, peer.namespaces)
        if peer.ip_block is not None:
            # [types] "ipBlock ... If this field is set then neither of the other fields can be."
            return selectors == (None, None) and ip_block_contains(peer.ip_block, other.address)
        if other.pod is None or selectors == (None, None):
            return False
        if peer.namespaces is None:
            # [types] "Otherwise it selects the pods matching podSelector in the policy's own namespace."
            inside = other.pod.namespace == policy.namespace
        else:
            # [types] namespaceSelector: "if present but empty, it selects all namespaces"
            inside = peer.namespaces.matches(self.cluster.namespace_labels(other.pod.namespace))
        # [types] "If podSelector is also set, then the NetworkPolicyPeer as a whole selects the pods matching
        # podSelector in the namespaces selected by namespaceSelector. Otherwise it selects all pods in the
        # namespaces selected by namespaceSelector."
        return inside and (peer.pods is None or peer.pods.matches(other.pod.labels))


def decide(cluster: Cluster, addresses: Mapping[PodKey, IPv4Address], connection: Connection) -> Decision:
    """Whether `connection` may be opened, why, and by which rules.

    `addresses` are the pods' own addresses; only ipBlock depends on them. Raises InputError for a pod that
    does not exist.
    """
    return Reference.of(cluster, addresses).decide(connection)


def allowed(cluster: Cluster, addresses: Mapping[PodKey, IPv4Address], connection: Connection) -> bool:
    """The answer of `decide` without the reason, faster."""
    return Reference.of(cluster, addresses).allowed(connection)


def selects(policy: Policy, pod: Pod, cluster: Cluster) -> bool:
    """Whether `policy` applies to `pod`.

    [types] "selects the pods to which this NetworkPolicy object applies", in the policy's own namespace. A Romana
    policy: "podSelector selects pods of its own namespace and tenant"; of every tenant if it names none.
    """
    if policy.namespace != pod.namespace or not policy.selector.matches(pod.labels):
        return False
    if isinstance(policy, KubernetesPolicy):
        return True
    return cluster.tenant_of_policy(policy) in (NO_TENANT, cluster.tenant_of(pod))


def isolates(policy: Policy, direction: Direction) -> bool:
    """Whether the policy isolates in this direction; Romana's know ingress only."""
    if isinstance(policy, KubernetesPolicy):
        return direction in policy.directions
    return direction is Direction.INGRESS


def ports_match(ports: tuple[PolicyPort, ...], port: PortRef, destination: TrafficPeer) -> bool:
    """Whether a rule with these ports applies.

    [types] "If this field is empty or missing, this rule matches all ports (traffic not restricted by port). If this
    field is present and contains at least one item, then this rule allows traffic only if the traffic matches at least
    one port in the list." So without ports every protocol, with ports only those.
    """
    return not ports or any(_port_matches(entry, port, destination) for entry in ports)


def _port_matches(entry: PolicyPort, port: PortRef, destination: TrafficPeer) -> bool:
    # [types] "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match."
    if entry.protocol is not port.protocol or port.port is None:
        return False
    if entry.port is None:
        # [types] "If this field is not provided, this matches all port names and numbers."
        return entry.end is None
    if isinstance(entry.port, str):
        # [types] "This can either be a numerical or named port on a pod": on the destination, whose protocol counts.
        declared = destination.pod.ports if destination.pod is not None else ()
        wanted_port = (entry.port, entry.protocol, port.port)
        return entry.end is None and any(
            (container_port.name, container_port.protocol, container_port.number) == wanted_port
            for container_port in declared
        )
    # [types] "endPort indicates that the range of ports from port to endPort if set, inclusive, should be allowed"
    return entry.port <= port.port <= (entry.port if entry.end is None else entry.end)


def ip_block_contains(block: IpBlock, address: IPv4Address | None) -> bool:
    """Whether the block has the address.

    [types] "except is a slice of CIDRs that should not be included within an IPBlock".
    """
    if address is None or address not in block.cidr:
        return False
    return not any(address in excluded for excluded in block.except_cidrs)


def _separate_tenants(source: TrafficPeer, destination: TrafficPeer) -> Decision:
    without = [end.name for end in (source, destination) if end.pod is not None and not end.segment.tenant]
    rule = (RuleRef(explain.TENANT, "", destination.segment.tenant or source.segment.tenant),)
    if without:
        verb = (
            "belong to no tenant and talk with their own nodes"
            if len(without) > 1
            else ("belongs to no tenant and talks with its own node")
        )
        return Decision(False, f"{explain.listed_all(without)} {verb} only", rule)
    tenants = f"{source.segment.tenant} and {destination.segment.tenant}"
    return Decision(False, f"tenants {tenants} are separate", rule)
