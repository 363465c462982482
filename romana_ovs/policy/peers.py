"""Which identities a scope means, as seen from one node: whole tenants and segments where they suffice.

A tenant or a segment alone often decides a scope, because some labels are known from them: the tier label
of a tier, the namespace of a tenant. Such a match needs no class, so it holds for every class to come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from romana_ovs.model.cluster import ABSENT_TIER, DEFAULT_TIER, NO_TENANT, TIER_JOINT, SegmentKey
from romana_ovs.model.identity import IdentityMatch, segment_of, whole_segments
from romana_ovs.model.labels import NO_LABELS, Labels, Requirement, Selector
from romana_ovs.model.objects import NAME_LABEL
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.atoms import atom_of
from romana_ovs.policy.rules import Scope
from romana_ovs.policy.view import Atom, ClassInfo, NodeView

EVERY_POD = IdentityMatch(0, 0x80000000)
"""Every identity that a pod can have: segments stay below 0x8000, reserved identities have the top bit."""

ALL_PODS = Scope()

Requirements = tuple[Requirement, ...]
Members = tuple[tuple[int, ClassInfo], ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A segment: its identities, the labels that all of its pods have, its classes."""

    match: IdentityMatch
    known: Labels
    classes: Members


@dataclass(frozen=True, slots=True)
class Territory:
    """A tenant: its runs of identities, the labels that all of its pods have, its segments.

    `namespace` is where all of its pods are (None: in several), `namespace_known` the labels that every
    namespace of it has (None: nobody has told of it yet), and `namespaces` the labels of those in which it has classes.
    """

    tenant: str
    runs: tuple[IdentityMatch, ...]
    known: Labels
    namespace: str | None
    namespace_known: Labels | None
    namespaces: Mapping[str, Labels | None]
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Area:
    """The tenants that some servers may hear of; `everyone` when those are all.

    `by_namespace` are those that have pods in a namespace.
    """

    territories: Mapping[str, Territory]
    by_namespace: Mapping[str, tuple[Territory, ...]]
    everyone: bool = False


def territories(view: NodeView, only: Collection[str] | None = None) -> dict[str, Territory]:
    """Every tenant that has segments or runs, by name; of `only`, when given, at most these."""
    classes: dict[int, list[tuple[int, ClassInfo]]] = {}
    for number, info in view.classes.items():
        classes.setdefault(segment_of(number), []).append((number, info))
    segments: dict[str, list[tuple[SegmentKey, int]]] = {
        tenant: [] for tenant in view.tenants if only is None or tenant in only
    }
    for key, number in view.segments.items():
        if only is None or key.tenant in only:
            segments.setdefault(key.tenant, []).append((key, number))
    found = {}
    for tenant, keys in segments.items():
        stretches = tuple(
            Stretch(whole_segments(number, 1), tier_labels(key.tier, view.settings), tuple(classes.get(number, ())))
            for key, number in sorted(keys)
        )
        found[tenant] = _territory(tenant, stretches, view)
    return found


def runs_of(tenant: str, view: NodeView) -> tuple[IdentityMatch, ...]:
    """The runs of identities of `tenant`: what the view says, else its segments one by one; none when unknown."""
    runs = view.tenants.get(tenant)
    if runs:
        return tuple(runs)
    return tuple(whole_segments(number, 1) for key, number in sorted(view.segments.items()) if key.tenant == tenant)


def _territory(tenant: str, stretches: tuple[Stretch, ...], view: NodeView) -> Territory:
    runs = view.tenants.get(tenant) or tuple(stretch.match for stretch in stretches)
    names = sorted({info.namespace for stretch in stretches for _, info in stretch.classes})
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
    return Territory(tenant, runs, known, namespace, namespace_known, places, stretches)


def namespace_labels(namespaces: Mapping[str, Labels], name: str) -> Labels:
    """Labels of a namespace; one that nothing declares has the label of its name alone."""
    found = namespaces.get(name)
    return found if found is not None else Labels({NAME_LABEL: name})


def tier_labels(tier: str, settings: Settings) -> Labels:
    """The labels that every pod of `tier` has. Of an absent component nothing is known: it may be empty."""
    keys = settings.tier_labels
    if tier == DEFAULT_TIER:
        return NO_LABELS
    values = tier.split(TIER_JOINT) if len(keys) > 1 else [tier]
    if len(values) != len(keys):
        return NO_LABELS
    return Labels({key: value for key, value in zip(keys, values, strict=True) if value != ABSENT_TIER})


def everyone(known: Mapping[str, Territory], settings: Settings) -> Area:
    """Whom servers may hear of whom tenants do not separate from others: all but pods that talk to nobody."""
    if settings.isolation is Isolation.NONE:
        return _area(known, everyone=True)
    return _area({name: each for name, each in known.items() if name != NO_TENANT}, everyone=True)


def alone(tenant: str, known: Mapping[str, Territory]) -> Area:
    """Whom servers of `tenant` may hear of when tenants are separate; nobody when they have none."""
    return _area({tenant: known[tenant]} if tenant in known and tenant != NO_TENANT else {}, everyone=False)


def _area(members: Mapping[str, Territory], *, everyone: bool) -> Area:
    homes: dict[str, list[Territory]] = {}
    for territory in members.values():
        for name in territory.namespaces if territory.namespace is None else (territory.namespace,):
            homes.setdefault(name, []).append(territory)
    return Area(members, {name: tuple(found) for name, found in homes.items()}, everyone)


def identities(scope: Scope, area: Area) -> frozenset[IdentityMatch]:
    """The identities that `scope` means inside `area`: what is not known of a class does not match."""
    if area.everyone and scope == ALL_PODS:
        return frozenset({EVERY_POD})
    found: set[IdentityMatch] = set()
    for territory in _candidates(scope, area):
        found.update(_in_territory(scope, territory))
    return frozenset(found)


def _candidates(scope: Scope, area: Area) -> Iterable[Territory]:
    if scope.tenant is not None:
        territory = area.territories.get(scope.tenant)
        return () if territory is None else (territory,)
    if scope.namespace is not None:
        return area.by_namespace.get(scope.namespace, ())
    return area.territories.values()


def _in_territory(scope: Scope, territory: Territory) -> Iterator[IdentityMatch]:
    inside = _namespace_decides(scope, territory)
    if inside is False:
        return
    undecided = left_open(scope.pods.requirements, territory.known)
    if undecided is None:
        return
    if inside and not undecided:
        yield from territory.runs
        return
    for stretch in territory.stretches:
        rest = left_open(undecided, stretch.known)
        if rest is None:
            continue
        if inside and not rest:
            yield stretch.match
            continue
        wanted = [atom_of(requirement) for requirement in rest]
        for number, info in stretch.classes:
            if (inside or _holds_namespace(scope, info.namespace, territory)) and _answers(info, wanted):
                yield IdentityMatch(number)


def _namespace_decides(scope: Scope, territory: Territory) -> bool | None:
    """Whether all (True) or none (False) of the tenant's pods, now and later, are in the scope's namespaces."""
    if scope.namespace is not None:
        if territory.namespace is not None:
            return scope.namespace == territory.namespace
        return None if scope.namespace in territory.namespaces else False
    if territory.namespace is not None:
        return _matches(scope.namespaces, territory.namespace, territory.namespace_known)
    undecided = left_open(scope.namespaces.requirements, territory.namespace_known or NO_LABELS)
    if undecided is None:
        return False
    return None if undecided else True


def _holds_namespace(scope: Scope, namespace: str, territory: Territory) -> bool:
    if scope.namespace is not None:
        return scope.namespace == namespace
    return _matches(scope.namespaces, namespace, territory.namespaces[namespace])


def _matches(selector: Selector, namespace: str, known: Labels | None) -> bool:
    """Whether `selector` surely selects the namespace: of one that nobody has told of yet, only the name is known."""
    if known is not None:
        return selector.matches(known)
    return left_open(selector.requirements, {NAME_LABEL: namespace}) == ()


def left_open(requirements: Requirements, known: Mapping[str, str]) -> Requirements | None:
    """The requirements that `known` labels do not decide; None when one of those that they decide fails."""
    if not requirements or not known:
        return requirements
    undecided = []
    for requirement in requirements:
        if requirement.key not in known:
            undecided.append(requirement)
        elif not requirement.matches(known):
            return None
    return tuple(undecided)


def _answers(info: ClassInfo, wanted: list[tuple[Atom, bool]]) -> bool:
    return all(info.truths.get(atom) is answer for atom, answer in wanted)
