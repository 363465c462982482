"""Flows as text for `ovs-ofctl add-flows`, as rows for JSON, and with names of tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TypedDict, cast

from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.tables import TABLE_IDS


class FlowRow(TypedDict):
    """One flow as JSON shows it (DESIGN.md section 8); `match` and `actions` in ovs-ofctl's words."""

    table: str
    table_id: int
    priority: int
    match: str
    actions: str
    cookie: str
    origin: str


_NAMES = cast("Mapping[str, int]", {name: name for name in TABLE_IDS})
"""Tables by name where ovs-ofctl wants numbers: for reading, not for loading."""


def ordered(flows: Iterable[Flow]) -> list[Flow]:
    """The flows by table, priority (highest first), origin and match."""
    return sorted(flows, key=lambda item: (TABLE_IDS[item.table], -item.priority, str(item.origin), item.match_text()))


def rows(flows: Iterable[Flow]) -> list[FlowRow]:
    """The flows as JSON shows them, in the order of `ordered`."""
    return [
        FlowRow(
            table=item.table,
            table_id=TABLE_IDS[item.table],
            priority=item.priority,
            match=item.match_text(),
            actions=item.actions_text(TABLE_IDS),
            cookie=f"{item.cookie:#018x}",
            origin=str(item.origin),
        )
        for item in ordered(flows)
    ]


def loadable(flows: Iterable[Flow]) -> str:
    """Text that `ovs-ofctl -O OpenFlow15 add-flows FILE` accepts: tables and origins stand in comments."""
    lines: list[str] = []
    for table, held in groupby(ordered(flows), key=lambda item: item.table):
        lines += ["", f"# Table {TABLE_IDS[table]}: {table}"] if lines else [f"# Table {TABLE_IDS[table]}: {table}"]
        for origin, group in groupby(held, key=lambda item: str(item.origin)):
            lines.append(f"# {origin}")
            lines += [item.text(TABLE_IDS) for item in group]
    return "\n".join([*lines, ""])


def readable(item: Flow) -> str:
    """One flow with the names of tables, such as `Track priority=100,ip actions=ct(table=State,zone=4097)`."""
    match = item.match_text()
    return f"{item.table} priority={item.priority}{',' + match if match else ''} actions={item.actions_text(_NAMES)}"
