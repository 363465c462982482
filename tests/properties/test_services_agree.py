"""Connections by a Service: the evaluation of both pods agrees with compiled tables and a host that translates."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import Protocol
from romana_ovs.model.services import ServiceBackend, ServiceFrontend
from romana_ovs.policy.evaluate import Reference
from romana_ovs.simulator.conntrack_behaviour import ConntrackBehaviour
from romana_ovs.simulator.packet import Packet
from tests.properties.agreement import BEHAVIOUR, connections, flush_conntrack, profile
from tests.support.host_proxy import GATEWAY_PORT, Endpoint, HostProxy
from tests.support.simulated_cluster import SimCluster
from tests.support.strategies import OUTSIDE_ADDRESSES, cluster_settings, clusters

RANGE = IPv4Network("172.30.0.0/16")
VIRTUAL = IPv4Address("172.30.0.10")
SETTINGS = cluster_settings().map(lambda settings: replace(settings, service_ranges=(RANGE,)))


def by_service(rig: SimCluster, connection: Connection) -> tuple[HostProxy, Packet]:
    """The hosts with a Service that stands for the connection's destination, and the first packet to it."""
    packet = rig.opening(connection)
    backend = Endpoint(packet.nw_dst, packet.tp_dst)
    return HostProxy(rig.network, {Endpoint(int(VIRTUAL), packet.tp_dst): backend}), replace(
        packet, nw_dst=int(VIRTUAL)
    )


def translatable(rig: SimCluster, connection: Connection) -> bool:
    """Whether it is between two pods with addresses of the plan, by a protocol that Services have."""
    ends = [end.pod for end in (connection.source, connection.destination) if end.pod is not None]
    ours = [pod for pod in ends if rig.addresses[pod] in rig.cluster.settings.network]
    named = isinstance(connection.port.protocol, Protocol) and bool(connection.port.port)
    return named and len(set(ours)) == len((connection.source, connection.destination))


@given(data=st.data(), cluster=clusters(options=SETTINGS), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(60)
def test_a_service_opens_what_its_pods_admit(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """docs/hazards.md A26, A27: no more and no less, with the client's source, and the answer from the Service."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    reference = Reference.of(cluster, rig.addresses)
    for connection in data.draw(connections(rig)):
        if not translatable(rig, connection):
            continue
        flush_conntrack(rig)
        proxy, packet = by_service(rig, connection)
        allowed = reference.allowed_by_service(connection, [(connection.destination, connection.port)])
        client = rig.place(connection.source, connection.destination)
        server = rig.place(connection.destination, connection.source)
        arrivals = proxy.send(*client, packet)
        assert [arrival.place for arrival in arrivals] == [server] * allowed, f"{connection}"
        for arrival in arrivals:
            assert arrival.packet.nw_src == packet.nw_src
            answer = replace(arrival.packet.reply(), eth_src=rig.mac(connection.destination))
            answers = [(one.place, one.packet.nw_src) for one in proxy.send(*server, answer)]
            assert answers == [(client, int(VIRTUAL))], f"reply of {connection}"


@given(data=st.data(), cluster=clusters(options=SETTINGS), behaviour=BEHAVIOUR)
@profile(40)
def test_other_backends_need_permission_for_all(
    data: st.DataObject, cluster: Cluster, behaviour: ConntrackBehaviour
) -> None:
    """Backends that are no pods are decided on the client's node, at the Service's address."""
    backends = data.draw(st.lists(st.sampled_from(OUTSIDE_ADDRESSES), min_size=1, max_size=2, unique=True))
    ports = data.draw(st.sampled_from((80, 443, 8080)))
    protocol = data.draw(st.sampled_from((Protocol.TCP, Protocol.UDP)))
    behind = tuple(sorted(ServiceBackend(address, ports) for address in backends))
    frontend = ServiceFrontend(VIRTUAL, protocol.value, 1234, behind)
    rig = SimCluster(replace(cluster, frontends=(frontend,)), behaviour=behaviour)
    reference = Reference.of(cluster, rig.addresses)
    ends = [(ConnectionEnd(address=address), PortRef(protocol, ports)) for address in backends]
    for key, address in rig.addresses.items():
        source = ConnectionEnd(pod=key)
        opened = Connection(source, ConnectionEnd(address=VIRTUAL), PortRef(protocol, 1234))
        allowed = reference.allowed_by_service(Connection(source, *ends[0]), ends)
        found = rig.send(opened, rig.opening(opened))
        assert [arrival.place.port for arrival in found] == [GATEWAY_PORT] * allowed, f"{key} at {address}"
