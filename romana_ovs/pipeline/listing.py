"""Renders flows as text for `ovs-ofctl add-flows`, as rows for JSON, and with names of tables for reading.

Open vSwitch refuses a flow with an unknown meter, and `add-flows` adds no meters. So text and rows to be loaded have
the meters beside the actions, not in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from typing import TypedDict, cast

from romana_ovs.pipeline.actions import ApplyMeter
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import NO_METERS, Meter
from romana_ovs.pipeline.symbols import symbols
from romana_ovs.pipeline.tables import TABLE_IDS


class FlowRow(TypedDict):
    """One flow as JSON shows it (docs/design.md section 8); `match` and `actions` in ovs-ofctl's words.

    `meter` is empty, or the argument of `ovs-ofctl add-meter` for the meter that these actions start with.
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
"""Tables by name instead of number: for reading, not for loading."""


def ordered(flows: Iterable[Flow]) -> list[Flow]:
    """The flows by table, priority (highest first), origin and match."""
    return sorted(flows, key=lambda item: (TABLE_IDS[item.table], -item.priority, str(item.origin), item.match_text()))


def unmetered(item: Flow) -> Flow:
    """The flow without its meter action, for a switch without meters."""
    if not any(isinstance(action, ApplyMeter) for action in item.actions):
        return item
    return replace(item, actions=tuple(action for action in item.actions if not isinstance(action, ApplyMeter)))


def _meter_of(item: Flow) -> int | None:
    return next((action.number for action in item.actions if isinstance(action, ApplyMeter)), None)


def rows(flows: Iterable[Flow], meters: Mapping[int, Meter]) -> list[FlowRow]:
    """The flows as JSON shows them, in the order of `ordered`; `meters` are those that the flows use."""
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
    "# Meters: arguments of `ovs-ofctl -O OpenFlow15 add-meter BRIDGE`. add-flows makes none and refuses flows with a",
    "# missing one, so the flows below are without their meters; the comment above a flow has its meter.",
)


def loadable(flows: Iterable[Flow], meters: Mapping[int, Meter] = NO_METERS) -> str:
    """Text that `ovs-ofctl -O OpenFlow15 add-flows FILE` accepts.

    Comments have tables, origins, meters and names of registers.
    """
    lines = [*_METERS_HEAD, *(f"# {meters[number].text()}" for number in sorted(meters))] if meters else []
    for table, table_flows in groupby(ordered(flows), key=lambda item: item.table):
        lines += ["", f"# Table {TABLE_IDS[table]}: {table}"] if lines else [f"# Table {TABLE_IDS[table]}: {table}"]
        for (origin, meter), group in groupby(table_flows, key=lambda item: (str(item.origin), _meter_of(item))):
            lines.append(f"# {origin}" if meter is None else f"# {origin}, first through meter:{meter}")
            lines += [_with_symbols(unmetered(item).text(TABLE_IDS), item) for item in group]
    return "\n".join([*lines, ""])


def readable(item: Flow) -> str:
    """One flow with the names of tables: `ConntrackZone priority=100,ip actions=ct(table=ConntrackState,zone=4097)`.

    Names of registers follow after a `#`.
    """
    match = item.match_text()
    head = f"{item.table} priority={item.priority}{',' + match if match else ''}"
    return _with_symbols(f"{head} actions={item.actions_text(_NAMES)}", item)


def _with_symbols(text: str, item: Flow) -> str:
    named = symbols(item)
    return f"{text} # {named}" if named else text
