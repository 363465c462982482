"""Computes the difference between the desired and the actual meters of a switch.

A bundle cannot contain meter-mods, so they are sent before and after it: a flow cannot use a meter that does not exist
yet, and deleting a meter deletes the flows that use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from romana_ovs.pipeline.meters import Meter


class MeterChange(Enum):
    """The change of one meter."""

    ADD = "add"
    MODIFY = "modify"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class MeterDiff:
    """`before` is sent before the flows, `after` once they are confirmed; each sorted by meter number."""

    before: tuple[tuple[MeterChange, Meter], ...] = ()
    after: tuple[tuple[MeterChange, Meter], ...] = ()

    @property
    def size(self) -> int:
        """The number of meter-mods."""
        return len(self.before) + len(self.after)


def meter_diff(desired: Mapping[int, Meter], actual: Mapping[int, Meter]) -> MeterDiff:
    """The changes that turn `actual` (only our meters) into `desired`."""
    if desired == actual:
        return MeterDiff()
    before = [
        (MeterChange.ADD if number not in actual else MeterChange.MODIFY, desired[number])
        for number in sorted(desired)
        if actual.get(number) != desired[number]
    ]
    after = [(MeterChange.DELETE, actual[number]) for number in sorted(actual.keys() - desired.keys())]
    return MeterDiff(tuple(before), tuple(after))
