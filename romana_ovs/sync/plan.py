"""The difference between what a switch should have and what it has, as a value."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

from romana_ovs.pipeline.flow import FieldMatch, Flow, FlowKey
from romana_ovs.sync.meters import MeterPlan


class Change(Enum):
    """What is done about one flow."""

    DELETE = "delete"
    MODIFY = "modify"
    ADD = "add"


SEND_ORDER = (Change.DELETE, Change.MODIFY, Change.ADD)
"""The order inside a bundle: room first, as a table may have a limit. The bundle is atomic, so no packet sees it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send to make what a switch has the desired. Each tuple of flows is sorted by table, priority and match.

    `modify` holds the new flows: OpenFlow's ADD replaces a flow of the same key. `blocked` are desired flows
    that are not sent because a flow that is not ours has their key.
    """

    add: tuple[Flow, ...] = ()
    modify: tuple[Flow, ...] = ()
    delete: tuple[Flow, ...] = ()
    blocked: tuple[Flow, ...] = ()
    meters: MeterPlan = MeterPlan()

    @property
    def size(self) -> int:
        """The number of flow-mods and meter-mods."""
        return self.flow_mods + self.meters.size

    @property
    def flow_mods(self) -> int:
        """The number of flow-mods."""
        return len(self.add) + len(self.modify) + len(self.delete)

    def ordered(self) -> tuple[tuple[Change, Flow], ...]:
        """Every change of a flow in the order in which it is sent."""
        listed = {Change.DELETE: self.delete, Change.MODIFY: self.modify, Change.ADD: self.add}
        return tuple((change, flow) for change in SEND_ORDER for flow in listed[change])


def plan(desired: Mapping[FlowKey, Flow], actual: Mapping[FlowKey, Flow], foreign: Set[FlowKey] = frozenset()) -> Plan:
    """The plan that turns `actual` (flows of ours alone) into `desired`, around the keys that others hold."""
    add, modify, blocked = [], [], []
    for key, flow in desired.items():
        if key in foreign:
            blocked.append(flow)
            continue
        present = actual.get(key)
        if present is None:
            add.append(flow)
        elif present is not flow and present != flow:
            modify.append(flow)
    delete = [flow for key, flow in actual.items() if key not in desired]
    return Plan(_sorted(add), _sorted(modify), _sorted(delete), _sorted(blocked))


def _sorted(flows: list[Flow]) -> tuple[Flow, ...]:
    return tuple(sorted(flows, key=lambda flow: flow.key))


def applied(actual: Mapping[FlowKey, Flow], done: Plan) -> dict[FlowKey, Flow]:
    """The flows of a switch that had `actual` and confirmed `done`."""
    result = dict(actual)
    for flow in done.delete:
        result.pop(flow.key, None)
    for flow in (*done.modify, *done.add):
        result[flow.key] = flow
    return result


Sections = Mapping[Hashable, tuple[Flow, ...]]


def narrowed(before: Sections, after: Sections) -> tuple[dict[FlowKey, Flow], dict[FlowKey, Flow]] | None:
    """(desired, actual) of those sections alone that are not the identical tuple in both.

    The plan between the two equals the plan between all flows, provided that the switch has exactly `before`,
    and it costs what changed, not what there is. None when a section that did not change has one of their keys
    as well: then all flows must be compared.
    """
    gone = [section for name, section in before.items() if after.get(name) is not section]
    come = [section for name, section in after.items() if before.get(name) is not section]
    actual = {flow.key: flow for section in gone for flow in section}
    desired: dict[FlowKey, Flow] = {}
    for flow in (flow for section in come for flow in section):
        desired.setdefault(flow.key, flow)
    places = {_place(key) for key in (*actual, *desired)}
    for name, section in after.items():
        if before.get(name) is not section:
            continue
        for flow in section:
            if _place(flow) in places and (flow.key in actual or flow.key in desired):
                return None
    return desired, actual


def _place(item: Flow | FlowKey) -> tuple[str, int, FieldMatch | None]:
    """What equal keys have in common, and few others: a whole key takes longer to compare than most changes have."""
    return item.table, item.priority, item.match[-1] if item.match else None
