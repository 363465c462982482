"""Normalises policies, and indexes them and their label requirements by namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.engine.changes import Changes, changed_keys
from romana_ovs.engine.endpoints import needs_endpoint
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.derived import keep_equal
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import Labels, Selector
from romana_ovs.model.objects import Direction, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.requirements import RequirementBudget, is_deferred, requirements_by_namespace
from romana_ovs.policy.rules import NormalPolicy, NormalRule, Scope
from romana_ovs.policy.view import LabelRequirement

LabelRequirements = Mapping[str, frozenset[LabelRequirement]]
NO_REQUIREMENTS: frozenset[LabelRequirement] = frozenset()
Listed = tuple[tuple[tuple[str, str, str], NormalPolicy], ...]
"""Policies with their keys as plain tuples, sorted by them."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The policies that may concern each namespace, the labels of namespaces, and the requirements in use."""

    by_namespace: Mapping[str, Listed]
    namespace_labels: Mapping[str, Labels]
    requirements: LabelRequirements
    settings: Settings = field(default_factory=Settings)

    def concerning(self, namespaces: Iterable[str], tenants: Collection[str]) -> tuple[NormalPolicy, ...]:
        """The policies that may concern pods of these namespaces and tenants, sorted by key."""
        policies = {key: policy for name in namespaces for key, policy in self.by_namespace.get(name, ())}
        return tuple(policies[key] for key in sorted(policies) if _may_concern(policies[key], tenants))

    def lists(self, namespaces: Iterable[str]) -> tuple[Listed, ...]:
        """The inputs of `concerning`: equal lists give equal results."""
        return tuple(self.by_namespace.get(name, ()) for name in namespaces)


NO_RULES = RuleSet(MappingProxyType({}), MappingProxyType({}), MappingProxyType({}))


@dataclass(slots=True)
class _IndexedPolicy:
    """A normalised policy, its requirements by namespace, and the namespaces that it may concern."""

    policy: NormalPolicy
    requirements: LabelRequirements
    reach: frozenset[str]


@dataclass(slots=True)
class _Namespace:
    """The policies that may concern a namespace, and how many policies use each requirement in it."""

    policies: dict[tuple[str, str, str], NormalPolicy] = field(default_factory=dict)
    requirements: Counter[LabelRequirement] = field(default_factory=Counter)


class PolicyIndex:
    """The policies of a cluster, indexed by namespace. Only changed policies are normalised again."""

    def __init__(self) -> None:
        self._policies: dict[PolicyKey, _IndexedPolicy] = {}
        self._per_namespace: dict[str, _Namespace] = {}
        self._labels: Mapping[str, Labels] = MappingProxyType({})
        self._matching: dict[Selector, frozenset[str]] = {}
        self._lists: dict[str, Listed] = {}
        self._requirements: dict[str, frozenset[LabelRequirement]] = {}
        self._set = NO_RULES
        self._settings = Settings()
        self._over_budget: dict[str, Problem] = {}
        self._cluster: Cluster | None = None
        self._in_namespace: Counter[str] = Counter()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """One for each namespace in which policies use more requirements than fit."""
        return tuple(self._over_budget.values())

    def update(self, cluster: Cluster, pods: Collection[PodKey] | None = None) -> RuleSet:
        """Updates the index to `cluster`, and returns the rules: the identical object until they change.

        `pods` are those that changed since the last update, if that is known.
        """
        before, self._cluster = self._cluster, cluster
        changes = Changes.between(before, cluster, pods)
        changed_policies = changed_keys(before.policies if before is not None else {}, cluster.policies)
        if changes.meaning:
            changed_policies |= cluster.policies.keys()
        for key in changes.pods:
            for pods, sign in ((before.pods if before is not None else {}, -1), (cluster.pods, 1)):
                if (pod := needs_endpoint(pods.get(key))) is not None:
                    self._in_namespace[pod.namespace] += sign
                    if not self._in_namespace[pod.namespace]:
                        del self._in_namespace[pod.namespace]
        self._apply(cluster, changes, changed_policies)
        return self._set

    def _apply(self, cluster: Cluster, changes: Changes, changed_policies: set[PolicyKey]) -> None:
        self._settings = cluster.settings
        relabelled = self._update_namespaces(cluster, changes, {key.namespace for key in changed_policies})
        if relabelled:
            depending = {key for key, indexed in self._policies.items() if _depends(indexed.policy, relabelled)}
            changed_policies = changed_policies | depending
        dirty: set[str] = set()
        for key in sorted(changed_policies):
            old = self._drop(key, dirty)
            policy = cluster.policies.get(key)
            if policy is not None:
                new = normalise(policy, cluster)
                # An equal one stays the identical object: others compare by identity.
                self._add(key, old if old == new else new, settings=cluster.settings, dirty=dirty)
        if dirty or relabelled:
            self._rebuild(dirty)

    def _update_namespaces(self, cluster: Cluster, changes: Changes, named: Set[str]) -> frozenset[str]:
        """Updates the labels of every namespace that exists, has pods, or is `named` by a changed policy.

        Returns the namespaces with other labels.
        """
        labels, used = self._labels, self._in_namespace
        new_names = (named | set(used)) - labels.keys()
        if not (changes.namespaces or new_names or changes.meaning or self._unused(cluster, used)):
            return frozenset()
        names = cluster.namespaces.keys() | set(used) | {key.namespace for key in cluster.policies}
        new = {name: cluster.namespace_labels(name) for name in sorted(names)}
        changed = frozenset(name for name in new.keys() | labels.keys() if new.get(name) != labels.get(name))
        if changed:
            self._labels = MappingProxyType(new)
            self._matching.clear()
        return changed

    def _unused(self, cluster: Cluster, used: Collection[str]) -> bool:
        """Whether a namespace is kept that has no object and no pods (a policy may still name it)."""
        return any(name not in cluster.namespaces and name not in used for name in self._labels)

    def _add(self, key: PolicyKey, policy: NormalPolicy, *, settings: Settings, dirty: set[str]) -> None:
        requirements = requirements_by_namespace((policy,), self._labels, settings=settings, matching=self._matching)
        indexed = self._policies[key] = _IndexedPolicy(policy, requirements, self._reach(policy))
        for name in indexed.reach:
            self._at(name).policies[_order(key)] = policy
        for name, needed in requirements.items():
            self._at(name).requirements.update(needed)
        dirty |= indexed.reach | requirements.keys()

    def _at(self, namespace: str) -> _Namespace:
        return self._per_namespace.setdefault(namespace, _Namespace())

    def _drop(self, key: PolicyKey, dirty: set[str]) -> NormalPolicy | None:
        indexed = self._policies.pop(key, None)
        if indexed is None:
            return None
        for name in indexed.reach:
            del self._per_namespace[name].policies[_order(key)]
        for name, needed in indexed.requirements.items():
            self._per_namespace[name].requirements.subtract(needed)
        dirty |= indexed.reach | indexed.requirements.keys()
        return indexed.policy

    def _rebuild(self, dirty: set[str]) -> None:
        for name in dirty:
            namespace = self._per_namespace[name]
            self._lists[name] = tuple(sorted(namespace.policies.items(), key=lambda item: item[0]))
            needed = frozenset(requirement for requirement, count in namespace.requirements.items() if count > 0)
            self._requirements[name] = self._admitted(name, needed)
            if not self._lists[name]:
                del self._lists[name]
            if not needed:
                del self._requirements[name]
            if not namespace.policies and not needed:
                del self._per_namespace[name]
        lists = MappingProxyType(dict(self._lists))
        requirements = keep_equal(self._set.requirements, MappingProxyType(dict(self._requirements)))
        self._set = RuleSet(lists, self._labels, requirements, self._settings)

    def _admitted(self, name: str, needed: frozenset[LabelRequirement]) -> frozenset[LabelRequirement]:
        """The `needed` that fit into a namespace: the same ones in every process with the same policies."""
        self._over_budget.pop(name, None)
        admitted = RequirementBudget().admit(needed)
        if admitted == needed:
            return needed
        reason = (
            f"policies use {len(needed)} label requirements on its pods, of which {len(admitted)} fit: "
            "rules that need the others match no peers by them"
        )
        self._over_budget[name] = Problem(reason, kind="Namespace", name=name)
        return admitted

    def _reach(self, policy: NormalPolicy) -> frozenset[str]:
        """Namespaces with pods that `policy` may select, or that are destinations of its deferred egress rules."""
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
    """The requirements of either, by namespace."""
    return {
        name: first.get(name, NO_REQUIREMENTS) | second.get(name, NO_REQUIREMENTS)
        for name in first.keys() | second.keys()
    }


def _order(key: PolicyKey) -> tuple[str, str, str]:
    return key.kind, key.namespace, key.name


def _depends(policy: NormalPolicy, namespaces: frozenset[str]) -> bool:
    """Whether the indexed values of `policy` may depend on the labels of these namespaces."""
    scopes = (policy.subject, *(scope for rule in policy.rules for scope in rule.scopes))
    if any(scope.namespace is None or scope.namespace in namespaces for scope in scopes):
        return True
    return any(_reaches_all(rule) for rule in policy.rules)


def _reaches_all(rule: NormalRule) -> bool:
    return rule.direction is Direction.EGRESS and bool(rule.any_peer or rule.cidrs) and is_deferred(rule)


def _may_concern(policy: NormalPolicy, tenants: Collection[str]) -> bool:
    """Whether `policy` may concern a pod of one of `tenants`: a Romana policy selects those of its own alone."""
    tenant = policy.subject.tenant
    return tenant is None or tenant in tenants
