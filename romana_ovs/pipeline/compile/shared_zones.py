"""Compiles rows of ConntrackZone for connections between a shared tenant's pods here and pods on other nodes.

All tenants may connect to a shared tenant, so in one zone one tenant could use up the limit of all. The zone is
therefore that of the other end's tenant, by the segment in its address, which the other node's spoof guard has checked.
The number of rows does not depend on the number of tenants, except for foreign addresses inside the plan's network.
Their segment bits mean nothing, so they count for the shared tenant, as addresses outside the network do.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.plan import NODE_SEGMENT, AddressPlan
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Move
from romana_ovs.pipeline.compile.conditions import (
    FROM_LOCAL,
    FROM_UPLINK,
    IP,
    TO_LOCAL,
    TO_UPLINK,
    feature_origin,
    load,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    SENDER_SHARED,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import INDEX_BITS, ZoneBlocks, zone


def shared_zones(plan: AddressPlan, host: int, foreign: tuple[IPv4Address, ...]) -> tuple[Flow, ...]:
    """The zones of connections between shared tenants' pods and other nodes.

    `foreign` are foreign addresses of remote pods inside the plan's network.
    """
    received = Bits(ZONE.bits.field, ZONE.bits.low, RECEIVER_ZONE.bits.width)
    own: tuple[Action, ...] = (load(ZONE, zone(host, 0)), Move(RECEIVER_ZONE.bits, received))
    arriving = (IP, FROM_UPLINK, TO_LOCAL, RECEIVER_SHARED.match(1))
    leaving = (IP, FROM_LOCAL, TO_UPLINK, SENDER_SHARED.match(1))
    return (
        *_by_segment(plan, host, arriving, "nw_src"),
        *_by_segment(plan, host, leaving, "nw_dst"),
        *(
            _row(priorities.ConntrackZone.OUT_OF_PLAN, [*arriving, ("nw_src", int(address))], own)
            for address in foreign
        ),
        *(_row(priorities.ConntrackZone.OUT_OF_PLAN, [*leaving, ("nw_dst", int(address))], ()) for address in foreign),
    )


def _by_segment(plan: AddressPlan, host: int, match: tuple[Condition, ...], address_field: str) -> tuple[Flow, ...]:
    """The zone of the segment in `address_field`, as `ZoneBlocks.zone_index` computes it."""
    blocks, low = ZoneBlocks.of(plan), plan.host_bits + plan.endpoint_bits
    base = load(ZONE, zone(host, 0))

    def moved(first: int, end: int) -> tuple[Action, ...]:
        """Copies bits `first` to `end` - 1 of a segment number to their place in the index; the rest of it is 0."""
        to = Bits(ZONE.bits.field, ZONE.bits.low + first - blocks.dropped, end - first)
        return base, Move(Bits(address_field, low + first, end - first), to)

    whole = moved(blocks.bits, min(plan.segment_bits, blocks.dropped + INDEX_BITS))
    rows = [_row(priorities.ConntrackZone.REMOTE, [*match, _within(address_field, plan.network)], whole)]
    if blocks.bits > blocks.dropped:
        first = plan.block_cidr(NODE_SEGMENT, blocks.size)
        pieces = moved(blocks.dropped, blocks.bits)
        rows.append(_row(priorities.ConntrackZone.FIRST_BLOCK, [*match, _within(address_field, first)], pieces))
    return tuple(rows)


def _within(name: str, network: IPv4Network) -> Condition:
    return name, int(network.network_address), int(network.netmask)


def _row(priority: IntEnum, match: list[Condition], chosen: tuple[Action, ...]) -> Flow:
    actions = (*chosen, Ct(zone=ZONE.bits, table="ConntrackState"))
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("conntrack"))
