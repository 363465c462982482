"""From policies to verdicts: what every pod of one node may receive, and what its own node decides of what it sends.

Who is selected is decided from a local pod's exact labels (`selection`), who its peers are from identities
(`peers`); pods that come out alike share a group (`groups`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.model.cluster import NO_TENANT, SegmentKey
from romana_ovs.model.errors import MISTAKES
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, whole_segments
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation
from romana_ovs.policy import groups, peers
from romana_ovs.policy.budget import bounded
from romana_ovs.policy.groups import Draft, Drafts, Entry
from romana_ovs.policy.resolve_cache import PolicyMemo, ProfileMemo, ResolveCache, Share
from romana_ovs.policy.selection import Profile
from romana_ovs.policy.view import Allow, LocalPod, NodeView, Origin, TenantAllow, Verdicts

__all__ = ["ISOLATION", "TENANT", "ResolveCache", "resolve"]

ISOLATION = "Isolation"
"""Kind of the origin of what the isolation level admits; its name is the level."""
TENANT = "Tenant"
"""Kind of the origin of a tenant pass; its name is the server's tenant."""

Group = TypeVar("Group")
_CLOSED = Drafts(groups.server_draft((), (), ()), groups.client_draft((), (), deferred=False))
"""The groups of a pod that nothing is admitted to, or from."""


def resolve(view: NodeView, cache: ResolveCache | None = None) -> Verdicts:
    """What the policies of `view` mean for its local pods: the same with and without a `cache`, only sooner."""
    cache = ResolveCache() if cache is None else cache
    cache.enter(view)
    memos = cache.policies(view.policies)
    by_address = any(memo.asks_for_address for memo in memos)
    profiles = {pod.key: cache.profile(_profile(pod, view, by_address=by_address)) for pod in view.pods}
    cache.keep_profiles({profile.number for profile in profiles.values()})
    drafts: dict[int, Drafts] = {}
    failed: dict[int, str] = {}
    for profile in profiles.values():
        if profile.number not in drafts:
            try:
                drafts[profile.number] = _drafts(profile, memos, view, cache)
            except MISTAKES as error:  # About some pods it closes these, and nobody else's suffer from it.
                cache.forget(profile)
                drafts[profile.number], failed[profile.number] = _CLOSED, repr(error)
    verdicts = _verdicts({key: drafts[profile.number] for key, profile in profiles.items()}, view, cache)
    if failed:
        why = {key: failed[profile.number] for key, profile in profiles.items() if profile.number in failed}
        verdicts = replace(verdicts, failed=MappingProxyType(why))
    return bounded(verdicts, view.settings.namespace_flows, cache.charges)


def _profile(pod: LocalPod, view: NodeView, *, by_address: bool) -> Profile:
    return Profile(
        namespace=pod.namespace,
        namespace_labels=peers.namespace_labels(view.namespaces, pod.namespace),
        labels=pod.labels,
        segment=pod.segment,
        ports=pod.ports,
        address=pod.address if by_address else None,
    )


def _drafts(profile: ProfileMemo, memos: list[PolicyMemo], view: NodeView, cache: ResolveCache) -> Drafts:
    area = cache.area(profile.area)
    own = view.segments.get(profile.profile.segment)
    if profile.drafts is not None and profile.of is not None:
        listed, drawn, number = profile.of
        if listed is memos and drawn is area and number == own:
            return profile.drafts
    profile.of = (memos, area, own)
    shares = [share for memo in memos if (share := cache.share(memo, profile, area)) is not None]
    basis = (own, *shares)
    if profile.drafts is None or profile.basis != basis:
        profile.drafts = _drafted(shares, profile.profile.segment, own, view)
        profile.basis = basis
    return profile.drafts


def _drafted(shares: list[Share], segment: SegmentKey, own: int | None, view: NodeView) -> Drafts:
    selected = any(share.means.isolates_egress for share in shares)
    if segment.tenant == NO_TENANT and view.settings.isolation is not Isolation.NONE:
        nothing = groups.client_draft((), (), deferred=False) if selected else None
        return Drafts(groups.server_draft((), (), ()), nothing)
    if any(share.means.isolates_ingress for share in shares):
        ingress: Iterable[Entry] = [each for share in shares for each in share.ingress]
        names = [name for share in shares for name in share.names.ingress]
    else:
        level = groups.entry(_isolation(segment, own, view))
        ingress, names = [level], [level.digest]
    names += [name for share in shares for name in share.names.deferred_egress]
    server = groups.server_draft(ingress, (each for share in shares for each in share.deferred_egress), names)
    if not selected:
        return Drafts(server, None)
    client = groups.client_draft(
        (each for share in shares for each in share.accepted),
        (name for share in shares for name in share.names.accepted),
        deferred=any(share.means.deferred for share in shares),
    )
    return Drafts(server, client)


def _isolation(segment: SegmentKey, own: int | None, view: NodeView) -> Allow:
    """What the isolation level admits to a pod that no policy selects for ingress; tenants are separate anyway."""
    level = view.settings.isolation
    origin = Origin(ISOLATION, name=level.value)
    if level is not Isolation.TIER or segment.tenant in view.settings.shared_tenants:
        return Allow(origin)
    same = () if own is None else (whole_segments(own, 1),)
    return Allow(origin, identities=frozenset({NOT_A_POD, *same}))


def _verdicts(drafts: Mapping[PodKey, Drafts], view: NodeView, cache: ResolveCache) -> Verdicts:
    servers = {each.server.digest: each.server for each in drafts.values()}
    clients = {each.client.digest: each.client for each in drafts.values() if each.client is not None}
    server_numbers, client_numbers = groups.numbers(_names(servers)), groups.numbers(_names(clients))
    cache.servers = _made(servers, server_numbers, known=cache.servers, make=groups.server_group)
    cache.clients = _made(clients, client_numbers, known=cache.clients, make=groups.client_group)
    separate = view.settings.isolation is not Isolation.NONE
    return Verdicts(
        members=MappingProxyType(
            {key: groups.membership(each, server_numbers, client_numbers) for key, each in drafts.items()}
        ),
        servers=tuple(sorted(cache.servers.values(), key=lambda group: group.number)),
        clients=tuple(sorted(cache.clients.values(), key=lambda group: group.number)),
        tenancy=_tenancy(view) if separate else None,
        tenantless=peers.runs_of(NO_TENANT, view) if separate else (),
    )


def _names(drafts: Mapping[bytes, Draft]) -> dict[bytes, bytes]:
    return {digest: draft.name for digest, draft in drafts.items()}


def _made(
    drafts: Mapping[bytes, Draft],
    numbers: Mapping[bytes, int],
    *,
    known: Mapping[tuple[bytes, int], Group],
    make: Callable[[Draft, int], Group],
) -> dict[tuple[bytes, int], Group]:
    """The groups of all drafts, those that are known already as the same objects."""
    wanted = {(digest, numbers[digest]): draft for digest, draft in drafts.items()}
    return {key: known[key] if key in known else make(draft, key[1]) for key, draft in wanted.items()}


def _tenancy(view: NodeView) -> tuple[TenantAllow, ...]:
    """For every local tenant, whose clients its servers may consider."""
    found: list[TenantAllow] = []
    for tenant in sorted({pod.segment.tenant for pod in view.pods} - {NO_TENANT}):
        origin = Origin(TENANT, name=tenant)
        runs = sorted(peers.runs_of(tenant, view))
        shared = tenant in view.settings.shared_tenants
        clients: list[IdentityMatch | None] = [None] if shared else [*runs]
        found += (TenantAllow(server, client, origin) for server in runs for client in clients)
    return tuple(found)
