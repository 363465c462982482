"""Gives the `ip` commands for the route of a pod or node to all pods: by one next hop with a permanent neighbour entry.

The switch answers every ARP request with one MAC, so every packet may go to the same next hop. With a permanent entry
for it (ip-neighbour(8)) nobody has to send ARP requests, and the kernel's neighbour table, which all pods of a machine
share, has one entry for each pod and not one for each destination.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from romana_ovs.pipeline.registers import NEXT_HOP_MAC

NEXT_HOP = IPv4Address("169.254.1.1")
"""The next hop of pods and nodes: a link-local address (RFC 3927), which nobody has."""
NEXT_HOP_LLADDR = NEXT_HOP_MAC.to_bytes(6, "big").hex(":")
"""Its MAC, which the switch also answers to ARP requests."""


def next_hop_commands(device: str, destination: IPv4Network, source: IPv4Address) -> list[str]:
    """The `ip` commands that route `destination` by the next hop on `device`, for packets with `source`."""
    return [
        f"neigh replace {NEXT_HOP} lladdr {NEXT_HOP_LLADDR} dev {device} nud permanent",
        f"route replace {destination} via {NEXT_HOP} dev {device} onlink src {source}",
    ]
