"""Keeps the results of `resolve` for one view of a node, for use with the next one.

The cache never changes a result. Every value is kept with the inputs from which it was computed (model/derived.py).
Results for a policy are dropped with the policy object, and computed again when another set of tenants is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, NamedTuple

from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.derived import Derived, DerivedMap, keep_equal
from romana_ovs.model.identity import IdentityMatch, segment_of
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy import peers
from romana_ovs.policy.groups import Digest, HashedAllow, PodGroups, grants_key, hashed
from romana_ovs.policy.namespace_limit import RowCountCache
from romana_ovs.policy.peers import TenantIds, VisibleTenants
from romana_ovs.policy.rules import NormalPolicy, Scope
from romana_ovs.policy.selection import Grant, PolicyEffect, Profile, depends_on_address, only_namespace, policy_effect
from romana_ovs.policy.view import Allow, ClassInfo, ClientGroup, NodeView, ServerGroup

Viewer = str | None
"""The tenant of servers that only their own tenant's pods may connect to; None if all tenants' pods may."""


class GroupKeys(NamedTuple):
    """The keys of one policy's grants, for group numbers; empty where it grants nothing."""

    ingress: tuple[Digest, ...]
    deferred_egress: tuple[Digest, ...]
    accepted: tuple[Digest, ...]

    @classmethod
    def of(cls, effect: PolicyEffect, viewer: Viewer) -> GroupKeys:
        """The keys of an effect with the peers that `viewer` may see."""
        kinds = {"ingress": effect.ingress, "deferred egress": effect.deferred_egress, "accepted": effect.accepted}
        return cls(*((grants_key(kind, grants, viewer),) if grants else () for kind, grants in kinds.items()))


@dataclass(slots=True, eq=False)
class AppliedPolicy:
    """A policy's effect on one profile, with peers as identities among `visible`. Compared by identity.

    It holds its input, `visible`, and so is a cache entry without a wrapper: one loop passes policies times profiles.
    """

    effect: PolicyEffect
    visible: VisibleTenants
    ingress: tuple[HashedAllow, ...]
    deferred_egress: tuple[HashedAllow, ...]
    accepted: tuple[HashedAllow, ...]
    keys: GroupKeys


@dataclass(slots=True, eq=False)
class PolicyMemo:
    """One policy, its effect by profile number, and the peers of its scopes by `id` of the scope and viewer."""

    policy: NormalPolicy
    depends_on_address: bool
    namespace: str | None
    """The only namespace in which it has an effect; None for any."""
    applied: dict[int, AppliedPolicy | None] = field(default_factory=dict)
    peers: DerivedMap[tuple[int, Viewer], frozenset[IdentityMatch]] = field(default_factory=DerivedMap)


@dataclass(slots=True, eq=False)
class ProfileMemo:
    """A profile with its number in the cache, the policies that apply to it, and the groups of its pods."""

    profile: Profile
    number: int
    viewer: Viewer
    applied: Derived[tuple[AppliedPolicy, ...]] = field(default_factory=Derived)
    groups: Derived[PodGroups] = field(default_factory=lambda: Derived(by_value=True))


class ResolveCache:
    """Results of earlier calls of `resolve` for one node; for one thread at a time.

    Policies are compared as objects: a view with equal but new objects gets the same result, only not faster.
    """

    def __init__(self) -> None:
        self.servers: dict[tuple[bytes, int], ServerGroup] = {}
        self.clients: dict[tuple[bytes, int], ClientGroup] = {}
        self.row_counts: RowCountCache = DerivedMap()
        self._policies: dict[int, PolicyMemo] = {}
        self._listed: tuple[PolicyMemo, ...] = ()
        self._by_namespace: dict[str | None, list[tuple[int, PolicyMemo]]] = {}
        self._in_namespace: DerivedMap[str, tuple[PolicyMemo, ...]] = DerivedMap(by_value=True)
        self._profiles: dict[Profile, ProfileMemo] = {}
        self._next_profile = 0
        self._settings = Settings()
        self._inputs: tuple[Mapping[Any, Any], ...] = ()
        self._classes: Mapping[int, ClassInfo] = {}
        self._tenants: dict[str, TenantIds] = {}
        self._visible: dict[Viewer, VisibleTenants] = {}

    def invalidate(self, view: NodeView) -> None:
        """Drops what does not hold for `view`. To be called before all other methods."""
        inputs = (view.tenants, view.segments, view.namespaces)
        if self._settings != view.settings:
            self._settings = view.settings
            self._policies, self._profiles = {}, {}
            self._tenants, self._visible = {}, {}
        elif self._inputs == inputs:
            if self._classes is not view.classes:
                self._rebuild(view, _tenants_of(_differing(self._classes, view.classes), view))
            return
        self._inputs = inputs
        self._rebuild(view, None)

    def _rebuild(self, view: NodeView, tenants: set[str] | None) -> None:
        """Rebuilds `tenants` (None: all) and every set of visible tenants; equal results stay the same objects."""
        self._classes = view.classes
        kept = {} if tenants is None else self._tenants
        known = self._tenants
        fresh = peers.tenants_of(view, tenants)
        self._tenants = kept | {name: keep_equal(known.get(name, new), new) for name, new in fresh.items()}
        for viewer, old in list(self._visible.items()):
            built = self._build(viewer)
            unchanged = len(built.tenants) == len(old.tenants) and all(
                old.tenants.get(tenant) is each for tenant, each in built.tenants.items()
            )
            self._visible[viewer] = old if unchanged else built

    def policies(self, listed: Iterable[NormalPolicy]) -> tuple[PolicyMemo, ...]:
        """The cached policies, in their order; all others are dropped.

        It is the same tuple object as last time while the policies are the same objects.
        """
        before, self._listed = self._listed, keep_equal(self._listed, tuple(map(self._policy, listed)))
        if len(self._listed) != len(self._policies):
            self._policies = {id(memo.policy): memo for memo in self._listed}
        if self._listed is not before:
            self._by_namespace = {}
            for place, memo in enumerate(self._listed):
                self._by_namespace.setdefault(memo.namespace, []).append((place, memo))
        return self._listed

    def policies_in(self, namespace: str) -> tuple[PolicyMemo, ...]:
        """The cached policies that may have an effect on pods of `namespace`, in their order.

        It is the same tuple object as last time while these policies are the same objects.
        """
        places = sorted((*self._by_namespace.get(namespace, ()), *self._by_namespace.get(None, ())), key=itemgetter(0))
        return self._in_namespace.get(namespace, tuple(memo for _, memo in places), lambda *memos: memos)

    def profile(self, profile: Profile) -> ProfileMemo:
        """The cached `profile`."""
        memo = self._profiles.get(profile)
        if memo is None:
            memo = ProfileMemo(profile, self._next_profile, self._viewer(profile.segment.tenant))
            self._next_profile += 1
            self._profiles[profile] = memo
        return memo

    def forget(self, profile: ProfileMemo) -> None:
        """Drops the results for `profile`, so that they are computed anew next time."""
        profile.applied, profile.groups = Derived(), Derived(by_value=True)
        for policy in self._policies.values():
            policy.applied.pop(profile.number, None)

    def keep_profiles(self, used: set[int]) -> None:
        """Drops every profile whose number is not in `used`."""
        gone = [memo for memo in self._profiles.values() if memo.number not in used]
        for memo in gone:
            del self._profiles[memo.profile]
            for policy in self._policies.values():
                policy.applied.pop(memo.number, None)
        self._in_namespace.retain({memo.profile.namespace for memo in self._profiles.values()})

    def visible(self, viewer: Viewer) -> VisibleTenants:
        """The tenants that `viewer` may see: the same object until one of them changes."""
        if viewer not in self._visible:
            self._visible[viewer] = self._build(viewer)
        return self._visible[viewer]

    def applied(self, memo: PolicyMemo, profile: ProfileMemo, visible: VisibleTenants) -> AppliedPolicy | None:
        """The effect of the policy on pods of the profile; None if it has none."""
        known = memo.applied.get(profile.number)
        if known is not None and known.visible is visible:
            return known
        if known is None and profile.number in memo.applied:
            return None
        effect = known.effect if known is not None else policy_effect(memo.policy, profile.profile)
        made = None
        if effect is not None:
            keys = known.keys if known is not None else GroupKeys.of(effect, profile.viewer)
            made = self._apply(memo, effect, keys, profile.viewer, visible)
        memo.applied[profile.number] = made
        return made

    def _policy(self, policy: NormalPolicy) -> PolicyMemo:
        memo = self._policies.get(id(policy))
        if memo is None:
            memo = PolicyMemo(policy, depends_on_address(policy), only_namespace(policy))
            self._policies[id(policy)] = memo
        return memo

    def _viewer(self, tenant: str) -> Viewer:
        all_tenants = self._settings.isolation is Isolation.NONE or tenant in self._settings.shared_tenants - {
            NO_TENANT
        }
        return None if all_tenants else tenant

    def _build(self, viewer: Viewer) -> VisibleTenants:
        if viewer is None:
            return peers.all_tenants(self._tenants, self._settings)
        return peers.own_tenant(viewer, self._tenants)

    def _apply(
        self, memo: PolicyMemo, effect: PolicyEffect, keys: GroupKeys, viewer: Viewer, visible: VisibleTenants
    ) -> AppliedPolicy:
        def entries(grants: Iterable[Grant]) -> tuple[HashedAllow, ...]:
            allows = (self._allow(memo, grant, viewer, visible) for grant in grants)
            return tuple(hashed(allow) for allow in allows if allow is not None)

        return AppliedPolicy(
            effect, visible, entries(effect.ingress), entries(effect.deferred_egress), entries(effect.accepted), keys
        )

    def _allow(self, memo: PolicyMemo, grant: Grant, viewer: Viewer, visible: VisibleTenants) -> Allow | None:
        if grant.any_peer:
            return Allow(grant.origin, ports=grant.ports)
        peer_sets = [self._peers(memo, scope, viewer, visible) for scope in grant.scopes]
        identities = peer_sets[0] if len(peer_sets) == 1 else frozenset().union(*peer_sets)
        if not identities and not grant.cidrs:
            return None
        return Allow(grant.origin, identities=identities, cidrs=grant.cidrs, ports=grant.ports)

    @staticmethod
    def _peers(memo: PolicyMemo, scope: Scope, viewer: Viewer, visible: VisibleTenants) -> frozenset[IdentityMatch]:
        return memo.peers.get((id(scope), viewer), (scope, visible), peers.identities)


def _differing(old: Mapping[int, ClassInfo], new: Mapping[int, ClassInfo]) -> set[int]:
    """The identities that only one of two sets of classes has, or whose objects differ."""
    return (old.keys() ^ new.keys()) | {number for number, info in new.items() if old.get(number) is not info}


def _tenants_of(identities: set[int], view: NodeView) -> set[str]:
    segments = {segment_of(number) for number in identities}
    return {key.tenant for key, number in view.segments.items() if number in segments}
