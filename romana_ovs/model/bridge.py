"""Defines the facts about one node's bridge: its pod ports, gateway, links and tunnel.

`switch/` reads them from OVSDB (docs/design.md section 8 lists the external_ids); offline commands use fixed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.objects import PodKey, same_uid

POD_ID = "iface-id"
"""Interface external_ids key: `namespace/pod` of the pod behind the port."""
POD_UID = "iface-id-ver"
"""Interface external_ids key: the UID (metadata.uid) of that pod. OVN has the key for the same (ovn-nb(5)).

A port without iface-id-ver is matched by name only.
"""
POD_MAC = "attached-mac"
"""Interface external_ids key: the pod's MAC if it is not `0a:58` + address."""
LINK_ID = "romana-link"
"""Interface external_ids key on a plain link: the name of the node at its other end."""
TUNNEL_ID = "romana-tunnel"
"""Interface external_ids key on the one flow-based tunnel port of a bridge (remote_ip=flow): any value."""
POD_PROGRAMMED = "romana-programmed"
"""Interface external_ids key that we write: `namespace/pod address UID`, once the port's flows were in the switch."""
POD_PROBLEM = "romana-problem"
"""Interface external_ids key that we write: why nothing passes the port, in a sentence; absent without one."""
SANDBOX = "sandbox"
"""Interface external_ids key that the attach agent writes: the container id of the pod's sandbox."""
SANDBOX_IFNAME = "sandbox-ifname"
"""Interface external_ids key that the attach agent writes: the name of the device inside the pod, such as `eth0`."""
SANDBOX_NETNS = "sandbox-netns"
"""Interface external_ids key that the attach agent writes: the path of the pod's network namespace."""
CONNTRACK_LOST = "romana-connections-lost"
"""Bridge external_ids key that we write: when the switch last lost its conntrack entries (Unix time)."""
NODE_ADDRESS = "romana-node-address"
"""Bridge external_ids key that we write: the node's own address, which the attach agent gives to the gateway."""
POD_NETWORK = "romana-pod-network"
"""Bridge external_ids key that we write: the range of all pods and nodes, such as `10.0.0.0/8`."""
NODE_PODS = "romana-node-pods"
"""Bridge external_ids key that we write: which addresses are this node's, as `10.0.0.64/255.0.15.192` (value, mask)."""
TUNNEL_PEERS = "romana-tunnel-peers"
"""Bridge external_ids key that we write: the addresses from which other nodes tunnel, such as `192.0.2.1/32,...`."""
SERVICE_RANGES = "romana-service-ranges"
"""Bridge external_ids key that we write: the ranges of Services, such as `10.96.0.0/12`."""
NODE_ID = "romana-node"
"""Bridge external_ids key: the name of the node that the bridge belongs to."""
SERVICE_CONTROLLER = "service"
"""The type of a controller that deletes no flows of its bridge when it is configured (vswitchd.conf.db(5))."""


class DatapathType(Enum):
    """What forwards the packets of a bridge: column datapath_type of table Bridge (vswitchd.conf.db(5))."""

    SYSTEM = "system"
    """The kernel's module openvswitch; an empty column means this one."""
    NETDEV = "netdev"
    """The userspace datapath, in ovs-vswitchd itself."""


class IngressHook(Enum):
    """Where the kernel runs the program that filters what a pod's port receives (switch/ethertypes.py)."""

    XDP = "xdp"
    TC = "tc"


INGRESS_HOOK: Mapping[DatapathType, IngressHook] = MappingProxyType(
    {DatapathType.SYSTEM: IngressHook.TC, DatapathType.NETDEV: IngressHook.XDP}
)
"""The last hook before each datapath: the userspace one receives frames before tc does."""


@dataclass(frozen=True, slots=True)
class PodPort:
    """The port of a pod: OpenFlow number, declared MAC, and whether it is pre-restart.

    `uid` is the port's iface-id-ver, empty if the port has none.
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

    `pod_ports` maps `namespace/pod` to its newest port, `superseded_ports` to its earlier ports with other UIDs, newest
    first. `gateway_port` is the OpenFlow number of the gateway (0xfffe is LOCAL), None without one.
    `conntrack_lost`: the switch lost its conntrack entries recently; TCP connections from before may continue.
    """

    node: str
    pod_ports: Mapping[PodKey, PodPort] = field(default_factory=lambda: MappingProxyType({}))
    gateway_port: int | None = None
    gateway_mac: str = ""
    links: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    tunnel: TunnelPort | None = None
    conntrack_lost: bool = False
    superseded_ports: Mapping[PodKey, tuple[PodPort, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def ports(self, pod: PodKey) -> tuple[PodPort, ...]:
        """Every port whose iface-id is this pod, newest first."""
        newest = self.pod_ports.get(pod)
        return (newest, *self.superseded_ports.get(pod, ())) if newest is not None else ()

    def port(self, pod: PodKey, uid: str) -> PodPort | None:
        """The port of the pod with this name and UID: the one with this UID, else one without a UID.

        For an unknown `uid` (empty), the newest port. None if every port has the UID of another pod.
        """
        candidates = [port for port in self.ports(pod) if same_uid(port.uid, uid)]
        return next((port for port in candidates if uid and port.uid == uid), candidates[0] if candidates else None)
