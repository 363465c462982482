"""Flows as text for `ovs-ofctl add-flows`, as rows for JSON, and with names of tables for people.

Open vSwitch refuses a flow that names a meter which it does not have, and `add-flows` adds no meters. So text and
rows that are to be loaded leave meters out of the actions and name them beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import TypedDict, cast

from romana_ovs.pipeline.actions import ThroughMeter
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import NO_METERS, Meter
from romana_ovs.pipeline.symbols import symbols
from romana_ovs.pipeline.tables import TABLE_IDS


class FlowRow(TypedDict):
    """One flow as JSON shows it (docs/design.md section 8); `match` and `actions` in ovs-ofctl's words.

    `meter` is empty, or what `ovs-ofctl add-meter` takes to make the meter that a switch has before these actions.
    """

    table: str
    table_id: int
    priority: int
    match: str
    actions: str
    cookie: str
    origin: str
    meter: str


_NAMES = cast("Mapping[str, int]", {name: name for name in TABLE_IDS})
"""Tables by name where ovs-ofctl wants numbers: for reading, not for loading."""


def ordered(flows: Iterable[Flow]) -> list[Flow]:
    """The flows by table, priority (highest first), origin and match."""
    return sorted(flows, key=lambda item: (TABLE_IDS[item.table], -item.priority, str(item.origin), item.match_text()))


def unmetered(item: Flow) -> Flow:
    """The flow without its meter: what can be loaded into a switch that has no meters."""
    if not any(isinstance(action, ThroughMeter) for action in item.actions):
        return item
    return replace(item, actions=tuple(action for action in item.actions if not isinstance(action, ThroughMeter)))


def _meter_of(item: Flow) -> int | None:
    return next((action.number for action in item.actions if isinstance(action, ThroughMeter)), None)


def rows(flows: Iterable[Flow], meters: Mapping[int, Meter]) -> list[FlowRow]:
    """The flows as JSON shows them, in the order of `ordered`; `meters` has those that the flows name."""
    return [
        FlowRow(
            table=item.table,
            table_id=TABLE_IDS[item.table],
            priority=item.priority,
            match=item.match_text(),
            actions=unmetered(item).actions_text(TABLE_IDS),
            cookie=f"{item.cookie:#018x}",
            origin=str(item.origin),
            meter=meters[number].text() if (number := _meter_of(item)) is not None else "",
        )
        for item in ordered(flows)
    ]


_METERS_HEAD = (
    "# Meters: what `ovs-ofctl -O OpenFlow15 add-meter BRIDGE` takes. add-flows makes none and refuses flows that",
    "# name a missing one, so below a row that goes through one is without it, and has it in the comment above.",
)


def loadable(flows: Iterable[Flow], meters: Mapping[int, Meter] = NO_METERS) -> str:
    """Text that `ovs-ofctl -O OpenFlow15 add-flows FILE` accepts.

    Tables, origins, meters and the names of what is in registers stand in comments.
    """
    lines = [*_METERS_HEAD, *(f"# {meters[number].text()}" for number in sorted(meters))] if meters else []
    for table, held in groupby(ordered(flows), key=lambda item: item.table):
        lines += ["", f"# Table {TABLE_IDS[table]}: {table}"] if lines else [f"# Table {TABLE_IDS[table]}: {table}"]
        for (origin, meter), group in groupby(held, key=lambda item: (str(item.origin), _meter_of(item))):
            lines.append(f"# {origin}" if meter is None else f"# {origin}, first through meter:{meter}")
            lines += [_with_symbols(unmetered(item).text(TABLE_IDS), item) for item in group]
    return "\n".join([*lines, ""])


def readable(item: Flow) -> str:
    """One flow with the names of tables: `ConntrackZone priority=100,ip actions=ct(table=ConntrackState,zone=4097)`.

    The names of what is in registers stand behind it, after a `#`.
    """
    match = item.match_text()
    head = f"{item.table} priority={item.priority}{',' + match if match else ''}"
    return _with_symbols(f"{head} actions={item.actions_text(_NAMES)}", item)


def _with_symbols(text: str, item: Flow) -> str:
    named = symbols(item)
    return f"{text} # {named}" if named else text
