"""Where packets go: tables Locate and Track."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Network

from romana_ovs.addressing.plan import Plan
from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Goto, Load, Move, OutputBits
from romana_ovs.pipeline.compile.words import IP, feature_origin, loads
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    DELIVERY_MAC,
    EXIT,
    GATEWAY,
    LOCAL,
    OUT_PORT,
    OWN_NODE,
    RECEIVER_CLIENT,
    RECEIVER_ID,
    RECEIVER_SERVER,
    SIDE,
    SURVIVOR,
    TRUNK,
    TUNNEL,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.policy.view import ForeignRoute, Gateway, LocalPod, Membership, Origin, RemoteHost

_SPECIAL = tuple(IPv4Network(text) for text in ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32"))


def _to_mac(mac: str) -> tuple[Action, ...]:
    return (Load(Bits("eth_dst", 0, 48), mac_number(mac)), Load(Bits("eth_src", 0, 48), DELIVERY_MAC))


def pod_place(pod: LocalPod, member: Membership) -> tuple[Flow, ...]:
    """Where a local pod is, and what is needed to judge packets to it."""
    marks = loads(
        (EXIT, LOCAL),
        (SURVIVOR, int(pod.survivor)),
        (RECEIVER_ID, pod.identity),
        (RECEIVER_CLIENT, member.client),
        (RECEIVER_SERVER, member.server),
        (OUT_PORT, pod.ofport),
    )
    return (
        flow(
            priorities.Locate.ENDPOINT,
            [("nw_dst", int(pod.address))],
            [*marks, *_to_mac(pod.mac), Goto("Track")],
            feature=Feature.FORWARDING,
            origin=Origin("Pod", pod.namespace, pod.key.partition("/")[2]),
        ),
    )


def gateway_place(gateway: Gateway, host: int) -> tuple[Flow, ...]:
    """The node's own addresses, and everything outside by way of the node."""
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("gateway"))
    marks = loads((EXIT, GATEWAY), (SURVIVOR, int(gateway.survivor)), (OUT_PORT, gateway.ofport))
    way = (*marks, *_to_mac(gateway.mac), Goto("Track"))
    node = loads((OWN_NODE, 1), (RECEIVER_ID, node_identity(host)))
    own = tuple(
        row(priorities.Locate.ENDPOINT, [("nw_dst", int(address))], [*node, *way])
        for address in sorted(set(gateway.addresses))
    )
    return (*own, row(priorities.Locate.OUTSIDE, [IP], [*loads((RECEIVER_ID, OUTSIDE)), *way]))


def network_place(plan: Plan, host: int) -> tuple[Flow, ...]:
    """Addresses of the plan that nobody has here, and addresses that no unicast packet goes to: dropped."""
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("network"))
    network = plan.network
    return (
        row(priorities.Locate.OWN_SHARE, [("nw_dst", *plan.host_match(host))], []),
        row(priorities.Locate.NETWORK, [("nw_dst", int(network.network_address), int(network.netmask))], []),
        *(
            row(priorities.Locate.SPECIAL, [("nw_dst", int(block.network_address), int(block.netmask))], [])
            for block in _SPECIAL
        ),
    )


def remote_places(plan: Plan, hosts: tuple[RemoteHost, ...], foreign: tuple[ForeignRoute, ...]) -> tuple[Flow, ...]:
    """One row for each other node by its host bits, one for each remote address that is not from the plan."""
    flows = []
    by_number = {host.number: host for host in hosts}
    for host in hosts:
        flows.append(_way(host, ("nw_dst", *plan.host_match(host.number)), priorities.Locate.HOST))
    for route in foreign:
        if route.host in by_number:
            destination: Condition = ("nw_dst", int(route.address))
            flows.append(_way(by_number[route.host], destination, priorities.Locate.ENDPOINT))
    return tuple(flows)


def _way(host: RemoteHost, destination: Condition, priority: priorities.Locate) -> Flow:
    tunnel = int(host.tunnel) if host.tunnel is not None else 0
    return flow(
        priority,
        [destination],
        [*loads((EXIT, TRUNK), (OUT_PORT, host.ofport), (TUNNEL, tunnel)), Goto("Track")],
        feature=Feature.FORWARDING,
        origin=Origin("Node", name=host.name),
    )


def tracking(zone: int) -> tuple[Flow, ...]:
    """Transit from trunk to trunk unchanged and untracked; all else into the bridge's own zone.

    What comes by a trunk never leaves by the gateway, unless it is for this node's own address.
    """
    row = partial(flow, feature=Feature.FORWARDING, origin=feature_origin("transit"))
    transit: list[Action] = [Move(TUNNEL.bits, Bits("tun_dst", 0, 32)), OutputBits(OUT_PORT.bits)]
    return (
        row(priorities.Track.TRANSIT, [SIDE.match(TRUNK), EXIT.match(TRUNK)], transit),
        row(priorities.Track.TRANSIT, [SIDE.match(TRUNK), EXIT.match(GATEWAY), OWN_NODE.match(0)], []),
        flow(
            priorities.Track.TRACK,
            [IP],
            [Ct(zone=zone, table="State")],
            feature=Feature.CONNTRACK,
            origin=feature_origin("conntrack"),
        ),
    )
