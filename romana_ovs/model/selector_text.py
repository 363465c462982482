"""Writes selectors as kubectl does, and describes which of their requirements labels do not meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from romana_ovs.model.labels import Operator, Requirement, Selector
from romana_ovs.model.syntax import LISTED_NAMES


def requirement_text(requirement: Requirement) -> str:
    """A requirement in the notation of `kubectl get -l`: `app=web`, `app in (a,b)`, `app`, `!app`."""
    values = sorted(requirement.values)
    if requirement.operator is Operator.EXISTS:
        return requirement.key
    if requirement.operator is Operator.DOES_NOT_EXIST:
        return f"!{requirement.key}"
    if len(values) == 1:
        return f"{requirement.key}{'=' if requirement.operator is Operator.IN else '!='}{values[0]}"
    shown = ",".join(values[:LISTED_NAMES]) + (",..." if len(values) > LISTED_NAMES else "")
    return f"{requirement.key} {'in' if requirement.operator is Operator.IN else 'notin'} ({shown})"


def selector_text(selector: Selector) -> str:
    """A selector in the notation of `kubectl get -l`, or `{}`."""
    return ",".join(requirement_text(one) for one in selector.requirements) or "{}"


def label_differences(selector: Selector, labels: Mapping[str, str]) -> Iterator[str]:
    """A phrase for each requirement that `labels` do not meet: `app=web is required and app is db`."""
    for requirement in selector.requirements:
        if not requirement.matches(labels):
            value = labels.get(requirement.key)
            present = (
                f"{requirement.key} is {value or 'empty'}"
                if value is not None
                else f"there is no label {requirement.key}"
            )
            yield f"{requirement_text(requirement)} is required and {present}"
