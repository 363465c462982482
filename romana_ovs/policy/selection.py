"""Decides from its exact labels what one policy means for one local pod. Peers stay scopes, without identities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, Direction, PolicyKey
from romana_ovs.policy.normalise import merged_ports
from romana_ovs.policy.requirements import is_deferred
from romana_ovs.policy.rules import NamedPort, NormalPolicy, NormalRule, PortRange, Scope
from romana_ovs.policy.view import Origin

ROMANA_RULE = "allowIncoming"
"""The field of ingress rules in Romana's policies."""

Ports = tuple[PortRange, ...] | None


@dataclass(frozen=True, slots=True)
class Profile:
    """The properties of a local pod that policies depend on; pods with equal profiles get equal permissions.

    `address` is None if no policy depends on it.
    """

    namespace: str
    namespace_labels: Labels
    labels: Labels
    segment: SegmentKey
    ports: tuple[ContainerPort, ...]
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True, eq=False)
class UnresolvedAllow:
    """An `Allow` before `resolve` has found the identities of its peers, which are still scopes.

    `any_peer` and `cidrs` as in `NormalRule`. Compared by identity.
    """

    origin: Origin
    ports: Ports
    any_peer: bool = False
    scopes: tuple[Scope, ...] = ()
    cidrs: tuple[IPv4Network, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PolicyEffect:
    """The effect of one policy on one profile. Compared by identity.

    `isolates_ingress` and `isolates_egress`: it selects the pod in that direction. `ingress` is what it allows clients
    of the pod, `local_egress` what it allows the pod as a client, as far as its own node decides alone. `deferred`: it
    has egress rules for the pod that are left to the node of the server. `deferred_egress` is what such rules allow in
    the other role: which clients may connect to the pod.
    """

    isolates_ingress: bool
    isolates_egress: bool
    ingress: tuple[UnresolvedAllow, ...]
    deferred_egress: tuple[UnresolvedAllow, ...]
    local_egress: tuple[UnresolvedAllow, ...]
    deferred: bool


def rule_origin(key: PolicyKey, rule: NormalRule) -> Origin:
    """The origin of what `rule` allows of the policy `key`, with the field name of the policy's kind."""
    word = ROMANA_RULE if key.kind == "RomanaNetworkPolicy" else rule.direction.value.lower()
    return Origin(key.kind, key.namespace, key.name, f"{word}[{rule.index}]")


def selects(
    scope: Scope, labels: Mapping[str, str], *, namespace: str, namespace_labels: Mapping[str, str], tenant: str
) -> bool:
    """Whether `scope` selects a pod with exactly these labels, of this namespace and tenant."""
    if scope.tenant is not None and scope.tenant != tenant:
        return False
    if scope.namespace is not None:
        return scope.namespace == namespace and scope.pods.matches(labels)
    return scope.namespaces.matches(namespace_labels) and scope.pods.matches(labels)


def depends_on_address(policy: NormalPolicy) -> bool:
    """Whether the effect of `policy` on a pod depends on its address: it has egress to an ipBlock with named ports."""
    return any(
        rule.direction is Direction.EGRESS
        and rule.cidrs
        and not rule.any_peer
        and any(isinstance(port, NamedPort) for port in rule.ports or ())
        for rule in policy.rules
    )


def sole_namespace_affected(policy: NormalPolicy) -> str | None:
    """The namespace of all pods that `policy` has an effect on; None if they may be in any."""
    deferred = any(rule.direction is Direction.EGRESS and is_deferred(rule) for rule in policy.rules)
    return None if deferred else policy.subject.namespace


def policy_effect(policy: NormalPolicy, profile: Profile) -> PolicyEffect | None:
    """The effect of `policy` on pods of `profile`; None if it has none."""
    selected = _selects(policy.subject, profile)
    ingress = selected and Direction.INGRESS in policy.directions
    egress = selected and Direction.EGRESS in policy.directions
    rules = [rule for rule in policy.rules if rule.direction in policy.directions]
    egress_rules = [rule for rule in rules if rule.direction is Direction.EGRESS]
    deferred_egress = _without_none(_deferred_egress(policy, rule, profile) for rule in egress_rules)
    if not ingress and not egress and not deferred_egress:
        return None
    ingress_rules = [rule for rule in rules if rule.direction is Direction.INGRESS] if ingress else []
    return PolicyEffect(
        isolates_ingress=ingress,
        isolates_egress=egress,
        ingress=_without_none(_ingress(policy, rule, profile) for rule in ingress_rules),
        deferred_egress=deferred_egress,
        local_egress=_without_none(_local_egress(policy, rule) for rule in egress_rules) if egress else (),
        deferred=egress and any(is_deferred(rule) for rule in egress_rules),
    )


def _without_none(allows: Iterable[UnresolvedAllow | None]) -> tuple[UnresolvedAllow, ...]:
    return tuple(allow for allow in allows if allow is not None)


def _selects(scope: Scope, profile: Profile) -> bool:
    return selects(
        scope,
        profile.labels,
        namespace=profile.namespace,
        namespace_labels=profile.namespace_labels,
        tenant=profile.segment.tenant,
    )


def _ingress(policy: NormalPolicy, rule: NormalRule, profile: Profile) -> UnresolvedAllow | None:
    ports = _resolved(rule.ports, profile)
    if ports == () or not (rule.any_peer or rule.scopes or rule.cidrs):
        return None
    origin = rule_origin(policy.key, rule)
    if rule.any_peer:
        return UnresolvedAllow(origin, ports, any_peer=True)
    return UnresolvedAllow(origin, ports, scopes=rule.scopes, cidrs=rule.cidrs)


def _deferred_egress(policy: NormalPolicy, rule: NormalRule, profile: Profile) -> UnresolvedAllow | None:
    """The deferred part of an egress rule: what it permits the pods that `policy` selects towards this pod."""
    if not is_deferred(rule):
        return None
    if any(_selects(scope, profile) for scope in rule.scopes):
        ports = _resolved(rule.ports, profile)
    elif rule.any_peer or any(profile.address in network for network in rule.cidrs if profile.address is not None):
        # The client's node has decided the numeric ports; it cannot resolve named ports.
        ports = _resolved([port for port in rule.ports or () if isinstance(port, NamedPort)], profile)
    else:
        return None
    return UnresolvedAllow(rule_origin(policy.key, rule), ports, scopes=(policy.subject,)) if ports != () else None


def _local_egress(policy: NormalPolicy, rule: NormalRule) -> UnresolvedAllow | None:
    """The part of an egress rule that the client's node decides alone."""
    ports = None
    if rule.ports is not None:
        ports = merged_ports(port for port in rule.ports if isinstance(port, PortRange))
    if ports == () or not (rule.any_peer or rule.cidrs):
        return None
    origin = rule_origin(policy.key, rule)
    return (
        UnresolvedAllow(origin, ports, any_peer=True)
        if rule.any_peer
        else UnresolvedAllow(origin, ports, cidrs=rule.cidrs)
    )


def _resolved(ports: Iterable[PortRange | NamedPort] | None, profile: Profile) -> Ports:
    """`ports` as numbers on this pod; a name that it does not declare for that protocol matches no port."""
    if ports is None:
        return None
    numeric: list[PortRange] = []
    for port in ports:
        if isinstance(port, PortRange):
            numeric.append(port)
            continue
        numeric += (
            PortRange(container_port.protocol, container_port.number, container_port.number)
            for container_port in profile.ports
            if container_port.name == port.name and container_port.protocol is port.protocol
        )
    return merged_ports(numeric)
