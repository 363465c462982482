"""What the host of a simulated node does with packets to Services: kube-proxy's translation, and conntrack's back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import NamedTuple

from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.simulator.network import Arrival, Network
from romana_ovs.simulator.packet import Packet

GATEWAY_PORT = 0xFFFE
GATEWAY_MAC = 0x020000000001
MASQUERADE = int(IPv4Address("192.0.0.8"))
"""The source of what the host forwards for others, such as a pod's packets to itself by a Service."""


class Endpoint(NamedTuple):
    """An address and a port, of a Service or of its backend."""

    address: int
    port: int


class Flow(NamedTuple):
    """The five-tuple of a packet."""

    proto: int
    source: Endpoint
    target: Endpoint

    def reversed(self) -> Flow:
        return Flow(self.proto, self.target, self.source)


def flow_of(packet: Packet) -> Flow:
    return Flow(packet.nw_proto, Endpoint(packet.nw_src, packet.tp_src), Endpoint(packet.nw_dst, packet.tp_dst))


def _with(packet: Packet, flow: Flow) -> Packet:
    """The packet with these ends, from the host."""
    (source, sport), (target, dport) = flow.source, flow.target
    ends = replace(packet, nw_src=source, tp_src=sport, nw_dst=target, tp_dst=dport)
    return replace(ends, eth_src=GATEWAY_MAC, eth_dst=NEXT_HOP_MAC)


@dataclass
class HostProxy:
    """The hosts of all nodes of a network: each translates `services` to their backends, and replies back."""

    network: Network
    services: Mapping[Endpoint, Endpoint]
    connections: dict[str, dict[Flow, Flow]] = field(default_factory=dict)
    """By node: what a packet of this five-tuple is translated to, in either direction."""

    def send(self, node: str, port: int, packet: Packet) -> list[Arrival]:
        """Where a packet arrives in the end, by way of as many hosts as translate it."""
        final: list[Arrival] = []
        waiting = [(node, port, packet)]
        while waiting:
            for arrival in self.network.send(*waiting.pop(0)):
                place = arrival.place
                back = self._translated(place.node, arrival.packet) if place.port == GATEWAY_PORT else None
                if back is None:
                    final.append(arrival)
                else:
                    waiting.append((place.node, GATEWAY_PORT, back))
        return final

    def _translated(self, node: str, packet: Packet) -> Packet | None:
        """The packet as the host sends it on; None when it is for the host itself, or leaves by another device."""
        known = self.connections.setdefault(node, {})
        if packet.inner is not None:
            return self._translated_error(known, packet, packet.inner)
        flow = flow_of(packet)
        backend = self.services.get(flow.target)
        if flow not in known and backend is not None:
            source = flow.source
            if backend.address == source.address:
                source = Endpoint(MASQUERADE, source.port)
            known[flow] = Flow(flow.proto, source, backend)
            known[known[flow].reversed()] = flow.reversed()
        return _with(packet, known[flow]) if flow in known else None

    @staticmethod
    def _translated_error(known: Mapping[Flow, Flow], packet: Packet, inner: Packet) -> Packet | None:
        """An ICMP error: the packet that it quotes, and its own source when that is the end that was translated."""
        quoted = known.get(flow_of(inner).reversed())
        if quoted is None:
            return None
        by_end = packet.nw_src == inner.nw_dst
        outer = replace(
            packet,
            nw_src=quoted.source.address if by_end else packet.nw_src,
            nw_dst=quoted.target.address,
            eth_src=GATEWAY_MAC,
            eth_dst=NEXT_HOP_MAC,
        )
        return replace(outer, inner=_with(inner, quoted.reversed()))
