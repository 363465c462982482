"""Decodes what an Open vSwitch says of itself: rows of its database, its version, the features of a datapath."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from types import MappingProxyType
from typing import Any

from romana_ovs.model.bridge import NODE_ID, POD_ID, POD_NETWORK, TUNNEL_ID
from romana_ovs.preflight.facts import DEFAULT_BRIDGE, TUNNEL_TYPES, ControllerTarget, SwitchBridge, Tunnel

COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Bridge": (
            "name",
            "datapath_type",
            "fail_mode",
            "protocols",
            "controller",
            "ports",
            "external_ids",
            "other_config",
        ),
        "Port": ("interfaces",),
        "Interface": ("name", "type", "options", "external_ids", "mtu", "error"),
        "Controller": ("target", "connection_mode", "type", "is_connected"),
    }
)
"""The tables and columns of vswitchd.conf.db(5) that `bridges_of` needs."""
KERNEL = "system"
_VERSION = re.compile(r"\(Open vSwitch\) (\S+)")

Rows = Iterable[Mapping[str, Any]]


def bridges_of(tables: Mapping[str, Rows]) -> tuple[SwitchBridge, ...]:
    """The bridges of the controller, sorted by name: `br-int`, and those that name their node."""
    ports, interfaces, controllers = (
        {row["_uuid"]: row for row in tables[name]} for name in ("Port", "Interface", "Controller")
    )
    bridges = []
    for row in sorted(tables["Bridge"], key=lambda row: str(row["name"])):
        if row["name"] != DEFAULT_BRIDGE and not row["external_ids"].get(NODE_ID):
            continue
        own_ports = [ports[uuid] for uuid in _all(row["ports"]) if uuid in ports]
        own = [interfaces[uuid] for port in own_ports for uuid in _all(port["interfaces"]) if uuid in interfaces]
        of_pods = [each for each in own if POD_ID in each["external_ids"]]
        mtus = [mtu for each in of_pods for mtu in _all(each["mtu"])]
        bridges.append(
            SwitchBridge(
                row["name"],
                row["datapath_type"] or KERNEL,
                next(iter(_all(row["fail_mode"])), ""),
                tuple(sorted(_all(row["protocols"]))),
                tuple(_target(controllers[uuid]) for uuid in _all(row["controller"]) if uuid in controllers),
                row["other_config"].get("disable-in-band") == "true",
                next((_tunnel(each) for each in own if each["type"] in TUNNEL_TYPES), None),
                max(mtus, default=None),
                tuple(sorted(each["name"] for each in of_pods)),
                row["external_ids"].get(NODE_ID, ""),
                _network(row["external_ids"].get(POD_NETWORK, "")),
            )
        )
    return tuple(bridges)


def version_of(text: str) -> str:
    """The version in the answer to the command `version`; empty when there is none."""
    found = _VERSION.search(text)
    return found[1] if found else ""


def features_of(text: str) -> dict[str, str]:
    """The features in the answer to `dpif/show-dp-features`: name and value of each."""
    return {
        name.strip(): value.strip()
        for name, colon, value in (line.partition(":") for line in text.split("\n"))
        if colon
    }


def _target(row: Mapping[str, Any]) -> ControllerTarget:
    mode, kind = (next(iter(_all(row[column])), "") for column in ("connection_mode", "type"))
    return ControllerTarget(row["target"], mode, kind, bool(row["is_connected"]))


def _tunnel(row: Mapping[str, Any]) -> Tunnel:
    options, ids = row["options"], row["external_ids"]
    number = options.get("dst_port", "")
    port = int(number) if number.isascii() and number.isdigit() else TUNNEL_TYPES[row["type"]]
    addresses = (_address(text) for text in (options.get("local_ip", ""), ids.get(TUNNEL_ID, "")))
    return Tunnel(row["type"], port, next(filter(None, addresses), None), next(iter(_all(row["error"])), ""))


def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text)
    except ValueError:
        return None


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _all(value: Any) -> tuple[Any, ...]:
    """The elements of a column's set; a set of one is written as its element."""
    return value if isinstance(value, tuple) else (value,)
