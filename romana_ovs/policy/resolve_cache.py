"""Keeps the results of `resolve` for one view of a node, for use with the next one.

The cache never changes a result. Every value is kept with the inputs from which it was computed (model/derived.py).
Results for a policy are dropped with the policy object, and computed again when another set of tenants is visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import Any

from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.derived import Derived, DerivedMap, keep_equal
from romana_ovs.model.identity import IdentityMatch, segment_of
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy import peers
from romana_ovs.policy.groups import Digest, GroupSpec, HashedAllow, client_group, hashed, reuse_or_make, server_group
from romana_ovs.policy.peers import TenantIds, VisibleTenants
from romana_ovs.policy.resolve_entries import AppliedPolicy, CachedPolicy, CachedProfile, RuleDigests, Viewer
from romana_ovs.policy.row_limit import RowCountCache
from romana_ovs.policy.rules import NormalPolicy, Scope
from romana_ovs.policy.selection import (
    PolicyEffect,
    Profile,
    UnresolvedAllow,
    depends_on_address,
    policy_effect,
    sole_namespace_affected,
)
from romana_ovs.policy.view import Allow, ClassInfo, ClientGroup, LocalPod, NodeView, ServerGroup


class ResolveCache:
    """Results of earlier calls of `resolve` for one node; for one thread at a time.

    Policies are compared as objects: a view with equal but new objects gets the same result, only not faster.
    """

    def __init__(self) -> None:
        self._servers: dict[tuple[Digest, int], ServerGroup] = {}
        self._clients: dict[tuple[Digest, int], ClientGroup] = {}
        self.row_counts: RowCountCache = DerivedMap()
        self._policies: dict[int, CachedPolicy] = {}
        self._listed: tuple[CachedPolicy, ...] = ()
        self._by_namespace: dict[str | None, list[tuple[int, CachedPolicy]]] = {}
        self._in_namespace: DerivedMap[str, tuple[CachedPolicy, ...]] = DerivedMap(by_value=True)
        self._profiles: dict[Profile, CachedProfile] = {}
        self._next_profile = 0
        self._settings = Settings()
        self._inputs: tuple[Mapping[Any, Any], ...] = ()
        self._classes: Mapping[int, ClassInfo] = {}
        self._tenants: dict[str, TenantIds] = {}
        self._visible: dict[Viewer, VisibleTenants] = {}

    def begin(self, view: NodeView) -> dict[PodKey, CachedProfile]:
        """Drops what does not hold for `view`, and returns the profile of each of its pods.

        To be called before all other methods.
        """
        self._invalidate(view)
        self.update_policies(view.policies)
        by_address = any(cached.depends_on_address for cached in self._listed)
        profiles = {pod.key: self._profile(_profile(pod, view, by_address=by_address)) for pod in view.pods}
        self._keep_profiles({cached.number for cached in profiles.values()})
        return profiles

    def applied_policies(self, cached: CachedProfile) -> tuple[AppliedPolicy, ...]:
        """The policies with an effect on pods of this profile, in their order."""

        def select(policies: tuple[CachedPolicy, ...], visible: VisibleTenants) -> tuple[AppliedPolicy, ...]:
            applied = (self._applied(policy, cached, visible) for policy in policies)
            return tuple(policy for policy in applied if policy is not None)

        policies = self.policies_in(cached.profile.namespace)
        return cached.policies.get((policies, self._visible_to(cached.viewer)), select)

    def server_groups(
        self, specs: Mapping[Digest, GroupSpec], numbers: Mapping[Digest, int]
    ) -> tuple[ServerGroup, ...]:
        """The server groups of all specs, by number; unchanged ones are the same objects as before."""
        self._servers = reuse_or_make(specs, numbers, known=self._servers, make=server_group)
        return tuple(sorted(self._servers.values(), key=lambda group: group.number))

    def client_groups(
        self, specs: Mapping[Digest, GroupSpec], numbers: Mapping[Digest, int]
    ) -> tuple[ClientGroup, ...]:
        """The client groups of all specs, as `server_groups`."""
        self._clients = reuse_or_make(specs, numbers, known=self._clients, make=client_group)
        return tuple(sorted(self._clients.values(), key=lambda group: group.number))

    def _invalidate(self, view: NodeView) -> None:
        """Drops what does not hold for `view`."""
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

    def update_policies(self, listed: Iterable[NormalPolicy]) -> None:
        """Sets `_listed` to the cached policies, in their order; all others are dropped.

        It is the same tuple object as last time while the policies are the same objects.
        """
        before, self._listed = self._listed, keep_equal(self._listed, tuple(map(self._policy, listed)))
        if len(self._listed) != len(self._policies):
            self._policies = {id(cached.policy): cached for cached in self._listed}
        if self._listed is not before:
            self._by_namespace = {}
            for place, cached in enumerate(self._listed):
                self._by_namespace.setdefault(cached.namespace, []).append((place, cached))

    def policies_in(self, namespace: str) -> tuple[CachedPolicy, ...]:
        """The cached policies that may have an effect on pods of `namespace`, in their order.

        It is the same tuple object as last time while these policies are the same objects.
        """
        places = sorted((*self._by_namespace.get(namespace, ()), *self._by_namespace.get(None, ())), key=itemgetter(0))
        return self._in_namespace.get(namespace, tuple(cached for _, cached in places), lambda *memos: memos)

    def _profile(self, profile: Profile) -> CachedProfile:
        """The cached `profile`."""
        cached = self._profiles.get(profile)
        if cached is None:
            cached = CachedProfile(profile, self._next_profile, self._viewer(profile.segment.tenant))
            self._next_profile += 1
            self._profiles[profile] = cached
        return cached

    def forget(self, profile: CachedProfile) -> None:
        """Drops the results for `profile`, so that they are computed anew next time."""
        profile.policies, profile.groups = Derived(), Derived(by_value=True)
        for policy in self._policies.values():
            policy.effects.pop(profile.number, None)

    def _keep_profiles(self, used: set[int]) -> None:
        """Drops every profile whose number is not in `used`."""
        gone = [cached for cached in self._profiles.values() if cached.number not in used]
        for cached in gone:
            del self._profiles[cached.profile]
            for policy in self._policies.values():
                policy.effects.pop(cached.number, None)
        self._in_namespace.retain({cached.profile.namespace for cached in self._profiles.values()})

    def _visible_to(self, viewer: Viewer) -> VisibleTenants:
        """The tenants that `viewer` may see: the same object until one of them changes."""
        if viewer not in self._visible:
            self._visible[viewer] = self._build(viewer)
        return self._visible[viewer]

    def _applied(self, cached: CachedPolicy, profile: CachedProfile, visible: VisibleTenants) -> AppliedPolicy | None:
        """The effect of the policy on pods of the profile; None if it has none."""
        known = cached.effects.get(profile.number)
        if known is not None and known.visible is visible:
            return known
        if known is None and profile.number in cached.effects:
            return None
        effect = known.effect if known is not None else policy_effect(cached.policy, profile.profile)
        made = None
        if effect is not None:
            rule_digests = known.rule_digests if known is not None else RuleDigests.of(effect, profile.viewer)
            made = self._apply(cached, effect, rule_digests, profile.viewer, visible)
        cached.effects[profile.number] = made
        return made

    def _policy(self, policy: NormalPolicy) -> CachedPolicy:
        cached = self._policies.get(id(policy))
        if cached is None:
            cached = CachedPolicy(policy, depends_on_address(policy), sole_namespace_affected(policy))
            self._policies[id(policy)] = cached
        return cached

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
        self,
        cached: CachedPolicy,
        effect: PolicyEffect,
        rule_digests: RuleDigests,
        viewer: Viewer,
        visible: VisibleTenants,
    ) -> AppliedPolicy:
        def entries(unresolved: Iterable[UnresolvedAllow]) -> tuple[HashedAllow, ...]:
            allows = (self._allow(cached, each, viewer, visible) for each in unresolved)
            return tuple(hashed(allow) for allow in allows if allow is not None)

        return AppliedPolicy(
            effect,
            visible,
            entries(effect.ingress),
            entries(effect.deferred_egress),
            entries(effect.local_egress),
            rule_digests,
        )

    def _allow(
        self, cached: CachedPolicy, unresolved: UnresolvedAllow, viewer: Viewer, visible: VisibleTenants
    ) -> Allow | None:
        if unresolved.any_peer:
            return Allow(unresolved.origin, ports=unresolved.ports)
        peer_sets = [self._peers(cached, scope, viewer, visible) for scope in unresolved.scopes]
        identities = peer_sets[0] if len(peer_sets) == 1 else frozenset().union(*peer_sets)
        if not identities and not unresolved.cidrs:
            return None
        return Allow(unresolved.origin, identities=identities, cidrs=unresolved.cidrs, ports=unresolved.ports)

    @staticmethod
    def _peers(cached: CachedPolicy, scope: Scope, viewer: Viewer, visible: VisibleTenants) -> frozenset[IdentityMatch]:
        return cached.peers.get((id(scope), viewer), (scope, visible), peers.identities)


def _profile(pod: LocalPod, view: NodeView, *, by_address: bool) -> Profile:
    return Profile(
        namespace=pod.namespace,
        namespace_labels=peers.namespace_labels(view.namespaces, pod.namespace),
        labels=pod.labels,
        segment=pod.segment,
        ports=pod.ports,
        address=pod.address if by_address else None,
    )


def _differing(old: Mapping[int, ClassInfo], new: Mapping[int, ClassInfo]) -> set[int]:
    """The identities that only one of two sets of classes has, or whose objects differ."""
    return (old.keys() ^ new.keys()) | {number for number, info in new.items() if old.get(number) is not info}


def _tenants_of(identities: set[int], view: NodeView) -> set[str]:
    segments = {segment_of(number) for number in identities}
    return {key.tenant for key, number in view.segments.items() if number in segments}
