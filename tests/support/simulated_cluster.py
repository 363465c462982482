"""A whole cluster as interpreted switches: ConfirmingEngine, resolve, compile_node and a network of bridges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.engine import offline_facts
from romana_ovs.model.bridge import BridgeFacts, TunnelPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd
from romana_ovs.model.objects import PodKey, Protocol
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.zones import node_zones
from romana_ovs.policy.resolve import resolve
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.conntrack_behaviour import NETDEV, ConntrackBehaviour
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.network import Arrival, Network, Place, Wiring
from romana_ovs.simulator.packet import Addresses, Packet, transport
from tests.support.confirming_engine import ConfirmingEngine

GATEWAY_PORT = 0xFFFE
GATEWAY_MAC = 0x020000000001
TUNNEL_PORT = 0x7FFF
UNDERLAY = IPv4Address("192.0.2.0")
CLIENT_PORT = 40000


class Attached(NamedTuple):
    """Where a pod is, and the index of its conntrack zone; a pod for which this changes is forgotten on its switch."""

    node: str
    address: IPv4Address
    zone: int


class SimCluster:
    """The switches of a cluster, kept over its changes with their connections."""

    def __init__(self, cluster: Cluster, *, tunnels: bool = False, behaviour: ConntrackBehaviour = NETDEV) -> None:
        self.engine = ConfirmingEngine(cluster.settings)
        self._tunnels = tunnels
        self.behaviour = behaviour
        self.attached: dict[PodKey, Attached] = {}
        self._lost: frozenset[str] = frozenset()
        self.switches: dict[str, Switch] = {}
        self.update(cluster)

    def update(self, cluster: Cluster) -> None:
        """Follow the cluster to its end; what a pod's address had open is forgotten where it comes or goes."""
        for _ in self.steps(cluster):
            pass

    def steps(self, cluster: Cluster) -> Iterator[None]:
        """As `update`, but stops after every step at which the switches have been programmed."""
        self.cluster = cluster
        self.engine.update(cluster)
        self.program()
        yield
        while self.engine.pending:
            self.engine.advance()
            self.program()
            yield

    def program(self) -> None:
        """The tables of the engine as it is now, steps that are still pending left out."""
        self.facts = self._facts()
        attached: dict[PodKey, Attached] = {}
        for node, own in self.facts.items():
            view = self.engine.view(own, self.facts)
            used = node_zones(view).pods
            attached |= {pod.key: Attached(node, pod.address, used[pod.key].index) for pod in view.pods}
            flows = compile_node(view, resolve(view)).flows.values()
            if node in self.switches:
                self.switches[node].program(flows)
            else:
                self.switches[node] = Switch(flows, conntrack=Conntrack(self.behaviour))
        self.network = Network({node: self.switches[node] for node in self.facts}, Wiring.of(self.facts))
        self._follow_attachments(attached)

    def _facts(self) -> dict[str, BridgeFacts]:
        facts = {
            node: _surviving(own) if node in self._lost else own
            for node, own in offline_facts(self.cluster, self.engine.registry.hosts).items()
        }
        if not self._tunnels:
            return facts
        return {
            node: replace(own, links={}, tunnel=TunnelPort(TUNNEL_PORT, UNDERLAY + index))
            for index, (node, own) in enumerate(sorted(facts.items()), start=1)
        }

    def lose(self, nodes: Iterable[str]) -> None:
        """The switches of these nodes lose their connections; all that is there survives it."""
        self._lost = frozenset(nodes)
        for node in self._lost & self.switches.keys():
            self.switches[node].conntrack.flush()
        self.program()

    def _follow_attachments(self, now: dict[PodKey, Attached]) -> None:
        for _, (node, address, _) in set(now.items()) ^ set(self.attached.items()):
            if node in self.switches:
                self.switches[node].conntrack.flush(address=int(address))
        self.attached = now
        self.addresses = {key: pod.address for key, pod in now.items()}

    def place(self, end: ConnectionEnd, other: ConnectionEnd) -> Place:
        """Where `end` is attached; outside addresses are behind the gateway of the pod they talk with."""
        if end.pod is not None:
            node = self.cluster.pods[end.pod].node
            return Place(node, self.facts[node].pod_ports[end.pod].ofport)
        node = end.node or self.cluster.pods[other.pod].node if other.pod is not None else end.node
        return Place(node, GATEWAY_PORT)

    def address(self, end: ConnectionEnd) -> IPv4Address:
        if end.pod is not None:
            return self.addresses[end.pod]
        assert end.address is not None
        return end.address

    def mac(self, end: ConnectionEnd) -> int:
        return 0x0A58 << 32 | int(self.address(end)) if end.pod is not None else GATEWAY_MAC

    def opening(self, connection: Connection) -> Packet:
        """The first packet of a connection."""
        source, destination = connection.source, connection.destination
        ends = Addresses.of(self.address(source), self.address(destination), eth_src=self.mac(source))
        proto = connection.port.protocol
        number = proto.number if isinstance(proto, Protocol) else proto
        return transport(number, ends, CLIENT_PORT, connection.port.port or 0)

    def send(self, connection: Connection, packet: Packet) -> list[Arrival]:
        """Who receives a packet of the connection's source."""
        place = self.place(connection.source, connection.destination)
        return self.network.send(place.node, place.port, packet)

    def answer(self, connection: Connection, packet: Packet) -> list[Arrival]:
        """Who receives a packet of the destination; nodes and outsiders answer from where they were met."""
        place = self.place(connection.destination, connection.source)
        if connection.destination.pod is None:
            place = Place(self.place(connection.source, connection.destination).node, GATEWAY_PORT)
        return self.network.send(place.node, place.port, replace(packet, eth_src=self.mac(connection.destination)))


def _surviving(facts: BridgeFacts) -> BridgeFacts:
    pods = {key: replace(port, pre_restart=True) for key, port in facts.pod_ports.items()}
    return replace(facts, pod_ports=pods, conntrack_lost=True)
