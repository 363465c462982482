"""Translates rows of an Open vSwitch database to our bridges and their ports. Source: vswitchd.conf.db(5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import AddressValueError, IPv4Address
from types import MappingProxyType

from romana_ovs.model.addresses import address_fault
from romana_ovs.model.bridge import (
    CONNTRACK_LOST,
    LINK_ID,
    NODE_ADDRESS,
    NODE_ID,
    NODE_PODS,
    POD_ID,
    POD_MAC,
    POD_NETWORK,
    POD_PROBLEM,
    POD_PROGRAMMED,
    POD_UID,
    SERVICE_CONTROLLER,
    SERVICE_RANGES,
    TUNNEL_ID,
    TUNNEL_PEERS,
    BridgeFacts,
    PodPort,
    TunnelPort,
)
from romana_ovs.model.objects import PodKey, same_uid
from romana_ovs.switch.zone_limits import KERNEL

DEFAULT_BRIDGE = "br-int"
LOCAL_PORT = 0xFFFE
NODE_NETWORK = (NODE_ADDRESS, POD_NETWORK, NODE_PODS, TUNNEL_PEERS, SERVICE_RANGES)
"""Bridge external_ids keys that tell the attach agent about the node's own address."""
_POD = re.compile(r"[^/\s]+/[^/\s]+")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class InterfaceRow:
    """One Interface row. A row with higher `seen` appeared later; `ofport` is None until assigned.

    `row` is the UUID of the row, which changes when a port is removed and added again.
    """

    name: str
    ofport: int | None
    external_ids: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mac: str = ""
    seen: int = 0
    row: str = ""

    @property
    def usable(self) -> bool:
        """Whether it has a port number; a device that is missing or still starting has none (docs/hazards.md B7)."""
        return self.ofport is not None and self.ofport > 0


@dataclass(frozen=True, slots=True)
class ControllerRow:
    """One Controller of a bridge."""

    target: str
    connection_mode: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class BridgeRow:
    """One Bridge with its interfaces, the host's name by its database, and the type of its datapath.

    `flow_restore_wait`: its database has other_config:flow-restore-wait, by which ovs-vswitchd waits when it starts.
    """

    name: str
    dpid: int | None
    hostname: str
    external_ids: Mapping[str, str]
    other_config: Mapping[str, str]
    fail_mode: str
    controllers: tuple[ControllerRow, ...]
    interfaces: tuple[InterfaceRow, ...]
    datapath: str = KERNEL
    flow_restore_wait: bool = False


@dataclass(frozen=True, slots=True)
class BridgeExternalIds:
    """The external_ids that the controller writes: which pods' ports were programmed, when conntrack was last lost.

    `problems` are the pods whose ports have a reason why nothing passes them. `rows` are the Interface rows that those
    to be written are for: a pod may have another port by then. `node_network` has what the attach agent needs, by key
    (`NODE_NETWORK`).
    """

    programmed: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    lost_at: float | None = None
    problems: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    rows: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    node_network: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of this controller: `facts` for the tables, and `warnings`, sentences that do not vary for one cause.

    `rows` are the UUIDs of the pods' Interface rows, which outlive the switch process. `datapath` is the type of its
    datapath. Not part of equality are `external_ids`, what the controller wrote, and `flow_restore_wait`, whether
    ovs-vswitchd waits for its flows when it starts.
    """

    dpid: int
    name: str
    facts: BridgeFacts
    rows: Mapping[PodKey, str] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    datapath: str = KERNEL
    external_ids: BridgeExternalIds = field(default_factory=BridgeExternalIds, compare=False)
    flow_restore_wait: bool = field(default=False, compare=False)

    @property
    def node(self) -> str:
        """The node of the bridge."""
        return self.facts.node

    @property
    def keeps_connections(self) -> bool:
        """Whether its conntrack entries survive a restart of ovs-vswitchd, as in the kernel datapath."""
        return self.datapath == KERNEL


def node_name(row: BridgeRow) -> str | None:
    """The node of a bridge by its external_ids, or the host for `br-int`; None when it is not ours."""
    named = row.external_ids.get(NODE_ID)
    if named:
        return named
    return row.hostname if row.name == DEFAULT_BRIDGE else None


def bridges(rows: Iterable[BridgeRow]) -> tuple[Bridge, ...]:
    """Our bridges among `rows` that have a datapath id; the first by name if two claim one node."""
    by_node: dict[str, Bridge] = {}
    for row in sorted(rows, key=lambda row: row.name):
        node = node_name(row)
        if node is None or row.dpid is None:
            continue
        if node in by_node:
            first = by_node[node]
            warning = f"bridge {row.name} is ignored: bridge {first.name} is already that of node {node}"
            by_node[node] = replace(first, warnings=(*first.warnings, warning))
        else:
            by_node[node] = _bridge(row, node, row.dpid)
    return tuple(by_node.values())


@dataclass(slots=True)
class _Ports:
    """The ports of one bridge by role, and warnings about unusable ones. Ports are added newest first."""

    bridge: str
    warnings: list[str]
    newest: dict[PodKey, PodPort] = field(default_factory=dict)
    superseded: dict[PodKey, tuple[PodPort, ...]] = field(default_factory=dict)
    rows: dict[PodKey, str] = field(default_factory=dict)
    programmed: dict[PodKey, str] = field(default_factory=dict)
    problems: dict[PodKey, str] = field(default_factory=dict)
    links: dict[str, int] = field(default_factory=dict)
    tunnel: TunnelPort | None = None
    claims: dict[str, dict[str, str]] = field(default_factory=dict)
    """By claim and pod UID: the name of the newest port."""

    def add(self, item: InterfaceRow, ofport: int) -> None:
        """Adds a port by the role that its external_ids claim; the first port with a claim wins."""
        claim, why = _claim(item)
        uid = item.external_ids.get(POD_UID, "") if POD_ID in item.external_ids else ""
        if claim is None:
            self.warnings.append(f"bridge {self.bridge}: port {item.name} {why}, so nothing passes it")
            return
        newer = next((name for other, name in self.claims.get(claim, {}).items() if same_uid(uid, other)), None)
        if newer is not None:
            self.warnings.append(
                f"bridge {self.bridge}: ports {newer} and {item.name} both claim {claim}; "
                f"nothing passes {item.name}, which is older"
            )
            return
        self.claims.setdefault(claim, {})[uid] = item.name
        if POD_ID in item.external_ids:
            self._add_pod(item, PodPort(ofport, _declared_mac(item), uid=uid))
        elif LINK_ID in item.external_ids:
            self.links[item.external_ids[LINK_ID]] = ofport
        else:
            self.tunnel = TunnelPort(ofport, _tunnel_address(item) or IPv4Address(0))

    def _add_pod(self, item: InterfaceRow, port: PodPort) -> None:
        pod = PodKey(item.external_ids[POD_ID])
        if pod in self.newest:
            # It has another UID: that of the previous or the next pod of this name.
            self.superseded[pod] = (*self.superseded.get(pod, ()), port)
            return
        self.newest[pod], self.rows[pod] = port, item.row
        self.programmed[pod] = item.external_ids.get(POD_PROGRAMMED, "")
        if POD_PROBLEM in item.external_ids:
            self.problems[pod] = item.external_ids[POD_PROBLEM]


def _bridge(row: BridgeRow, node: str, dpid: int) -> Bridge:
    ports = _Ports(row.name, list(_unsafe_settings(row)))
    gateway_mac = ""
    for item in sorted(row.interfaces, key=lambda item: (-item.seen, -(item.ofport or 0), item.name)):
        if item.name == row.name:
            gateway_mac = item.mac
        elif item.usable and item.ofport is not None:
            ports.add(item, item.ofport)
    facts = BridgeFacts(
        node,
        MappingProxyType(dict(sorted(ports.newest.items()))),
        LOCAL_PORT if gateway_mac else None,
        gateway_mac,
        MappingProxyType(dict(sorted(ports.links.items()))),
        ports.tunnel,
        superseded_ports=MappingProxyType(dict(sorted(ports.superseded.items()))),
    )
    lost_at = _seconds(row.external_ids.get(CONNTRACK_LOST, ""))
    external_ids = BridgeExternalIds(
        MappingProxyType(ports.programmed),
        lost_at,
        MappingProxyType(ports.problems),
        node_network=MappingProxyType({key: row.external_ids.get(key, "") for key in NODE_NETWORK}),
    )
    warnings = tuple(sorted(ports.warnings))
    rows = MappingProxyType(ports.rows)
    return Bridge(dpid, row.name, facts, rows, warnings, row.datapath, external_ids, row.flow_restore_wait)


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdigit() else None


def _claim(item: InterfaceRow) -> tuple[str | None, str]:
    """(the role that the port claims, "") or (None, why it has none)."""
    ids = item.external_ids
    roles = [key for key in (POD_ID, LINK_ID, TUNNEL_ID) if key in ids]
    if not roles:
        return None, f"has no external_ids:{POD_ID}"
    if len(roles) > 1:
        return None, f"has external_ids of several roles ({', '.join(roles)})"
    if roles[0] == POD_ID:
        if not _POD.fullmatch(ids[POD_ID]):
            return None, f"has external_ids:{POD_ID}={ids[POD_ID]!r}, which is not <namespace>/<pod>"
        mac = ids.get(POD_MAC)
        if mac is not None and not _MAC.fullmatch(mac.lower()):
            return None, f"has external_ids:{POD_MAC}={mac!r}, which is not a MAC address"
        return f"pod {ids[POD_ID]}", ""
    if roles[0] == LINK_ID:
        return f"the link to {ids[LINK_ID]}", ""
    address = _tunnel_address(item)
    if address is None:
        return None, "is a tunnel without an IPv4 address in options:local_ip"
    if fault := address_fault(address):
        return None, f"is a tunnel from {fault}"
    return "the tunnel", ""


def _declared_mac(item: InterfaceRow) -> str | None:
    mac = item.external_ids.get(POD_MAC)
    return mac.lower() if mac is not None else None


def _tunnel_address(item: InterfaceRow) -> IPv4Address | None:
    for text in (item.options.get("local_ip", ""), item.external_ids.get(TUNNEL_ID, "")):
        try:
            return IPv4Address(text)
        except AddressValueError:
            continue
    return None


def _unsafe_settings(row: BridgeRow) -> Iterable[str]:
    if row.fail_mode != "secure":
        yield (
            f"bridge {row.name} is not fail_mode=secure: without a controller it forwards everything "
            f"(ovs-vsctl set-fail-mode {row.name} secure)"
        )
    if row.flow_restore_wait and any(item.type != SERVICE_CONTROLLER for item in row.controllers):
        yield (
            f"bridge {row.name}: all its flows are deleted when flow-restore-wait ends, as its controller is not "
            f"of type service (ovs-vsctl set controller {row.name} type=service)"
        )
    if row.other_config.get("disable-in-band") == "true":
        return
    for item in row.controllers:
        remote = not item.target.startswith(("unix:", "punix:"))
        if remote and item.connection_mode != "out-of-band":
            yield (
                f"bridge {row.name}: controller {item.target} is in-band, so hidden flows stand before ours "
                f"(ovs-vsctl set controller {row.name} connection_mode=out-of-band)"
            )
