"""The words for a decision: one sentence, and the rules that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.objects import PolicyKey

NODE = "Node"
TENANT = "Tenant"
ISOLATION = "Isolation"
"""Kinds of `RuleRef` for the steps of docs/design.md section 5 that no policy object stands for."""


class RuleRef(NamedTuple):
    """What decided: a policy's kind, namespace and name with its rule (`ingress[0]`), or one of the kinds above.

    `rule` is empty where a policy decided by selecting a pod and admitting nothing that fits.
    """

    kind: str
    namespace: str = ""
    name: str = ""
    rule: str = ""

    def __str__(self) -> str:
        owner = f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
        return f"{self.rule} of {owner}" if self.rule else owner

    @classmethod
    def of(cls, key: PolicyKey, rule: str = "") -> RuleRef:
        """A policy, or one of its rules."""
        return cls(key.kind, key.namespace, key.name, rule)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a connection may be opened, the sentence that says why, and the rules it rests on.

    `rules` is empty where nothing restricts the connection, or where there is no such end.
    """

    allowed: bool
    reason: str
    rules: tuple[RuleRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """What the policies of one direction say: which select the pod, and which of their rules admit the connection."""

    selecting: tuple[PolicyKey, ...] = ()
    admitting: tuple[RuleRef, ...] = ()

    @property
    def refuses(self) -> bool:
        """Whether some policy selects the pod and none admits the connection."""
        return bool(self.selecting) and not self.admitting


def sentence(connection: object, allowed: bool, why: str) -> str:
    """The whole sentence about `connection`."""
    return f"{connection} is {'allowed' if allowed else 'dropped'}: {why}."


def refusals(egress: Side, ingress: Side, ends: tuple[str, str]) -> str:
    """Why policies drop it; `ends` are the names of source and destination, at least one side refuses."""
    said = []
    for side, word, end in ((egress, "egress", ends[0]), (ingress, "ingress", ends[1])):
        if side.refuses:
            several = len(side.selecting) > 1
            said.append(
                f"{listing(side.selecting)} {'select' if several else 'selects'} {end} for {word} "
                f"and {'none of them has' if several else 'has no'} {'a ' if several else ''}rule that admits it"
            )
    return ", and ".join(said)


def permissions(egress: Side, ingress: Side) -> str:
    """Which rules let it out and in, as far as policies decide; empty when they do not."""
    said = []
    for side, word in ((egress, "out"), (ingress, "in")):
        if side.admitting:
            said.append(f"{listing(side.admitting)} {'let' if len(side.admitting) > 1 else 'lets'} it {word}")
    return " and ".join(said)


def isolation(level: str, destination: str, *, segment: SegmentKey, admitted: bool, shared: bool) -> str:
    """What the isolation level says of a destination that no policy selects for ingress."""
    start = f"no policy selects {destination} for ingress"
    if shared:
        return f"{start} and tenant {segment.tenant} is shared, so every tenant's pods may connect to it"
    if level == "none":
        return f"{start} and isolation level none lets every pod connect"
    scope = f"tier {segment.tier} of tenant {segment.tenant}" if level == "tier" else f"tenant {segment.tenant}"
    return f"{start} and isolation level {level} lets {'' if admitted else 'only '}pods of {scope} connect"


def listing(items: Sequence[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
