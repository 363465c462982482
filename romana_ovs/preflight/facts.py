"""Defines what is known about a host and its Open vSwitch; a fact that cannot be read is `Unread`, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from types import MappingProxyType
from typing import TypeVar

from romana_ovs.model.bridge import IngressHook
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import RomanaError

T = TypeVar("T")

USERSPACE = "netdev"
"""The datapath type of Open vSwitch's userspace datapath (vswitchd.conf.db(5)); that of the kernel's is `system`."""
DEFAULT_BRIDGE = "br-int"
CONFLIST = "10-romana-ovs.conflist"
"""The file by which container runtimes find our CNI plugin."""
TUNNEL_TYPES: Mapping[str, int] = MappingProxyType({"vxlan": 4789, "geneve": 6081})
"""The types of tunnel ports, each with its UDP port (RFC 7348, RFC 8926)."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a fact that cannot be read; `reason` is why."""

    reason: str


class UnreadFact(RomanaError):
    """A check needs a fact that cannot be read; the message is why."""


def known(fact: T | Unread) -> T:
    """The fact. Raises UnreadFact."""
    if isinstance(fact, Unread):
        raise UnreadFact(fact.reason)
    return fact


@dataclass(frozen=True, slots=True)
class ControllerTarget:
    """A controller of a bridge: where it is, how it is connected, its type, and whether it is connected now."""

    target: str
    connection_mode: str = ""
    type: str = ""
    connected: bool = False


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel port of a bridge: `type` as in TUNNEL_TYPES, its UDP port, the address here, and what is wrong."""

    type: str
    udp_port: int
    local_address: IPv4Address | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class SwitchBridge:
    """A bridge of the controller. `protocols` is empty for all; `port_mtu` is the largest MTU of its pods' ports.

    `pod_ports` are the names of these ports, sorted. `node` is the node that it names, and `network` the pods' network
    that its controller has written there.
    """

    name: str
    datapath: str
    fail_mode: str = "secure"
    protocols: tuple[str, ...] = ()
    controllers: tuple[ControllerTarget, ...] = ()
    in_band_disabled: bool = False
    tunnel: Tunnel | None = None
    port_mtu: int | None = None
    pod_ports: tuple[str, ...] = ()
    node: str = ""
    network: IPv4Network | None = None


@dataclass(frozen=True, slots=True)
class ConntrackTable:
    """A connection table: how many entries it has room for, and the limit of each zone that has one."""

    size: int
    limits: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class KernelModules:
    """Modules in the running kernel, loaded or built in, and those that can be loaded."""

    loaded: frozenset[str]
    loadable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `udp_port`: of the kernel's tunnels (`kind` vxlan or geneve); `master`: what it belongs to."""

    name: str
    mtu: int
    addresses: tuple[IPv4Interface, ...] = ()
    kind: str = ""
    udp_port: int | None = None
    master: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route to `network` through `device`."""

    network: IPv4Network
    device: str


@dataclass(frozen=True, slots=True)
class Ruleset:
    """What matters of the rules of nftables.

    `untracked`: by hook, the UDP destination ports that `notrack` rules name. `forward_drops`: the names of base chains
    that drop what is forwarded by default. `tables`: family and name of each table.
    """

    untracked: Mapping[str, frozenset[int]] = field(default_factory=lambda: MappingProxyType({}))
    forward_drops: tuple[str, ...] = ()
    tables: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class CniConfiguration:
    """The files of the folder in which a container runtime looks for its network, sorted by name; it takes the first.

    `missing` are the programs that our file names and the folder of plugins has not.
    """

    folder: str
    files: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything that the checks ask about one host and one Open vSwitch.

    `features` are those of each bridge's datapath, as `dpif/show-dp-features` prints them. `sysctls` has the values
    that could be read. `listening`: the TCP ports on which programs listen. `filters`: where ports of pods have the
    filter of ethertypes, by device; missing devices are left out. `own_namespace`: whether the switch has the network
    namespace of the process that reads; if not, facts of a namespace are Unread. `cluster` has the nodes and
    ServiceCIDRs of the API server; None when the settings name none. `cni` is None without the folder of CNI.
    """

    version: str | Unread
    bridges: tuple[SwitchBridge, ...] | Unread
    features: Mapping[str, Mapping[str, str]] | Unread
    conntrack: ConntrackTable | Unread
    modules: KernelModules | Unread
    sysctls: Mapping[str, str] | Unread
    links: tuple[Link, ...] | Unread
    routes: tuple[Route, ...] | Unread
    ruleset: Ruleset | Unread
    listening: frozenset[int] | Unread
    filters: Mapping[str, frozenset[IngressHook]] | Unread = field(default_factory=lambda: MappingProxyType({}))
    own_namespace: bool = True
    cluster: Cluster | Unread | None = None
    cni: CniConfiguration | Unread | None = None
    clock_synchronized: bool | Unread = True

    @property
    def bridge(self) -> SwitchBridge | None:
        """The first bridge of the controller; None when there is none, or none can be read."""
        return self.bridges[0] if isinstance(self.bridges, tuple) and self.bridges else None

    @property
    def bridge_name(self) -> str:
        """The name of that bridge, or the one it would have."""
        return self.bridge.name if self.bridge is not None else DEFAULT_BRIDGE

    @property
    def userspace(self) -> bool:
        """Whether its datapath is that of userspace; a new bridge has the kernel's."""
        return self.bridge is not None and self.bridge.datapath == USERSPACE

    @property
    def tunnel(self) -> Tunnel | None:
        """Its tunnel port."""
        return self.bridge.tunnel if self.bridge is not None else None

    @property
    def has_plugin(self) -> bool:
        """Whether a container runtime on this host may use our CNI plugin."""
        return isinstance(self.cni, CniConfiguration) and CONFLIST in self.cni.files

    def number(self, sysctl: str) -> int:
        """The value of a sysctl. Raises UnreadFact."""
        text = known(self.sysctls).get(sysctl, "")
        if not (text.isascii() and text.isdigit()):
            raise UnreadFact(f"{sysctl} cannot be read")
        return int(text)
