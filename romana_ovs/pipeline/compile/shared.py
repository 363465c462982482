"""Conntrack zones of connections between a shared tenant's pods here and pods on other nodes.

All tenants may connect to them, and in one zone one tenant would fill up what all have. So the zone is that of the
tenant elsewhere, by the segment in its address: its own node sees to it that it is no other's. However many tenants
there are, the rows are the same, but for addresses that lie in the plan's network without being from the plan: whose
segment they show is not whose they are, so they count for the shared tenant, as addresses outside the network do.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.plan import NODE_SEGMENT, Plan
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Move
from romana_ovs.pipeline.compile.words import IP, feature_origin, load
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    EXIT,
    LOCAL,
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    SENDER_SHARED,
    SIDE,
    TRUNK,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import INDEX_BITS, Blocks, zone


def shared_zones(plan: Plan, host: int, reserved: tuple[IPv4Address, ...]) -> tuple[Flow, ...]:
    """The zones of what shared tenants' pods have to do with other nodes.

    `reserved` are addresses elsewhere that lie in the plan's network and are not from the plan.
    """
    received = Bits(ZONE.bits.field, ZONE.bits.low, RECEIVER_ZONE.bits.width)
    own: tuple[Action, ...] = (load(ZONE, zone(host, 0)), Move(RECEIVER_ZONE.bits, received))
    arriving = (IP, SIDE.match(TRUNK), EXIT.match(LOCAL), RECEIVER_SHARED.match(1))
    leaving = (IP, SIDE.match(LOCAL), EXIT.match(TRUNK), SENDER_SHARED.match(1))
    return (
        *_by_segment(plan, host, arriving, "nw_src"),
        *_by_segment(plan, host, leaving, "nw_dst"),
        *(_row(priorities.ConntrackZone.RESERVED, [*arriving, ("nw_src", int(one))], own) for one in reserved),
        *(_row(priorities.ConntrackZone.RESERVED, [*leaving, ("nw_dst", int(one))], ()) for one in reserved),
    )


def _by_segment(plan: Plan, host: int, match: tuple[Condition, ...], other: str) -> tuple[Flow, ...]:
    """The zone of the segment in field `other`, as `Blocks.index` has it."""
    blocks, low = Blocks.of(plan), plan.host_bits + plan.endpoint_bits
    base = load(ZONE, zone(host, 0))

    def moved(first: int, end: int) -> tuple[Action, ...]:
        """Bits `first` to `end` - 1 of a segment's number go to their place in the index, the rest of which is 0."""
        to = Bits(ZONE.bits.field, ZONE.bits.low + first - blocks.lost, end - first)
        return base, Move(Bits(other, low + first, end - first), to)

    whole = moved(blocks.bits, min(plan.segment_bits, blocks.lost + INDEX_BITS))
    rows = [_row(priorities.ConntrackZone.REMOTE, [*match, _within(other, plan.network)], whole)]
    if blocks.bits > blocks.lost:
        first = plan.run_cidr(NODE_SEGMENT, blocks.size)
        pieces = moved(blocks.lost, blocks.bits)
        rows.append(_row(priorities.ConntrackZone.FIRST_BLOCK, [*match, _within(other, first)], pieces))
    return tuple(rows)


def _within(name: str, network: IPv4Network) -> Condition:
    return name, int(network.network_address), int(network.netmask)


def _row(priority: IntEnum, match: list[Condition], chosen: tuple[Action, ...]) -> Flow:
    actions = (*chosen, Ct(zone=ZONE.bits, table="ConntrackState"))
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("conntrack"))
