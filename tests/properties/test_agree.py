"""The two meanings of policy agree: evaluation over objects, and compiled tables run by the interpreter."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ICMP, Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import KubernetesPolicy, Protocol
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.pipeline.fields import TCP
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.policy.evaluate import Reference
from romana_ovs.simulator.network import Arrival
from romana_ovs.simulator.packet import ACK, Addresses, Packet, arp_request
from tests.support.hypothesis_profiles import examples
from tests.support.simulated_cluster import CLIENT_PORT, GATEWAY_PORT, Attached, SimCluster
from tests.support.strategies import OUTSIDE_ADDRESSES, clusters, labels, packets, policies, port_refs

LONG = int(os.environ.get("ROMANA_PROPERTY_EXAMPLES", "0"))
"""Examples for each property; unset: a quick, always equal choice."""
CONNECTIONS_EACH = 80
"""Connections tried in each cluster: making a cluster costs far more than a packet in it."""


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


def _delivered(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    """Whether a packet of the source arrives; never anywhere else, and never twice."""
    found = _where(rig.send(connection, packet))
    assert len(found) <= 1 and set(found) <= _places(rig, connection), f"{connection} arrives at {found}"
    return bool(found)


def _answered(rig: SimCluster, connection: Connection, packet: Packet) -> bool:
    found = _where(rig.answer(connection, packet))
    back = Connection(connection.destination, connection.source, connection.port)
    assert len(found) <= 1 and set(found) <= _places(rig, back), f"the reply of {connection} arrives at {found}"
    return bool(found)


def _opens_itself(reference: Reference, connection: Connection) -> bool:
    """Whether what would be the reply, were there a connection, is allowed as the first packet of one of its own."""
    protocol = connection.port.protocol
    if protocol in (Protocol.TCP, ICMP):
        return False
    port = PortRef(protocol, CLIENT_PORT) if isinstance(protocol, Protocol) else connection.port
    return reference.allowed(Connection(connection.destination, connection.source, port))


def _flush(rig: SimCluster) -> None:
    for switch in rig.switches.values():
        switch.conntrack.flush()


def _going_on(packet: Packet) -> Packet:
    return packet.with_flags(ACK) if packet.nw_proto == TCP else packet


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(250)
def test_delivered_exactly_when_allowed(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    rig = SimCluster(cluster, tunnels=tunnels)
    reference = Reference.of(cluster, rig.addresses)
    for connection in data.draw(connections(rig)):
        _flush(rig)
        allowed = reference.allowed(connection)
        packet = rig.opening(connection)
        assert _delivered(rig, connection, packet) == allowed, reference.decide(connection).reason
        answered = allowed or _opens_itself(reference, connection)
        assert _answered(rig, connection, packet.reply()) == answered, f"reply of {connection}"


@pytest.mark.slow("120 histories of a cluster, with packets before and after each change: what it finds is rare")
@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(120)
def test_a_change_of_policy_is_felt_at_once_both_ways(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """Connections that were open are cut without any flush, and come back with their next packet."""
    rig = SimCluster(cluster, tunnels=tunnels)
    chosen = data.draw(connections(rig, apart=True))
    seen: Seen = {}
    for state in (cluster, _other_policies(data, cluster), cluster):
        rig.update(state)
        reference = Reference.of(state, rig.addresses)
        for connection in chosen:
            _one_more_packet_each_way(rig, reference, connection, seen)


@pytest.mark.slow("120 histories of a cluster, with packets before and after each change: what it finds is rare")
@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(120)
def test_a_change_of_labels_is_felt_at_once_both_ways(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """The same when clients and servers become others, with and without other policies at the same time."""
    rig = SimCluster(cluster, tunnels=tunnels)
    alive = sorted(key for key, pod in cluster.pods.items() if pod.networked)
    assume(alive)
    chosen = data.draw(connections(rig, apart=True))
    seen: Seen = {}
    for _ in range(3):
        rig.update(cluster)
        reference = Reference.of(cluster, rig.addresses)
        for connection in chosen:
            _one_more_packet_each_way(rig, reference, connection, seen)
        for key in data.draw(st.lists(st.sampled_from(alive), min_size=1, max_size=3)):
            cluster = cluster.with_object(replace(cluster.pods[key], labels=data.draw(labels())))
        if data.draw(st.booleans()):
            cluster = _other_policies(data, cluster)


@dataclass(frozen=True, slots=True)
class Known:
    """What an open connection's source was when it last sent (its identity, None for no pod), and where its ends were.

    An end that is elsewhere, or another tenant's, is forgotten with all that it had open.
    """

    identity: int | None
    ends: tuple[Attached | None, ...]


Seen = dict[Connection, Known]
"""Connections that are open."""


def _one_more_packet_each_way(rig: SimCluster, reference: Reference, connection: Connection, seen: Seen) -> None:
    """Server first where there was a connection: nobody may wait for the client to notice."""
    packet, allowed = rig.opening(connection), reference.allowed(connection)
    answer = packet.reply()
    source, destination = connection.source.pod, connection.destination.pod
    now = Known(
        identity=rig.world.identity_of(source) if source is not None else None,
        ends=tuple(rig.attached.get(end) for end in (source, destination) if end is not None),
    )
    if connection in seen and seen[connection].ends != now.ends:
        del seen[connection]
    another = connection in seen and seen[connection].identity != now.identity
    if connection in seen:
        packet, answer = _going_on(packet), _going_on(answer)
        if allowed or not _opens_itself(reference, connection):
            if another:
                _server_of_another(rig, connection, answer, allowed=allowed)
            else:
                assert _answered(rig, connection, answer) == allowed, f"the server of {connection}"
    assert _delivered(rig, connection, packet) == allowed, f"the client of {connection}"
    if allowed:
        assert _answered(rig, connection, answer), f"the reply of {connection}"
        seen[connection] = now
    else:
        seen.pop(connection, None)
        if another and packet.nw_proto != ICMP and not _opens_itself(reference, connection):
            assert not _answered(rig, connection, answer), f"the server of {connection} after its client was refused"


def _server_of_another(rig: SimCluster, connection: Connection, answer: Packet, *, allowed: bool) -> None:
    """What a server gets through to a client that has become another one and has sent nothing since.

    What acknowledges is left to the client; of the others the first packet may be lost, and nothing that is not
    allowed arrives. An ICMP echo, and what has no ports or is SCTP and was refused to the client as it was before,
    has to wait for it.
    """
    protocol = connection.port.protocol
    arrived = [_answered(rig, connection, answer) for _ in range(3)]
    if protocol is Protocol.TCP:
        assert all(arrived) or not allowed, f"the server of {connection}"
    elif protocol is Protocol.UDP:
        assert arrived[1:] == [allowed] * 2 and arrived[0] <= allowed, f"the server of {connection}: {arrived}"
    elif protocol is not Protocol.SCTP:
        assert allowed or not any(arrived), f"the server of {connection}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(60)
def test_fragments_pass_together_or_not_at_all(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    rig = SimCluster(cluster, tunnels=tunnels)
    reference = Reference.of(cluster, rig.addresses)
    for number, connection in enumerate(data.draw(connections(rig, apart=True))):
        if connection.port.protocol is not Protocol.UDP:
            continue
        allowed = reference.allowed(connection)
        packet = rig.opening(connection)
        there = [rig.send(connection, piece) for piece in packet.fragments(number)]
        assert [len(found) for found in there] == [0, 2 * allowed], f"{connection}"
        if allowed:
            back = [rig.answer(connection, piece) for piece in packet.reply().fragments(1000 + number)]
            assert [len(found) for found in back] == [0, 2], f"reply of {connection}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(80)
def test_no_step_of_a_change_interrupts_or_opens_anything(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """What is allowed before and after a change is allowed at each of its steps; what is denied, denied."""
    rig = SimCluster(cluster, tunnels=tunnels)
    chosen = data.draw(connections(rig))
    after = _other_policies(data, cluster)
    before, wanted = Reference.of(cluster, rig.addresses), Reference.of(after, rig.addresses)
    steady = [one for one in chosen if before.allowed(one) == wanted.allowed(one)]
    assume(steady)
    for _ in rig.steps(after):
        for connection in steady:
            _flush(rig)
            packet = rig.opening(connection)
            assert _delivered(rig, connection, packet) == before.allowed(connection), f"{connection}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(80)
def test_servers_go_on_without_waiting_for_clients(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """A connection that a change allows before and after is never interrupted, though its client sends nothing."""
    rig = SimCluster(cluster, tunnels=tunnels)
    after = _other_policies(data, cluster)
    before, wanted = Reference.of(cluster, rig.addresses), Reference.of(after, rig.addresses)
    steady = [one for one in data.draw(connections(rig, apart=True)) if before.allowed(one) and wanted.allowed(one)]
    for connection in steady:
        packet = rig.opening(connection)
        assert _delivered(rig, connection, packet) and _answered(rig, connection, packet.reply())
    for number, _ in enumerate(rig.steps(after)):
        for connection in steady:
            answer = _going_on(rig.opening(connection).reply())
            assert _answered(rig, connection, answer), f"{connection} at step {number}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans())
@profile(60)
def test_labels_and_places_may_change(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """Relabelled and moved pods get the right verdicts at once, whatever numbers they had."""
    rig = SimCluster(cluster, tunnels=tunnels)
    alive = sorted(key for key, pod in cluster.pods.items() if pod.networked)
    assume(alive)
    for _ in range(2):
        pod = cluster.pods[data.draw(st.sampled_from(alive))]
        node = data.draw(st.sampled_from([pod.node, *sorted(cluster.nodes)]))
        cluster = cluster.with_object(replace(pod, node=node, labels=data.draw(labels())))
        rig.update(cluster)
    reference = Reference.of(cluster, rig.addresses)
    for connection in data.draw(connections(rig)):
        _flush(rig)
        assert _delivered(rig, connection, rig.opening(connection)) == reference.allowed(connection), f"{connection}"


@given(data=st.data(), cluster=clusters(options=st.just(Settings(isolation=Isolation.NONE))), tunnels=st.booleans())
@profile(40)
def test_forged_packets_are_never_delivered(data: st.DataObject, cluster: Cluster, tunnels: bool) -> None:
    """Nobody speaks with another's address, MAC or identity, nor with a tag, whatever policies allow."""
    rig = SimCluster(cluster, tunnels=tunnels)
    assume(len(rig.addresses) >= 2)
    connection = data.draw(packets(cluster).filter(lambda one: _judged(rig, one) and one.source.pod is not None))
    other = data.draw(st.sampled_from(sorted(set(rig.addresses) - {connection.source.pod})))
    for forged in _forgeries(rig, connection, rig.addresses[other]):
        assert _where(rig.send(connection, forged)) == [], forged


def _forgeries(rig: SimCluster, connection: Connection, address: IPv4Address) -> list[Packet]:
    consistent, mac = rig.opening(connection), 0x0A58 << 32 | int(address)
    assert connection.source.pod is not None
    own = rig.addresses[connection.source.pod]
    question = arp_request(Addresses.of(own, address))
    nobodys = [candidate for candidate in _plan_addresses(rig) if candidate not in rig.addresses.values()]
    identities = [number for key in rig.addresses if (number := rig.world.identity_of(key)) is not None]
    return [
        replace(consistent, nw_src=int(address)),
        replace(consistent, eth_src=mac),
        replace(consistent, nw_src=int(address), eth_src=mac),
        consistent.tagged(1),
        consistent.tagged(0),
        *(
            replace(consistent, eth_src=0x0A << 40 | marks << 32 | number)
            for number in identities
            for marks in (0x05, 0x06)
        ),
        replace(question, arp_spa=int(address)),
        replace(question, arp_sha=mac),
        replace(question, eth_src=mac),
        replace(question, arp_op=2),
        replace(question, arp_tpa=int(own)),
        question.tagged(5),
        *(replace(consistent, nw_dst=int(candidate)) for candidate in nobodys),
    ]


def _plan_addresses(rig: SimCluster) -> list[IPv4Address]:
    """An address of every segment in use on every node, which likely nobody has, and some beyond."""
    plan = rig.world.plan
    segments = [*rig.world.registry.segments.values(), plan.segments - 1]
    hosts = [*rig.world.registry.hosts.values(), plan.hosts - 1]
    return [plan.address(segment, host, plan.endpoints - 2) for segment in segments for host in hosts]


@given(cluster=clusters())
@profile(15)
def test_every_pod_resolves_every_other(cluster: Cluster) -> None:
    """ARP has one answer, whatever policies say, and nobody else sees the question."""
    rig = SimCluster(cluster)
    for pod, own in rig.addresses.items():
        place = rig.place(ConnectionEnd(pod=pod), ConnectionEnd(pod=pod))
        for address in (*rig.addresses.values(), IPv4Address("203.0.113.9")):
            found = rig.network.send(*place, arp_request(Addresses.of(own, address)))
            answers = [(one.place, one.packet.arp_sha, one.packet.arp_spa) for one in found]
            assert answers == ([] if address == own else [(place, NEXT_HOP_MAC, int(address))])


def _other_policies(data: st.DataObject, cluster: Cluster) -> Cluster:
    return replace(cluster, policies=data.draw(policies(tuple(cluster.namespaces))))
