"""Small clusters made by hand: views and permissions of each node, compiled and joined to an interpreted network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.bridge import BridgeFacts, TunnelPort
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.identity import ALL_BITS, IdentityMatch, identity, whole_segments
from romana_ovs.model.labels import NO_LABELS
from romana_ovs.model.objects import PodKey
from romana_ovs.model.services import ServiceFrontend
from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import Program, compile_node
from romana_ovs.pipeline.flow import Flow
from romana_ovs.policy.view import (
    Allow,
    ClientGroup,
    ForeignRoute,
    Gateway,
    LocalPod,
    Membership,
    NodePermissions,
    NodeView,
    Origin,
    RemoteHost,
    ServerGroup,
    TenantAllow,
    Uplink,
)
from romana_ovs.simulator.conntrack import Conntrack
from romana_ovs.simulator.conntrack_behaviour import NETDEV, ConntrackBehaviour
from romana_ovs.simulator.interpret import Switch
from romana_ovs.simulator.network import Network, Wiring
from romana_ovs.simulator.packet import Addresses, Packet

PLAN = AddressPlan.of(Settings())
GATEWAY_PORT = 0xFFFE
UPLINK_PORT = 100
RULE = Origin("NetworkPolicy", "test", "rule", "ingress[0]")
OPEN_SERVER = ServerGroup(1, (Allow(RULE),), ())
CLOSED_SERVER = ServerGroup(2, (), ())


@dataclass(frozen=True, slots=True)
class SimPod:
    """A pod: its node (1, 2, ...), port, segment, groups and number of its class; its tenant is its segment."""

    name: str
    node: int
    port: int
    segment: int = 1
    server: ServerGroup = OPEN_SERVER
    client: ClientGroup | None = None
    pre_restart: bool = False
    number: int = 1
    previous_ids: tuple[int, ...] = ()
    other_mac: int = 0
    """Its MAC, unless that is derived from its address."""

    @property
    def address(self) -> IPv4Address:
        return PLAN.address(self.segment, self.node, self.port)

    @property
    def mac(self) -> int:
        return self.other_mac or 0x0A58 << 32 | int(self.address)

    @property
    def identity(self) -> int:
        return identity(self.segment, self.number)

    def local(self) -> LocalPod:
        return LocalPod(
            key=PodKey(f"test/{self.name}"),
            namespace="test",
            labels=NO_LABELS,
            segment=SegmentKey(str(self.segment), "default"),
            identity=self.identity,
            address=self.address,
            mac=self.mac.to_bytes(6, "big").hex(":"),
            ofport=self.port,
            pre_restart=self.pre_restart,
            previous_ids=tuple(identity(self.segment, number) for number in self.previous_ids),
        )


def allow(*sources: SimPod, ports: Sequence[Any] | None = None) -> Allow:
    """A permission for exactly these pods' identities; no pods at all is every peer."""
    matches = frozenset(IdentityMatch(pod.identity, ALL_BITS) for pod in sources) if sources else None
    return Allow(RULE, identities=matches, ports=tuple(ports) if ports is not None else None)


@dataclass(slots=True)
class SimNetwork:
    """Pods on one or two nodes, joined by a link or by tunnels, behind switches that keep their connections."""

    pods: dict[str, SimPod]
    tunnels: bool = False
    shared: frozenset[str] = frozenset()
    """Tenants that everyone may connect to."""
    foreign: tuple[ForeignRoute, ...] = ()
    service_ranges: tuple[IPv4Network, ...] = ()
    frontends: tuple[ServiceFrontend, ...] = ()
    behaviour: ConntrackBehaviour = NETDEV
    network: Network = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        switches = {f"n{node}": Switch(self.flows(node), conntrack=Conntrack(self.behaviour)) for node in (1, 2)}
        self.network = Network(switches, Wiring.of(self._facts()))

    @classmethod
    def of(
        cls,
        *pods: SimPod,
        tunnels: bool = False,
        shared: frozenset[str] = frozenset(),
        service_ranges: tuple[IPv4Network, ...] = (),
        behaviour: ConntrackBehaviour = NETDEV,
    ) -> SimNetwork:
        named = {pod.name: pod for pod in pods}
        return cls(named, tunnels, shared, service_ranges=service_ranges, behaviour=behaviour)

    def change(self, *pods: SimPod) -> None:
        """New pods, or known ones otherwise; switches are programmed anew and keep their connections."""
        self.pods |= {pod.name: pod for pod in pods}
        for node in (1, 2):
            self.network.switches[f"n{node}"].program(self.flows(node))

    def flows(self, node: int) -> tuple[Flow, ...]:
        """The compiled tables of a node."""
        return tuple(self.program(node).flows.values())

    def program(self, node: int) -> Program:
        """The compiled tables of a node, with their meters."""
        return compile_node(self.view(node), self.permissions(node))

    def _on(self, node: int) -> list[SimPod]:
        return [pod for pod in self.pods.values() if pod.node == node]

    def view(self, node: int) -> NodeView:
        """What a node knows."""
        other = 3 - node
        way = RemoteHost(other, f"n{other}", UPLINK_PORT, underlay(other) if self.tunnels else None)
        return NodeView(
            settings=Settings(shared_tenants=self.shared),
            node=f"n{node}",
            host=node,
            pods=tuple(sorted((pod.local() for pod in self._on(node)), key=lambda pod: pod.key)),
            tenants={},
            segments={},
            classes={},
            namespaces={},
            policies=(),
            gateway=Gateway(
                GATEWAY_PORT,
                "02:00:00:00:00:01",
                (PLAN.gateway(node),),
                pre_restart=any(pod.pre_restart for pod in self._on(node)),
            ),
            uplinks=(Uplink(UPLINK_PORT, (underlay(other),) if self.tunnels else None),),
            hosts=(way,),
            foreign=tuple(route for route in self.foreign if route.host != node),
            service_ranges=self.service_ranges,
            frontends=self.frontends,
        )

    def permissions(self, node: int) -> NodePermissions:
        """What policy says about a node's pods."""
        local = self._on(node)
        servers = {pod.server.number: pod.server for pod in local}
        clients = {pod.client.number: pod.client for pod in local if pod.client is not None}
        runs = {pod.segment: whole_segments(pod.segment, 1) for pod in self.pods.values()}
        return NodePermissions(
            members={
                pod.local().key: Membership(pod.server.number, pod.client.number if pod.client else 0) for pod in local
            },
            servers=tuple(servers.values()),
            clients=tuple(clients.values()),
            tenancy=tuple(
                TenantAllow(run, None if str(segment) in self.shared else run, Origin("Isolation"))
                for segment, run in runs.items()
            ),
        )

    def _facts(self) -> Mapping[str, BridgeFacts]:
        if self.tunnels:
            return {
                f"n{node}": BridgeFacts(f"n{node}", tunnel=TunnelPort(UPLINK_PORT, underlay(node))) for node in (1, 2)
            }
        return {f"n{node}": BridgeFacts(f"n{node}", links={f"n{3 - node}": UPLINK_PORT}) for node in (1, 2)}

    def ends(self, source: str, target: str) -> Addresses:
        """The addresses of a frame from one pod to another."""
        return Addresses.of(self.pods[source].address, self.pods[target].address)

    def delivered(self, source: str, packet: Packet) -> list[str]:
        """Who receives a packet that pod `source` sends: pods by name, else `node:port`."""
        pod = self.pods[source]
        return self.arrivals(f"n{pod.node}", pod.port, packet)

    def arrivals(self, node: str, port: int, packet: Packet) -> list[str]:
        """Who receives a packet that comes in at a port of a node."""
        names = {(f"n{pod.node}", pod.port): pod.name for pod in self.pods.values()}
        found = self.network.send(node, port, packet)
        return [names.get((one.place.node, one.place.port), f"{one.place.node}:{one.place.port}") for one in found]

    def moved(self, name: str, **changes: object) -> None:
        """`change` of one known pod."""
        self.change(replace(self.pods[name], **changes))  # type: ignore[arg-type]


def underlay(node: int) -> IPv4Address:
    """The address that a node tunnels from."""
    return IPv4Address("192.0.2.0") + node
