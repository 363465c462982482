"""Connections of a simulated cluster, and whether their packets arrive, to compare with the reference evaluation."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ICMP, Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import KubernetesPolicy, Protocol
from romana_ovs.pipeline.fields import SCTP, TCP
from romana_ovs.policy.evaluate import Reference
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV
from romana_ovs.simulator.network import Arrival
from romana_ovs.simulator.packet import ACK, DATA, Packet
from tests.support.hypothesis_profiles import examples
from tests.support.simulated_cluster import CLIENT_PORT, GATEWAY_PORT, SimCluster
from tests.support.strategies import OUTSIDE_ADDRESSES, policies, port_refs

LONG = int(os.environ.get("ROMANA_PROPERTY_EXAMPLES", "0"))
"""Examples for each property; unset: a quick, always equal choice."""
CONNECTIONS_EACH = 80
"""Connections tried in each cluster: making a cluster costs far more than a packet in it."""
BEHAVIOUR = st.sampled_from((NETDEV, KERNEL))
"""The datapath of an example's switches, whose connection tracking they have: half the examples each, no more time."""


def profile(quick: int) -> settings:
    """The settings of a property: `quick` examples in `make test`, where one that fails is not made smaller.

    Making it smaller takes minutes, and explaining it an hour: whoever mends it asks for that with LONG.
    """
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    return settings(
        max_examples=LONG or examples(quick),
        derandomize=not LONG,
        deadline=None,
        phases=[*phases, Phase.shrink] if LONG else phases,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


def _judged(rig: SimCluster, connection: Connection) -> bool:
    """Whether the bridges see the connection at all, and the reference speaks about it.

    An address of the plan that nobody has is no outsider: nothing goes there or comes from there.
    """
    ends = (connection.source, connection.destination)
    if all(end.pod is None for end in ends) or connection.source == connection.destination:
        return False
    nobody = [end for end in ends if end.pod is None and not end.node]
    return not any(end.address in rig.cluster.settings.network for end in nobody)


@st.composite
def connections(draw: st.DrawFn, rig: SimCluster, *, apart: bool = False) -> list[Connection]:
    """Many connections between all kinds of ends, on ports that policies name and their neighbours.

    `apart`: no two between the same two ends, so that none can be taken for another's answer.
    """
    ends = [*(ConnectionEnd(pod=key) for key in sorted(rig.addresses)), *_others(rig)]
    ports = [*_named_ports(rig.cluster), *draw(st.lists(port_refs(), min_size=1, max_size=3))]
    chance = Random(draw(st.integers(0, 2**32)))
    tried = [
        Connection(source, destination, chance.choice(ports))
        for source, destination in (chance.sample(ends, 2) for _ in range(CONNECTIONS_EACH))
    ]
    found = {frozenset((one.source, one.destination)) if apart else one: one for one in tried if _judged(rig, one)}
    assume(found)
    return list(found.values())


def _others(rig: SimCluster) -> list[ConnectionEnd]:
    nodes = [ConnectionEnd(node=node.name, address=node.addresses[0]) for node in rig.cluster.nodes.values()]
    return [*nodes, *(ConnectionEnd(address=address) for address in OUTSIDE_ADDRESSES)]


def _named_ports(cluster: Cluster) -> list[PortRef]:
    """Ports that the cluster's policies name, as numbers, ranges' ends or names, twice; their neighbours once."""
    found: list[PortRef] = []
    numbers = {port.name: port.number for pod in cluster.pods.values() for port in pod.ports if port.name}
    for policy in cluster.policies.values():
        rules = (*policy.ingress, *policy.egress) if isinstance(policy, KubernetesPolicy) else policy.rules
        for entry in (port for rule in rules for port in rule.ports):
            number = numbers.get(entry.port, 80) if isinstance(entry.port, str) else entry.port or 80
            last = entry.end or number
            found += [PortRef(entry.protocol, one) for one in (number, last, number, last, number - 1, last + 1)]
    return [port for port in found if 0 < (port.port or 0) < 65536]


def _where(arrivals: list[Arrival]) -> list[tuple[str, int]]:
    return [(arrival.place.node, arrival.place.port) for arrival in arrivals]


def _places(rig: SimCluster, connection: Connection) -> set[tuple[str, int]]:
    """Where a delivered packet may arrive: a node's address outside the plan is behind the sender's own gateway."""
    place = rig.place(connection.destination, connection.source)
    source = rig.place(connection.source, connection.destination)
    if connection.destination.pod is None:
        return {(place.node, place.port), (source.node, GATEWAY_PORT)}
    return {(place.node, place.port)}


def delivered(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    """Whether a packet of the source arrives; never anywhere else, and never twice."""
    found = _where(rig.send(connection, packet))
    assert len(found) <= 1 and set(found) <= _places(rig, connection), f"{connection} arrives at {found}"
    return bool(found)


def reply_delivered(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    """Whether a packet of the destination arrives at the source."""
    found = _where(rig.answer(connection, packet))
    back = Connection(connection.destination, connection.source, connection.port)
    assert len(found) <= 1 and set(found) <= _places(rig, back), f"the reply of {connection} arrives at {found}"
    return bool(found)


def opens_itself(reference: Reference, connection: Connection) -> bool:
    """Whether what would be the reply, were there a connection, is allowed as the first packet of one of its own."""
    protocol = connection.port.protocol
    if protocol in (Protocol.TCP, ICMP):
        return False
    port = PortRef(protocol, CLIENT_PORT) if isinstance(protocol, Protocol) else connection.port
    return reference.allowed(Connection(connection.destination, connection.source, port))


def flush_conntrack(rig: SimCluster) -> None:
    """Every switch forgets its connections."""
    for switch in rig.switches.values():
        switch.conntrack.flush()


def begins(rig: SimCluster, packet: Packet) -> bool:
    """Whether conntrack takes the packet for the first one of a connection."""
    return rig.behaviour.protocol(packet.nw_proto).begin(packet) is not None


def replies_elsewhere(rig: SimCluster, connection: Connection) -> bool:
    """Whether the client's bridge sees no replies: those to a node's address outside the plan do not return by it.

    The kernel takes TCP and SCTP of which it sees one direction only for invalid, but for their first packets.
    """
    source, destination = connection.source, connection.destination
    return source.pod is None and rig.place(source, destination).node != rig.place(destination, source).node


def later_packet(packet: Packet) -> Packet:
    """The packet as a later one of its connection."""
    if packet.nw_proto == SCTP:
        return replace(packet, sctp_chunk=DATA)
    return packet.with_flags(ACK) if packet.nw_proto == TCP else packet


def other_policies(data: st.DataObject, cluster: Cluster) -> Cluster:
    """The cluster with other policies."""
    return replace(cluster, policies=data.draw(policies(tuple(cluster.namespaces))))
