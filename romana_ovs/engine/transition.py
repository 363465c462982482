"""Combines the rules in force with newer ones of which some have to wait; namespaces do not wait for each other.

A rule with a new label requirement waits until pods use the classes that answer it. The policies of one namespace come
into force together, so that one may replace another without a gap; those of different namespaces need not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from romana_ovs.engine.policy_index import NO_REQUIREMENTS, LabelRequirements, Listed, RuleSet, joint_requirements
from romana_ovs.model.labels import Labels
from romana_ovs.policy.requirements import requirements_by_namespace
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.view import LabelRequirement

_Policies = dict[tuple[str, str, str], NormalPolicy]


def with_namespaces(rules: RuleSet, namespaces: Mapping[str, Labels]) -> RuleSet:
    """`rules`, which are in force, with the labels of new namespaces; old namespaces keep their labels."""
    labels = {name: rules.namespace_labels.get(name, new) for name, new in namespaces.items()}
    return RuleSet(rules.by_namespace, MappingProxyType(labels), rules.requirements, rules.settings)


def enforce_ready(
    rules: RuleSet, target: RuleSet, may_rely_on: Callable[[str, frozenset[LabelRequirement]], bool]
) -> RuleSet:
    """`rules`, which are in force, with the policies of `target` from each namespace that need not wait.

    `may_rely_on` says whether rules may rely on these requirements in a namespace. While an old namespace has other
    labels, all rules wait, as any may select by them. Requirements of replaced policies stay until all of `target` is
    in force, as policies that wait may have them.
    """
    unchanged_rules = with_namespaces(rules, target.namespace_labels)
    if any(labels != unchanged_rules.namespace_labels[name] for name, labels in target.namespace_labels.items()):
        return unchanged_rules
    names = [
        name
        for name in {**rules.by_namespace, **target.by_namespace}
        if rules.by_namespace.get(name) is not target.by_namespace.get(name)
    ]
    old, new = _policies(rules, names), _policies(target, names)
    changed = {key: policy for key, policy in new.items() if old.get(key) is not policy}
    requirements = {key: _admitted(policy, target) for key, policy in changed.items()}
    waiting_namespaces = {
        changed[key].key.namespace
        for key, required in requirements.items()
        if not all(may_rely_on(name, needed) for name, needed in required.items())
    }
    changed_namespaces = {policy.key.namespace for policy in changed.values()} | {
        policy.key.namespace for key, policy in old.items() if key not in new
    }
    if changed_namespaces <= waiting_namespaces:
        return unchanged_rules
    lists = dict(rules.by_namespace)
    for name in names:
        lists[name] = _mixed(rules.by_namespace.get(name, ()), target.by_namespace.get(name, ()), waiting_namespaces)
        if not lists[name]:
            del lists[name]
    all_required: LabelRequirements = rules.requirements
    for key, required in requirements.items():
        if changed[key].key.namespace not in waiting_namespaces:
            all_required = joint_requirements(all_required, required)
    return RuleSet(
        MappingProxyType(lists), unchanged_rules.namespace_labels, MappingProxyType(dict(all_required)), target.settings
    )


def _policies(rules: RuleSet, names: list[str]) -> _Policies:
    return {key: policy for name in names for key, policy in rules.by_namespace.get(name, ())}


def _admitted(policy: NormalPolicy, target: RuleSet) -> LabelRequirements:
    """The requirements of `policy` by namespace, as far as the budgets of namespaces admit them."""
    required = requirements_by_namespace((policy,), target.namespace_labels, settings=target.settings)
    admitted = {name: needed & target.requirements.get(name, NO_REQUIREMENTS) for name, needed in required.items()}
    return {name: needed for name, needed in admitted.items() if needed}


def _mixed(old: Listed, new: Listed, waiting_namespaces: set[str]) -> Listed:
    """The policies of `new`, except that waiting namespaces have those of `old`."""
    kept = [item for item in old if item[1].key.namespace in waiting_namespaces]
    ready = [item for item in new if item[1].key.namespace not in waiting_namespaces]
    mixed = tuple(sorted((*kept, *ready), key=lambda item: item[0]))
    return old if len(mixed) == len(old) and all(a[1] is b[1] for a, b in zip(mixed, old, strict=True)) else mixed
