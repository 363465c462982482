"""Represents a flow as a value, and renders it in the syntax of ovs-ofctl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from romana_ovs.pipeline.actions import Action
from romana_ovs.pipeline.fields import FIELDS, Field, written
from romana_ovs.policy.view import Origin


class FieldMatch(NamedTuple):
    """One condition of a match: `packet[field] & mask == value`."""

    field: str
    value: int
    mask: int

    @property
    def declared(self) -> Field:
        """The field's declaration."""
        return FIELDS[self.field]


Match = tuple[FieldMatch, ...]
"""Conditions in the order of `FIELDS`, each field once, prerequisites included."""


class FlowKey(NamedTuple):
    """The identity of a flow in a switch (OpenFlow 1.5.1 section 6.4)."""

    table: str
    priority: int
    match: Match


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow; no actions means drop. `origin` is the reason for it and not part of its identity."""

    table: str
    priority: int
    match: Match
    actions: tuple[Action, ...]
    cookie: int
    origin: Origin = field(compare=False)

    @property
    def key(self) -> FlowKey:
        """Its identity in a switch."""
        return FlowKey(self.table, self.priority, self.match)

    def match_text(self) -> str:
        """The match in ovs-ofctl's syntax, comma-separated; empty for a miss row."""
        return match_text(self.match)

    def actions_text(self, tables: Mapping[str, int]) -> str:
        """The actions in ovs-ofctl's syntax, with table numbers from `tables`."""
        return ",".join(action.text(tables) for action in self.actions) or "drop"

    def text(self, tables: Mapping[str, int]) -> str:
        """The whole flow as one line that `ovs-ofctl -O OpenFlow15 add-flows` accepts."""
        match = self.match_text()
        head = f"table={tables[self.table]}, cookie={self.cookie:#x}, priority={self.priority}"
        return f"{head}{',' + match if match else ''} actions={self.actions_text(tables)}"


_SHORT = {
    (("eth_type", 0x0800), ("nw_proto", 1)): "icmp",
    (("eth_type", 0x0800), ("nw_proto", 6)): "tcp",
    (("eth_type", 0x0800), ("nw_proto", 17)): "udp",
    (("eth_type", 0x0800), ("nw_proto", 132)): "sctp",
}
_ORDER = {name: position for position, name in enumerate(FIELDS)}


def match_text(match: Match) -> str:
    """A match in ovs-ofctl's syntax; protocol names (`tcp`, `arp`) replace their prerequisites."""
    exact = {item.field: item.value for item in match if item.mask == item.declared.ones}
    kind, proto = exact.get("eth_type"), exact.get("nw_proto")
    hidden: set[str] = set()
    words: list[str] = []
    if kind == 0x0806:
        words, hidden = ["arp"], {"eth_type"}
    elif kind == 0x0800:
        short = _SHORT.get((("eth_type", 0x0800), ("nw_proto", proto or 0)))
        words, hidden = ([short], {"eth_type", "nw_proto"}) if short else (["ip"], {"eth_type"})
    words += [written(item.declared, item.value, item.mask) for item in match if item.field not in hidden]
    return ",".join(words)


def canonical(conditions: Mapping[str, tuple[int, int]]) -> Match:
    """The match of `{field: (value, mask)}`, in canonical order; zero masks vanish."""
    return tuple(
        FieldMatch(name, value & mask, mask)
        for name, (value, mask) in sorted(conditions.items(), key=lambda item: _ORDER[item[0]])
        if mask
    )
