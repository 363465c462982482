"""Computes the difference between the desired and the actual flows of a switch."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

from romana_ovs.pipeline.flow import FieldMatch, Flow, FlowKey
from romana_ovs.sync.meters import MeterDiff


class Change(Enum):
    """The change of one flow."""

    DELETE = "delete"
    MODIFY = "modify"
    ADD = "add"


SEND_ORDER = (Change.DELETE, Change.MODIFY, Change.ADD)
"""The order inside a bundle: deletions first, as a table may have a limit. The bundle is atomic for packets."""


@dataclass(frozen=True, slots=True)
class FlowDiff:
    """The changes that turn the actual flows into the desired ones, each sorted by table, priority and match.

    `modify` has the new flows: OpenFlow's ADD replaces a flow of the same key. `conflicting_flows` are desired flows
    that are not sent because a foreign flow has their key.
    """

    add: tuple[Flow, ...] = ()
    modify: tuple[Flow, ...] = ()
    delete: tuple[Flow, ...] = ()
    conflicting_flows: tuple[Flow, ...] = ()
    meters: MeterDiff = MeterDiff()

    @property
    def size(self) -> int:
        """The number of flow-mods and meter-mods."""
        return self.flow_mods + self.meters.size

    @property
    def flow_mods(self) -> int:
        """The number of flow-mods."""
        return len(self.add) + len(self.modify) + len(self.delete)

    def ordered(self) -> tuple[tuple[Change, Flow], ...]:
        """The changes of flows in the order of sending."""
        flows_by_change = {Change.DELETE: self.delete, Change.MODIFY: self.modify, Change.ADD: self.add}
        return tuple((change, flow) for change in SEND_ORDER for flow in flows_by_change[change])


def flow_diff(
    desired: Mapping[FlowKey, Flow], actual: Mapping[FlowKey, Flow], foreign: Set[FlowKey] = frozenset()
) -> FlowDiff:
    """The changes that turn `actual` (only our flows) into `desired`, except for keys of `foreign` flows."""
    add, modify, conflicting = [], [], []
    for key, flow in desired.items():
        if key in foreign:
            conflicting.append(flow)
            continue
        current = actual.get(key)
        if current is None:
            add.append(flow)
        elif current is not flow and current != flow:
            modify.append(flow)
    delete = [flow for key, flow in actual.items() if key not in desired]
    return FlowDiff(_sorted(add), _sorted(modify), _sorted(delete), _sorted(conflicting))


def _sorted(flows: list[Flow]) -> tuple[Flow, ...]:
    return tuple(sorted(flows, key=lambda flow: flow.key))


def applied(actual: Mapping[FlowKey, Flow], done: FlowDiff) -> dict[FlowKey, Flow]:
    """The flows of a switch after it confirmed `done`."""
    result = dict(actual)
    for flow in done.delete:
        result.pop(flow.key, None)
    for flow in (*done.modify, *done.add):
        result[flow.key] = flow
    return result


Sections = Mapping[Hashable, tuple[Flow, ...]]


def changed_sections(before: Sections, after: Sections) -> tuple[dict[FlowKey, Flow], dict[FlowKey, Flow]] | None:
    """(desired, actual) of the sections that are not the identical tuple in both.

    If the switch has exactly `before`, their difference equals that of all flows, at a cost that grows only with the
    change. None if an unchanged section shares a key with a changed one: then all flows must be compared.
    """
    removed = [section for name, section in before.items() if after.get(name) is not section]
    added = [section for name, section in after.items() if before.get(name) is not section]
    if not (removed or added):
        return {}, {}
    actual = {flow.key: flow for section in removed for flow in section}
    desired: dict[FlowKey, Flow] = {}
    for flow in (flow for section in added for flow in section):
        desired.setdefault(flow.key, flow)
    partial_keys = {_partial_key(key) for key in (*actual, *desired)}
    tables = {key.table for key in (*actual, *desired)}
    for name, section in after.items():
        if before.get(name) is not section:
            continue
        for flow in section:
            if flow.table not in tables or _partial_key(flow) not in partial_keys:
                continue
            if flow.key in actual or flow.key in desired:
                return None
    return desired, actual


def _partial_key(item: Flow | FlowKey) -> tuple[str, int, FieldMatch | None]:
    """A part of the key that is cheaper to compare, and that few different keys share."""
    return item.table, item.priority, item.match[-1] if item.match else None
