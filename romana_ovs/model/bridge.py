"""Defines the facts about one node's bridge: its pod ports, gateway, links and tunnel.

`switch/` reads them from OVSDB (docs/design.md section 8 lists the external_ids); offline commands use fixed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.objects import PodKey, same_uid

POD_ID = "iface-id"
"""Interface external_ids key: `namespace/pod` of the pod behind the port."""
POD_UID = "iface-id-ver"
"""Interface external_ids key: the UID (metadata.uid) of that pod. OVN has the key for the same (ovn-nb(5)).

A port without it belongs to the pod that has the name.
"""
POD_MAC = "attached-mac"
"""Interface external_ids key: the pod's MAC if it is not `0a:58` + address."""
LINK_ID = "romana-link"
"""Interface external_ids key on a plain link: the name of the node at its other end."""
TUNNEL_ID = "romana-tunnel"
"""Interface external_ids key on the one flow-based tunnel port of a bridge (remote_ip=flow): any value."""
POD_PROGRAMMED = "romana-programmed"
"""Interface external_ids key that we write: `namespace/pod address UID`, once the port's flows were in the switch."""
CONNECTIONS_LOST = "romana-connections-lost"
"""Bridge external_ids key that we write: when the switch last lost its connections, in seconds since the epoch."""
NODE_ID = "romana-node"
"""Bridge external_ids key: the name of the node that the bridge belongs to."""


@dataclass(frozen=True, slots=True)
class PodPort:
    """The port of a pod: OpenFlow number, declared MAC, and whether it is pre-restart.

    `uid` is that of the pod, empty if the port has none.
    """

    ofport: int
    mac: str | None = None
    pre_restart: bool = False
    uid: str = ""


@dataclass(frozen=True, slots=True)
class TunnelPort:
    """A flow-based tunnel port and the underlay address that this node tunnels from."""

    ofport: int
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class BridgeFacts:
    """One node's bridge. `links` maps a neighbouring node to the port of the plain link to it.

    `pods` has the newest port of each pod's name, `older` older ones with other UIDs, newest first.
    `gateway_port` is the OpenFlow number of the node's own port (0xfffe is LOCAL), None without one.
    `connections_lost`: the switch lost its connections a while ago, and what was open may go on.
    """

    node: str
    pods: Mapping[PodKey, PodPort] = field(default_factory=lambda: MappingProxyType({}))
    gateway_port: int | None = None
    gateway_mac: str = ""
    links: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    tunnel: TunnelPort | None = None
    connections_lost: bool = False
    older: Mapping[PodKey, tuple[PodPort, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def ports(self, pod: PodKey) -> tuple[PodPort, ...]:
        """Every port that claims a pod of this name, newest first."""
        newest = self.pods.get(pod)
        return (newest, *self.older.get(pod, ())) if newest is not None else ()

    def port(self, pod: PodKey, uid: str) -> PodPort | None:
        """The port of the pod with this name and UID: one with the UID, or else one without any.

        An empty `uid` is unknown: then the newest. None if every port belongs to another pod.
        """
        fitting = [port for port in self.ports(pod) if same_uid(port.uid, uid)]
        return next((port for port in fitting if uid and port.uid == uid), fitting[0] if fitting else None)
