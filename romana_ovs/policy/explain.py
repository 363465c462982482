"""Explains a decision about a connection in one sentence, and names the rules that made it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.objects import PolicyKey
from romana_ovs.model.syntax import joined

NODE = "Node"
TENANT = "Tenant"
ISOLATION = "Isolation"
"""Kinds of `RuleRef` for the steps of docs/design.md section 5 that no policy object stands for."""


class RuleRef(NamedTuple):
    """A rule that decided: a policy's kind, namespace and name with its rule (`ingress[0]`), or one of the kinds above.

    `rule` is empty if a policy decided by selecting a pod and not admitting the connection. If an ipBlock of the rule
    admits it, `block` is its CIDR and `address` the address in it.
    """

    kind: str
    namespace: str = ""
    name: str = ""
    rule: str = ""
    address: str = ""
    block: str = ""

    def __str__(self) -> str:
        owner = f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"
        matched = f" (its ipBlock {self.block} has {self.address})" if self.block else ""
        return f"{self.rule} of {owner}{matched}" if self.rule else owner

    def to_json(self) -> dict[str, str]:
        """As docs/design.md section 8 writes it; `address` and `block` are absent when they are empty."""
        return {name: value for name, value in self._asdict().items() if value or name not in ("address", "block")}

    @classmethod
    def of(cls, key: PolicyKey, rule: str = "", *, address: str = "", block: str = "") -> RuleRef:
        """A policy, or one of its rules."""
        return cls(key.kind, key.namespace, key.name, rule, address, block)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a connection may be opened, a sentence with the reason, and the rules that decided.

    `rules` is empty if nothing restricts the connection, or if it has no such end.
    """

    allowed: bool
    reason: str
    rules: tuple[RuleRef, ...] = ()


@dataclass(frozen=True, slots=True)
class DirectionResult:
    """One direction: the policies that select the pod, and their rules that admit the connection."""

    selecting: tuple[PolicyKey, ...] = ()
    admitting: tuple[RuleRef, ...] = ()

    @property
    def denies(self) -> bool:
        """Whether some policy selects the pod and none admits the connection."""
        return bool(self.selecting) and not self.admitting


def sentence(connection: object, allowed: bool, why: str) -> str:
    """The complete sentence about `connection`."""
    return f"{connection} is {'allowed' if allowed else 'dropped'}: {why}."


def denials(egress: DirectionResult, ingress: DirectionResult, ends: tuple[str, str]) -> str:
    """Why policies drop a connection between `ends` (source, destination); at least one of the directions denies it."""
    reasons = []
    for side, word, end in ((egress, "egress", ends[0]), (ingress, "ingress", ends[1])):
        if side.denies:
            several = len(side.selecting) > 1
            reasons.append(
                f"{listed_all(side.selecting)} {'select' if several else 'selects'} {end} for {word} "
                f"and {'none of them has' if several else 'has no'} {'a ' if several else ''}rule that admits it"
            )
    return ", and ".join(reasons)


def permissions(egress: DirectionResult, ingress: DirectionResult) -> str:
    """Which rules let a connection out of its source and into its destination; empty if no policy selects these."""
    reasons = []
    for side, word in ((egress, "out"), (ingress, "in")):
        if side.admitting:
            reasons.append(f"{listed_all(side.admitting)} {'let' if len(side.admitting) > 1 else 'lets'} it {word}")
    return " and ".join(reasons)


def isolation(level: str, destination: str, *, segment: SegmentKey, admitted: bool, shared: bool) -> str:
    """The decision of the isolation level for a destination that no policy selects for ingress."""
    start = f"no policy selects {destination} for ingress"
    if shared:
        return f"{start} and tenant {segment.tenant} is shared, so every tenant's pods may connect to it"
    if level == "none":
        return f"{start} and isolation level none lets every pod connect"
    scope = f"tier {segment.tier} of tenant {segment.tenant}" if level == "tier" else f"tenant {segment.tenant}"
    return f"{start} and isolation level {level} lets {'' if admitted else 'only '}pods of {scope} connect"


def listed_all(items: Iterable[object]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return joined([str(item) for item in items], limit=None)
