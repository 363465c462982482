"""Compiles rows of several tables for connections of pods to Services, which a proxy of the host translates.

A pod's packet to a service range leaves by the gateway undecided (table Egress), and the proxy of the host translates
its destination. If that is a pod, the packet returns by the gateway with the pod's own source. There a local pod's
address is accepted as that pod, so policy decides about the translated destination and port, and the server sees its
client. Replies must return through the host, or they would not be translated: the entry of a connection that returned
records the gateway as its source, and replies to its local client leave by the gateway. The proxy's reply, which has
the Service's address, is one of the connection that the pod opened.

The host must drop packets with pods' addresses or Services' addresses that it receives from elsewhere
(docs/dataplane.md, "Services").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Network

from romana_ovs.model.identity import OUTSIDE
from romana_ovs.model.objects import Protocol
from romana_ovs.model.services import ServiceBackend, ServiceFrontend
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, Goto, Load, Output, Resubmit
from romana_ovs.pipeline.compile.conditions import (
    FROM_CLIENT,
    FROM_GATEWAY,
    FROM_LOCAL,
    FROM_SERVER,
    IP,
    TO_GATEWAY,
    TO_LOCAL,
    UNTAGGED,
    feature_origin,
    load,
    loads,
)
from romana_ovs.pipeline.compile.conntrack import CT_WRITES
from romana_ovs.pipeline.compile.forwarding import to_mac
from romana_ovs.pipeline.compile.permissions import ICMP_ERROR
from romana_ovs.pipeline.compile.spoof_guard import sender_marks
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import mac_number
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    ACCEPTED,
    CLIENT_GROUP,
    COMMITTED,
    CT_ACCEPTED,
    CT_SOURCE,
    EGRESS,
    FORCE,
    GATEWAY,
    LOCAL,
    OUT_PORT,
    PKT_DESTINATION,
    PKT_SOURCE,
    RECEIVER_ID,
    RECEIVER_PRE_RESTART,
    REVALIDATION,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.pipeline.zones import PodZone
from romana_ovs.policy.view import ClientGroup, Gateway, LocalPod, Membership, Origin

_ORIGIN = feature_origin("services")


def translated_guard(
    pod: LocalPod, member: Membership, pod_zone: PodZone, host: int, gateway_port: int
) -> tuple[Flow, ...]:
    """Accepts packets of a local pod that return by the gateway, as that pod's."""
    return (
        flow(
            priorities.SpoofGuard.TRANSLATED,
            [("in_port", gateway_port), UNTAGGED, ("nw_src", int(pod.address))],
            [*sender_marks(pod, member, pod_zone, host), Goto("DestinationMac")],
            feature=Feature.SPOOF_GUARD,
            origin=Origin("Pod", pod.namespace, pod.key.partition("/")[2]),
        ),
    )


def service_rows(ranges: tuple[IPv4Network, ...], gateway: Gateway) -> tuple[Flow, ...]:
    """All rows except those of single pods."""
    return (*_routes(ranges, gateway), *_egress(ranges), *_commits(gateway), *_replies(gateway))


def _within(name: str, network: IPv4Network) -> Condition:
    return name, int(network.network_address), int(network.netmask)


def _routes(ranges: tuple[IPv4Network, ...], gateway: Gateway) -> tuple[Flow, ...]:
    """The way to the host, also where a pod claims a Service's address; never back there what came from there."""
    row = partial(flow, feature=Feature.FORWARDING, origin=_ORIGIN)
    marks = loads(
        (PKT_DESTINATION, GATEWAY),
        (RECEIVER_PRE_RESTART, int(gateway.pre_restart)),
        (RECEIVER_ID, OUTSIDE),
        (OUT_PORT, gateway.ofport),
    )
    return (
        *(
            row(
                priorities.L3Forward.SERVICE,
                [_within("nw_dst", each)],
                [*marks, *to_mac(gateway.mac), Goto("ConntrackZone")],
            )
            for each in ranges
        ),
        row(priorities.ConntrackZone.TRANSIT, [("in_port", gateway.ofport), FROM_LOCAL, TO_GATEWAY], []),
    )


def _egress(ranges: tuple[IPv4Network, ...]) -> tuple[Flow, ...]:
    """Packets between a local client and a Service pass undecided, and ICMP errors about their connections."""
    row = partial(flow, priorities.Egress.SERVICE, feature=Feature.POLICY, origin=_ORIGIN)
    commit = Goto("ConntrackCommit")
    rows = []
    for each in ranges:
        rows += [
            row([FROM_CLIENT, FROM_LOCAL, TO_GATEWAY, _within("nw_dst", each)], [load(EGRESS, ACCEPTED), commit]),
            row([FROM_SERVER, FROM_GATEWAY, TO_LOCAL, _within("nw_src", each)], [commit]),
            row([FROM_SERVER, FROM_GATEWAY, TO_LOCAL, *ICMP_ERROR, _within("ct_nw_dst", each)], [commit]),
        ]
    return tuple(rows)


def frontend_rows(
    frontends: tuple[ServiceFrontend, ...], clients: tuple[ClientGroup, ...], own: tuple[IPv4Address, ...]
) -> tuple[Flow, ...]:
    """Frontends with backends that are no pods: packets to these do not return, so they are decided at the frontend.

    Which backend the host chooses is unknown here. So a client that egress policies select needs permission for all of
    them, but for the node's `own` addresses.
    """
    rows: list[Flow] = []
    denied: tuple[Action, ...] = (Goto("ConntrackRevoke"),)
    permitted: tuple[Action, ...] = (load(EGRESS, ACCEPTED), Goto("ConntrackCommit"))
    for frontend in frontends:
        rows += _frontend(priorities.Egress.FRONTEND, frontend, None, denied)
        for group in clients:
            if all(backend.address in own or _admits(group, frontend, backend) for backend in frontend.backends):
                rows += _frontend(priorities.Egress.FRONTEND_ALLOWED, frontend, group, permitted)
    return tuple(rows)


def _frontend(
    priority: priorities.Egress, frontend: ServiceFrontend, group: ClientGroup | None, actions: Sequence[Action]
) -> tuple[Flow, ...]:
    """Packets of a group's pods (None: all) to a frontend, and its replies."""
    protocol = Protocol(frontend.protocol)
    base: list[Condition] = [("nw_proto", protocol.number)]
    if group is not None:
        base.append(CLIENT_GROUP.match(group.number))
    origin = group.local_egress[0].origin if group is not None and group.local_egress else _ORIGIN
    row = partial(flow, priority, actions=actions, feature=Feature.POLICY, origin=origin)
    sent: tuple[Condition, ...] = (FROM_CLIENT, FROM_LOCAL, TO_GATEWAY, ("nw_dst", int(frontend.address)))
    replied: tuple[Condition, ...] = (FROM_SERVER, FROM_GATEWAY, TO_LOCAL, ("nw_src", int(frontend.address)))
    return (
        row([*sent, *base, (f"{protocol.value}_dst", frontend.port)]),
        row([*replied, *base, (f"{protocol.value}_src", frontend.port)]),
    )


def _admits(group: ClientGroup, frontend: ServiceFrontend, backend: ServiceBackend) -> bool:
    """Whether the group's pods may connect to a backend that is no pod, at its own address and port."""
    return any(
        ((allow.identities is None and not allow.cidrs) or any(backend.address in network for network in allow.cidrs))
        and (
            allow.ports is None
            or any(
                ports.protocol.value == frontend.protocol and ports.low <= backend.port <= ports.high
                for ports in allow.ports
            )
        )
        for allow in group.local_egress
    )


def _commits(gateway: Gateway) -> tuple[Flow, ...]:
    """Connections that returned from the host are committed with the gateway as their source.

    The packet before says how the next reply travels: a client may use one port for a Service and its backend.
    """
    row = partial(flow, feature=Feature.CONNTRACK, origin=_ORIGIN)
    priority, returned = priorities.ConntrackCommit, (("in_port", gateway.ofport), FROM_LOCAL)
    by_gateway = (load(PKT_SOURCE, GATEWAY), Resubmit("ConntrackCommit"))
    changed = (IP, FROM_CLIENT, COMMITTED.match(1), FORCE.match(0))
    commit = Ct(zone=ZONE.bits, table="Output", commit=True, writes=CT_WRITES)
    known = (CT_ACCEPTED.match(1), CT_SOURCE.match(GATEWAY))
    return (
        row(priority.TRANSLATED, [*returned, FROM_CLIENT], by_gateway),
        # A local pod's replies do not return from the host: they would have a Service's address.
        row(priority.TRANSLATED, [*returned, FROM_SERVER], []),
        # A datagram that was turned round keeps the way of its connection.
        row(priority.TRANSLATED_REVALIDATION, [FROM_CLIENT, FROM_LOCAL, REVALIDATION.match(1), *known], by_gateway),
        row(priority.OTHER_SOURCE, [*changed, FROM_LOCAL, CT_SOURCE.match(GATEWAY)], [commit]),
        row(priority.OTHER_SOURCE, [*changed, FROM_GATEWAY, CT_SOURCE.match(LOCAL)], [commit]),
    )


def _replies(gateway: Gateway) -> tuple[Flow, ...]:
    """Replies to a local client whose connection returned from the host go back there."""
    return (
        flow(
            priorities.Output.TRANSLATED,
            [FROM_SERVER, TO_LOCAL, REVALIDATION.match(0), CT_ACCEPTED.match(1), CT_SOURCE.match(GATEWAY)],
            [Load(Bits("eth_dst", 0, 48), mac_number(gateway.mac)), Output(gateway.ofport)],
            feature=Feature.DELIVERY,
            origin=_ORIGIN,
        ),
    )
