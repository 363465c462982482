"""Defines the entries of the cache of `resolve`: policies, profiles, and the effect of one on the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from romana_ovs.model.derived import Derived, DerivedMap
from romana_ovs.model.identity import IdentityMatch
from romana_ovs.policy.groups import Digest, HashedAllow, PodGroups, unresolved_digest
from romana_ovs.policy.peers import VisibleTenants
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.selection import PolicyEffect, Profile

Viewer = str | None
"""The tenant of servers that only their own tenant's pods may connect to; None if all tenants' pods may."""


class RuleDigests(NamedTuple):
    """The digests of what one policy allows, for group numbers; empty where it allows nothing."""

    ingress: tuple[Digest, ...]
    deferred_egress: tuple[Digest, ...]
    local_egress: tuple[Digest, ...]

    @classmethod
    def of(cls, effect: PolicyEffect, viewer: Viewer) -> RuleDigests:
        """The digests of an effect with the peers that `viewer` may see."""
        # The texts are part of the digests, and so of group numbers: they do not change.
        kinds = {"ingress": effect.ingress, "deferred egress": effect.deferred_egress, "accepted": effect.local_egress}
        return cls(*((unresolved_digest(kind, allows, viewer),) if allows else () for kind, allows in kinds.items()))


@dataclass(slots=True, eq=False)
class AppliedPolicy:
    """A policy's effect on one profile, with peers as identities among `visible`. Compared by identity.

    It holds its input, `visible`, and so is a cache entry without a wrapper: one loop passes policies times profiles.
    """

    effect: PolicyEffect
    visible: VisibleTenants
    ingress: tuple[HashedAllow, ...]
    deferred_egress: tuple[HashedAllow, ...]
    local_egress: tuple[HashedAllow, ...]
    rule_digests: RuleDigests


@dataclass(slots=True, eq=False)
class CachedPolicy:
    """One policy, its `effects` by profile number, and the peers of its scopes by `id` of the scope and viewer."""

    policy: NormalPolicy
    depends_on_address: bool
    namespace: str | None
    """The only namespace in which it has an effect; None for any."""
    effects: dict[int, AppliedPolicy | None] = field(default_factory=dict)
    peers: DerivedMap[tuple[int, Viewer], frozenset[IdentityMatch]] = field(default_factory=DerivedMap)


@dataclass(slots=True, eq=False)
class CachedProfile:
    """A profile with its number in the cache, the policies with an effect on it, and the groups of its pods."""

    profile: Profile
    number: int
    viewer: Viewer
    policies: Derived[tuple[AppliedPolicy, ...]] = field(default_factory=Derived)
    groups: Derived[PodGroups] = field(default_factory=lambda: Derived(by_value=True))
