"""The two meanings of policy agree: evaluation over objects, and compiled tables run by the interpreter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import ICMP, Connection, ConnectionEnd
from romana_ovs.model.objects import Protocol
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.policy.evaluate import Reference
from romana_ovs.simulator.conntrack_behaviour import NETDEV, ConntrackBehaviour
from romana_ovs.simulator.packet import Addresses, Packet, arp_request
from tests.properties.agreement import (
    BEHAVIOUR,
    _judged,
    _where,
    begins,
    connections,
    delivered,
    flush_conntrack,
    later_packet,
    opens_itself,
    other_policies,
    profile,
    replies_elsewhere,
    reply_delivered,
)
from tests.support.simulated_cluster import Attached, SimCluster
from tests.support.strategies import clusters, labels, packets


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(250)
def test_delivered_exactly_when_allowed(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    reference = Reference.of(cluster, rig.addresses)
    for connection in data.draw(connections(rig)):
        flush_conntrack(rig)
        allowed = reference.allowed(connection)
        packet = rig.opening(connection)
        assert delivered(rig, connection, packet) == allowed, reference.decide(connection).reason
        answered = allowed or (opens_itself(reference, connection) and begins(rig, packet.reply()))
        assert reply_delivered(rig, connection, packet.reply()) == answered, f"reply of {connection}"


@pytest.mark.slow("120 histories of a cluster, with packets before and after each change: what it finds is rare")
@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(120)
def test_a_change_of_policy_is_felt_at_once_both_ways(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """Connections that were open are cut without any flush, and come back with their next packet."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    chosen = data.draw(connections(rig, apart=True))
    seen: Seen = {}
    for state in (cluster, other_policies(data, cluster), cluster):
        rig.update(state)
        reference = Reference.of(state, rig.addresses)
        for connection in chosen:
            _one_more_packet_each_way(rig, reference, connection, seen)


@pytest.mark.slow("120 histories of a cluster, with packets before and after each change: what it finds is rare")
@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(120)
def test_a_change_of_labels_is_felt_at_once_both_ways(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """The same when clients and servers become others, with and without other policies at the same time."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
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
            cluster = other_policies(data, cluster)


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
        identity=rig.engine.identity_of(source) if source is not None else None,
        ends=tuple(rig.attached.get(end) for end in (source, destination) if end is not None),
    )
    if connection in seen and seen[connection].ends != now.ends:
        del seen[connection]
    another = connection in seen and seen[connection].identity != now.identity
    if connection in seen:
        if rig.behaviour is NETDEV or not replies_elsewhere(rig, connection):
            packet, answer = later_packet(packet), later_packet(answer)
        if allowed or not opens_itself(reference, connection):
            if another:
                _server_of_another(rig, connection, answer, allowed=allowed)
            else:
                assert reply_delivered(rig, connection, answer) == allowed, f"the server of {connection}"
    assert delivered(rig, connection, packet) == allowed, f"the client of {connection}"
    if allowed:
        assert reply_delivered(rig, connection, answer), f"the reply of {connection}"
        seen[connection] = now
    else:
        seen.pop(connection, None)
        if another and packet.nw_proto != ICMP and not opens_itself(reference, connection):
            assert not reply_delivered(rig, connection, answer), f"the server of {connection}: its client was refused"


def _server_of_another(rig: SimCluster, connection: Connection, answer: Packet, *, allowed: bool) -> None:
    """What a server gets through to a client that has become another one and has sent nothing since.

    What acknowledges is left to the client; of the others the first packet may be lost, and nothing that is not
    allowed arrives. An ICMP echo, and what has no ports or is SCTP and was refused to the client as it was before,
    has to wait for it.
    """
    protocol = connection.port.protocol
    arrived = [reply_delivered(rig, connection, answer) for _ in range(3)]
    if protocol is Protocol.TCP:
        assert all(arrived) or not allowed, f"the server of {connection}"
    elif protocol is Protocol.UDP:
        assert arrived[1:] == [allowed] * 2 and arrived[0] <= allowed, f"the server of {connection}: {arrived}"
    elif protocol is not Protocol.SCTP:
        assert allowed or not any(arrived), f"the server of {connection}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(60)
def test_fragments_pass_together_or_not_at_all(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
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


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(80)
def test_no_step_of_a_change_interrupts_or_opens_anything(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """What is allowed before and after a change is allowed at each of its steps; what is denied, denied."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    chosen = data.draw(connections(rig))
    after = other_policies(data, cluster)
    before, wanted = Reference.of(cluster, rig.addresses), Reference.of(after, rig.addresses)
    steady = [one for one in chosen if before.allowed(one) == wanted.allowed(one)]
    assume(steady)
    for _ in rig.steps(after):
        for connection in steady:
            flush_conntrack(rig)
            packet = rig.opening(connection)
            assert delivered(rig, connection, packet) == before.allowed(connection), f"{connection}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(80)
def test_servers_go_on_without_waiting_for_clients(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """A connection that a change allows before and after is never interrupted, though its client sends nothing."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    after = other_policies(data, cluster)
    before, wanted = Reference.of(cluster, rig.addresses), Reference.of(after, rig.addresses)
    steady = [one for one in data.draw(connections(rig, apart=True)) if before.allowed(one) and wanted.allowed(one)]
    for connection in steady:
        packet = rig.opening(connection)
        assert delivered(rig, connection, packet) and reply_delivered(rig, connection, packet.reply())
    for number, _ in enumerate(rig.steps(after)):
        for connection in steady:
            answer = later_packet(rig.opening(connection).reply())
            assert reply_delivered(rig, connection, answer), f"{connection} at step {number}"


@given(data=st.data(), cluster=clusters(), tunnels=st.booleans(), behaviour=BEHAVIOUR)
@profile(60)
def test_labels_and_places_may_change(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """Relabelled and moved pods get the right verdicts at once, whatever numbers they had."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
    alive = sorted(key for key, pod in cluster.pods.items() if pod.networked)
    assume(alive)
    for _ in range(2):
        pod = cluster.pods[data.draw(st.sampled_from(alive))]
        node = data.draw(st.sampled_from([pod.node, *sorted(cluster.nodes)]))
        cluster = cluster.with_object(replace(pod, node=node, labels=data.draw(labels())))
        rig.update(cluster)
    reference = Reference.of(cluster, rig.addresses)
    for connection in data.draw(connections(rig)):
        flush_conntrack(rig)
        assert delivered(rig, connection, rig.opening(connection)) == reference.allowed(connection), f"{connection}"


@given(
    data=st.data(),
    cluster=clusters(options=st.just(Settings(isolation=Isolation.NONE))),
    tunnels=st.booleans(),
    behaviour=BEHAVIOUR,
)
@profile(40)
def test_forged_packets_are_never_delivered(
    data: st.DataObject, cluster: Cluster, tunnels: bool, behaviour: ConntrackBehaviour
) -> None:
    """Nobody speaks with another's address, MAC or identity, nor with a tag, whatever policies allow."""
    rig = SimCluster(cluster, tunnels=tunnels, behaviour=behaviour)
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
    identities = [number for key in rig.addresses if (number := rig.engine.identity_of(key)) is not None]
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
    plan = rig.engine.plan
    segments = [*rig.engine.registry.segments.values(), plan.segments - 1]
    hosts = [*rig.engine.registry.hosts.values(), plan.hosts - 1]
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
