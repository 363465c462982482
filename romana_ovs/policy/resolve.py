"""Resolves the policies of a node's view to verdicts: permission groups of its pods, and which tenants are separated.

`selection` decides from exact labels which policies select a local pod, `peers` which identities their peers are.
Pods with equal permissions share a group (`groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.model.cluster import NO_TENANT, SegmentKey
from romana_ovs.model.errors import INTERNAL_ERRORS
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation
from romana_ovs.policy import groups, peers
from romana_ovs.policy.groups import GroupSpec, HashedAllow, PodGroups
from romana_ovs.policy.namespace_limit import limit_rows
from romana_ovs.policy.peers import VisibleTenants
from romana_ovs.policy.resolve_cache import AppliedPolicy, PolicyMemo, ProfileMemo, ResolveCache
from romana_ovs.policy.selection import Profile
from romana_ovs.policy.view import Allow, LocalPod, NodeView, Origin, TenantAllow, Verdicts

__all__ = ["ISOLATION", "TENANT", "ResolveCache", "resolve"]

ISOLATION = "Isolation"
"""Kind of the origin of permissions by the isolation level, which is its name."""
TENANT = "Tenant"
"""Kind of the origin of a `TenantAllow`; its name is the server's tenant."""

Group = TypeVar("Group")
_CLOSED = PodGroups(groups.server_spec((), (), ()), groups.client_spec((), (), deferred=False))
"""The groups of a pod that may neither send nor receive."""


def resolve(view: NodeView, cache: ResolveCache | None = None) -> Verdicts:
    """The verdicts for the local pods of `view`. A `cache` makes it faster and does not change the result."""
    cache = ResolveCache() if cache is None else cache
    cache.invalidate(view)
    memos = cache.policies(view.policies)
    by_address = any(memo.depends_on_address for memo in memos)
    profiles = {pod.key: cache.profile(_profile(pod, view, by_address=by_address)) for pod in view.pods}
    cache.keep_profiles({profile.number for profile in profiles.values()})
    specs: dict[int, PodGroups] = {}
    failed: dict[int, str] = {}
    for profile in profiles.values():
        if profile.number not in specs:
            try:
                specs[profile.number] = _pod_groups(profile, view, cache)
            except INTERNAL_ERRORS as error:  # An internal error closes only the pods of this profile.
                cache.forget(profile)
                specs[profile.number], failed[profile.number] = _CLOSED, repr(error)
    verdicts = _verdicts({key: specs[profile.number] for key, profile in profiles.items()}, view, cache)
    if failed:
        why = {key: failed[profile.number] for key, profile in profiles.items() if profile.number in failed}
        verdicts = replace(verdicts, failed=MappingProxyType(why))
    return limit_rows(verdicts, view.settings.namespace_flows, cache.row_counts)


def _profile(pod: LocalPod, view: NodeView, *, by_address: bool) -> Profile:
    return Profile(
        namespace=pod.namespace,
        namespace_labels=peers.namespace_labels(view.namespaces, pod.namespace),
        labels=pod.labels,
        segment=pod.segment,
        ports=pod.ports,
        address=pod.address if by_address else None,
    )


def _pod_groups(profile: ProfileMemo, view: NodeView, cache: ResolveCache) -> PodGroups:
    def select(memos: tuple[PolicyMemo, ...], visible: VisibleTenants) -> tuple[AppliedPolicy, ...]:
        applied = (cache.applied(memo, profile, visible) for memo in memos)
        return tuple(policy for policy in applied if policy is not None)

    memos = cache.policies_in(profile.profile.namespace)
    applied = profile.applied.get((memos, cache.visible(profile.viewer)), select)
    segment = profile.profile.segment
    return profile.groups.get(
        (applied, segment, view.segments.get(segment)),
        lambda applied, segment, own: _groups_of(applied, segment, own, view),
    )


def _groups_of(applied: tuple[AppliedPolicy, ...], segment: SegmentKey, own: int | None, view: NodeView) -> PodGroups:
    selected = any(policy.effect.isolates_egress for policy in applied)
    if segment.tenant == NO_TENANT and view.settings.isolation is not Isolation.NONE:
        nothing = groups.client_spec((), (), deferred=False) if selected else None
        return PodGroups(groups.server_spec((), (), ()), nothing)
    if any(policy.effect.isolates_ingress for policy in applied):
        ingress: Iterable[HashedAllow] = [allow for policy in applied for allow in policy.ingress]
        keys = [key for policy in applied for key in policy.keys.ingress]
    else:
        level = groups.hashed(_isolation(segment, own, view))
        ingress, keys = [level], [level.digest]
    keys += [key for policy in applied for key in policy.keys.deferred_egress]
    server = groups.server_spec(ingress, (allow for policy in applied for allow in policy.deferred_egress), keys)
    if not selected:
        return PodGroups(server, None)
    client = groups.client_spec(
        (allow for policy in applied for allow in policy.accepted),
        (key for policy in applied for key in policy.keys.accepted),
        deferred=any(policy.effect.deferred for policy in applied),
    )
    return PodGroups(server, client)


def _isolation(segment: SegmentKey, own: int | None, view: NodeView) -> Allow:
    """The isolation level as a permission, for a pod that no policy selects for ingress; Tenancy comes before it."""
    level = view.settings.isolation
    origin = Origin(ISOLATION, name=level.value)
    if level is not Isolation.TIER or segment.tenant in view.settings.shared_tenants:
        return Allow(origin)
    same = () if own is None else (whole_segments(own, 1),)
    return Allow(origin, identities=frozenset({NOT_A_POD, *same}))


def _verdicts(specs: Mapping[PodKey, PodGroups], view: NodeView, cache: ResolveCache) -> Verdicts:
    servers = {pod_groups.server.digest: pod_groups.server for pod_groups in specs.values()}
    clients = {
        pod_groups.client.digest: pod_groups.client for pod_groups in specs.values() if pod_groups.client is not None
    }
    server_numbers, client_numbers = groups.numbers(_keys(servers)), groups.numbers(_keys(clients))
    cache.servers = _reuse_or_make(servers, server_numbers, known=cache.servers, make=groups.server_group)
    cache.clients = _reuse_or_make(clients, client_numbers, known=cache.clients, make=groups.client_group)
    separate = view.settings.isolation is not Isolation.NONE
    return Verdicts(
        members=MappingProxyType(
            {key: groups.membership(pod_groups, server_numbers, client_numbers) for key, pod_groups in specs.items()}
        ),
        servers=tuple(sorted(cache.servers.values(), key=lambda group: group.number)),
        clients=tuple(sorted(cache.clients.values(), key=lambda group: group.number)),
        tenancy=_tenancy(view) if separate else None,
        tenantless=peers.identity_blocks(NO_TENANT, view) if separate else (),
    )


def _keys(specs: Mapping[bytes, GroupSpec]) -> dict[bytes, bytes]:
    return {digest: spec.key for digest, spec in specs.items()}


def _reuse_or_make(
    specs: Mapping[bytes, GroupSpec],
    numbers: Mapping[bytes, int],
    *,
    known: Mapping[tuple[bytes, int], Group],
    make: Callable[[GroupSpec, int], Group],
) -> dict[tuple[bytes, int], Group]:
    """The groups of all specs; known ones are the same objects as before."""
    specs_by_key = {(digest, numbers[digest]): spec for digest, spec in specs.items()}
    return {key: known[key] if key in known else make(spec, key[1]) for key, spec in specs_by_key.items()}


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
