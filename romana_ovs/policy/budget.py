"""How many rows the rules of a namespace make on one node, and what is left out where those are too many.

A policy is bounded where it is read, but it counts once for each group of pods that it selects in its own way, and one
selector can mean thousands of identities. So a node also bounds what it makes for the rules of each namespace: beyond
that the dearest groups do without them. A rule that is left out admits nobody; what others' rules admit stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, ClientGroup, ServerGroup, Verdicts

Group = ServerGroup | ClientGroup
Charges = Mapping[str, int]
"""Rows by the namespace whose rules they are for."""
G = TypeVar("G", ServerGroup, ClientGroup)


def rows_of(group: Group) -> int:
    """About how many rows `group` takes: some more than it does, never many fewer."""
    return sum(charges_of(group).values())


def charges_of(group: Group) -> Charges:
    """The same for each namespace whose policies are behind the group; "" for what is nobody's."""
    found: dict[str, int] = {}
    for allows in _lists(group):
        told: set[tuple[str, tuple[PortRange, ...] | None]] = set()
        for allow in allows:
            owner = allow.origin.namespace
            rows = _peers(allow)
            # Rules of the same ports share their rows.
            if (owner, allow.ports) not in told:
                told.add((owner, allow.ports))
                rows += 1 if allow.ports is None else sum(_masks(ports) for ports in allow.ports)
            found[owner] = found.get(owner, 0) + rows
    return found


def _lists(group: Group) -> tuple[tuple[Allow, ...], ...]:
    return (group.ingress, group.deferred_egress) if isinstance(group, ServerGroup) else (group.accepted,)


def _peers(allow: Allow) -> int:
    return max(1, len(allow.identities or ()) + 2 * len(allow.cidrs))


def _masks(ports: PortRange) -> int:
    """Most rows of a range: masked matches for both directions."""
    wide = (ports.high - ports.low + 1).bit_length()
    return 2 * max(1, 2 * (wide - 1))


@dataclass(slots=True)
class ChargeMemo:
    """What groups are charged to whom, as long as they are there. Groups are known again as objects."""

    known: dict[int, tuple[Group, Charges]] = field(default_factory=dict)

    def of(self, groups: Iterable[Group]) -> list[tuple[Group, Charges]]:
        """The charges of each of `groups`; all others are forgotten."""
        found = [self._one(group) for group in groups]
        self.known = {id(each[0]): each for each in found}
        return found

    def _one(self, group: Group) -> tuple[Group, Charges]:
        held = self.known.get(id(group))
        return held if held is not None and held[0] is group else (group, charges_of(group))


def bounded(verdicts: Verdicts, most: int, memo: ChargeMemo) -> Verdicts:
    """`verdicts` with at most `most` rows (0: any number) for the rules of each namespace.

    `over` names the namespaces that ask for more, with how many rows that would be. Their rules are left out of the
    groups that take the most rows of theirs; those of equal size are taken by their numbers.
    """
    if not most:
        return verdicts
    charged = memo.of((*verdicts.servers, *verdicts.clients))
    totals: dict[str, int] = {}
    for _, charges in charged:
        for owner, rows in charges.items():
            totals[owner] = totals.get(owner, 0) + rows
    over = {owner: rows for owner, rows in sorted(totals.items()) if owner and rows > most}
    if not over:
        return verdicts
    without: dict[int, set[str]] = {}
    for owner in over:
        left = most
        for group, charges in sorted(charged, key=lambda each: (each[1].get(owner, 0), each[0].number)):
            left -= charges.get(owner, 0)
            if left < 0 and owner in charges:
                without.setdefault(id(group), set()).add(owner)
    return replace(
        verdicts,
        servers=tuple(_without(group, without.get(id(group))) for group in verdicts.servers),
        clients=tuple(_without(group, without.get(id(group))) for group in verdicts.clients),
        over=MappingProxyType(over),
    )


def _without(group: G, owners: set[str] | None) -> G:
    """`group` without the rules of `owners`."""
    if not owners:
        return group

    def others(allows: tuple[Allow, ...]) -> tuple[Allow, ...]:
        return tuple(allow for allow in allows if allow.origin.namespace not in owners)

    if isinstance(group, ServerGroup):
        return replace(group, ingress=others(group.ingress), deferred_egress=others(group.deferred_egress))
    return replace(group, accepted=others(group.accepted))
