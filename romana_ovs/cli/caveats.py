"""Finds reasons why an answer may be wrong: policies of other kinds, which are not acted on, and IPv6."""

from __future__ import annotations

from romana_ovs.cli.common import problem_row
from romana_ovs.kube.decode.objects import DecodedObject
from romana_ovs.kube.decode.other_policies import Effect, OtherPolicy
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.errors import Severity
from romana_ovs.model.syntax import joined

_ERRORS = (("too open", {Effect.BOTH, Effect.CLOSES}), ("too closed", {Effect.BOTH, Effect.OPENS}))


def caveats(*snapshots: ClusterSnapshot) -> list[str]:
    """A sentence for each reason why an answer about these manifests may be wrong."""
    policies: dict[str, Effect] = {}
    with_ipv6: dict[str, None] = {}
    for item in (item for one in snapshots for item in one.objects if item.unsupported):
        if not isinstance(item.value, OtherPolicy):
            with_ipv6[_name(item)] = None
        elif item.value.effect is not Effect.NONE:
            policies[_name(item)] = item.value.effect
    sentences = []
    if policies:
        faults = " and ".join(fault for fault, effects in _ERRORS if effects.intersection(policies.values()))
        verb = "are" if len(policies) > 1 else "is"
        sentences.append(f"This answer may be {faults}: {joined(policies)} {verb} not acted on.")
    if with_ipv6:
        sentences.append(f"Only IPv4 is evaluated; {joined(with_ipv6)} {'have' if len(with_ipv6) > 1 else 'has'} IPv6.")
    return sentences


def problems_json(*snapshots: ClusterSnapshot) -> dict[str, object]:
    """The field `problems` of an answer: what is printed to stderr as warnings. Absent when there is nothing."""
    problems = dict.fromkeys(
        problem
        for one in snapshots
        for problem in (*one.problems, *one.unsupported)
        if problem.severity is not Severity.INFO
    )
    return {"problems": [problem_row(problem) for problem in problems]} if problems else {}


def _name(item: DecodedObject) -> str:
    namespace = f"{item.id.namespace}/" if item.id is not None and item.id.namespace else ""
    return f"{item.location.kind} {namespace}{item.location.name}".rstrip()
