"""Joins simulated switches by links or tunnels, and follows packets from port to port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.errors import PipelineError
from romana_ovs.simulator.interpret import Event, Switch
from romana_ovs.simulator.packet import Packet

MAX_HOPS = 32
"""Limit of bridges that one packet may pass; more is a loop."""


class Place(NamedTuple):
    """A port of a node's bridge."""

    node: str
    port: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet that left the network of bridges: to a pod, to a node itself, or out of an unconnected port."""

    place: Place
    packet: Packet


@dataclass(frozen=True, slots=True)
class Hop:
    """What one bridge did with the packet that came in at `place`."""

    place: Place
    packet: Packet
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True)
class Wiring:
    """How ports are connected: plain links port to port, tunnels by the address of each tunnel port."""

    links: Mapping[Place, Place] = field(default_factory=dict)
    tunnels: Mapping[Place, IPv4Address] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Mapping[str, BridgeFacts]) -> Wiring:
        """The wiring between these bridges; a link needs both ends."""
        links = {
            Place(node, port): Place(peer, facts[peer].links[node])
            for node, own in facts.items()
            for peer, port in own.links.items()
            if peer in facts and node in facts[peer].links
        }
        tunnels = {
            Place(node, own.tunnel.ofport): own.tunnel.address for node, own in facts.items() if own.tunnel is not None
        }
        return cls(links, tunnels)


class Network:
    """Switches by node and their wiring. `hops` lists what each bridge did with the last packet sent."""

    def __init__(self, switches: Mapping[str, Switch], wiring: Wiring) -> None:
        self.switches = dict(switches)
        self._wiring = wiring
        self.hops: list[Hop] = []

    def send(self, node: str, port: int, packet: Packet) -> list[Arrival]:
        """The arrivals of a packet that enters at `port` of `node`'s bridge, with all copies.

        Raises PipelineError when it goes in circles.
        """
        self.hops = []
        arrivals: list[Arrival] = []
        waiting = [(Place(node, port), packet)]
        while waiting:
            place, arriving = waiting.pop(0)
            if len(self.hops) >= MAX_HOPS:
                raise PipelineError(f"a packet from port {port} of {node} goes in circles between bridges")
            switch = self.switches[place.node]
            leaving = switch.receive(arriving, place.port)
            self.hops.append(Hop(place, arriving, tuple(switch.trace)))
            for sent in leaving:
                arrival = self._next_ingress(Place(place.node, sent.port), sent.packet)
                if isinstance(arrival, Arrival):
                    arrivals.append(arrival)
                elif arrival is not None:
                    waiting.append(arrival)
        return arrivals

    def _next_ingress(self, out: Place, packet: Packet) -> tuple[Place, Packet] | Arrival | None:
        """The next ingress of a packet that leaves by `out`; None if no tunnel port has the packet's destination."""
        bare = replace(packet, tun_src=0, tun_dst=0)
        if out in self._wiring.links:
            return self._wiring.links[out], bare
        source = self._wiring.tunnels.get(out)
        if source is None:
            return Arrival(out, bare)
        for place, address in self._wiring.tunnels.items():
            if int(address) == packet.tun_dst and place.node != out.node:
                return place, replace(packet, tun_src=int(source))
        return None
