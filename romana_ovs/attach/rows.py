"""Translates rows of Open vSwitch's database to the state of the bridge. Source: vswitchd.conf.db(5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from romana_ovs.attach.attachment import Attachment, BridgeState, SandboxPort
from romana_ovs.model.bridge import (
    POD_ID,
    POD_PROBLEM,
    POD_PROGRAMMED,
    POD_UID,
    SANDBOX,
    SANDBOX_IFNAME,
    SANDBOX_NETNS,
    DatapathType,
)
from romana_ovs.model.node_network import NodeNetwork
from romana_ovs.model.objects import PodKey
from romana_ovs.preflight.facts import TUNNEL_TYPES

HWADDR, DATAPATH_ID = "hwaddr", "datapath-id"
"""Keys of other_config of a bridge."""
_DEVICE_TYPES = ("", "system")
"""The types of interfaces that are devices of the kernel which Open vSwitch did not make."""

_STRING = {"type": "string"}
_OPTIONAL_STRING = {"type": {"key": "string", "min": 0, "max": 1}}
_MAP = {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}


def _references(table: str) -> dict[str, object]:
    return {"type": {"key": {"type": "uuid", "refTable": table}, "min": 0, "max": "unlimited"}}


COLUMNS: Mapping[str, Mapping[str, object]] = {
    "Bridge": {
        "name": _STRING,
        "datapath_id": _OPTIONAL_STRING,
        "datapath_type": _STRING,
        "external_ids": _MAP,
        "other_config": _MAP,
        "fail_mode": _OPTIONAL_STRING,
        "controller": _references("Controller"),
        "ports": _references("Port"),
    },
    "Port": {"name": _STRING, "interfaces": _references("Interface"), "other_config": _MAP},
    "Interface": {
        "name": _STRING,
        "external_ids": _MAP,
        "error": _OPTIONAL_STRING,
        "type": _STRING,
        "options": _MAP,
        "mtu_request": {"type": {"key": "integer", "min": 0, "max": 1}},
    },
    "Controller": {"is_connected": {"type": "boolean"}},
}
"""The columns to read and write, declared here so that the schema file of the switch is not needed on this machine."""


def schema() -> dict[str, object]:
    """The schema with the columns that this process uses."""
    tables = {name: {"columns": dict(columns), "isRoot": name == "Bridge"} for name, columns in COLUMNS.items()}
    return {"name": "Open_vSwitch", "version": "8.0.0", "tables": tables}


def bridge_state(rows: Iterable[Any], name: str, *, connected: bool) -> BridgeState:
    """The state of the bridge with this name, among all rows of table Bridge."""
    bridges = tuple(rows)
    bridge = next((row for row in bridges if row.name == name), None)
    if bridge is None:
        return BridgeState(connected=connected)
    ports = (sandbox_port(row) for row in bridge.ports)
    return BridgeState(
        connected=connected,
        exists=True,
        controlled=any(each.is_connected for each in bridge.controller),
        secure=list(bridge.fail_mode) == ["secure"],
        datapath=_datapath(bridge),
        ports=MappingProxyType({port.name: port for port in ports if port is not None}),
        node_network=NodeNetwork.from_external_ids(bridge.external_ids),
        hwaddr=bridge.other_config.get(HWADDR, "").lower(),
        gateway_mtu=next((each.mtu_request[0] for each in local_interfaces(bridge) if each.mtu_request), None),
        tunnel_ports=frozenset(_tunnel_ports(bridge)),
        switch_devices=frozenset(device for each in bridges for device in _kernel_devices(each)),
    )


def _datapath(bridge: Any) -> DatapathType:
    return DatapathType.NETDEV if bridge.datapath_type == DatapathType.NETDEV.value else DatapathType.SYSTEM


def _tunnel_ports(bridge: Any) -> Iterator[int]:
    for interface in (each for port in bridge.ports for each in port.interfaces if each.type in TUNNEL_TYPES):
        text = interface.options.get("dst_port", "")
        yield int(text) if text.isascii() and text.isdigit() else TUNNEL_TYPES[interface.type]


def _kernel_devices(bridge: Any) -> Iterator[str]:
    """The kernel's devices that are ports of a userspace bridge, without those of pods."""
    if _datapath(bridge) is DatapathType.NETDEV:
        for interface in (each for port in bridge.ports for each in port.interfaces):
            if (
                interface.type in _DEVICE_TYPES
                and interface.name != bridge.name
                and POD_ID not in interface.external_ids
            ):
                yield interface.name


def local_interfaces(bridge: Any) -> list[Any]:
    """The Interface row of the bridge's local port, which has the bridge's name."""
    return [each for port in bridge.ports if port.name == bridge.name for each in port.interfaces]


def external_ids_of(port: SandboxPort) -> dict[str, str]:
    """The external_ids of a port."""
    attachment = port.attachment or Attachment("", "")
    ids = {
        POD_ID: str(port.pod),
        POD_UID: port.uid,
        SANDBOX: attachment.container,
        SANDBOX_IFNAME: attachment.ifname,
        SANDBOX_NETNS: port.netns,
    }
    return {key: text for key, text in ids.items() if text}


def sandbox_port(row: Any) -> SandboxPort | None:
    """The port of a pod in a row of table Port; None for any other port."""
    for interface in row.interfaces:
        ids = interface.external_ids
        if POD_ID in ids:
            attachment = Attachment(ids[SANDBOX], ids.get(SANDBOX_IFNAME, "")) if SANDBOX in ids else None
            return SandboxPort(
                row.name,
                PodKey(ids[POD_ID]),
                ids.get(POD_UID, ""),
                attachment,
                ids.get(SANDBOX_NETNS, ""),
                ids.get(POD_PROGRAMMED, ""),
                ids.get(POD_PROBLEM, ""),
                "".join(interface.error),
            )
    return None
