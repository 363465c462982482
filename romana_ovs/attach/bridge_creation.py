"""Makes the bridge of pods and its tunnel port where they are missing, in one transaction of OVSDB.

Source: vswitchd.conf.db(5). A bridge that exists keeps its datapath and its other columns: what is wrong there for the
controller is corrected, what is set besides stays.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address
from typing import Any

import ovs.db.idl
import ovs.poller

from romana_ovs.model.bridge import NODE_ID, SERVICE_CONTROLLER, TUNNEL_ID, DatapathType
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.attach")

TUNNEL_PORT = "romana-tunnel"
"""The name of the tunnel port."""
CONTROLLER = "tcp:127.0.0.1:6653"
"""Where the controller of the node listens by default."""
MAX_BACKOFF_MS = 1000
"""Between two attempts of the switch to reach its controller, at most."""
CONNECT_SECONDS = 10.0
_ATTEMPTS = 5
"""Of a transaction, while another program changes the same rows."""
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Open_vSwitch": ("bridges",),
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
    "Controller": ("target", "connection_mode", "max_backoff", "type"),
    "Port": ("name", "interfaces"),
    "Interface": ("name", "type", "options", "external_ids"),
}
_STRING = {"type": "string"}
_MAP = {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}
_OPTIONAL_STRING = {"type": {"key": "string", "min": 0, "max": 1}}
_STRINGS = {"type": {"key": "string", "min": 0, "max": "unlimited"}}
_REFERENCES = {"bridges": "Bridge", "controller": "Controller", "ports": "Port", "interfaces": "Interface"}
_TYPES: Mapping[str, Mapping[str, object]] = {
    "Bridge.fail_mode": _OPTIONAL_STRING,
    "Bridge.protocols": _STRINGS,
    "Bridge.external_ids": _MAP,
    "Bridge.other_config": _MAP,
    "Controller.connection_mode": _OPTIONAL_STRING,
    "Controller.max_backoff": {"type": {"key": "integer", "min": 0, "max": 1}},
    "Controller.type": _OPTIONAL_STRING,
    "Interface.options": _MAP,
    "Interface.external_ids": _MAP,
}
"""Of the columns that are neither a string nor references."""


class TunnelType(Enum):
    """The encapsulation between nodes: the type of the tunnel's Interface."""

    VXLAN = "vxlan"
    GENEVE = "geneve"


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The tunnel port of a node: its type, and the node's own address in the network between nodes."""

    type: TunnelType
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """The bridge of `node`: its name, the datapath if it has to be made, its controller, and its tunnel, if any."""

    name: str
    node: str
    datapath: DatapathType = DatapathType.SYSTEM
    controller: str = CONTROLLER
    tunnel: Tunnel | None = None


def datapath_id(node: str) -> str:
    """The datapath id of a node's bridge. Without it the id would follow the bridge's MAC, which may change."""
    return hashlib.sha256(node.encode()).hexdigest()[:16]


def ensure_bridge(remote: str, settings: BridgeSettings) -> None:
    """Make the bridge, or correct it. Raises SetupError when the database cannot be reached or changed."""
    idl = _connected(remote)
    try:
        for _ in range(_ATTEMPTS):
            txn = ovs.db.idl.Transaction(idl)
            changes = _change(idl, txn, settings)
            status = txn.commit_block()
            if status in (ovs.db.idl.Transaction.SUCCESS, ovs.db.idl.Transaction.UNCHANGED):
                for text in changes:
                    LOG.info("%s", text)
                return
            if status != ovs.db.idl.Transaction.TRY_AGAIN:
                raise SetupError(f"bridge {settings.name} cannot be made: {txn.get_error() or status}")
        raise SetupError(f"bridge {settings.name} cannot be made: other programs change it at the same time")
    finally:
        idl.close()


def _connected(remote: str) -> Any:
    helper = ovs.db.idl.SchemaHelper(schema_json=_schema())
    for table, columns in _COLUMNS.items():
        helper.register_columns(table, list(columns))
    idl = ovs.db.idl.Idl(remote, helper)
    deadline = time.monotonic() + CONNECT_SECONDS
    while idl.state != ovs.db.idl.Idl.IDL_S_MONITORING:
        if time.monotonic() > deadline:
            idl.close()
            raise SetupError(f"the database of Open vSwitch at {remote} cannot be reached: is Open vSwitch running?")
        idl.run()
        poller = ovs.poller.Poller()
        idl.wait(poller)
        poller.timer_wait(100)
        poller.block()
    return idl


def _schema() -> dict[str, object]:
    def column(table: str, name: str) -> Mapping[str, object]:
        if name in _REFERENCES:
            return {"type": {"key": {"type": "uuid", "refTable": _REFERENCES[name]}, "min": 0, "max": "unlimited"}}
        return _TYPES.get(f"{table}.{name}", _STRING)

    tables = {
        table: {"columns": {name: column(table, name) for name in names}, "isRoot": table == "Open_vSwitch"}
        for table, names in _COLUMNS.items()
    }
    return {"name": "Open_vSwitch", "version": "8.0.0", "tables": tables}


def _change(idl: Any, txn: ovs.db.idl.Transaction, settings: BridgeSettings) -> list[str]:
    """Make the change in the transaction; returns a sentence for each part of it."""
    switches = list(idl.tables["Open_vSwitch"].rows.values())
    if not switches:
        raise SetupError("the database of Open vSwitch is empty: run `ovs-vsctl init`")
    bridge = next((row for row in idl.tables["Bridge"].rows.values() if row.name == settings.name), None)
    if bridge is None:
        switches[0].addvalue("bridges", _insert_bridge(idl, txn, settings))
        return [f"made bridge {settings.name} of node {settings.node}, {settings.datapath.value} datapath"]
    changes = _correct_bridge(bridge, settings)
    if not bridge.controller:
        bridge.controller = [_insert_controller(idl, txn, settings)]
        changes.append(f"bridge {settings.name} has the controller {settings.controller} now")
    if settings.tunnel is not None:
        changes += _ensure_tunnel(idl, txn, bridge, settings.tunnel)
    return changes


def _insert_bridge(idl: Any, txn: ovs.db.idl.Transaction, settings: BridgeSettings) -> Any:
    bridge = txn.insert(idl.tables["Bridge"])
    bridge.name = settings.name
    bridge.datapath_type = settings.datapath.value
    bridge.fail_mode = "secure"
    bridge.protocols = ["OpenFlow15"]
    bridge.external_ids = {NODE_ID: settings.node}
    bridge.other_config = {"disable-in-band": "true", "datapath-id": datapath_id(settings.node)}
    bridge.controller = [_insert_controller(idl, txn, settings)]
    local, _ = _insert_port(idl, txn, settings.name, "internal")
    tunnel = settings.tunnel
    bridge.ports = [local] if tunnel is None else [local, _insert_tunnel(idl, txn, tunnel, settings.datapath)]
    return bridge


def _insert_tunnel(idl: Any, txn: ovs.db.idl.Transaction, tunnel: Tunnel, datapath: DatapathType) -> Any:
    port, interface = _insert_port(idl, txn, TUNNEL_PORT, tunnel.type.value)
    interface.options, mark = _tunnel_columns(tunnel, datapath)
    interface.external_ids = {TUNNEL_ID: mark}
    return port


def _insert_controller(idl: Any, txn: ovs.db.idl.Transaction, settings: BridgeSettings) -> Any:
    controller = txn.insert(idl.tables["Controller"])
    controller.target = settings.controller
    controller.connection_mode = "out-of-band"
    controller.max_backoff = MAX_BACKOFF_MS
    # It deletes no flows of the bridge when it is configured.
    controller.type = SERVICE_CONTROLLER
    return controller


def _insert_port(idl: Any, txn: ovs.db.idl.Transaction, name: str, kind: str) -> tuple[Any, Any]:
    """A new port and its interface."""
    interface = txn.insert(idl.tables["Interface"])
    interface.name = name
    interface.type = kind
    port = txn.insert(idl.tables["Port"])
    port.name = name
    port.interfaces = [interface]
    return port, interface


def _correct_bridge(bridge: Any, settings: BridgeSettings) -> list[str]:
    """Set what the controller needs of a bridge that exists, such as one of a copied disk, which names another node."""
    changes = []
    node = bridge.external_ids.get(NODE_ID)
    if node != settings.node:
        bridge.setkey("external_ids", NODE_ID, settings.node)
        bridge.setkey("other_config", "datapath-id", datapath_id(settings.node))
        changes.append(f"bridge {settings.name} is that of node {settings.node}, no longer {node or 'of none'}")
    if list(bridge.fail_mode) != ["secure"]:
        bridge.fail_mode = "secure"
        changes.append(f"bridge {settings.name} is fail_mode=secure now")
    if list(bridge.protocols) and "OpenFlow15" not in bridge.protocols:
        bridge.addvalue("protocols", "OpenFlow15")
        changes.append(f"bridge {settings.name} has OpenFlow 1.5")
    return changes


def _ensure_tunnel(idl: Any, txn: ovs.db.idl.Transaction, bridge: Any, tunnel: Tunnel) -> list[str]:
    """Make the tunnel port, or set its type and address; a tunnel port of another name counts, and stays as it is."""
    datapath = DatapathType.NETDEV if bridge.datapath_type == DatapathType.NETDEV.value else DatapathType.SYSTEM
    interfaces = [interface for port in bridge.ports for interface in port.interfaces]
    existing = next((each for each in interfaces if TUNNEL_ID in each.external_ids), None)
    if existing is None:
        bridge.addvalue("ports", _insert_tunnel(idl, txn, tunnel, datapath))
        return [f"made the {tunnel.type.value} tunnel of {tunnel.address}"]
    options, mark = _tunnel_columns(tunnel, datapath)
    wanted = (tunnel.type.value, options, mark)
    if existing.name != TUNNEL_PORT or wanted == (existing.type, existing.options, existing.external_ids[TUNNEL_ID]):
        return []
    existing.type = tunnel.type.value
    existing.options = options
    existing.setkey("external_ids", TUNNEL_ID, mark)
    return [f"the tunnel is the {tunnel.type.value} one of {tunnel.address} now"]


def _tunnel_columns(tunnel: Tunnel, datapath: DatapathType) -> tuple[dict[str, str], str]:
    """The options of the tunnel's Interface, and the value of its external_ids:romana-tunnel.

    With local_ip the userspace datapath would look up a route to that address, too, and have none for some
    milliseconds whenever a link changes.
    """
    if datapath is DatapathType.NETDEV:
        return {"remote_ip": "flow"}, str(tunnel.address)
    return {"remote_ip": "flow", "local_ip": str(tunnel.address)}, "yes"
