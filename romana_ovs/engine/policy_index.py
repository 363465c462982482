"""Normalises policies, and indexes them and their label requirements by namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.engine.changes import Changes
from romana_ovs.engine.endpoints import needs_endpoint
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import Direction, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.classes import requirements_by_namespace
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.requirements import RequirementBudget, is_deferred
from romana_ovs.policy.rules import NormalPolicy, NormalRule, Scope
from romana_ovs.policy.view import LabelRequirement

LabelRequirements = Mapping[str, frozenset[LabelRequirement]]
NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()
Listed = tuple[tuple[tuple[str, str, str], NormalPolicy], ...]
"""Policies with their keys as plain tuples, sorted by them."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """PolicyIndex at one moment: the policies that may matter to each namespace, labels, and requirements."""

    by_namespace: Mapping[str, Listed]
    namespaces: Mapping[str, Labels]
    requirements: LabelRequirements
    settings: Settings = field(default_factory=Settings)

    def concerning(self, namespaces: Iterable[str], tenants: Collection[str]) -> tuple[NormalPolicy, ...]:
        """The policies that may matter to pods of these namespaces and tenants, sorted by key."""
        found = {key: policy for name in namespaces for key, policy in self.by_namespace.get(name, ())}
        return tuple(found[key] for key in sorted(found) if _of_tenants(found[key], tenants))

    def lists(self, namespaces: Iterable[str]) -> tuple[Listed, ...]:
        """What `concerning` depends on: equal lists, equal answer."""
        return tuple(self.by_namespace.get(name, ()) for name in namespaces)


NO_RULES = RuleSet(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


@dataclass(slots=True)
class _Held:
    """One policy and what was worked out about it."""

    policy: NormalPolicy
    requirements: LabelRequirements
    reach: frozenset[str]


@dataclass(slots=True)
class _Namespace:
    """What was worked out about one namespace."""

    policies: dict[tuple[str, str, str], NormalPolicy] = field(default_factory=dict)
    requirements: Counter[LabelRequirement] = field(default_factory=Counter)


class PolicyIndex:
    """The policies of a cluster, kept in step with it. A policy is worked out again only when it has to be."""

    def __init__(self) -> None:
        self._held: dict[PolicyKey, _Held] = {}
        self._per_namespace: dict[str, _Namespace] = {}
        self._labels: Mapping[str, Labels] = MappingProxyType({})
        self._matching: dict[Selector, frozenset[str]] = {}
        self._lists: dict[str, Listed] = {}
        self._atoms: dict[str, frozenset[LabelRequirement]] = {}
        self._set = NO_RULES
        self._settings = Settings()
        self._crowded: dict[str, Problem] = {}
        self._cluster: Cluster | None = None
        self._in_namespace: Counter[str] = Counter()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The namespaces in which more is asked than can be answered."""
        return tuple(self._crowded.values())

    @property
    def rule_set(self) -> RuleSet:
        """The rules as of the last update: the same object until they change."""
        return self._set

    def follow(self, cluster: Cluster, pods: Collection[PodKey] | None = None) -> RuleSet:
        """Follows `cluster` and returns its rules: the same object until they change.

        `pods` are those that changed since the last time, if that is known.
        """
        before, self._cluster = self._cluster, cluster
        changes = Changes.between(before, cluster, pods)
        for key in changes.pods:
            for pods, sign in ((before.pods if before is not None else {}, -1), (cluster.pods, 1)):
                if (pod := needs_endpoint(pods.get(key))) is not None:
                    self._in_namespace[pod.namespace] += sign
                    if not self._in_namespace[pod.namespace]:
                        del self._in_namespace[pod.namespace]
        self._update(cluster, changes, self._in_namespace)
        return self._set

    def _update(self, cluster: Cluster, changes: Changes, used: Collection[str]) -> None:
        self._settings = cluster.settings
        relabelled = self._follow_namespaces(cluster, changes, used)
        again = set(changes.policies)
        if relabelled:
            again |= {key for key, held in self._held.items() if _depends(held.policy, relabelled)}
        dirty: set[str] = set()
        for key in sorted(again):
            old = self._drop(key, dirty)
            policy = cluster.policies.get(key)
            if policy is not None:
                new = normalise(policy, cluster)
                # Others know a policy again as an object.
                self._add(key, old if old == new else new, settings=cluster.settings, dirty=dirty)
        if dirty or relabelled:
            self._publish(dirty)

    def _follow_namespaces(self, cluster: Cluster, changes: Changes, used: Collection[str]) -> frozenset[str]:
        """Takes over the labels of every namespace that exists or is named; returns those that changed."""
        labels = self._labels
        named = {key.namespace for key in changes.policies}
        unseen = (named | set(used)) - labels.keys()
        if not (changes.namespaces or unseen or changes.meaning or self._unused(cluster, used)):
            return frozenset()
        names = cluster.namespaces.keys() | set(used) | {key.namespace for key in cluster.policies}
        new = {name: cluster.namespace_labels(name) for name in sorted(names)}
        changed = frozenset(name for name in new.keys() | labels.keys() if new.get(name) != labels.get(name))
        if changed:
            self._labels = MappingProxyType(new)
            self._matching.clear()
        return changed

    def _unused(self, cluster: Cluster, used: Collection[str]) -> bool:
        """Whether a namespace is known that nothing declares and no pod is in (a policy may still name it)."""
        return any(name not in cluster.namespaces and name not in used for name in self._labels)

    def _add(self, key: PolicyKey, policy: NormalPolicy, *, settings: Settings, dirty: set[str]) -> None:
        requirements = requirements_by_namespace((policy,), self._labels, settings=settings, matching=self._matching)
        held = self._held[key] = _Held(policy, requirements, self._reach(policy))
        for name in held.reach:
            self._at(name).policies[_order(key)] = policy
        for name, asked in requirements.items():
            self._at(name).requirements.update(asked)
        dirty |= held.reach | requirements.keys()

    def _at(self, namespace: str) -> _Namespace:
        return self._per_namespace.setdefault(namespace, _Namespace())

    def _drop(self, key: PolicyKey, dirty: set[str]) -> NormalPolicy | None:
        held = self._held.pop(key, None)
        if held is None:
            return None
        for name in held.reach:
            del self._per_namespace[name].policies[_order(key)]
        for name, asked in held.requirements.items():
            self._per_namespace[name].requirements.subtract(asked)
        dirty |= held.reach | held.requirements.keys()
        return held.policy

    def _publish(self, dirty: set[str]) -> None:
        for name in dirty:
            here = self._per_namespace[name]
            self._lists[name] = tuple(sorted(here.policies.items(), key=lambda item: item[0]))
            asked = frozenset(requirement for requirement, count in here.requirements.items() if count > 0)
            self._atoms[name] = self._fitting(name, asked)
            if not self._lists[name]:
                del self._lists[name]
            if not asked:
                del self._atoms[name]
            if not here.policies and not asked:
                del self._per_namespace[name]
        lists, requirements = MappingProxyType(dict(self._lists)), MappingProxyType(dict(self._atoms))
        self._set = RuleSet(lists, self._labels, requirements, self._settings)

    def _fitting(self, name: str, asked: frozenset[LabelRequirement]) -> frozenset[LabelRequirement]:
        """What of `asked` is answered in a namespace: the same in every process that knows the same policies."""
        self._crowded.pop(name, None)
        fitting = RequirementBudget().admit(asked)
        if fitting == asked:
            return asked
        reason = (
            f"policies use {len(asked)} label requirements on its pods, of which {len(fitting)} fit: "
            "rules that need the others match no peers by them"
        )
        self._crowded[name] = Problem(reason, kind="Namespace", name=name)
        return fitting

    def _reach(self, policy: NormalPolicy) -> frozenset[str]:
        """Namespaces with pods that `policy` may select, or that its egress rules leave to the destination's node."""
        names = set(self._in_scope(policy.subject))
        for rule in policy.rules:
            if rule.direction is Direction.EGRESS and is_deferred(rule):
                for scope in (Scope(),) if _reaches_all(rule) else rule.scopes:
                    names |= self._in_scope(scope)
        return frozenset(names)

    def _in_scope(self, scope: Scope) -> frozenset[str]:
        if scope.namespace is not None:
            return frozenset({scope.namespace})
        if scope.namespaces not in self._matching:
            matching = (name for name, labels in self._labels.items() if scope.namespaces.matches(labels))
            self._matching[scope.namespaces] = frozenset(matching)
        return self._matching[scope.namespaces]


def joint_requirements(first: LabelRequirements, second: LabelRequirements) -> LabelRequirements:
    """What either asks."""
    return {
        name: first.get(name, NO_REQUIREMENTS) | second.get(name, NO_REQUIREMENTS)
        for name in first.keys() | second.keys()
    }


def _order(key: PolicyKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _depends(policy: NormalPolicy, namespaces: frozenset[str]) -> bool:
    """Whether what was worked out about `policy` may depend on the labels of these namespaces."""
    scopes = (policy.subject, *(scope for rule in policy.rules for scope in rule.scopes))
    if any(scope.namespace is None or scope.namespace in namespaces for scope in scopes):
        return True
    return any(_reaches_all(rule) for rule in policy.rules)


def _reaches_all(rule: NormalRule) -> bool:
    return rule.direction is Direction.EGRESS and bool(rule.any_peer or rule.cidrs) and is_deferred(rule)


def _of_tenants(policy: NormalPolicy, tenants: Collection[str]) -> bool:
    """Whether `policy` may concern a pod of one of `tenants`: a Romana policy selects those of its own alone."""
    asked = policy.subject.tenant
    return asked is None or asked in tenants
