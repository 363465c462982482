"""Who may send: tables SpoofGuard and ArpSpoofGuard."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import (
    Action,
    Bits,
    Goto,
    InPort,
    Load,
    Move,
    PopMpls,
    PushMpls,
    Resubmit,
    ThroughMeter,
)
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.words import IP, UNTAGGED, feature_origin, load, loads, swapped
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ETH_ARP, FRAG_ANY, mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter, arp_meter_number
from romana_ovs.pipeline.registers import (
    ANSWERED,
    DIFFERENT,
    DIRECTION,
    EGRESS,
    GATEWAY,
    LOCAL,
    MAC_PREFIX,
    NEXT_HOP_MAC,
    QUESTION,
    SCRATCH,
    SENDER_CLIENT,
    SENDER_ID,
    SENDER_MAC,
    SENDER_SERVER,
    SENDER_SHARED,
    SENDER_SURVIVOR,
    SIDE,
    TRUNK,
    WIRE_ANSWERED,
    WIRE_DIRECTION,
    WIRE_EGRESS,
    WIRE_ID,
    WIRE_QUESTION,
    WIRE_REST,
    WIRE_REST_VALUE,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import PodZone, zone
from romana_ovs.policy.view import Gateway, LocalPod, Membership, Origin, Trunk

ARP_REQUEST: Condition = ("arp_op", 1)
PART_BITS = 4
"""Bits of a MAC that one row compares: fewer make more rows, more make more flows of the datapath for wrong MACs."""


def pod_guard(pod: LocalPod, member: Membership, place: PodZone, host: int) -> tuple[Flow, ...]:
    """What a pod's port may send: its own MAC and address, untagged; ARP, metered, for any address but its own.

    A MAC that is made from the address is checked by tables SourceMac and ArpSpoofGuard, and so is the sender of
    an ARP request; with another MAC both are checked here, at a datapath flow for each wrong one.
    """
    origin = Origin("Pod", pod.namespace, pod.key.partition("/")[2])
    port: Condition = ("in_port", pod.ofport)
    mac, address = mac_number(pod.mac), int(pod.address)
    ours = mac == MAC_PREFIX << 32 | address
    marks = loads(
        (SIDE, LOCAL),
        (SENDER_SURVIVOR, int(pod.survivor)),
        (SENDER_ID, pod.identity),
        (SENDER_CLIENT, member.client),
        (SENDER_SERVER, member.server),
        (SENDER_SHARED, int(place.shared)),
        (ZONE, zone(host, place.index)),
    )
    expected = loads((SENDER_MAC, mac & 0xFFFFFFFF)) if ours else ()
    asking = [port, UNTAGGED, ARP_REQUEST]
    sending = [port, UNTAGGED, ("nw_src", address)]
    if not ours:
        asking += [("eth_src", mac), ("arp_sha", mac), ("arp_spa", address)]
        sending.append(("eth_src", mac))
    row = partial(flow, feature=Feature.SPOOF_GUARD, origin=origin)
    asked = (*loads((SIDE, LOCAL)), *expected) if ours else ()
    onward: list[Action] = [*marks, *expected, Goto("SourceMac" if ours else "DestinationMac")]
    return (
        row(priorities.SpoofGuard.SOURCE, sending, onward),
        # Who asks for whom is read in a second pass, which the meter stands before.
        row(
            priorities.SpoofGuard.SOURCE,
            asking,
            [
                ThroughMeter(arp_meter_number(pod.ofport)),
                *asked,
                PushMpls(),
                PopMpls(ETH_ARP),
                Resubmit("ArpSpoofGuard"),
            ],
        ),
    )


def mac_frame() -> tuple[Flow, ...]:
    """Rows of SourceMac and DestinationMac that compare a MAC part by part; SCRATCH says which part is next.

    A wrong MAC finds no row at its first wrong part, so the datapath needs no more than 15 flows for each part to
    refuse whatever a sender thinks up. One row for the whole would need a flow for each MAC.
    """
    row = partial(flow, feature=Feature.SPOOF_GUARD, origin=feature_origin("mac"))
    source, hop = priorities.SourceMac.PART, priorities.DestinationMac.PART
    parts = range(0, 48, PART_BITS)
    flows = []
    for step, low in enumerate(parts):
        sender, target = Bits("eth_src", low, PART_BITS), Bits("eth_dst", low, PART_BITS)
        at, onward = SCRATCH.match(step), load(SCRATCH, step + 1)
        own: tuple[Action, ...] = ()
        right: list[Condition] = [at, DIFFERENT.match(0)]
        if low < SENDER_MAC.bits.width:
            own = compare(sender, Bits(SENDER_MAC.bits.field, low, PART_BITS))
        else:
            right.append(_part(sender, MAC_PREFIX << 32))
        flows.append(row(source, right, [*own, onward, Resubmit("SourceMac")]))
        flows.append(row(hop, [at, _part(target, NEXT_HOP_MAC)], [onward, Resubmit("DestinationMac")]))
    last = SCRATCH.match(len(parts))
    return (
        *flows,
        row(source, [last, DIFFERENT.match(0)], [load(SCRATCH, 0), Goto("DestinationMac")]),
        row(hop, [last], [Goto("Fragments")]),
    )


def _part(bits: Bits, mac: int) -> Condition:
    """That a part of a MAC is that of `mac`."""
    mask = (1 << bits.width) - 1 << bits.low
    return (bits.field, mac & mask, mask)


def fragments() -> tuple[Flow, ...]:
    """The way of what is whole, and of all that no pod here sends."""
    origin = feature_origin("fragments")
    return (flow(priorities.Fragments.MISS, [], [Goto("L3Forward")], feature=Feature.SPOOF_GUARD, origin=origin),)


def limited_fragments(ofport: int, meter: Meter) -> tuple[Flow, ...]:
    """The fragments of the pod at this port pass its meter."""
    return (
        flow(
            priorities.Fragments.LIMITED,
            [IP, ("in_port", ofport), ("nw_frag", FRAG_ANY, FRAG_ANY)],
            [ThroughMeter(meter.number), Goto("L3Forward")],
            feature=Feature.SPOOF_GUARD,
            origin=meter.origin,
        ),
    )


def trunk_guard(trunk: Trunk) -> tuple[Flow, ...]:
    """What a trunk may bring: untagged IP whose source MAC carries an identity; tunnels, from known nodes only."""
    rest = ("eth_src", WIRE_REST_VALUE << WIRE_REST.low, ((1 << WIRE_REST.width) - 1) << WIRE_REST.low)
    actions: list[Action] = [
        *loads((SIDE, TRUNK)),
        Move(WIRE_DIRECTION, DIRECTION.bits),
        Move(WIRE_EGRESS, EGRESS.bits),
        Move(WIRE_QUESTION, QUESTION.bits),
        Move(WIRE_ANSWERED, ANSWERED.bits),
        Move(WIRE_ID, SENDER_ID.bits),
        Goto("DestinationMac"),
    ]
    senders: list[tuple[Condition, ...]] = [()]
    if trunk.tunnel_peers is not None:
        # Exactly the known nodes, in as few prefixes as they fill: nodes mostly have neighbouring addresses.
        blocks = collapse_addresses(IPv4Network(peer) for peer in trunk.tunnel_peers)
        senders = [(("tun_src", int(block.network_address), int(block.netmask)),) for block in blocks]
    return tuple(
        flow(
            priorities.SpoofGuard.SOURCE,
            [("in_port", trunk.ofport), *sender, UNTAGGED, IP, rest],
            actions,
            feature=Feature.SPOOF_GUARD,
            origin=feature_origin("trunk"),
        )
        for sender in senders
    )


def gateway_guard(
    gateway: Gateway, host: int, network: IPv4Network, foreign: tuple[IPv4Address, ...]
) -> tuple[Flow, ...]:
    """What the node's own port may send: its own addresses as the node, no pod's address, all else as outside.

    `network` is the plan's, `foreign` are pods' addresses that are not from it.
    """
    row = partial(flow, feature=Feature.SPOOF_GUARD, origin=feature_origin("gateway"))
    port = (("in_port", gateway.ofport), UNTAGGED)
    own = set(gateway.addresses)
    side = ((SIDE, GATEWAY), (SENDER_SURVIVOR, int(gateway.survivor)))
    node_marks = loads(*side, (SENDER_ID, node_identity(host)))
    outside_marks = loads(*side, (SENDER_ID, OUTSIDE))
    flows = [
        row(priorities.SpoofGuard.REFUSED, [*port, ("nw_src", int(address))], [*node_marks, Goto("DestinationMac")])
        for address in sorted(own)
    ]
    flows += [
        row(priorities.SpoofGuard.REFUSED, [*port, ("nw_src", int(address))], [])
        for address in sorted(set(foreign) - own)
    ]
    flows.append(
        row(priorities.SpoofGuard.SOURCE, [*port, ("nw_src", int(network.network_address), int(network.netmask))], [])
    )
    flows.append(row(priorities.SpoofGuard.OUTSIDE, [*port, IP], [*outside_marks, Goto("DestinationMac")]))
    flows.append(row(priorities.SpoofGuard.OUTSIDE, [*port, ARP_REQUEST], [Goto("ArpSpoofGuard")]))
    return tuple(flows)


def arp_frame() -> tuple[Flow, ...]:
    """The one answer to every ARP request (RFC 826), but none to one from the unspecified address (RFC 5227)."""
    row = partial(flow, feature=Feature.ARP, origin=feature_origin("arp"))
    spa, tpa, source = Bits("arp_spa", 0, 32), Bits("arp_tpa", 0, 32), Bits("eth_src", 0, 48)
    own = Bits("arp_sha", 0, 48)
    prefix = [(name, MAC_PREFIX << 32, 0xFFFF << 32) for name in ("eth_src", "arp_sha")]
    answer: list[Action] = [
        Move(source, Bits("eth_dst", 0, 48)),
        Load(source, NEXT_HOP_MAC),
        Load(Bits("arp_op", 0, 16), 2),
        Move(own, Bits("arp_tha", 0, 48)),
        Load(own, NEXT_HOP_MAC),
        *swapped(spa, tpa),
        InPort(),
    ]
    return (
        row(priorities.ArpSpoofGuard.UNSPECIFIED, [ARP_REQUEST, ("arp_spa", 0)], []),
        row(
            priorities.ArpSpoofGuard.POD,
            [ARP_REQUEST, SIDE.match(LOCAL), *prefix],
            [
                *compare(source, SENDER_MAC.bits),
                *compare(own, SENDER_MAC.bits, again=True),
                *compare(spa, SENDER_MAC.bits, again=True),
                Goto("ArpSelf"),
            ],
        ),
        row(priorities.ArpSpoofGuard.ASK, [ARP_REQUEST, SIDE.match(0)], [Goto("ArpSelf")]),
        row(priorities.ArpSelf.WRONG, [ARP_REQUEST, DIFFERENT.match(1)], []),
        row(priorities.ArpSelf.ASK, [ARP_REQUEST], [*compare(tpa, spa), Goto("ArpResponder")]),
        row(priorities.ArpResponder.ANSWER, [ARP_REQUEST, DIFFERENT.match(1)], answer),
    )
