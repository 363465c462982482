"""Where packets go: tables L3Forward and ConntrackZone."""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from ipaddress import IPv4Network

from romana_ovs.addressing.plan import Plan
from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Goto, Load, Move, OutputBits
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.words import FROM_ELSEWHERE, IP, TO_ELSEWHERE, feature_origin, load, loads
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    DIFFERENT,
    EXIT,
    GATEWAY,
    LOCAL,
    NEXT_HOP_MAC,
    OUT_PORT,
    OWN_NODE,
    RECEIVER_CLIENT,
    RECEIVER_ID,
    RECEIVER_SERVER,
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    SENDER_SHARED,
    SIDE,
    SURVIVOR,
    TRUNK,
    TUNNEL,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import PodZone, common_zone, zone
from romana_ovs.policy.view import ForeignRoute, Gateway, LocalPod, Membership, Origin, RemoteHost

_SPECIAL = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))


def _to_mac(mac: str) -> tuple[Action, ...]:
    return (Load(Bits("eth_dst", 0, 48), mac_number(mac)), Load(Bits("eth_src", 0, 48), NEXT_HOP_MAC))


def pod_place(pod: LocalPod, member: Membership, place: PodZone, *, plan: Plan, host: int) -> tuple[Flow, ...]:
    """Where a local pod is, and what is needed to judge packets to it: whether it sent them itself, too.

    An address of the share that `host` has of the plan is found in table L3ForwardLocal, another one in L3Forward.
    """
    marks = loads(
        (EXIT, LOCAL),
        (SURVIVOR, int(pod.survivor)),
        (RECEIVER_ID, pod.identity),
        (RECEIVER_CLIENT, member.client),
        (RECEIVER_SERVER, member.server),
        (RECEIVER_SHARED, int(place.shared)),
        (RECEIVER_ZONE, place.index),
        (OUT_PORT, pod.ofport),
    )
    return (
        flow(
            _endpoint(share=plan.is_on(host, pod.address)),
            [("nw_dst", int(pod.address))],
            [*marks, *_to_mac(pod.mac), *compare(Bits("in_port", 0, 16), OUT_PORT.bits), Goto("ConntrackZone")],
            feature=Feature.FORWARDING,
            origin=Origin("Pod", pod.namespace, pod.key.partition("/")[2]),
        ),
    )


def _endpoint(*, share: bool) -> IntEnum:
    return priorities.L3ForwardLocal.ENDPOINT if share else priorities.L3Forward.ENDPOINT


def gateway_place(gateway: Gateway, plan: Plan, host: int) -> tuple[Flow, ...]:
    """The node's own addresses, and everything outside by way of the node."""
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("gateway"))
    marks = loads((EXIT, GATEWAY), (SURVIVOR, int(gateway.survivor)), (OUT_PORT, gateway.ofport))
    way = (*marks, *_to_mac(gateway.mac), Goto("ConntrackZone"))
    node = loads((OWN_NODE, 1), (RECEIVER_ID, node_identity(host)))
    own = tuple(
        row(_endpoint(share=plan.is_on(host, address)), [("nw_dst", int(address))], [*node, *way])
        for address in sorted(set(gateway.addresses))
    )
    return (*own, row(priorities.L3Forward.OUTSIDE, [IP], [*loads((RECEIVER_ID, OUTSIDE)), *way]))


def network_place(plan: Plan, host: int) -> tuple[Flow, ...]:
    """The way to addresses of the plan; addresses that no unicast packet goes to are dropped.

    The host bits are asked for in a table of their own: they are no prefix, and the datapath's flows have all of such a
    mask that is looked at, also in what goes outside.
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


def remote_places(plan: Plan, hosts: tuple[RemoteHost, ...], foreign: tuple[ForeignRoute, ...]) -> tuple[Flow, ...]:
    """One row for each other node by its host bits, one for each remote address that is not from the plan."""
    flows = []
    by_number = {host.number: host for host in hosts}
    for host in hosts:
        flows.append(_way(host, ("nw_dst", *plan.host_match(host.number)), priorities.L3ForwardNode.HOST))
    for route in foreign:
        if route.host in by_number:
            destination: Condition = ("nw_dst", int(route.address))
            flows.append(_way(by_number[route.host], destination, priorities.L3Forward.ENDPOINT))
    return tuple(flows)


def _way(host: RemoteHost, destination: Condition, priority: IntEnum) -> Flow:
    tunnel = int(host.tunnel) if host.tunnel is not None else 0
    return flow(
        priority,
        [destination],
        [*loads((EXIT, TRUNK), (OUT_PORT, host.ofport), (TUNNEL, tunnel)), Goto("ConntrackZone")],
        feature=Feature.FORWARDING,
        origin=Origin("Node", name=host.name),
    )


def tracking(host: int, apart: tuple[int, ...]) -> tuple[Flow, ...]:
    """Transit from trunk to trunk unchanged and untracked; all else into the zone of its tenant here (zones.py),
    but for what shared tenants' pods have to do with other nodes (shared.py).

    What comes by a trunk never leaves by the gateway, unless it is for this node's own address. `apart` are the zone
    indexes of local tenants that may meet (isolation none); else those that differ are refused, in whatever zone.
    """
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("transit"))
    here = (IP, SIDE.match(LOCAL), EXIT.match(LOCAL))
    transit: list[Action] = [Move(TUNNEL.bits, Bits("tun_dst", 0, 32)), OutputBits(OUT_PORT.bits)]
    rank = priorities.ConntrackZone
    both = [*here, SENDER_SHARED.match(1), RECEIVER_SHARED.match(1)]
    receivers = (
        load(ZONE, zone(host, 0)),
        Move(RECEIVER_ZONE.bits, Bits(ZONE.bits.field, ZONE.bits.low, RECEIVER_ZONE.bits.width)),
    )
    common = (load(ZONE, common_zone(host)),)
    rows = [
        row(rank.TRANSIT, [SIDE.match(TRUNK), EXIT.match(TRUNK)], transit),
        row(rank.TRANSIT, [SIDE.match(TRUNK), EXIT.match(GATEWAY), OWN_NODE.match(0)], []),
        row(rank.SELF, [*here, DIFFERENT.match(0)], []),
        _tracked(rank.SHARED, both, common),
        _tracked(rank.SHARED, [*here, SENDER_SHARED.match(1), RECEIVER_SHARED.match(0)], receivers),
        _tracked(rank.TRACK, [IP], ()),
        _tracked(rank.HERE, [IP, FROM_ELSEWHERE, EXIT.match(LOCAL)], receivers),
        _tracked(rank.HERE, [IP, FROM_ELSEWHERE, TO_ELSEWHERE], common),
    ]
    if apart:
        neither = [*here, SENDER_SHARED.match(0), RECEIVER_SHARED.match(0)]
        rows.append(_tracked(rank.HERE, neither, common))
        for index in apart:
            same = [*neither, ZONE.match(zone(host, index)), RECEIVER_ZONE.match(index)]
            rows.append(_tracked(rank.TENANT, same, ()))
    return tuple(rows)


def _tracked(priority: priorities.ConntrackZone, match: list[Condition], chosen: tuple[Action, ...]) -> Flow:
    actions = [*chosen, Ct(zone=ZONE.bits, table="ConntrackState")]
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("conntrack"))
