"""Finds rules that would admit a dropped connection but for its port, the other end, or the pods of their policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from romana_ovs.model.connection import Connection, PortRef
from romana_ovs.model.objects import (
    Direction,
    KubernetesPolicy,
    Policy,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    RomanaPolicy,
)
from romana_ovs.model.selector_text import label_differences
from romana_ovs.model.syntax import joined
from romana_ovs.policy.evaluate import (
    Decision,
    Reference,
    TrafficPeer,
    ip_block_contains,
    isolates,
    ports_match,
    selects,
)
from romana_ovs.policy.explain import ISOLATION, TENANT, RuleRef

MAX_REASONS = 3
"""How many peers of one rule are described."""


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A rule that does not admit the connection, and what keeps it from doing so."""

    rule: RuleRef
    reason: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}."

    def to_json(self) -> dict[str, str]:
        """The rule's own JSON with `reason`."""
        return {**self.rule.to_json(), "reason": self.reason}


def near_misses(reference: Reference, connection: Connection, decision: Decision) -> tuple[NearMiss, ...]:
    """The rules that come near to admitting a connection that `decision` drops; none when it is allowed.

    Raises InputError for a pod that does not exist.
    """
    if decision.allowed:
        return ()
    source = reference.traffic_peer(connection.source)
    destination = reference.traffic_peer(connection.destination)
    if source.absent or destination.absent:
        return ()
    checks = (
        _DirectionCheck(reference, Direction.EGRESS, source, destination, destination, connection.port),
        _DirectionCheck(reference, Direction.INGRESS, destination, source, destination, connection.port),
    )
    if any(rule.kind == TENANT for rule in decision.rules):
        return tuple(miss for check in checks for miss in check.blocked_by_tenancy())
    if any(rule.kind == ISOLATION for rule in decision.rules):
        return tuple(checks[1].policies_not_selecting())
    return tuple(miss for check in checks for miss in check.misses())


@dataclass(frozen=True, slots=True)
class _DirectionCheck:
    """One direction of the connection: its pod (`local`), the other end (`peer`), and the server, whose ports count."""

    reference: Reference
    direction: Direction
    local: TrafficPeer
    peer: TrafficPeer
    server: TrafficPeer
    port: PortRef

    def misses(self) -> Iterator[NearMiss]:
        """The near misses of this direction, when it denies."""
        selecting = list(self._policies(selecting=True))
        rules = [(policy, rule, ref) for policy in selecting for rule, ref in self._rules(policy)]
        if not selecting or any(
            self._port_matches(rule) and self._peer_matches(policy, rule) for policy, rule, _ in rules
        ):
            return
        for policy, rule, ref in rules:
            if self._peer_matches(policy, rule):
                yield NearMiss(ref, f"the other end matches, but {_port_difference(rule.ports, self.server)}")
            elif self._port_matches(rule):
                reasons = [self._peer_difference(policy, peer) for peer in rule.peers]
                side = "from" if self.direction is Direction.INGRESS else "to"
                texts = [f"{side}[{index}]: {reason}" for index, reason in enumerate(reasons)][:MAX_REASONS]
                more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
                yield NearMiss(ref, f"the port matches, but {'; '.join(texts)}{more}")
        yield from self.policies_not_selecting()

    def blocked_by_tenancy(self) -> Iterator[NearMiss]:
        """The rules that match a connection which is dropped because its ends are of different tenants.

        Not rules without peers: they name nobody, so none of them is about the other tenant.
        """
        for policy in self._policies(selecting=True):
            for rule, ref in self._rules(policy):
                if rule.peers and self._port_matches(rule) and self._peer_matches(policy, rule):
                    yield NearMiss(ref, "it matches, but no policy opens a path between tenants")

    def policies_not_selecting(self) -> Iterator[NearMiss]:
        """The rules that match, of policies whose selectors miss the local pod by one requirement.

        Not rules with neither peers nor ports: they match everything, so none of them is about this connection.
        """
        if self.local.pod is None:
            return
        for policy in self._policies(selecting=False):
            differences = list(label_differences(policy.selector, self.local.pod.labels))
            for rule, ref in self._rules(policy) if len(differences) == 1 else ():
                if (rule.peers or rule.ports) and self._port_matches(rule) and self._peer_matches(policy, rule):
                    reason = f"it matches, but its policy does not select {self.local.name}: {differences[0]}"
                    yield NearMiss(ref, reason)

    def _policies(self, *, selecting: bool) -> Iterator[Policy]:
        pod = self.local.pod
        if pod is None:
            return
        for policy in self.reference.policies.get(pod.namespace, ()):
            if isolates(policy, self.direction) and selects(policy, pod, self.reference.cluster) is selecting:
                yield policy

    def _rules(self, policy: Policy) -> Iterator[tuple[PolicyRule, RuleRef]]:
        """The rules of this direction; those of a Romana policy in the same form, with a podSelector for each peer."""
        if isinstance(policy, RomanaPolicy):
            for index, romana in enumerate(policy.rules):
                yield PolicyRule(romana.peers, romana.ports), RuleRef.of(policy.key, f"allowIncoming[{index}]")
            return
        rules = policy.ingress if self.direction is Direction.INGRESS else policy.egress
        for index, rule in enumerate(rules):
            yield rule, RuleRef.of(policy.key, f"{self.direction.value.lower()}[{index}]")

    def _port_matches(self, rule: PolicyRule) -> bool:
        return ports_match(rule.ports, self.port, self.server)

    def _peer_matches(self, policy: Policy, rule: PolicyRule) -> bool:
        if isinstance(policy, KubernetesPolicy):
            return self.reference.peers_match(rule.peers, policy, self.peer)
        pod = self.peer.pod
        return not rule.peers or (
            pod is not None
            and self.peer.segment.tenant == self.reference.cluster.tenant_of_policy(policy)
            and any(peer.pods is not None and peer.pods.matches(pod.labels) for peer in rule.peers)
        )

    def _peer_difference(self, policy: Policy, rule_peer: PolicyPeer) -> str:
        """Why the peer of this connection is not the `rule_peer`."""
        peer, cluster = self.peer, self.reference.cluster
        if rule_peer.ip_block is not None:
            if peer.address is None:
                return f"the address of {peer.name} is not known"
            excepted = next((cidr for cidr in rule_peer.ip_block.except_cidrs if peer.address in cidr), None)
            if excepted is not None and not ip_block_contains(rule_peer.ip_block, peer.address):
                return f"{peer.address} is in its except {excepted}"
            return f"{peer.address} is not in {rule_peer.ip_block.cidr}"
        if rule_peer.pods is None and rule_peer.namespaces is None:
            return "it matches nothing"
        if peer.pod is None:
            return f"{peer.name} is no pod, and selectors match pods only"
        namespace = peer.pod.namespace
        reasons = []
        if isinstance(policy, RomanaPolicy):
            tenant = cluster.tenant_of_policy(policy)
            reasons += [] if tenant == peer.segment.tenant else [f"{peer.name} is not of tenant {tenant}"]
        elif rule_peer.namespaces is None and namespace != policy.namespace:
            reasons.append(f"without namespaceSelector it means pods of namespace {policy.namespace}")
        elif rule_peer.namespaces is not None:
            differences = list(label_differences(rule_peer.namespaces, cluster.namespace_labels(namespace)))
            reasons += [f"of namespace {namespace} {joined(differences)}"] if differences else []
        if rule_peer.pods is not None and (differences := list(label_differences(rule_peer.pods, peer.pod.labels))):
            reasons.append(f"of {peer.name} {joined(differences)}")
        return ", and ".join(reasons)


def _port_difference(ports: Sequence[PolicyPort], server: TrafficPeer) -> str:
    """Which ports the rule has, written as `80/tcp`, with the numbers of named ports on the server."""
    return f"its port{'s are' if len(ports) > 1 else ' is'} {joined([_port_text(port, server) for port in ports])}"


def _port_text(port: PolicyPort, server: TrafficPeer) -> str:
    protocol = port.protocol.value
    if isinstance(port.port, str):
        declared = server.pod.ports if server.pod is not None else ()
        numbers = sorted({one.number for one in declared if (one.name, one.protocol) == (port.port, port.protocol)})
        meaning = "/".join(map(str, numbers)) if numbers else f"no port of {server.name}"
        return f"{port.port}/{protocol} ({meaning})"
    if port.port is None:
        return f"all of {protocol}"
    return f"{port.port}-{port.end}/{protocol}" if port.end not in (None, port.port) else f"{port.port}/{protocol}"
