"""Resolves the policies of a node's view to permission groups of its pods, and which tenants' clients may connect.

`selection` decides from exact labels which policies select a local pod, `peers` which identities their peers are.
Pods with equal permissions share a group (`groups`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from romana_ovs.model.cluster import NO_TENANT, SegmentKey
from romana_ovs.model.errors import INTERNAL_ERRORS
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation
from romana_ovs.policy import groups, peers
from romana_ovs.policy.groups import HashedAllow, PodGroups
from romana_ovs.policy.resolve_cache import ResolveCache
from romana_ovs.policy.resolve_entries import AppliedPolicy, CachedProfile
from romana_ovs.policy.row_limit import limit_rows
from romana_ovs.policy.view import Allow, NodePermissions, NodeView, Origin, TenantAllow

__all__ = ["ISOLATION", "TENANT", "ResolveCache", "resolve"]

ISOLATION = "Isolation"
"""Kind of the origin of permissions by the isolation level, which is its name."""
TENANT = "Tenant"
"""Kind of the origin of a `TenantAllow`; its name is the server's tenant."""

_CLOSED = PodGroups(groups.server_spec((), (), ()), groups.client_spec((), (), deferred=False))
"""The groups of a pod that may neither send nor receive."""


def resolve(view: NodeView, cache: ResolveCache | None = None) -> NodePermissions:
    """The permissions of the local pods of `view`. A `cache` makes it faster and does not change the result."""
    cache = ResolveCache() if cache is None else cache
    profiles = cache.begin(view)
    specs: dict[int, PodGroups] = {}
    failed: dict[int, str] = {}
    for profile in profiles.values():
        if profile.number not in specs:
            try:
                specs[profile.number] = _pod_groups(profile, view, cache)
            except INTERNAL_ERRORS as error:  # An internal error closes only the pods of this profile.
                cache.forget(profile)
                specs[profile.number], failed[profile.number] = _CLOSED, repr(error)
    permissions = _node_permissions({key: specs[profile.number] for key, profile in profiles.items()}, view, cache)
    if failed:
        why = {key: failed[profile.number] for key, profile in profiles.items() if profile.number in failed}
        permissions = replace(permissions, failed=MappingProxyType(why))
    return limit_rows(permissions, view.settings.namespace_flows, cache.row_counts)


def _pod_groups(cached: CachedProfile, view: NodeView, cache: ResolveCache) -> PodGroups:
    segment = cached.profile.segment
    return cached.groups.get(
        (cache.applied_policies(cached), segment, view.segments.get(segment)),
        lambda applied, segment, segment_number: _groups_of(applied, segment, segment_number, view),
    )


def _groups_of(
    applied: tuple[AppliedPolicy, ...], segment: SegmentKey, segment_number: int | None, view: NodeView
) -> PodGroups:
    egress_isolated = any(policy.effect.isolates_egress for policy in applied)
    if segment.tenant == NO_TENANT and view.settings.isolation is not Isolation.NONE:
        # Pods without tenant get no permission: they communicate with their own node only.
        no_permissions = groups.client_spec((), (), deferred=False) if egress_isolated else None
        return PodGroups(groups.server_spec((), (), ()), no_permissions)
    if any(policy.effect.isolates_ingress for policy in applied):
        ingress: Iterable[HashedAllow] = [allow for policy in applied for allow in policy.ingress]
        rule_digests = [digest for policy in applied for digest in policy.rule_digests.ingress]
    else:
        by_isolation = groups.hashed(_isolation(segment, segment_number, view))
        ingress, rule_digests = [by_isolation], [by_isolation.digest]
    rule_digests += [digest for policy in applied for digest in policy.rule_digests.deferred_egress]
    server = groups.server_spec(
        ingress, (allow for policy in applied for allow in policy.deferred_egress), rule_digests
    )
    if not egress_isolated:
        return PodGroups(server, None)
    client = groups.client_spec(
        (allow for policy in applied for allow in policy.local_egress),
        (digest for policy in applied for digest in policy.rule_digests.local_egress),
        deferred=any(policy.effect.deferred for policy in applied),
    )
    return PodGroups(server, client)


def _isolation(segment: SegmentKey, segment_number: int | None, view: NodeView) -> Allow:
    """The isolation level as a permission, for a pod that no policy selects for ingress.

    Tenants need no test here: table Tenancy has dropped clients of other tenants.
    """
    level = view.settings.isolation
    origin = Origin(ISOLATION, name=level.value)
    if level is not Isolation.TIER or segment.tenant in view.settings.shared_tenants:
        return Allow(origin)
    own_segment = () if segment_number is None else (whole_segments(segment_number, 1),)
    return Allow(origin, identities=frozenset({NOT_A_POD, *own_segment}))


def _node_permissions(specs: Mapping[PodKey, PodGroups], view: NodeView, cache: ResolveCache) -> NodePermissions:
    servers = {pod_groups.server.content_digest: pod_groups.server for pod_groups in specs.values()}
    clients = {
        pod_groups.client.content_digest: pod_groups.client
        for pod_groups in specs.values()
        if pod_groups.client is not None
    }
    server_numbers, client_numbers = (
        groups.numbers({digest: spec.rules_digest for digest, spec in specs_of.items()})
        for specs_of in (servers, clients)
    )
    separate = view.settings.isolation is not Isolation.NONE
    return NodePermissions(
        members=MappingProxyType(
            {key: groups.membership(pod_groups, server_numbers, client_numbers) for key, pod_groups in specs.items()}
        ),
        servers=cache.server_groups(servers, server_numbers),
        clients=cache.client_groups(clients, client_numbers),
        tenancy=_tenancy(view) if separate else None,
        tenantless=peers.identity_blocks(NO_TENANT, view) if separate else (),
    )


def _tenancy(view: NodeView) -> tuple[TenantAllow, ...]:
    """For each local tenant the tenants whose clients may connect to its servers."""
    allows: list[TenantAllow] = []
    for tenant in sorted({pod.segment.tenant for pod in view.pods} - {NO_TENANT}):
        origin = Origin(TENANT, name=tenant)
        blocks = sorted(peers.identity_blocks(tenant, view))
        shared = tenant in view.settings.shared_tenants
        clients: list[IdentityMatch | None] = [None] if shared else [*blocks]
        allows += (TenantAllow(server, client, origin) for server in blocks for client in clients)
    return tuple(allows)
