"""Compiles the tables that check senders: SpoofGuard, SourceMac, DestinationMac, Fragments and those for ARP."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.addressing.cidrs import merge_cidrs
from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import (
    Action,
    ApplyMeter,
    Bits,
    Goto,
    InPort,
    Load,
    Move,
    PopMpls,
    PushMpls,
    Resubmit,
)
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.conditions import FROM_LOCAL, IP, UNTAGGED, feature_origin, load, loads, swapped
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ETH_ARP, FRAG_ANY, mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter, arp_meter_number
from romana_ovs.pipeline.registers import (
    DIFFERENT,
    DIRECTION,
    EGRESS,
    GATEWAY,
    LOCAL,
    MAC_PREFIX,
    NEXT_HOP_MAC,
    PKT_SOURCE,
    REVALIDATED,
    REVALIDATION,
    SCRATCH,
    SENDER_CLIENT_GROUP,
    SENDER_ID,
    SENDER_MAC,
    SENDER_PRE_RESTART,
    SENDER_SERVER_GROUP,
    SENDER_SHARED,
    UPLINK,
    WIRE_DIRECTION,
    WIRE_EGRESS,
    WIRE_FIXED,
    WIRE_FIXED_VALUE,
    WIRE_ID,
    WIRE_REVALIDATED,
    WIRE_REVALIDATION,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import PodZone, zone
from romana_ovs.policy.view import Gateway, LocalPod, Membership, Origin, Uplink

ARP_REQUEST: Condition = ("arp_op", 1)
OF_TENANT = 1
"""SCRATCH of a fragment in table Fragments that has passed the meter of its pod; other values count parts of a MAC."""
PART_BITS = 4
"""Bits of a MAC that one row compares. Fewer make more rows, more make more megaflows for wrong MACs."""


def pod_guard(pod: LocalPod, member: Membership, pod_zone: PodZone, host: int) -> tuple[Flow, ...]:
    """Accepts packets from a pod's port with its own MAC and address, untagged; and ARP requests, metered.

    Table SourceMac checks a MAC that is derived from the address. Any other MAC of a pod is checked here, with one
    megaflow for each wrong MAC. Table ArpSpoofGuard checks the sender of ARP requests.
    """
    origin = Origin("Pod", pod.namespace, pod.key.partition("/")[2])
    port: Condition = ("in_port", pod.ofport)
    mac, address = mac_number(pod.mac), int(pod.address)
    derived = mac == MAC_PREFIX << 32 | address
    marks = sender_marks(pod, member, pod_zone, host)
    expected = loads((SENDER_MAC, mac & 0xFFFFFFFF)) if derived else ()
    ip: list[Condition] = [port, UNTAGGED, ("nw_src", address)]
    if not derived:
        ip.append(("eth_src", mac))
    row = partial(flow, priorities.SpoofGuard.SOURCE, feature=Feature.SPOOF_GUARD, origin=origin)
    meter = ApplyMeter(arp_meter_number(pod.ofport))
    again: tuple[Action, ...] = (PushMpls(), PopMpls(ETH_ARP), Resubmit("ArpSpoofGuard"))
    flows = (
        row(ip, [*marks, *expected, Goto("SourceMac" if derived else "DestinationMac")]),
        # MACs and addresses of a request are read in a second pass, after the meter: each makes a megaflow.
        row([port, UNTAGGED, ARP_REQUEST], [meter, *loads((PKT_SOURCE, LOCAL)), *expected, *again]),
    )
    sender: list[Condition] = [port, ARP_REQUEST, ("eth_src", mac), ("arp_sha", mac), ("arp_spa", address)]
    other_mac = partial(flow, priorities.ArpSpoofGuard.OTHER_MAC, feature=Feature.ARP, origin=origin)
    return flows if derived else (*flows, other_mac(sender, [Goto("ArpSelf")]))


def sender_marks(pod: LocalPod, member: Membership, pod_zone: PodZone, host: int) -> tuple[Load, ...]:
    """The registers that later tables need of a local sender."""
    return loads(
        (PKT_SOURCE, LOCAL),
        (SENDER_PRE_RESTART, int(pod.pre_restart)),
        (SENDER_ID, pod.identity),
        (SENDER_CLIENT_GROUP, member.client),
        (SENDER_SERVER_GROUP, member.server),
        (SENDER_SHARED, int(pod_zone.shared)),
        (ZONE, zone(host, pod_zone.index)),
    )


def mac_rows() -> tuple[Flow, ...]:
    """Rows of SourceMac and DestinationMac that compare a MAC part by part; SCRATCH counts the parts.

    A wrong MAC matches no row at its first wrong part, so random MACs make no more than 15 megaflows for each part.
    One row for the whole MAC would make a megaflow for each MAC.
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
    """Matches part of a MAC with the same part of `mac`."""
    mask = (1 << bits.width) - 1 << bits.low
    return (bits.field, mac & mask, mask)


def fragment_rows() -> tuple[Flow, ...]:
    """Unfragmented packets, and all that no local pod sends."""
    origin = feature_origin("fragments")
    return (flow(priorities.Fragments.MISS, [], [Goto("L3Forward")], feature=Feature.SPOOF_GUARD, origin=origin),)


def metered_fragments(ofport: int, origin: Origin, meter: Meter | None, *, by_tenant: bool) -> tuple[Flow, ...]:
    """Fragments of the pod at this port pass its meter, if it has one, and with `by_tenant` that of its tenant.

    These are two flows, as Open vSwitch takes one meter in a flow.
    """
    own: list[Action] = [] if meter is None else [ApplyMeter(meter.number)]
    onward: list[Action] = [load(SCRATCH, OF_TENANT), Resubmit("Fragments")] if by_tenant else [Goto("L3Forward")]
    return (
        flow(
            priorities.Fragments.METERED,
            [IP, ("in_port", ofport), ("nw_frag", FRAG_ANY, FRAG_ANY)],
            [*own, *onward],
            feature=Feature.SPOOF_GUARD,
            origin=origin,
        ),
    )


def tenant_fragments(number: int, meter: Meter) -> tuple[Flow, ...]:
    """Fragments of the tenant's pods pass its meter; `number` is the tenant's conntrack zone."""
    return (
        flow(
            priorities.Fragments.TENANT,
            [IP, ("nw_frag", FRAG_ANY, FRAG_ANY), SCRATCH.match(OF_TENANT), ZONE.match(number)],
            [ApplyMeter(meter.number), Goto("L3Forward")],
            feature=Feature.SPOOF_GUARD,
            origin=meter.origin,
        ),
    )


def uplink_guard(uplink: Uplink) -> tuple[Flow, ...]:
    """Accepts untagged IP from an uplink if the source MAC carries an identity; from a tunnel, of known nodes only."""
    rest = ("eth_src", WIRE_FIXED_VALUE << WIRE_FIXED.low, ((1 << WIRE_FIXED.width) - 1) << WIRE_FIXED.low)
    actions: list[Action] = [
        *loads((PKT_SOURCE, UPLINK)),
        Move(WIRE_DIRECTION, DIRECTION.bits),
        Move(WIRE_EGRESS, EGRESS.bits),
        Move(WIRE_REVALIDATION, REVALIDATION.bits),
        Move(WIRE_REVALIDATED, REVALIDATED.bits),
        Move(WIRE_ID, SENDER_ID.bits),
        Goto("DestinationMac"),
    ]
    senders: list[tuple[Condition, ...]] = [()]
    if uplink.tunnel_peers is not None:
        # Exactly the known nodes, merged into prefixes: nodes mostly have neighbouring addresses.
        blocks = merge_cidrs(IPv4Network(peer) for peer in uplink.tunnel_peers)
        senders = [(("tun_src", int(block.network_address), int(block.netmask)),) for block in blocks]
    return tuple(
        flow(
            priorities.SpoofGuard.SOURCE,
            [("in_port", uplink.ofport), *sender, UNTAGGED, IP, rest],
            actions,
            feature=Feature.SPOOF_GUARD,
            origin=feature_origin("uplink"),
        )
        for sender in senders
    )


def gateway_guard(
    gateway: Gateway, host: int, network: IPv4Network, foreign: tuple[IPv4Address, ...]
) -> tuple[Flow, ...]:
    """Accepts from the gateway port: the node's own addresses as the node, no pod's address, all others as outside.

    `network` is the plan's, `foreign` are addresses of pods that the plan did not give.
    """
    row = partial(flow, feature=Feature.SPOOF_GUARD, origin=feature_origin("gateway"))
    port = (("in_port", gateway.ofport), UNTAGGED)
    own = set(gateway.addresses)
    side = ((PKT_SOURCE, GATEWAY), (SENDER_PRE_RESTART, int(gateway.pre_restart)))
    node_marks = loads(*side, (SENDER_ID, node_identity(host)))
    outside_marks = loads(*side, (SENDER_ID, OUTSIDE))
    flows = [
        row(priorities.SpoofGuard.DENY, [*port, ("nw_src", int(address))], [*node_marks, Goto("DestinationMac")])
        for address in sorted(own)
    ]
    flows += [
        row(priorities.SpoofGuard.DENY, [*port, ("nw_src", int(address))], []) for address in sorted(set(foreign) - own)
    ]
    flows.append(
        row(priorities.SpoofGuard.SOURCE, [*port, ("nw_src", int(network.network_address), int(network.netmask))], [])
    )
    flows.append(row(priorities.SpoofGuard.OUTSIDE, [*port, IP], [*outside_marks, Goto("DestinationMac")]))
    flows.append(row(priorities.SpoofGuard.OUTSIDE, [*port, ARP_REQUEST], [Goto("ArpSpoofGuard")]))
    return tuple(flows)


def arp_rows() -> tuple[Flow, ...]:
    """Answers every ARP request (RFC 826), except one from the unspecified address (RFC 5227)."""
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
            [ARP_REQUEST, FROM_LOCAL, *prefix],
            [
                *compare(source, SENDER_MAC.bits),
                *compare(own, SENDER_MAC.bits, again=True),
                *compare(spa, SENDER_MAC.bits, again=True),
                Goto("ArpSelf"),
            ],
        ),
        row(priorities.ArpSpoofGuard.REQUEST, [ARP_REQUEST, PKT_SOURCE.match(0)], [Goto("ArpSelf")]),
        row(priorities.ArpSelf.SPOOFED, [ARP_REQUEST, DIFFERENT.match(1)], []),
        row(priorities.ArpSelf.REQUEST, [ARP_REQUEST], [*compare(tpa, spa), Goto("ArpResponder")]),
        row(priorities.ArpResponder.REPLY, [ARP_REQUEST, DIFFERENT.match(1)], answer),
    )
