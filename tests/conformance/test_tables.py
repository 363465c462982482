"""The table by the compiled tables, interpreted: packets over three nodes, replies, and connections that were open."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

import pytest

from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import PodKey, Protocol
from romana_ovs.pipeline.fields import SCTP, TCP
from romana_ovs.policy.matrix import PodPath
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.conntrack_behaviour import KERNEL, NETDEV, ConntrackBehaviour
from romana_ovs.simulator.packet import ACK, DATA, Packet
from tests.conformance.offline import Folder, end_of, endpoints, every_mode, expected
from tests.conformance.states import BASE_STATE, resolved, states
from tests.conformance.table import CASES
from tests.conformance.words import Case, Step
from tests.support.hypothesis_profiles import some
from tests.support.simulated_cluster import SimCluster

BEHAVIOUR = {"plain": KERNEL, "tenants": NETDEV}
"""The connection tracking of each mode's switches."""


@dataclass(slots=True)
class Tables:
    """The switches of a case, which keep their connections from step to step.

    `open_before` are those they have, `identities` those under which their clients opened them.
    """

    rig: SimCluster
    behaviour: ConntrackBehaviour
    open_before: set[PodPath] = field(default_factory=set)
    identities: dict[PodKey, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Without ports, all SCTP of a pair would be one connection, and the order of the paths would matter.
        for switch in self.rig.switches.values():
            switch.conntrack = Conntrack(replace(self.behaviour, sctp_ports=True))

    def address(self, name: str) -> IPv4Address:
        """The address that a pod has, or a node on its bridge."""
        hosts = self.rig.engine.registry.hosts
        return self.rig.engine.plan.gateway(hosts[name]) if name in hosts else self.rig.addresses[PodKey(name)]

    def nodes(self) -> dict[str, IPv4Address]:
        """The nodes' own addresses."""
        return {name: self.address(name) for name in self.rig.engine.registry.hosts}

    def delivered(self, connection: Connection, packet: Packet) -> bool:
        """Whether a packet of the source arrives where it should, and nowhere else."""
        found = [arrival.place for arrival in self.rig.send(connection, packet)]
        assert found in ([], [self.rig.place(connection.destination, connection.source)]), f"{connection} at {found}"
        return bool(found)

    def answered(self, connection: Connection, packet: Packet) -> bool:
        """Whether a packet of the destination arrives back."""
        found = [arrival.place for arrival in self.rig.answer(connection, packet)]
        assert found in ([], [self.rig.place(connection.source, connection.destination)]), f"{connection} at {found}"
        return bool(found)

    def try_path(self, path: PodPath, *, allowed: bool) -> None:
        """One more packet each way. Where there was a connection, the server first: it cannot wait for the client.

        Not where the client got another identity meanwhile: what happens until it sends is in tests/properties.
        """
        connection = Connection(
            ConnectionEnd(pod=path.source), ConnectionEnd(pod=path.destination), PortRef.parse(path.port)
        )
        packet = self.rig.opening(connection)
        answer: Packet | None = packet.reply()
        if path in self.open_before:
            packet, answer = _going_on(packet), _going_on(packet.reply())
            same = self.identities[path.source] == self.rig.engine.identity_of(path.source)
            if same and (allowed or connection.port.protocol is Protocol.TCP):
                assert self.answered(connection, answer) == allowed, f"the server of {path}"
                answer = None
        assert self.delivered(connection, packet) == allowed, path
        if allowed and answer is not None:
            assert self.answered(connection, answer), f"the reply of {path}"

    def try_step(self, step: Step, pods: list[str], mode: str) -> None:
        """Every pair by every port that the step speaks of."""
        is_open = expected(step, pods, mode)
        for port in step.ports:
            for source in pods:
                for destination in pods:
                    path = PodPath(PodKey(source), PodKey(destination), port)
                    if source != destination:
                        self.try_path(path, allowed=path in is_open)
        self.open_before = is_open
        self.identities = {PodKey(pod): self.rig.engine.identity_of(PodKey(pod)) for pod in pods}

    def try_claims(self, step: Step) -> None:
        """Paths to and from nodes and outside addresses; bridges never see what a pod sends to itself."""
        for claim in step.claims:
            ends = (end_of(claim.source, self.nodes()), end_of(claim.destination, self.nodes()))
            connection = Connection(*ends, PortRef.parse(claim.port))
            if claim.source != claim.destination:
                assert self.delivered(connection, self.rig.opening(connection)) == claim.open, claim


def _going_on(packet: Packet) -> Packet:
    if packet.nw_proto == SCTP:
        return replace(packet, sctp_chunk=DATA)
    return packet.with_flags(ACK) if packet.nw_proto == TCP else packet


@every_mode
@pytest.mark.parametrize("case", some(CASES), ids=lambda case: case.name)
def test_every_packet_goes_where_the_table_says(case: Case, mode: str) -> None:
    folder = Folder(mode)
    tables = Tables(SimCluster(folder.read(resolved(BASE_STATE, IPv4Address))), BEHAVIOUR[mode])
    for step, state in states(case.steps):
        tables.rig.update(folder.read(resolved(state, tables.address)))
        tables.try_step(step, endpoints(state), mode)
        tables.try_claims(step)
