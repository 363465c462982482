"""Collects the label requirements of policies for pods of other nodes, by namespace, and limits their number.

A label requirement is numbered without its negation (`LabelRequirement`): `In` and `NotIn` of the same values are one
requirement, and so are `Exists` and `DoesNotExist`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.labels import NO_LABELS, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import Direction
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.rules import NamedPort, NormalPolicy, NormalRule, Scope
from romana_ovs.policy.view import LabelRequirement

_AFFIRMATIVE = frozenset({Operator.IN, Operator.EXISTS})

MAX_REQUIREMENTS, MAX_REQUIREMENT_CHARS = 2048, 150_000
"""Limits for one namespace: one object of the API server holds its requirements and the classes that they make.

Users who may write policies must not be able to keep the registry from publishing numbers. Rules that need requirements
above the limit match no peers.
"""
_FRAME = 40
"""Characters of a requirement in JSON beside those of its key and values."""

RemoteRequirements = tuple[tuple[Scope, frozenset[LabelRequirement]], ...]
"""Scopes of a policy, each with its requirements for pods in the scope's namespaces."""


def without_negation(requirement: Requirement) -> tuple[LabelRequirement, bool]:
    """`requirement` without its negation, and whether it must match."""
    values = requirement.values if requirement.operator in (Operator.IN, Operator.NOT_IN) else None
    return LabelRequirement(requirement.key, values), requirement.operator in _AFFIRMATIVE


def requirement_sort_key(requirement: LabelRequirement) -> tuple[str, bool, tuple[str, ...]]:
    """A sort key that is the same in every process."""
    return requirement.key, requirement.values is not None, tuple(sorted(requirement.values or ()))


class RequirementBudget:
    """What is left of `times` the limit of one namespace."""

    def __init__(self, times: int = 1) -> None:
        self._count, self._chars = times * MAX_REQUIREMENTS, times * MAX_REQUIREMENT_CHARS

    def admit(self, requirements: Collection[LabelRequirement]) -> frozenset[LabelRequirement]:
        """The `requirements` within the limit, the first ones by sort key; the same in every process."""
        lengths = {
            requirement: _FRAME + len(requirement.key) + sum(len(value) + 3 for value in requirement.values or ())
            for requirement in requirements
        }
        if len(lengths) > self._count or sum(lengths.values()) > self._chars:
            lengths = dict(self._first(lengths))
        self._count -= len(lengths)
        self._chars -= sum(lengths.values())
        return frozenset(lengths)

    def _first(self, lengths: Mapping[LabelRequirement, int]) -> Iterator[tuple[LabelRequirement, int]]:
        end = 0
        for requirement in sorted(lengths, key=requirement_sort_key)[: max(0, self._count)]:
            end += lengths[requirement]
            if end > self._chars:
                return
            yield requirement, lengths[requirement]


def is_deferred(rule: NormalRule) -> bool:
    """Whether an egress rule is deferred: only the server's node can decide it, at least in part."""
    if rule.scopes:
        return rule.ports is None or bool(rule.ports)
    return bool(rule.any_peer or rule.cidrs) and any(isinstance(port, NamedPort) for port in rule.ports or ())


def remote_requirements(policy: NormalPolicy) -> RemoteRequirements:
    """The requirements of `policy` for pods on other nodes.

    Those of ingress rules are for peers: the pods that the policy selects are known exactly on their own node. Those of
    deferred egress rules are for the selected pods: on the server's node it is the peers that are known exactly.
    """
    by_scope: dict[Scope, frozenset[LabelRequirement]] = {}
    for rule in policy.rules:
        if rule.direction is Direction.INGRESS:
            by_scope.update((scope, _requirements(scope.pods)) for scope in rule.scopes if not rule.any_peer)
        elif is_deferred(rule):
            by_scope[policy.subject] = _requirements(policy.subject.pods)
    return tuple((scope, requirements) for scope, requirements in by_scope.items() if requirements)


def _requirements(selector: Selector) -> frozenset[LabelRequirement]:
    return frozenset(without_negation(requirement)[0] for requirement in selector.requirements)


def requirements_by_namespace(
    policies: Iterable[NormalPolicy],
    namespaces: Mapping[str, Labels],
    *,
    settings: Settings | None = None,
    matching: dict[Selector, frozenset[str]] | None = None,
) -> Mapping[str, frozenset[LabelRequirement]]:
    """The requirements in each namespace that has any, of `namespaces` and of those that scopes name.

    With `settings`, requirements are left out where tenants separate the pods of the namespace from the pods that the
    policy selects (docs/design.md section 5, step 5). `matching` is a cache of the namespaces that each selector
    matches: it is used, and completed.
    """
    by_namespace: defaultdict[str, set[LabelRequirement]] = defaultdict(set)
    matching = {} if matching is None else matching
    for policy in policies:
        for scope, requirements in remote_requirements(policy):
            for name in _names(scope, namespaces, matching):
                if _may_connect(policy.subject.namespace, name, namespaces=namespaces, settings=settings):
                    by_namespace[name] |= requirements
    return {name: frozenset(requirements) for name, requirements in by_namespace.items()}


def _names(scope: Scope, namespaces: Mapping[str, Labels], matching: dict[Selector, frozenset[str]]) -> frozenset[str]:
    """The namespaces of `scope`."""
    if scope.namespace is not None:
        return frozenset({scope.namespace})
    if scope.namespaces not in matching:
        matching[scope.namespaces] = frozenset(
            name for name, labels in namespaces.items() if scope.namespaces.matches(labels)
        )
    return matching[scope.namespaces]


def namespace_tenant(name: str, labels: Mapping[str, str], settings: Settings) -> str | None:
    """The tenant of every pod of a namespace with these labels; None when pods have tenants of their own."""
    if settings.tenant_source is TenantSource.POD_LABEL:
        return None
    if settings.tenant_source is TenantSource.NAMESPACE_LABEL:
        return labels.get(settings.tenant_key, NO_TENANT)
    return name


def _may_connect(
    server: str | None, client: str, *, namespaces: Mapping[str, Labels], settings: Settings | None
) -> bool:
    if settings is None or settings.isolation is Isolation.NONE or server is None or server == client:
        return True
    tenants = [namespace_tenant(name, namespaces.get(name, NO_LABELS), settings) for name in (server, client)]
    return tenants[0] is None or tenants[0] in settings.shared_tenants or tenants[0] == tenants[1]
