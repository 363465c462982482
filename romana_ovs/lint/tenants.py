"""Checks rules whose peers are pods of other tenants, which no policy connects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from romana_ovs.lint.context import LintContext, PolicyObject
from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Direction, Pod, PolicyKey, PolicyPeer
from romana_ovs.model.settings import Isolation, TenantSource
from romana_ovs.model.syntax import joined


def separate_tenants(context: LintContext) -> Iterator[Problem]:
    """Peers that mean only pods of tenants from which the policy's pods are separate; a note when it is some pods."""
    if context.cluster.settings.isolation is Isolation.NONE:
        return
    known: dict[tuple[PolicyKey | str, PolicyPeer], frozenset[str]] = {}
    for policy in context.policies:
        own = _tenants(context, policy.pods)
        if not own or NO_TENANT in own:
            continue  # pods without a tenant are a finding of their own
        for rule in policy.rules():
            for index, peer in enumerate(rule.peers):
                own_namespace = policy.namespace if peer.namespaces is None else ""
                key = (policy.policy.key if rule.romana else own_namespace, peer)
                if key not in known:
                    known[key] = _tenants(context, context.peer_pods(policy.policy, peer))
                yield from _peer(context, policy, rule.peer_path(index), rule.direction, (own, known[key]))


def _tenants(context: LintContext, pods: Iterable[Pod]) -> frozenset[str]:
    return frozenset(context.cluster.tenant_of(pod) for pod in pods if pod.networked)


def _peer(
    context: LintContext,
    policy: PolicyObject,
    path: str,
    direction: Direction,
    tenants: tuple[frozenset[str], frozenset[str]],
) -> Iterator[Problem]:
    """The finding about a peer whose pods are of the second of `tenants`; those of the policy are of the first."""
    own, meant = tenants
    shared = context.cluster.settings.shared_tenants
    # Tenants separate two pods unless they have the same one, or the server's is shared (docs/design.md section 5).
    if direction is Direction.INGRESS:
        separated = {tenant for tenant in meant if not own & (shared | {tenant})}
        servers = own
    else:
        separated = {tenant for tenant in meant - shared if tenant not in own}
        servers = frozenset(separated)
    if not separated or NO_TENANT in separated:
        return
    setting = _setting(context, sorted(servers))
    who = f"tenant{'s' if len(separated) > 1 else ''} {joined(sorted(separated))}"
    if separated == meant:
        reason = f"can open nothing: its pods belong to {who}, and no policy opens a path between tenants; {setting}"
        yield policy.warning(path, reason)
    else:
        yield policy.note(path, f"opens nothing for pods of {who}: no policy opens a path between tenants; {setting}")


def _setting(context: LintContext, servers: list[str]) -> str:
    """The settings of romana.conf with which the path would open."""
    settings = context.cluster.settings
    shared = ", ".join([*sorted(settings.shared_tenants), *servers])
    ways = [f"shared_tenants = {shared}", "isolation = none"]
    if settings.tenant_source is TenantSource.NAMESPACE:
        ways.append("tenant_source = namespace-label:KEY with the same label on both namespaces")
    return f"in romana.conf: {' or '.join(ways)}"
