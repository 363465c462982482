"""Compiles table Compare, which determines whether two fields of a packet differ.

OpenFlow matches fields with constants only, so each comparison would need a row for each pod. Compare has a pair of
rows for each bit instead. A caller moves both values into registers, resubmits to Compare, and reads DIFFERENT.
A comparison puts both values into the megaflow whole: use it only where a sender cannot choose among many values.
"""

from __future__ import annotations

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Load, Move, Resubmit
from romana_ovs.pipeline.compile.conditions import feature_origin, load
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import COMPARED, DIFFERENT, SCRATCH
from romana_ovs.pipeline.tables import flow

WIDTH = COMPARED.bits.width


def compare(left: Bits, right: Bits, *, again: bool = False) -> tuple[Action, ...]:
    """Actions that set DIFFERENT to whether two fields differ, in 32 bits or as many as the narrower one has.

    `again`: do not clear DIFFERENT first, so that it is set if any of several pairs differs.
    """
    width = min(left.width, right.width, WIDTH)
    cleared = (Load(COMPARED.bits, 0), Load(SCRATCH.bits, 0)) if width < WIDTH else ()
    return (
        *cleared,
        Move(_low(left, width), _low(COMPARED.bits, width)),
        Move(_low(right, width), _low(SCRATCH.bits, width)),
        *(() if again else (load(DIFFERENT, 0),)),
        Resubmit("Compare"),
    )


def _low(bits: Bits, width: int) -> Bits:
    return Bits(bits.field, bits.low, width)


def compare_rows() -> tuple[Flow, ...]:
    """Two rows for each bit: set in one value and not in the other."""
    rows = []
    for bit in range(WIDTH):
        for compared, scratch in ((0, 1), (1, 0)):
            match = [COMPARED.match(compared << bit, 1 << bit), SCRATCH.match(scratch << bit, 1 << bit)]
            rows.append(
                flow(
                    priorities.Compare.DIFFERENT,
                    match,
                    [load(DIFFERENT, 1)],
                    feature=Feature.SPOOF_GUARD,
                    origin=feature_origin("compare"),
                )
            )
    return tuple(rows)
