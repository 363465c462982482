"""ICMP errors and lost connections: nothing is delivered that the reference does not allow for its connection."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, PortRef
from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline.fields import TCP
from romana_ovs.policy.evaluate import Reference
from romana_ovs.simulator.conntrack_behaviour import ConntrackBehaviour
from romana_ovs.simulator.packet import ACK, Addresses, Packet, icmp_error
from tests.properties.agreement import (
    BEHAVIOUR,
    begins,
    connections,
    delivered,
    later_packet,
    opens_itself,
    other_policies,
    profile,
)
from tests.support.simulated_cluster import CLIENT_PORT, SimCluster
from tests.support.strategies import clusters


def _error(about: Packet) -> Packet:
    """An error about a packet, from the one that it was sent to."""
    return icmp_error(Addresses.of(about.nw_dst, about.nw_src), about)


def _tracked_by_ports(connection: Connection) -> bool:
    return connection.port.protocol in (Protocol.TCP, Protocol.UDP)


def _between_pods(connection: Connection) -> bool:
    return connection.source.pod is not None and connection.destination.pod is not None


def _there(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    return bool(rig.send(connection, replace(packet, eth_src=rig.mac(connection.source))))


def _back(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    return bool(rig.answer(connection, packet))


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(60)
def test_errors_pass_exactly_while_their_connection_is_allowed(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """From both ends, before and after a change of policy, without a packet of the connection in between."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    before = Reference.of(cluster, rig.addresses)
    chosen = [one for one in data.draw(connections(rig, apart=True)) if _tracked_by_ports(one) and _between_pods(one)]
    sent = {one: rig.opening(one) for one in chosen}
    for connection, packet in sent.items():
        _there(rig, connection, packet)
        _back(rig, connection, packet.reply())
        # A refused answer of a datagram, too: each end's node now knows something that the other refused.
    after = other_policies(data, cluster)
    for state, reference in ((cluster, before), (after, Reference.of(after, rig.addresses))):
        rig.update(state)
        for connection, packet in sent.items():
            now, was = reference.allowed(connection), before.allowed(connection)
            turned = opens_itself(before, connection) or opens_itself(reference, connection)
            heard = _back(rig, connection, _error(packet)), _there(rig, connection, _error(packet.reply()))
            if not turned:
                assert heard == (now and was, now and was), f"errors about {connection}: {heard}"
            elif not now and not opens_itself(reference, connection):
                assert heard == (False, False), f"errors about {connection}: {heard}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(60)
def test_after_a_loss_only_what_policy_admits_goes_on(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    before = Reference.of(cluster, rig.addresses)
    chosen = [one for one in data.draw(connections(rig, apart=True)) if _between_pods(one)]
    opened = {one: rig.opening(one) for one in chosen if before.allowed(one)}
    for connection, packet in opened.items():
        assert delivered(rig, connection, packet) and _back(rig, connection, packet.reply())
        _there(rig, connection, later_packet(packet))
    state = other_policies(data, cluster) if data.draw(st.booleans()) else cluster
    rig.update(state)
    rig.lose(data.draw(st.sets(st.sampled_from(sorted(cluster.nodes)), min_size=1)))
    reference = Reference.of(state, rig.addresses)
    for connection, packet in opened.items():
        _goes_on_or_not(rig, reference, connection, packet, first=data.draw(st.sampled_from(["server", "client"])))


def _goes_on_or_not(
    rig: SimCluster, reference: Reference, connection: Connection, packet: Packet, *, first: str
) -> None:
    """Whoever speaks first; and errors about it, before. On the kernel's datapath SCTP waits until it begins again."""
    there, back = later_packet(packet), later_packet(packet.reply())
    allowed = reference.allowed(connection)
    turned = Connection(connection.destination, connection.source, PortRef(Protocol.TCP, CLIENT_PORT))
    tcp = packet.nw_proto == TCP
    either = allowed or (reference.allowed(turned) if tcp else opens_itself(reference, connection))
    if not either:
        assert not _back(rig, connection, _error(packet)) and not _there(rig, connection, _error(packet.reply()))
    if first == "server":
        heard = _back(rig, connection, back)
        assert heard <= either, f"the server of {connection}"
        assert heard or not (tcp and allowed), f"the server of {connection} goes on"
    heard = _there(rig, connection, there)
    assert heard <= either, f"the client of {connection}"
    if not begins(rig, there):
        return
    assert heard or not allowed, f"the client of {connection} goes on"
    if allowed:
        assert _back(rig, connection, back), f"the server of {connection} goes on after its client"
    assert packet.nw_proto != TCP or there.tcp_flags == ACK
