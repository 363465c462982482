"""The difference between the meters a switch should have and those of ours it has.

No bundle takes meters, so they have an order of their own around it: a flow cannot name a meter that is not there
yet, and a meter takes the flows with it that still name it when it goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from romana_ovs.pipeline.meters import Meter


class MeterChange(Enum):
    """What is done about one meter."""

    ADD = "add"
    MODIFY = "modify"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class MeterPlan:
    """`before` is to be sent ahead of the flows, `after` once they are confirmed; each by the meters' numbers."""

    before: tuple[tuple[MeterChange, Meter], ...] = ()
    after: tuple[tuple[MeterChange, Meter], ...] = ()

    @property
    def size(self) -> int:
        """The number of meter-mods."""
        return len(self.before) + len(self.after)


def plan_meters(desired: Mapping[int, Meter], actual: Mapping[int, Meter]) -> MeterPlan:
    """The plan that turns `actual` (meters of ours alone) into `desired`."""
    before = [
        (MeterChange.ADD if number not in actual else MeterChange.MODIFY, desired[number])
        for number in sorted(desired)
        if actual.get(number) != desired[number]
    ]
    after = [(MeterChange.DELETE, actual[number]) for number in sorted(actual.keys() - desired.keys())]
    return MeterPlan(tuple(before), tuple(after))
