"""What `resolve` remembers between two views of one node, and when it may be used again.

Nothing here changes an answer. Everything is remembered beside the value that it was computed from: a
policy's shares and peers die with the policy object, and are computed anew when an area is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import Any, NamedTuple

from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.identity import IdentityMatch, segment_of
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy import peers
from romana_ovs.policy.budget import ChargeMemo
from romana_ovs.policy.groups import Digest, Drafts, Entry, entry, grants_name
from romana_ovs.policy.peers import Area, Territory
from romana_ovs.policy.rules import NormalPolicy, Scope
from romana_ovs.policy.selection import Contribution, Grant, Profile, asks_for_address, contribution
from romana_ovs.policy.view import Allow, ClassInfo, ClientGroup, NodeView, ServerGroup

AreaName = str | None
"""The tenant that an area consists of; None where it is everyone."""


class Names(NamedTuple):
    """The names, for groups, of what a share grants; empty where it grants nothing, whoever the peers are."""

    ingress: tuple[Digest, ...]
    deferred_egress: tuple[Digest, ...]
    accepted: tuple[Digest, ...]

    @classmethod
    def of(cls, means: Contribution, area: AreaName) -> Names:
        """The names of a contribution with peers in an area."""
        kinds = {"ingress": means.ingress, "deferred egress": means.deferred_egress, "accepted": means.accepted}
        return cls(*((grants_name(kind, grants, area),) if grants else () for kind, grants in kinds.items()))


@dataclass(slots=True, eq=False)
class Share:
    """What one policy means for one profile, with peers as identities of `area`. Compared by identity."""

    means: Contribution
    area: Area
    ingress: tuple[Entry, ...]
    deferred_egress: tuple[Entry, ...]
    accepted: tuple[Entry, ...]
    names: Names


@dataclass(slots=True, eq=False)
class PolicyMemo:
    """One policy object, its shares by number of profile, and the peers of its scopes by name of area."""

    policy: NormalPolicy
    asks_for_address: bool
    shares: dict[int, Share | None] = field(default_factory=dict)
    peers: dict[tuple[int, AreaName], tuple[Area, frozenset[IdentityMatch]]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class ProfileMemo:
    """A profile with its number in the cache, and its latest drafts with what they were made from."""

    profile: Profile
    number: int
    area: AreaName
    basis: tuple[object, ...] | None = None
    drafts: Drafts | None = None
    of: tuple[list[PolicyMemo], Area, int | None] | None = None
    """What the drafts were asked for last: the list of policies, the area, and the number of its own segment."""


class ResolveCache:
    """Pure results of earlier calls of `resolve` for one node. One per node; never shared between threads.

    Policies are known again as objects: a view with equal but new ones is answered rightly, only not faster.
    """

    def __init__(self) -> None:
        self.servers: dict[tuple[bytes, int], ServerGroup] = {}
        self.clients: dict[tuple[bytes, int], ClientGroup] = {}
        self.charges = ChargeMemo()
        self._policies: dict[int, PolicyMemo] = {}
        self._listed: list[PolicyMemo] = []
        self._profiles: dict[Profile, ProfileMemo] = {}
        self._next_profile = 0
        self._settings = Settings()
        self._surroundings: tuple[Mapping[Any, Any], ...] = ()
        self._classes: Mapping[int, ClassInfo] = {}
        self._territories: dict[str, Territory] = {}
        self._areas: dict[AreaName, Area] = {}

    def enter(self, view: NodeView) -> None:
        """Forgets what `view` makes untrue; to be called first."""
        surroundings = (view.tenants, view.segments, view.namespaces)
        if self._settings != view.settings:
            self._settings = view.settings
            self._policies, self._profiles = {}, {}
            self._territories, self._areas = {}, {}
        elif self._surroundings == surroundings:
            if self._classes is not view.classes:
                self._redraw(view, _tenants_of(_differing(self._classes, view.classes), view))
            return
        self._surroundings = surroundings
        self._redraw(view, None)

    def _redraw(self, view: NodeView, tenants: set[str] | None) -> None:
        """Draws the territories of `tenants` (None: of all) and every area, keeping those that come out the same."""
        self._classes = view.classes
        kept = {} if tenants is None else self._territories
        known = self._territories
        fresh = peers.territories(view, tenants)
        self._territories = kept | {name: known[name] if known.get(name) == new else new for name, new in fresh.items()}
        for name, old in list(self._areas.items()):
            drawn = self._drawn(name)
            unchanged = len(drawn.territories) == len(old.territories) and all(
                old.territories.get(tenant) is each for tenant, each in drawn.territories.items()
            )
            self._areas[name] = old if unchanged else drawn

    def policies(self, listed: Iterable[NormalPolicy]) -> list[PolicyMemo]:
        """What is remembered of these policies, in their order; all others are forgotten.

        It is the same list as last time while they are the same policies.
        """
        memos = [self._policy(policy) for policy in listed]
        if len(memos) == len(self._listed) and all(map(is_, memos, self._listed)):
            return self._listed
        self._listed = memos
        if len(memos) != len(self._policies):
            self._policies = {id(memo.policy): memo for memo in memos}
        return memos

    def profile(self, profile: Profile) -> ProfileMemo:
        """What is remembered of `profile`."""
        memo = self._profiles.get(profile)
        if memo is None:
            memo = ProfileMemo(profile, self._next_profile, self._area_name(profile.segment.tenant))
            self._next_profile += 1
            self._profiles[profile] = memo
        return memo

    def forget(self, profile: ProfileMemo) -> None:
        """Forgets what was worked out for `profile`, so that it is worked out anew next time."""
        profile.of = profile.basis = profile.drafts = None
        for policy in self._policies.values():
            policy.shares.pop(profile.number, None)

    def keep_profiles(self, used: set[int]) -> None:
        """Forgets every profile whose number is not in `used`."""
        gone = [memo for memo in self._profiles.values() if memo.number not in used]
        for memo in gone:
            del self._profiles[memo.profile]
            for policy in self._policies.values():
                policy.shares.pop(memo.number, None)

    def area(self, name: AreaName) -> Area:
        """The area of this name: the same object until something in it changes."""
        if name not in self._areas:
            self._areas[name] = self._drawn(name)
        return self._areas[name]

    def share(self, memo: PolicyMemo, profile: ProfileMemo, area: Area) -> Share | None:
        """What the policy means for pods of the profile; None when nothing."""
        known = memo.shares.get(profile.number)
        if known is not None and known.area is area:
            return known
        if known is None and profile.number in memo.shares:
            return None
        means = known.means if known is not None else contribution(memo.policy, profile.profile)
        made = None
        if means is not None:
            names = known.names if known is not None else Names.of(means, profile.area)
            made = self._made(memo, means, names, profile.area, area)
        memo.shares[profile.number] = made
        return made

    def _policy(self, policy: NormalPolicy) -> PolicyMemo:
        memo = self._policies.get(id(policy))
        if memo is None:
            memo = PolicyMemo(policy, asks_for_address(policy))
            self._policies[id(policy)] = memo
        return memo

    def _area_name(self, tenant: str) -> AreaName:
        everyone = self._settings.isolation is Isolation.NONE or tenant in self._settings.shared_tenants - {NO_TENANT}
        return None if everyone else tenant

    def _drawn(self, name: AreaName) -> Area:
        if name is None:
            return peers.everyone(self._territories, self._settings)
        return peers.alone(name, self._territories)

    def _made(self, memo: PolicyMemo, means: Contribution, names: Names, name: AreaName, area: Area) -> Share:
        def entries(grants: Iterable[Grant]) -> tuple[Entry, ...]:
            allows = (self._allow(memo, grant, name, area) for grant in grants)
            return tuple(entry(allow) for allow in allows if allow is not None)

        return Share(
            means, area, entries(means.ingress), entries(means.deferred_egress), entries(means.accepted), names
        )

    def _allow(self, memo: PolicyMemo, grant: Grant, name: AreaName, area: Area) -> Allow | None:
        if grant.any_peer:
            return Allow(grant.origin, ports=grant.ports)
        found = [self._peers(memo, scope, name, area) for scope in grant.scopes]
        identities = found[0] if len(found) == 1 else frozenset().union(*found)
        if not identities and not grant.cidrs:
            return None
        return Allow(grant.origin, identities=identities, cidrs=grant.cidrs, ports=grant.ports)

    @staticmethod
    def _peers(memo: PolicyMemo, scope: Scope, name: AreaName, area: Area) -> frozenset[IdentityMatch]:
        known = memo.peers.get((id(scope), name))
        if known is not None and known[0] is area:
            return known[1]
        found = peers.identities(scope, area)
        memo.peers[id(scope), name] = (area, found)
        return found


def _differing(old: Mapping[int, ClassInfo], new: Mapping[int, ClassInfo]) -> set[int]:
    """The identities that only one of two sets of classes has, or about which they do not hold the same object."""
    return (old.keys() ^ new.keys()) | {number for number, info in new.items() if old.get(number) is not info}


def _tenants_of(identities: set[int], view: NodeView) -> set[str]:
    segments = {segment_of(number) for number in identities}
    return {key.tenant for key, number in view.segments.items() if number in segments}
