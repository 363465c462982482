"""Compiles the tables that find a packet's way and zone: the three L3Forward tables, ConntrackZone and Output."""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from ipaddress import IPv4Network

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Goto, InPort, Load, Move, OutputReg
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.conditions import (
    FROM_ELSEWHERE,
    FROM_LOCAL,
    FROM_UPLINK,
    IP,
    TO_ELSEWHERE,
    TO_GATEWAY,
    TO_LOCAL,
    TO_UPLINK,
    feature_origin,
    load,
    loads,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    DIFFERENT,
    DIRECTION,
    EGRESS,
    GATEWAY,
    LOCAL,
    NEXT_HOP_MAC,
    ORIGINAL,
    OUT_PORT,
    OWN_NODE,
    PKT_DESTINATION,
    RECEIVER_CLIENT_GROUP,
    RECEIVER_ID,
    RECEIVER_PRE_RESTART,
    RECEIVER_SERVER_GROUP,
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    REVALIDATED,
    REVALIDATION,
    SENDER_ID,
    SENDER_SHARED,
    TUNNEL,
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
from romana_ovs.pipeline.zones import PodZone, common_zone, zone
from romana_ovs.policy.view import ForeignRoute, Gateway, LocalPod, Membership, Origin, RemoteHost

_SPECIAL = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))


def to_mac(mac: str) -> tuple[Action, ...]:
    """Address the frame to the owner of `mac`, from the next hop."""
    return (Load(Bits("eth_dst", 0, 48), mac_number(mac)), Load(Bits("eth_src", 0, 48), NEXT_HOP_MAC))


def pod_route(
    pod: LocalPod, member: Membership, pod_zone: PodZone, *, plan: AddressPlan, host: int
) -> tuple[Flow, ...]:
    """The way to a local pod, and the registers that later tables need of a receiver.

    An address in the plan's share of `host` is in table L3ForwardLocal, any other in L3Forward. The row also compares
    the pod's port with the packet's, to find packets that the pod sends to itself.
    """
    marks = loads(
        (PKT_DESTINATION, LOCAL),
        (RECEIVER_PRE_RESTART, int(pod.pre_restart)),
        (RECEIVER_ID, pod.identity),
        (RECEIVER_CLIENT_GROUP, member.client),
        (RECEIVER_SERVER_GROUP, member.server),
        (RECEIVER_SHARED, int(pod_zone.shared)),
        (RECEIVER_ZONE, pod_zone.index),
        (OUT_PORT, pod.ofport),
    )
    return (
        flow(
            _endpoint(share=plan.is_on(host, pod.address)),
            [("nw_dst", int(pod.address))],
            [*marks, *to_mac(pod.mac), *compare(Bits("in_port", 0, 16), OUT_PORT.bits), Goto("ConntrackZone")],
            feature=Feature.FORWARDING,
            origin=Origin("Pod", pod.namespace, pod.key.partition("/")[2]),
        ),
    )


def _endpoint(*, share: bool) -> IntEnum:
    return priorities.L3ForwardLocal.ENDPOINT if share else priorities.L3Forward.ENDPOINT


def gateway_routes(gateway: Gateway, plan: AddressPlan, host: int) -> tuple[Flow, ...]:
    """The node's own addresses, and the default route by way of the node."""
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("gateway"))
    marks = loads(
        (PKT_DESTINATION, GATEWAY), (RECEIVER_PRE_RESTART, int(gateway.pre_restart)), (OUT_PORT, gateway.ofport)
    )
    way = (*marks, *to_mac(gateway.mac), Goto("ConntrackZone"))
    node = loads((OWN_NODE, 1), (RECEIVER_ID, node_identity(host)))
    own = tuple(
        row(_endpoint(share=plan.is_on(host, address)), [("nw_dst", int(address))], [*node, *way])
        for address in sorted(set(gateway.addresses))
    )
    return (*own, row(priorities.L3Forward.OUTSIDE, [IP], [*loads((RECEIVER_ID, OUTSIDE)), *way]))


def plan_routes(plan: AddressPlan, host: int) -> tuple[Flow, ...]:
    """The way to addresses of the plan. Packets to addresses that are not unicast are dropped.

    The host bits are matched in a table of their own: they are not a prefix, so a row for them in L3Forward would put
    its whole mask into every megaflow, also of packets to the outside.
    """
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("network"))
    network = plan.network
    here = ("nw_dst", int(network.network_address), int(network.netmask))
    return (
        row(priorities.L3Forward.NETWORK, [here], [Goto("L3ForwardNode")]),
        row(priorities.L3ForwardNode.HOST, [("nw_dst", *plan.host_match(host))], [Goto("L3ForwardLocal")]),
        *(
            row(priorities.L3Forward.SPECIAL, [("nw_dst", int(block.network_address), int(block.netmask))], [])
            for block in _SPECIAL
        ),
    )


def remote_routes(
    plan: AddressPlan, hosts: tuple[RemoteHost, ...], foreign: tuple[ForeignRoute, ...]
) -> tuple[Flow, ...]:
    """One row for each other node, by host bits, and one for each foreign address."""
    flows = []
    by_number = {host.number: host for host in hosts}
    for host in hosts:
        flows.append(_route(host, ("nw_dst", *plan.host_match(host.number)), priorities.L3ForwardNode.HOST))
    for route in foreign:
        if route.host in by_number:
            destination: Condition = ("nw_dst", int(route.address))
            flows.append(_route(by_number[route.host], destination, priorities.L3Forward.ENDPOINT))
    return tuple(flows)


def _route(host: RemoteHost, destination: Condition, priority: IntEnum) -> Flow:
    tunnel = int(host.tunnel) if host.tunnel is not None else 0
    return flow(
        priority,
        [destination],
        [*loads((PKT_DESTINATION, UPLINK), (OUT_PORT, host.ofport), (TUNNEL, tunnel)), Goto("ConntrackZone")],
        feature=Feature.FORWARDING,
        origin=Origin("Node", name=host.name),
    )


def zone_rows(host: int, indexes: tuple[int, ...]) -> tuple[Flow, ...]:
    """Transit from uplink to uplink, unchanged and untracked; all else goes to the zone of its tenant here (zones.py).

    The zones of shared tenants' connections with other nodes are in shared_zones.py. A packet from an uplink never
    leaves by the gateway, unless it is for this node's own address. `indexes` are the zone indexes of local tenants if
    these may connect to each other (isolation none); otherwise table Tenancy denies their packets in any zone.
    """
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("transit"))
    here = (IP, FROM_LOCAL, TO_LOCAL)
    transit: list[Action] = [Move(TUNNEL.bits, Bits("tun_dst", 0, 32)), OutputReg(OUT_PORT.bits)]
    priority = priorities.ConntrackZone
    both = [*here, SENDER_SHARED.match(1), RECEIVER_SHARED.match(1)]
    receiver_zone = (
        load(ZONE, zone(host, 0)),
        Move(RECEIVER_ZONE.bits, Bits(ZONE.bits.field, ZONE.bits.low, RECEIVER_ZONE.bits.width)),
    )
    common = (load(ZONE, common_zone(host)),)
    rows = [
        row(priority.TRANSIT, [FROM_UPLINK, TO_UPLINK], transit),
        row(priority.TRANSIT, [FROM_UPLINK, TO_GATEWAY, OWN_NODE.match(0)], []),
        row(priority.SELF, [*here, DIFFERENT.match(0)], []),
        _zone_row(priority.SHARED, both, common),
        _zone_row(priority.SHARED, [*here, SENDER_SHARED.match(1), RECEIVER_SHARED.match(0)], receiver_zone),
        _zone_row(priority.DEFAULT, [IP], ()),
        _zone_row(priority.LOCAL, [IP, FROM_ELSEWHERE, TO_LOCAL], receiver_zone),
        _zone_row(priority.LOCAL, [IP, FROM_ELSEWHERE, TO_ELSEWHERE], common),
    ]
    if indexes:
        neither = [*here, SENDER_SHARED.match(0), RECEIVER_SHARED.match(0)]
        rows.append(_zone_row(priority.LOCAL, neither, common))
        for index in indexes:
            same = [*neither, ZONE.match(zone(host, index)), RECEIVER_ZONE.match(index)]
            rows.append(_zone_row(priority.TENANT, same, ()))
    return tuple(rows)


def _zone_row(priority: priorities.ConntrackZone, match: list[Condition], chosen: tuple[Action, ...]) -> Flow:
    actions = [*chosen, Ct(zone=ZONE.bits, table="ConntrackState")]
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("conntrack"))


def output_rows() -> tuple[Flow, ...]:
    """Rows of Output. On an uplink the source MAC carries the sender's identity and the marks."""
    row = partial(flow, feature=Feature.DELIVERY, origin=feature_origin("delivery"))
    out = OutputReg(OUT_PORT.bits)
    wire = (
        Load(WIRE_FIXED, WIRE_FIXED_VALUE),
        Move(EGRESS.bits, WIRE_EGRESS),
        Move(DIRECTION.bits, WIRE_DIRECTION),
        Move(REVALIDATION.bits, WIRE_REVALIDATION),
        Move(REVALIDATED.bits, WIRE_REVALIDATED),
        Move(SENDER_ID.bits, WIRE_ID),
        Move(TUNNEL.bits, Bits("tun_dst", 0, 32)),
    )
    priority = priorities.Output
    return (
        row(priority.REVALIDATION, [REVALIDATION.match(1), TO_LOCAL], []),
        row(priority.REVALIDATION, [REVALIDATION.match(1), TO_GATEWAY], []),
        # A revalidation packet returns by its ingress uplink; output to the ingress port needs IN_PORT.
        row(priority.REVALIDATION, [REVALIDATION.match(1), DIRECTION.match(ORIGINAL), TO_UPLINK], [*wire, InPort()]),
        row(priority.REVALIDATION, [REVALIDATED.match(1), FROM_LOCAL, TO_UPLINK], [*wire, InPort()]),
        row(priority.OUT, [TO_LOCAL], [out]),
        row(priority.OUT, [TO_GATEWAY], [out]),
        row(priority.OUT, [TO_UPLINK], [*wire, out]),
    )
