"""Computes how nodes reach each other: along one tree of plain links, or through a tunnel.

Nodes forward packets in transit without checking their sender, so the links in use must form no loop
(docs/dataplane.md, "Between nodes"). They form the tree of a breadth-first search from the smallest node name of each
connected part, neighbours in order of their names; no other link is an uplink.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.objects import Node
from romana_ovs.policy.view import RemoteHost, Uplink


@dataclass(frozen=True, slots=True)
class Topology:
    """`neighbours`: the links in use, in both directions. `tunnels`: each node's address for tunnelled packets."""

    neighbours: Mapping[str, tuple[str, ...]]
    tunnels: Mapping[str, IPv4Address]

    def next_hops(self, node: str) -> dict[str, str]:
        """For every other node that links lead to from `node`: the neighbour on the way."""
        first_hops: dict[str, str] = {}
        waiting = deque((neighbour, neighbour) for neighbour in self.neighbours.get(node, ()))
        while waiting:
            current, first = waiting.popleft()
            first_hops[current] = first
            waiting.extend((far, first) for far in self.neighbours[current] if far not in first_hops and far != node)
        return first_hops


def topology_of(facts: Mapping[str, BridgeFacts], nodes: Mapping[str, Node], numbered: Collection[str]) -> Topology:
    """The topology of the bridges that are known and belong to nodes with a host number.

    A link counts when the bridges at both ends have it, or when the bridge at the other end is unknown. A node's tunnel
    is at the address that its bridge tunnels from, or else at the first address of its Node.
    """
    links: dict[str, set[str]] = {}
    for name, node_facts in facts.items():
        for peer in node_facts.links:
            mutual = peer not in facts or name in facts[peer].links
            if mutual and name != peer and name in numbered and peer in numbered:
                links.setdefault(name, set()).add(peer)
                links.setdefault(peer, set()).add(name)
    tunnels: dict[str, IPv4Address] = {}
    for name in sorted(numbered):
        tunnel = facts[name].tunnel if name in facts else None
        addresses = nodes[name].addresses if name in nodes else ()
        if tunnel is not None:
            tunnels[name] = tunnel.address
        elif addresses:
            tunnels[name] = addresses[0]
    return Topology(_tree(links), tunnels)


def routes_of(
    facts: BridgeFacts, topology: Topology, numbers: Mapping[str, int]
) -> tuple[tuple[RemoteHost, ...], tuple[Uplink, ...]]:
    """The nodes that this bridge reaches, sorted by number, and its uplink ports, sorted by port."""
    next_hops = topology.next_hops(facts.node)
    hosts: list[RemoteHost] = []
    for name, number in numbers.items():
        if name == facts.node:
            continue
        next_hop = next_hops.get(name)
        if next_hop is not None and next_hop in facts.links:
            hosts.append(RemoteHost(number, name, facts.links[next_hop]))
        elif next_hop is None and facts.tunnel is not None and name in topology.tunnels:
            hosts.append(RemoteHost(number, name, facts.tunnel.ofport, topology.tunnels[name]))
    neighbours = topology.neighbours.get(facts.node, ())
    uplinks = [Uplink(facts.links[name]) for name in neighbours if name in facts.links]
    if facts.tunnel is not None:
        peers = sorted(host.tunnel for host in hosts if host.tunnel is not None)
        uplinks.append(Uplink(facts.tunnel.ofport, tuple(peers)))
    hosts.sort(key=lambda host: host.number)
    return tuple(hosts), tuple(sorted(uplinks, key=lambda uplink: uplink.ofport))


def _tree(links: Mapping[str, set[str]]) -> dict[str, tuple[str, ...]]:
    tree: dict[str, list[str]] = {}
    for root in sorted(links):
        if root in tree:
            continue
        tree[root] = []
        waiting = deque([root])
        while waiting:
            current = waiting.popleft()
            for peer in sorted(links[current]):
                if peer not in tree:
                    tree[peer] = [current]
                    tree[current].append(peer)
                    waiting.append(peer)
    return {name: tuple(sorted(neighbours)) for name, neighbours in tree.items()}
