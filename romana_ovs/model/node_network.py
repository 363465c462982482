"""Defines what a node's attach agent has to know of the address plan, and its text in external_ids of the bridge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError

from romana_ovs.model.bridge import NODE_ADDRESS, NODE_PODS, POD_NETWORK, SERVICE_RANGES, TUNNEL_PEERS


@dataclass(frozen=True, slots=True)
class NodeNetwork:
    """The node's own address, the network of all pods and nodes, and which addresses of it are this node's.

    `pods_value` and `pods_mask`: an address is this node's if its bits of the mask are those of the value.
    `tunnel_peers` are the addresses from which other nodes tunnel, `service_ranges` those of Services.
    """

    address: IPv4Address
    network: IPv4Network
    pods_value: IPv4Address
    pods_mask: IPv4Address
    tunnel_peers: tuple[IPv4Network, ...] = ()
    service_ranges: tuple[IPv4Network, ...] = ()

    def to_external_ids(self) -> dict[str, str]:
        """The external_ids of the bridge that say this, by key; empty text for none."""
        return {
            NODE_ADDRESS: str(self.address),
            POD_NETWORK: str(self.network),
            NODE_PODS: f"{self.pods_value}/{self.pods_mask}",
            TUNNEL_PEERS: ",".join(map(str, self.tunnel_peers)),
            SERVICE_RANGES: ",".join(map(str, self.service_ranges)),
        }

    @classmethod
    def from_external_ids(cls, ids: Mapping[str, str]) -> NodeNetwork | None:
        """What the external_ids of a bridge say; None while the controller has not written them, or for other text."""
        value, _, mask = ids.get(NODE_PODS, "").partition("/")
        try:
            return cls(
                IPv4Address(ids.get(NODE_ADDRESS, "")),
                IPv4Network(ids.get(POD_NETWORK, "")),
                IPv4Address(value),
                IPv4Address(mask),
                _networks(ids.get(TUNNEL_PEERS, "")),
                _networks(ids.get(SERVICE_RANGES, "")),
            )
        except (AddressValueError, NetmaskValueError, ValueError):
            return None


def _networks(text: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, filter(None, text.split(","))))
