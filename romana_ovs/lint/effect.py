"""Checks policies, or parts of them, that change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from romana_ovs.lint.context import LintContext, PolicyObject
from romana_ovs.model.errors import Problem
from romana_ovs.model.labels import EVERYTHING
from romana_ovs.model.objects import Direction, KubernetesPolicy, Policy, PolicyRule, RomanaPolicy, RomanaRule
from romana_ovs.model.settings import Isolation
from romana_ovs.model.syntax import joined


def unused_rules(context: LintContext) -> Iterator[Problem]:
    """Rules of a direction that is not in policyTypes."""
    for policy in context.policies:
        if not isinstance(policy.policy, KubernetesPolicy):
            continue
        for direction, rules in ((Direction.INGRESS, policy.policy.ingress), (Direction.EGRESS, policy.policy.egress)):
            if rules and direction not in policy.policy.directions:
                reason = f"has no effect, as policyTypes does not list {direction.value}; add it there"
                yield policy.warning(f"spec.{direction.value.lower()}", reason)


def duplicate_policies(context: LintContext) -> Iterator[Problem]:
    """Policies that say the same as an earlier one of their namespace."""
    earlier: dict[object, PolicyObject] = {}
    for policy in context.policies:
        first = earlier.setdefault(_content(policy.policy), policy)
        if first is not policy:
            yield policy.note("spec", f"is the same as that of {first.policy.key}, so one of them changes nothing")


def _content(policy: Policy) -> object:
    """What a policy says, without its name."""
    if isinstance(policy, RomanaPolicy):
        return policy.namespace, policy.labels, policy.selector, policy.rules
    return policy.namespace, policy.selector, policy.directions, policy.ingress, policy.egress


def redundant_policies(context: LintContext) -> Iterator[Problem]:
    """Policies whose pods other policies isolate already, and whose rules others have, too; and deny-only policies."""
    for policy in context.policies:
        if not policy.pods:
            continue
        others = [one for one in context.selecting(policy) if one is not policy]
        directions = [direction for direction in Direction if policy.isolates(direction)]
        covering = {direction: _covering(policy, others, direction) for direction in directions}
        if not directions or not all(covering.values()):
            continue
        if any(_content(one.policy) == _content(policy.policy) for one in others):
            continue  # a duplicate, which is a finding of its own
        names = sorted({str(one.policy.key) for policies in covering.values() for one in policies})
        select, have = ("selects", "has") if len(names) == 1 else ("select", "have")
        if any(_rules(policy.policy, direction) for direction in directions):
            yield policy.note("spec", f"changes nothing: {joined(names)} {select} its pods and {have} its rules, too")
        elif policy.policy.selector != EVERYTHING:
            reason = (
                f"has no rule and changes nothing: {joined(names)} {select} its pods, too, and policies only add up: "
                "none takes away what another one allows"
            )
            yield (policy.warning if _is_overridden(policy, covering) else policy.note)("spec", reason)


def _is_overridden(policy: PolicyObject, covering: Mapping[Direction, list[PolicyObject]]) -> bool:
    """Whether a policy without rules is probably meant to take away what others allow.

    Denying everything beside what others allow to the same pods is usual. It is a mistake where these policies select
    further pods, too, or allow everything.
    """
    return any(
        not one.keys <= policy.keys or PolicyRule() in _rules(one.policy, direction)
        for direction, others in covering.items()
        for one in others
    )


def _covering(policy: PolicyObject, others: list[PolicyObject], direction: Direction) -> list[PolicyObject]:
    """Other policies that together isolate every pod of `policy` and have every rule of it there; none if not all."""
    own = set(_rules(policy.policy, direction))
    rules = {id(one): set(_rules(one.policy, direction)) for one in others if one.isolates(direction)}
    # A policy that denies everything else is no reason to leave out one that allows something.
    useful = [one for one in others if rules.get(id(one)) and (not own or own & rules[id(one)])]
    for pod in policy.pods:
        selecting = [one for one in useful if pod.key in one.keys]
        if not selecting or own.difference(*(rules[id(one)] for one in selecting)):
            return []
    return useful


def _rules(policy: Policy, direction: Direction) -> tuple[PolicyRule | RomanaRule, ...]:
    if isinstance(policy, RomanaPolicy):
        return policy.rules if direction is Direction.INGRESS else ()
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def open_to_all(context: LintContext) -> Iterator[Problem]:
    """Policies that allow everything in a direction in which no other policy isolates their pods."""
    for policy in context.policies:
        spec = policy.policy
        if not isinstance(spec, KubernetesPolicy) or not policy.pods or len(spec.directions) != 1:
            continue
        (direction,) = spec.directions
        narrower = direction is Direction.INGRESS and context.cluster.settings.isolation is Isolation.TIER
        if PolicyRule() not in _rules(spec, direction) or narrower:
            continue
        others = [one for one in context.selecting(policy) if one is not policy]
        if not any(one.isolates(direction) for one in others):
            word = direction.value.lower()
            reason = f"changes nothing: no other policy selects its pods for {word}, and the same is open without one"
            yield policy.note("spec", reason)


def empty_peer_lists(context: LintContext) -> Iterator[Problem]:
    """`from: []` and `to: []` without ports, which allow everything and not nothing."""
    for policy in context.policies:
        spec = policy.item.source.get("spec")
        if not isinstance(policy.policy, KubernetesPolicy) or not isinstance(spec, Mapping):
            continue
        for field, side in (("ingress", "from"), ("egress", "to")):
            rules = spec.get(field)
            for index, rule in enumerate(rules if isinstance(rules, list) else ()):
                if isinstance(rule, Mapping) and rule.get(side) == [] and not rule.get("ports"):
                    reason = f"an empty list means everyone; to allow nobody leave out the rule ({field}: [])"
                    yield policy.note(f"spec.{field}[{index}].{side}", reason)
