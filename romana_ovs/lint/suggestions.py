"""Explains why a selector matches none of some objects, and suggests the nearest labels that there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from romana_ovs.kube.decode.controller_labels import ADDED_LABELS, is_made_up
from romana_ovs.model.labels import Operator, Requirement, Selector
from romana_ovs.model.selector_text import requirement_text, selector_text
from romana_ovs.model.spelling import is_misspelt, nearest
from romana_ovs.model.syntax import joined

NAMING_KEYS = frozenset(
    {
        "app",
        "app.kubernetes.io/component",
        "app.kubernetes.io/instance",
        "app.kubernetes.io/name",
        "component",
        "k8s-app",
        "name",
        "role",
        "run",
        "service",
        "tier",
    }
)
"""Labels by which people name what a pod is; a value may be meant for another one of them."""

LabelSets = Sequence[Mapping[str, str]]


class Explanation(NamedTuple):
    """Why a selector matches nothing; `suggestion` is what to write instead, empty without a label like it.

    `known`: the objects have labels with these keys, or like them, so that the selector is probably about such objects.
    """

    reason: str
    suggestion: str = ""
    known: bool = True

    def __str__(self) -> str:
        return f"{self.reason}; write {self.suggestion}?" if self.suggestion else self.reason


def contradiction(selector: Selector) -> str:
    """Why no labels at all can match, or empty: `app=a and app=b exclude each other`."""
    by_key: dict[str, list[Requirement]] = {}
    for requirement in selector.requirements:
        by_key.setdefault(requirement.key, []).append(requirement)
    for requirements in by_key.values():
        operators = {one.operator for one in requirements}
        required = [one.values for one in requirements if one.operator is Operator.IN]
        excluded = frozenset().union(*(one.values for one in requirements if one.operator is Operator.NOT_IN))
        possible = frozenset.intersection(*required) - excluded if required else None
        needs = possible is not None or Operator.EXISTS in operators
        if (possible is not None and not possible) or (needs and Operator.DOES_NOT_EXIST in operators):
            return f"{joined([requirement_text(one) for one in requirements])} exclude each other"
    return ""


def explain(selector: Selector, candidates: LabelSets, what: str) -> Explanation:
    """Why `selector` matches none of `candidates` (labels of what `what` names in the plural, such as `pods`)."""
    failing = [one for one in selector.requirements if not any(one.matches(labels) for labels in candidates)]
    if not failing:
        return Explanation(f"none of the {what} has all of {selector_text(selector)}")
    explained = [_explain(requirement, candidates, what) for requirement in failing]
    best = max(explained, key=lambda one: bool(one.suggestion))
    others = [requirement_text(one) for one, text in zip(failing, explained, strict=True) if text is not best]
    known = bool(best.suggestion) or all(one.known for one in explained)
    return best._replace(known=known, reason=best.reason + (f", and none has {joined(others)}" if others else ""))


def _explain(requirement: Requirement, candidates: LabelSets, what: str) -> Explanation:
    key, text = requirement.key, requirement_text(requirement)
    if requirement.operator in (Operator.NOT_IN, Operator.DOES_NOT_EXIST):
        return Explanation(f"all of the {what} have what {text} excludes")
    values = sorted({labels[key] for labels in candidates if key in labels})
    if values and all(is_made_up(key, value) for value in values):
        return Explanation(f"none of the {what} has {text}")
    values = [value for value in values if not is_made_up(key, value)]
    if values:
        there = joined([f"{key}={value}" for value in values])
        return Explanation(
            f"none of the {what} has {text} (there {'is' if len(values) == 1 else 'are'} {there})",
            next(_near_values(requirement, values), ""),
        )
    reason = f"none of the {what} has a label {key}"
    keys = sorted({one for labels in candidates for one in labels} - ADDED_LABELS)
    if keys:
        reason += f" (there {'is' if len(keys) == 1 else 'are'} {joined(keys)})"
    suggestion = _near_key(requirement, candidates, keys)
    return Explanation(reason, suggestion, bool(suggestion))


def _near_values(requirement: Requirement, values: Sequence[str]) -> Iterator[str]:
    """`key: value` for each required value that is probably a misspelling of one that there is."""
    for wanted in sorted(requirement.values):
        if (near := nearest(wanted, values)) and is_misspelt(wanted, near):
            yield f"{requirement.key}: {near}"


def _near_key(requirement: Requirement, candidates: LabelSets, keys: Sequence[str]) -> str:
    """`key: value` with a key that has a required value and means much the same, or that is like the required one."""
    wanted = requirement.key
    for key in sorted(keys, key=lambda key: (nearest(wanted, [key]) == "", key)):
        alike = nearest(wanted, [key]) or (wanted in NAMING_KEYS and key in NAMING_KEYS)
        values = sorted({labels[key] for labels in candidates if key in labels}) if alike else []
        for value in sorted(requirement.values):
            if value in values:
                return f"{key}: {value}"
        if nearest(wanted, [key]):
            near = next((one for value in sorted(requirement.values) if (one := nearest(value, values))), "")
            if near or requirement.operator is Operator.EXISTS:
                return f"{key}: {near}" if near else key
    return ""
