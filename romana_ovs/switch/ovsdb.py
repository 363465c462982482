"""Watches one Open vSwitch database: its bridges and ports, as they are after every change.

The `ovs` IDL keeps a copy of the requested rows and reconnects with back-off; while the database is unreachable, the
last known rows stay.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ovs.db.idl
import ovs.poller

from romana_ovs.flag import Flag
from romana_ovs.model.bridge import CONNTRACK_LOST, POD_PROBLEM, POD_PROGRAMMED
from romana_ovs.model.derived import DerivedMap
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, BridgeExternalIds, BridgeRow, ControllerRow, InterfaceRow
from romana_ovs.switch.wakeup import Wakeup
from romana_ovs.switch.zone_limits import KERNEL

LOG = logging.getLogger("romana_ovs.ovsdb")

PROBLEMS_DELAY_SECONDS = 0.05
"""How long a problem of a port may wait for other external_ids, to be written in one transaction with them."""

_STRING = {"type": "string"}
_OPTIONAL_STRING = {"type": {"key": "string", "min": 0, "max": 1}}
_MAP = {"type": {"key": "string", "value": "string", "min": 0, "max": "unlimited"}}


def _references(table: str) -> dict[str, object]:
    return {"type": {"key": {"type": "uuid", "refTable": table}, "min": 0, "max": "unlimited"}}


_COLUMNS: Mapping[str, Mapping[str, object]] = {
    "Open_vSwitch": {"bridges": _references("Bridge"), "external_ids": _MAP, "other_config": _MAP},
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
    "Port": {"interfaces": _references("Interface")},
    "Interface": {
        "name": _STRING,
        "ofport": {"type": {"key": "integer", "min": 0, "max": 1}},
        "external_ids": _MAP,
        "options": _MAP,
        "mac_in_use": _OPTIONAL_STRING,
    },
    "Controller": {"target": _STRING, "connection_mode": _OPTIONAL_STRING, "type": _OPTIONAL_STRING},
}
"""The columns to read, declared here so that the schema file of the switch is not needed on this machine."""
_RESTORE_WAIT = "flow-restore-wait"
_INTERFACE_COLUMNS = tuple(_COLUMNS["Interface"])


def _schema() -> dict[str, object]:
    tables = {name: {"columns": dict(columns), "isRoot": name == "Open_vSwitch"} for name, columns in _COLUMNS.items()}
    return {"name": "Open_vSwitch", "version": "8.0.0", "tables": tables}


@dataclass(frozen=True, slots=True)
class OvsdbRead:
    """The bridges of a database; `noticed` is when the first change since the last read was, in `time.monotonic`."""

    rows: tuple[BridgeRow, ...]
    noticed: float


class OvsdbWatch:
    """Watches `remote` in a green thread (`run`); keeps the newest read until it is taken, and raises `flag` for it."""

    def __init__(self, remote: str, flag: Flag) -> None:
        self.remote = remote
        self._flag = flag
        self._newest: OvsdbRead | None = None
        self._seen: dict[object, int] = {}
        self._translated: DerivedMap[Any, InterfaceRow] = DerivedMap(by_value=True)
        helper = ovs.db.idl.SchemaHelper(schema_json=_schema())
        for table, columns in _COLUMNS.items():
            helper.register_columns(table, list(columns))
        self._idl = ovs.db.idl.Idl(remote, helper)
        self._notes: dict[tuple[str, str, str], str] = {}
        """By table, row and key of external_ids: the text to write, empty to remove the key."""
        self._problems: dict[str, Mapping[str, str]] = {}
        """By bridge and Interface row: the problems that were queued last."""
        self._write_at = 0.0
        """When to write the notes, in `time.monotonic`."""
        self._writing: ovs.db.idl.Transaction | None = None
        self._end_wait = False
        self._failure_logged = False
        self._wakeup = Wakeup()

    def run(self) -> None:
        """Never returns. Waits without polling, for the connection, the IDL's own timers, or `note`."""
        known = self._idl.change_seqno
        while True:
            self._idl.run()
            if self._idl.change_seqno != known:
                known = self._idl.change_seqno
                noticed = self._newest.noticed if self._newest is not None else time.monotonic()
                self._newest = OvsdbRead(self._rows(), noticed)
                self._flag.set()
            self._write()
            poller = ovs.poller.Poller()
            self._idl.wait(poller)
            poller.fd_wait(self._wakeup.fileno(), ovs.poller.POLLIN)
            if self._notes and self._writing is None and self._idl.has_ever_connected():
                poller.timer_wait(max(0, math.ceil((self._write_at - time.monotonic()) * 1000)))
            poller.block()
            self._wakeup.clear()

    def take(self) -> OvsdbRead | None:
        """The newest read, if it was not taken yet."""
        newest, self._newest = self._newest, None
        return newest

    def queue_external_ids(self, bridge: Bridge, external_ids: BridgeExternalIds) -> None:
        """Queues the external_ids of a bridge that its database does not have yet; does not wait.

        A pod that has another port since gets none: that one is not programmed yet.
        """
        notes = {
            ("Interface", external_ids.rows[pod], POD_PROGRAMMED): text
            for pod, text in external_ids.programmed.items()
            if bridge.external_ids.programmed.get(pod) != text
            and pod in external_ids.rows
            and external_ids.rows[pod] == bridge.rows.get(pod)
        }
        if external_ids.lost_at is not None and external_ids.lost_at != bridge.external_ids.lost_at:
            notes["Bridge", bridge.name, CONNTRACK_LOST] = str(int(external_ids.lost_at))
        for key, text in external_ids.node_network.items():
            if bridge.external_ids.node_network.get(key) != text:
                notes["Bridge", bridge.name, key] = text
        self._queue(notes)

    def queue_problems(self, bridge: Bridge, problems: Mapping[PodKey, str]) -> None:
        """Queues a note at each port of `problems`, and the removal of all others of this bridge; does not wait.

        They are written with the next external_ids, or PROBLEMS_DELAY_SECONDS later: flows come first.
        """
        stored = {bridge.rows[pod]: text for pod, text in bridge.external_ids.problems.items() if pod in bridge.rows}
        queued = self._problems.get(bridge.name, {})
        wanted = {bridge.rows[pod]: text for pod, text in problems.items() if pod in bridge.rows}
        self._problems[bridge.name] = wanted
        changed = changed_problems(stored, queued, wanted)
        self._queue(
            {("Interface", row, POD_PROBLEM): text for row, text in changed.items()}, delay=PROBLEMS_DELAY_SECONDS
        )

    def _queue(self, notes: Mapping[tuple[str, str, str], str], delay: float = 0.0) -> None:
        if any(self._notes.get(place) != text for place, text in notes.items()):
            at = time.monotonic() + delay
            self._write_at = min(self._write_at, at) if self._notes else at
            self._notes.update(notes)
            self._wakeup.set()

    def end_flow_restore_wait(self) -> None:
        """Queues the removal of other_config:flow-restore-wait, together with all notes so far; does not wait."""
        self._end_wait = True
        self._wakeup.set()

    def _write(self) -> None:
        """Writes one transaction at a time; a permanent failure is logged once, as flows do not depend on it."""
        if self._writing is not None:
            status = self._writing.commit()
            if status == ovs.db.idl.Transaction.INCOMPLETE:
                return
            succeeded = (ovs.db.idl.Transaction.SUCCESS, ovs.db.idl.Transaction.UNCHANGED)
            if status not in succeeded and not self._failure_logged:
                self._failure_logged = True
                LOG.warning("%s: cannot be written: %s", self.remote, self._writing.get_error() or status)
            self._writing = None
        due = self._notes and time.monotonic() >= self._write_at
        if not (due or self._end_wait) or not self._idl.has_ever_connected():
            return
        txn = self._writing = ovs.db.idl.Transaction(self._idl)
        notes, self._notes = self._notes, {}
        for (table, name, key), text in notes.items():
            for uuid, row in self._idl.tables[table].rows.items():
                if name in (str(uuid), getattr(row, "name", "")):
                    if text:
                        row.setkey("external_ids", key, text)
                    else:
                        row.delkey("external_ids", key)
        if self._end_wait:
            self._end_wait = False
            for root in self._idl.tables["Open_vSwitch"].rows.values():
                root.delkey("other_config", _RESTORE_WAIT)
        if txn.commit() != ovs.db.idl.Transaction.INCOMPLETE:
            self._writing = None

    def _rows(self) -> tuple[BridgeRow, ...]:
        interfaces = self._idl.tables["Interface"].rows
        self._seen = {uuid: self._seen.get(uuid) or self._next_number() for uuid in interfaces}
        self._translated.retain(interfaces)
        return tuple(
            self._bridge(bridge, root)
            for root in self._idl.tables["Open_vSwitch"].rows.values()
            for bridge in root.bridges
        )

    def _next_number(self) -> int:
        # All rows of one update get the same number: their order is not known.
        return max(self._seen.values(), default=0) + 1

    def _bridge(self, row: Any, root: Any) -> BridgeRow:
        number = _only(row.datapath_id)
        return BridgeRow(
            row.name,
            int(number, 16) if number else None,
            _hostname(dict(root.external_ids)),
            MappingProxyType(dict(row.external_ids)),
            MappingProxyType(dict(row.other_config)),
            str(_only(row.fail_mode) or ""),
            tuple(map(_controller, row.controller)),
            tuple(self._interface(item) for port in row.ports for item in port.interfaces),
            row.datapath_type or KERNEL,
            root.other_config.get(_RESTORE_WAIT) == "true",
        )

    def _interface(self, row: Any) -> InterfaceRow:
        """The row; the cached translation unless a value has changed, as translating takes ten times as long.

        The values are copied, as the IDL changes maps in place.
        """
        values = tuple(dict(row._data[column].values) for column in _INTERFACE_COLUMNS)
        return self._translated.get(row.uuid, values, lambda *_: self._translate(row))

    def _translate(self, row: Any) -> InterfaceRow:
        return InterfaceRow(
            row.name,
            _only(row.ofport),
            MappingProxyType(dict(row.external_ids)),
            MappingProxyType(dict(row.options)),
            str(_only(row.mac_in_use) or ""),
            self._seen.get(row.uuid, 0),
            str(row.uuid),
        )


def changed_problems(stored: Mapping[str, str], queued: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The texts to write, by Interface row, so that the database gets `wanted`; an empty one removes the text.

    The database had `stored` when it was last read. Texts that were `queued` may be written by now, or later.
    """
    return {
        row: wanted.get(row, "")
        for row in sorted({*stored, *queued, *wanted})
        if not wanted.get(row) == queued.get(row) == stored.get(row)
    }


def _controller(row: Any) -> ControllerRow:
    return ControllerRow(row.target, str(_only(row.connection_mode) or ""), str(_only(row.type) or ""))


def _only(values: Any) -> Any:
    """The one value of an optional column, or None."""
    return values[0] if values else None


def _hostname(external_ids: Mapping[str, str]) -> str:
    return external_ids.get("hostname") or socket.gethostname()
