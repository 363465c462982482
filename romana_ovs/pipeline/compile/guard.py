"""Who may send: tables Classify and Arp."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv4Network, collapse_addresses

from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Goto, InPort, Load, Move
from romana_ovs.pipeline.compile.words import IP, UNTAGGED, feature_origin, loads
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    ANSWERED,
    DIRECTION,
    EGRESS,
    GATEWAY,
    LOCAL,
    MAC_PREFIX,
    QUESTION,
    SCRATCH,
    SENDER_CLIENT,
    SENDER_ID,
    SENDER_SERVER,
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
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.policy.view import Gateway, LocalPod, Membership, Origin, Trunk

ARP_REQUEST: Condition = ("arp_op", 1)


def pod_guard(pod: LocalPod, member: Membership) -> tuple[Flow, ...]:
    """What a pod's port may send: its own MAC and address, untagged; ARP for any address but its own."""
    origin = Origin("Pod", pod.namespace, pod.key.partition("/")[2])
    port: Condition = ("in_port", pod.ofport)
    mac, address = mac_number(pod.mac), int(pod.address)
    asking = (port, UNTAGGED, ("eth_src", mac), ("arp_sha", mac), ("arp_spa", address), ARP_REQUEST)
    marks = loads(
        (SIDE, LOCAL),
        (SENDER_SURVIVOR, int(pod.survivor)),
        (SENDER_ID, pod.identity),
        (SENDER_CLIENT, member.client),
        (SENDER_SERVER, member.server),
    )
    row = partial(flow, feature=Feature.SPOOF_GUARD, origin=origin)
    return (
        row(
            priorities.Classify.SOURCE,
            [port, UNTAGGED, ("eth_src", mac), ("nw_src", address)],
            [*marks, Goto("Locate")],
        ),
        row(priorities.Classify.SOURCE, asking, [Goto("Arp")]),
        row(priorities.Classify.REFUSED, [*asking, ("arp_tpa", address)], []),
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
        Goto("Locate"),
    ]
    senders: list[tuple[Condition, ...]] = [()]
    if trunk.tunnel_peers is not None:
        # Exactly the known nodes, in as few prefixes as they fill: nodes mostly have neighbouring addresses.
        blocks = collapse_addresses(IPv4Network(peer) for peer in trunk.tunnel_peers)
        senders = [(("tun_src", int(block.network_address), int(block.netmask)),) for block in blocks]
    return tuple(
        flow(
            priorities.Classify.SOURCE,
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
        row(priorities.Classify.REFUSED, [*port, ("nw_src", int(address))], [*node_marks, Goto("Locate")])
        for address in sorted(own)
    ]
    flows += [
        row(priorities.Classify.REFUSED, [*port, ("nw_src", int(address))], [])
        for address in sorted(set(foreign) - own)
    ]
    flows.append(
        row(priorities.Classify.SOURCE, [*port, ("nw_src", int(network.network_address), int(network.netmask))], [])
    )
    flows.append(row(priorities.Classify.OUTSIDE, [*port, IP], [*outside_marks, Goto("Locate")]))
    flows.append(row(priorities.Classify.OUTSIDE, [*port, ARP_REQUEST], [Goto("Arp")]))
    flows += [
        row(priorities.Classify.REFUSED, [*port, ARP_REQUEST, ("arp_spa", int(address)), ("arp_tpa", int(address))], [])
        for address in sorted(own)
    ]
    return tuple(flows)


def arp_answers() -> tuple[Flow, ...]:
    """The one answer to every ARP request (RFC 826), but none to one from the unspecified address (RFC 5227)."""
    row = partial(flow, feature=Feature.ARP, origin=feature_origin("arp"))
    whole = Bits("arp_spa", 0, 32)
    answer: list[Action] = [
        Move(Bits("eth_src", 0, 48), Bits("eth_dst", 0, 48)),
        Load(Bits("eth_src", 32, 16), MAC_PREFIX),
        Move(Bits("arp_tpa", 0, 32), Bits("eth_src", 0, 32)),
        Load(Bits("arp_op", 0, 16), 2),
        Move(Bits("arp_sha", 0, 48), Bits("arp_tha", 0, 48)),
        Move(Bits("eth_src", 0, 48), Bits("arp_sha", 0, 48)),
        Move(whole, SCRATCH.bits),
        Move(Bits("arp_tpa", 0, 32), whole),
        Move(SCRATCH.bits, Bits("arp_tpa", 0, 32)),
        InPort(),
    ]
    return (
        row(priorities.Arp.UNSPECIFIED, [ARP_REQUEST, ("arp_spa", 0)], []),
        row(priorities.Arp.ANSWER, [ARP_REQUEST], answer),
    )
