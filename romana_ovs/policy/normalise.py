"""Converts every kind of policy to the normal form of `rules`.

Sources: Kubernetes networking.k8s.io/v1 NetworkPolicy; docs/design.md section 5 for Romana's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from romana_ovs.addressing.cidrs import merge_cidrs, subtract_cidrs
from romana_ovs.model.cluster import NO_TENANT, Cluster
from romana_ovs.model.labels import EVERYTHING, Selector
from romana_ovs.model.objects import (
    Direction,
    IpBlock,
    KubernetesPolicy,
    Policy,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Settings, TenantSource
from romana_ovs.policy.rules import NamedPort, NormalPolicy, NormalRule, PortRange, Scope

FIRST_PORT = 0
LAST_PORT = 65535


def normalise(policy: Policy, cluster: Cluster) -> NormalPolicy:
    """The normal form of `policy`; of `cluster` it reads settings and namespace labels only.

    A Romana policy without a tenant isolates the pods that it selects, of every tenant, and allows nothing.
    """
    if isinstance(policy, KubernetesPolicy):
        return _kubernetes(policy)
    return _romana(policy, cluster)


def remaining(block: IpBlock) -> tuple[IPv4Network, ...]:
    """The networks of `block` without its exceptions: exact, merged and sorted."""
    return subtract_cidrs(block.cidr, block.except_cidrs)


def merged_ports(ports: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """The same ports as sorted ranges that neither overlap nor touch."""
    merged: list[PortRange] = []
    for item in sorted(ports, key=lambda ports: (ports.protocol.number, ports.low, ports.high)):
        last = merged[-1] if merged else None
        if last is not None and last.protocol is item.protocol and item.low <= last.high + 1:
            merged[-1] = PortRange(last.protocol, last.low, max(last.high, item.high))
        else:
            merged.append(item)
    return tuple(merged)


def _kubernetes(policy: KubernetesPolicy) -> NormalPolicy:
    # Rules of a direction that is not in policyTypes have no effect.
    directed = ((Direction.INGRESS, policy.ingress), (Direction.EGRESS, policy.egress))
    rules = tuple(
        _kubernetes_rule(rule, direction=direction, index=index, namespace=policy.namespace)
        for direction, listed in directed
        if direction in policy.directions
        for index, rule in enumerate(listed)
    )
    subject = Scope(namespace=policy.namespace, pods=policy.selector)
    return NormalPolicy(policy.key, subject, policy.directions, rules)


def _kubernetes_rule(rule: PolicyRule, *, direction: Direction, index: int, namespace: str) -> NormalRule:
    blocks = [network for peer in rule.peers for network in _networks(peer)]
    scopes = [_scope(peer, namespace) for peer in rule.peers]
    return NormalRule(
        direction,
        index,
        any_peer=not rule.peers,
        scopes=tuple(dict.fromkeys(scope for scope in scopes if scope is not None)),
        cidrs=merge_cidrs(blocks),
        ports=_ports(rule.ports),
    )


def _networks(peer: PolicyPeer) -> tuple[IPv4Network, ...]:
    # An ipBlock beside selectors is invalid and matches nothing.
    if peer.ip_block is None or peer.pods is not None or peer.namespaces is not None:
        return ()
    return remaining(peer.ip_block)


def _scope(peer: PolicyPeer, namespace: str) -> Scope | None:
    if peer.ip_block is not None or (peer.pods is None and peer.namespaces is None):
        return None
    pods = EVERYTHING if peer.pods is None else peer.pods
    if peer.namespaces is None:
        return Scope(namespace=namespace, pods=pods)
    return Scope(namespaces=peer.namespaces, pods=pods)


def _ports(ports: tuple[PolicyPort, ...]) -> tuple[PortRange | NamedPort, ...] | None:
    if not ports:
        return None
    ranges: list[PortRange] = []
    names: dict[NamedPort, None] = {}
    for port in ports:
        if isinstance(port.port, int):
            high = port.port if port.end is None else port.end
            ranges += [PortRange(port.protocol, port.port, high)] if port.port <= high else []
        elif port.end is not None:
            continue  # endPort without a number is invalid and matches no port
        elif port.port is None:
            ranges.append(PortRange(port.protocol, FIRST_PORT, LAST_PORT))
        else:
            names[NamedPort(port.protocol, port.port)] = None
    return (*merged_ports(ranges), *names)


def _romana(policy: RomanaPolicy, cluster: Cluster) -> NormalPolicy:
    directions = frozenset({Direction.INGRESS})
    tenant = cluster.tenant_of_policy(policy)
    if tenant == NO_TENANT:
        return NormalPolicy(policy.key, Scope(namespace=policy.namespace, pods=policy.selector), directions)
    subject = Scope(namespace=policy.namespace, pods=policy.selector, tenant=tenant)
    rules = tuple(
        _romana_rule(rule, index=index, tenant=tenant, settings=cluster.settings)
        for index, rule in enumerate(policy.rules)
    )
    return NormalPolicy(policy.key, subject, directions, rules)


def _romana_rule(rule: RomanaRule, *, index: int, tenant: str, settings: Settings) -> NormalRule:
    scopes = dict.fromkeys(_within(tenant, source, settings) for source in rule.sources)
    return NormalRule(
        Direction.INGRESS, index, any_peer=not rule.sources, scopes=tuple(scopes), ports=_ports(rule.ports)
    )


def _within(tenant: str, pods: Selector, settings: Settings) -> Scope:
    """Pods of `tenant` in any namespace, limited to namespaces that can have any.

    A narrower scope splits classes in fewer namespaces.
    """
    if settings.tenant_source is TenantSource.NAMESPACE:
        return Scope(namespace=tenant, pods=pods, tenant=tenant)
    if settings.tenant_source is TenantSource.NAMESPACE_LABEL:
        return Scope(namespaces=Selector.of({settings.tenant_key: tenant}), pods=pods, tenant=tenant)
    return Scope(pods=pods, tenant=tenant)
