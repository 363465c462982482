"""Mixes the rules in force with newer ones of which some have to wait: namespaces do not wait for each other.

A rule with a new label requirement waits until pods use the classes that answer it. The policies of one namespace come
into force together, so that one may replace another without a gap; those of different namespaces need not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from romana_ovs.engine.policy_index import NO_REQUIREMENTS, LabelRequirements, Listed, RuleSet, joint_requirements
from romana_ovs.model.labels import Labels
from romana_ovs.policy.classes import requirements_by_namespace
from romana_ovs.policy.rules import NormalPolicy
from romana_ovs.policy.view import LabelRequirement

_Policies = dict[tuple[str, str, str], NormalPolicy]


def in_force_for(rules: RuleSet, namespaces: Mapping[str, Labels]) -> RuleSet:
    """`rules` as they are in force, with the namespaces that came since."""
    labels = {name: rules.namespaces.get(name, new) for name, new in namespaces.items()}
    return RuleSet(rules.by_namespace, MappingProxyType(labels), rules.requirements, rules.settings)


def adopt_ready(
    rules: RuleSet, target: RuleSet, answered: Callable[[str, frozenset[LabelRequirement]], bool]
) -> RuleSet:
    """`rules`, which are in force, with those of `target` for whose policies' namespace nothing has to be waited for.

    `answered` says whether these requirements may be relied on in a namespace. While a namespace that was there has
    other labels, all rules wait, for any may select by them.
    """
    waiting = in_force_for(rules, target.namespaces)
    if any(label != waiting.namespaces[name] for name, label in target.namespaces.items()):
        return waiting
    names = [
        name
        for name in {**rules.by_namespace, **target.by_namespace}
        if rules.by_namespace.get(name) is not target.by_namespace.get(name)
    ]
    old, new = _policies(rules, names), _policies(target, names)
    changed = {key: policy for key, policy in new.items() if old.get(key) is not policy}
    requirements = {key: _fitting(policy, target) for key, policy in changed.items()}
    late = {
        changed[key].key.namespace
        for key, asked in requirements.items()
        if not all(answered(name, some) for name, some in asked.items())
    }
    owners = {policy.key.namespace for policy in changed.values()} | {
        policy.key.namespace for key, policy in old.items() if key not in new
    }
    if owners <= late:
        return waiting
    lists = dict(rules.by_namespace)
    for name in names:
        lists[name] = _mixed(rules.by_namespace.get(name, ()), target.by_namespace.get(name, ()), late)
        if not lists[name]:
            del lists[name]
    asked_now: LabelRequirements = rules.requirements
    for key, asked in requirements.items():
        if changed[key].key.namespace not in late:
            asked_now = joint_requirements(asked_now, asked)
    return RuleSet(MappingProxyType(lists), waiting.namespaces, MappingProxyType(dict(asked_now)), target.settings)


def _policies(rules: RuleSet, names: list[str]) -> _Policies:
    return {key: policy for name in names for key, policy in rules.by_namespace.get(name, ())}


def _fitting(policy: NormalPolicy, target: RuleSet) -> LabelRequirements:
    """What `policy` asks, as far as anybody is going to answer it."""
    asked = requirements_by_namespace((policy,), target.namespaces, settings=target.settings)
    fitting = {name: some & target.requirements.get(name, NO_REQUIREMENTS) for name, some in asked.items()}
    return {name: some for name, some in fitting.items() if some}


def _mixed(old: Listed, new: Listed, late: set[str]) -> Listed:
    """The policies of `new`, but for those of namespaces that are late, which are as in `old`."""
    kept = [item for item in old if item[1].key.namespace in late]
    come = [item for item in new if item[1].key.namespace not in late]
    mixed = tuple(sorted((*kept, *come), key=lambda item: item[0]))
    return old if len(mixed) == len(old) and all(a[1] is b[1] for a, b in zip(mixed, old, strict=True)) else mixed
