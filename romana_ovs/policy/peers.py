"""Resolves scopes to identities, for the view of one node: whole tenants and segments where these suffice.

A tenant or a segment alone often decides a scope, because it implies some labels: a tier implies the tier label, a
tenant its namespace. Such a match needs no class, so it also covers classes that come later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from romana_ovs.model.cluster import ABSENT_TIER, DEFAULT_TIER, NO_TENANT, TIER_JOINT, SegmentKey
from romana_ovs.model.identity import IdentityMatch, segment_of, whole_segments
from romana_ovs.model.labels import NO_LABELS, Labels, Requirement, Selector
from romana_ovs.model.objects import NAME_LABEL
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.requirements import without_negation
from romana_ovs.policy.rules import Scope
from romana_ovs.policy.view import ClassInfo, LabelRequirement, NodeView

EVERY_POD = IdentityMatch(0, 0x80000000)
"""Every identity that a pod can have: segments stay below 0x8000, reserved identities have the top bit."""

ALL_PODS = Scope()

Requirements = tuple[Requirement, ...]
Members = tuple[tuple[int, ClassInfo], ...]


@dataclass(frozen=True, slots=True)
class SegmentIds:
    """A segment: its identities, the labels common to its pods, its classes."""

    match: IdentityMatch
    known: Labels
    classes: Members


@dataclass(frozen=True, slots=True)
class TenantIds:
    """A tenant: its blocks of identities, the labels common to its pods, its segments.

    `namespace` is the only namespace of its pods (None: several), `namespace_known` the labels common to its
    namespaces (None: not known yet), and `namespaces` the labels of those in which it has classes.
    """

    tenant: str
    blocks: tuple[IdentityMatch, ...]
    known: Labels
    namespace: str | None
    namespace_known: Labels | None
    namespaces: Mapping[str, Labels | None]
    segments: tuple[SegmentIds, ...]


@dataclass(frozen=True, slots=True)
class VisibleTenants:
    """The tenants whose pods may connect to some servers; `all`: all tenants.

    `by_namespace` are those that have pods in a namespace.
    """

    tenants: Mapping[str, TenantIds]
    by_namespace: Mapping[str, tuple[TenantIds, ...]]
    all: bool = False


def tenants_of(view: NodeView, only: Collection[str] | None = None) -> dict[str, TenantIds]:
    """Every tenant that has segments or blocks, by name; with `only`, at most these."""
    classes: dict[int, list[tuple[int, ClassInfo]]] = {}
    for number, info in view.classes.items():
        classes.setdefault(segment_of(number), []).append((number, info))
    keys_of: dict[str, list[tuple[SegmentKey, int]]] = {
        tenant: [] for tenant in view.tenants if only is None or tenant in only
    }
    for key, number in view.segments.items():
        if only is None or key.tenant in only:
            keys_of.setdefault(key.tenant, []).append((key, number))
    tenants = {}
    for tenant, keys in keys_of.items():
        segments = tuple(
            SegmentIds(whole_segments(number, 1), tier_labels(key.tier, view.settings), tuple(classes.get(number, ())))
            for key, number in sorted(keys)
        )
        tenants[tenant] = _tenant_ids(tenant, segments, view)
    return tenants


def identity_blocks(tenant: str, view: NodeView) -> tuple[IdentityMatch, ...]:
    """The identity blocks of `tenant` in the view, else one for each of its segments; none if it is unknown."""
    blocks = view.tenants.get(tenant)
    if blocks:
        return tuple(blocks)
    return tuple(whole_segments(number, 1) for key, number in sorted(view.segments.items()) if key.tenant == tenant)


def _tenant_ids(tenant: str, segments: tuple[SegmentIds, ...], view: NodeView) -> TenantIds:
    blocks = view.tenants.get(tenant) or tuple(segment_ids.match for segment_ids in segments)
    names = sorted({info.namespace for segment_ids in segments for _, info in segment_ids.classes})
    known = NO_LABELS
    namespace = None
    namespace_known: Labels | None = NO_LABELS
    source = view.settings.tenant_source
    if source is TenantSource.NAMESPACE:
        namespace, namespace_known = tenant, view.namespaces.get(tenant)
    elif tenant != NO_TENANT and source is TenantSource.POD_LABEL:
        known = Labels({view.settings.tenant_key: tenant})
    elif tenant != NO_TENANT:
        namespace_known = Labels({view.settings.tenant_key: tenant})
    places = {name: view.namespaces.get(name) for name in names}
    return TenantIds(tenant, blocks, known, namespace, namespace_known, places, segments)


def namespace_labels(namespaces: Mapping[str, Labels], name: str) -> Labels:
    """Labels of a namespace; an undeclared one has only the label of its name."""
    labels = namespaces.get(name)
    return labels if labels is not None else Labels({NAME_LABEL: name})


def tier_labels(tier: str, settings: Settings) -> Labels:
    """The labels common to pods of `tier`. An absent component implies nothing: the label may be empty."""
    keys = settings.tier_labels
    if tier == DEFAULT_TIER:
        return NO_LABELS
    values = tier.split(TIER_JOINT) if len(keys) > 1 else [tier]
    if len(values) != len(keys):
        return NO_LABELS
    return Labels({key: value for key, value in zip(keys, values, strict=True) if value != ABSENT_TIER})


def all_tenants(known: Mapping[str, TenantIds], settings: Settings) -> VisibleTenants:
    """All tenants, for servers that tenants do not separate from others; without the pods that have no tenant."""
    if settings.isolation is Isolation.NONE:
        return _visible(known, all_=True)
    return _visible({name: each for name, each in known.items() if name != NO_TENANT}, all_=True)


def own_tenant(tenant: str, known: Mapping[str, TenantIds]) -> VisibleTenants:
    """Only `tenant`, for its own servers if tenants are separated; nobody for pods without tenant."""
    return _visible({tenant: known[tenant]} if tenant in known and tenant != NO_TENANT else {}, all_=False)


def _visible(members: Mapping[str, TenantIds], *, all_: bool) -> VisibleTenants:
    homes: dict[str, list[TenantIds]] = {}
    for tenant_ids in members.values():
        for name in tenant_ids.namespaces if tenant_ids.namespace is None else (tenant_ids.namespace,):
            homes.setdefault(name, []).append(tenant_ids)
    return VisibleTenants(members, {name: tuple(names) for name, names in homes.items()}, all_)


def identities(scope: Scope, visible: VisibleTenants) -> frozenset[IdentityMatch]:
    """The identities of `scope` among `visible`: a class whose match is not known does not match."""
    if visible.all and scope == ALL_PODS:
        return frozenset({EVERY_POD})
    matches: set[IdentityMatch] = set()
    for tenant_ids in _candidates(scope, visible):
        matches.update(_in_tenant(scope, tenant_ids))
    return frozenset(matches)


def _candidates(scope: Scope, visible: VisibleTenants) -> Iterable[TenantIds]:
    if scope.tenant is not None:
        tenant_ids = visible.tenants.get(scope.tenant)
        return () if tenant_ids is None else (tenant_ids,)
    if scope.namespace is not None:
        return visible.by_namespace.get(scope.namespace, ())
    return visible.tenants.values()


def _in_tenant(scope: Scope, tenant_ids: TenantIds) -> Iterator[IdentityMatch]:
    inside = _namespace_decides(scope, tenant_ids)
    if inside is False:
        return
    undecided = undecided_by(scope.pods.requirements, tenant_ids.known)
    if undecided is None:
        return
    if inside and not undecided:
        yield from tenant_ids.blocks
        return
    for segment_ids in tenant_ids.segments:
        rest = undecided_by(undecided, segment_ids.known)
        if rest is None:
            continue
        if inside and not rest:
            yield segment_ids.match
            continue
        requirements = [without_negation(requirement) for requirement in rest]
        for number, info in segment_ids.classes:
            if (inside or _has_namespace(scope, info.namespace, tenant_ids)) and _fulfils(info, requirements):
                yield IdentityMatch(number)


def _namespace_decides(scope: Scope, tenant_ids: TenantIds) -> bool | None:
    """Whether all (True) or none (False) of the tenant's pods, now and later, are in the scope's namespaces."""
    if scope.namespace is not None:
        if tenant_ids.namespace is not None:
            return scope.namespace == tenant_ids.namespace
        return None if scope.namespace in tenant_ids.namespaces else False
    if tenant_ids.namespace is not None:
        return _matches(scope.namespaces, tenant_ids.namespace, tenant_ids.namespace_known)
    undecided = undecided_by(scope.namespaces.requirements, tenant_ids.namespace_known or NO_LABELS)
    if undecided is None:
        return False
    return None if undecided else True


def _has_namespace(scope: Scope, namespace: str, tenant_ids: TenantIds) -> bool:
    if scope.namespace is not None:
        return scope.namespace == namespace
    return _matches(scope.namespaces, namespace, tenant_ids.namespaces[namespace])


def _matches(selector: Selector, namespace: str, known: Labels | None) -> bool:
    """Whether `selector` surely selects the namespace. Of an unknown namespace only the name label is known."""
    if known is not None:
        return selector.matches(known)
    return undecided_by(selector.requirements, {NAME_LABEL: namespace}) == ()


def undecided_by(requirements: Requirements, known: Mapping[str, str]) -> Requirements | None:
    """The requirements that `known` labels do not decide; None when they fail one."""
    if not requirements or not known:
        return requirements
    undecided = []
    for requirement in requirements:
        if requirement.key not in known:
            undecided.append(requirement)
        elif not requirement.matches(known):
            return None
    return tuple(undecided)


def _fulfils(info: ClassInfo, requirements: list[tuple[LabelRequirement, bool]]) -> bool:
    return all(info.matches.get(requirement) is answer for requirement, answer in requirements)
