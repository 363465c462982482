"""Follows the bridge in its OVSDB, and adds and removes ports of pods there, from one thread that owns the IDL.

Source: vswitchd.conf.db(5); RFC 7047. The `ovs` package is not thread-safe, so that other threads queue their changes.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ovs.db.idl
import ovs.poller

from romana_ovs.attach import errors
from romana_ovs.attach.attachment import BridgeState, SandboxPort
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.rows import (
    COLUMNS,
    DATAPATH_ID,
    HWADDR,
    bridge_state,
    external_ids_of,
    local_interfaces,
    sandbox_port,
    schema,
)
from romana_ovs.switch.wakeup import Wakeup

LOG = logging.getLogger("romana_ovs.attach")
T = TypeVar("T")

TRANSACTION_SECONDS = 5.0
"""How long a change of the database may take; it takes a millisecond."""

Change = Callable[[Any, ovs.db.idl.Transaction], None]
"""Makes a change in a transaction over the IDL."""


@dataclass(eq=False, slots=True)
class _Pending:
    """A change that some thread waits for until `deadline`, and the transaction that makes it."""

    change: Change
    deadline: float
    done: threading.Event = field(default_factory=threading.Event)
    txn: ovs.db.idl.Transaction | None = None
    error: str = ""


class Database:
    """The bridge `bridge` in the database `remote`. `start` once; the other methods are for any thread."""

    def __init__(self, remote: str, bridge: str) -> None:
        self._bridge = bridge
        helper = ovs.db.idl.SchemaHelper(schema_json=schema())
        for table, columns in COLUMNS.items():
            helper.register_columns(table, list(columns))
        self._idl = ovs.db.idl.Idl(remote, helper)
        self._state = BridgeState()
        self._changed = threading.Condition()
        self._queue: deque[_Pending] = deque()
        self._running: list[_Pending] = []
        self._wakeup = Wakeup()

    def start(self) -> None:
        """Begin to follow the database, until the process ends; an internal error there ends the process."""
        threading.Thread(target=self._run_or_end, name="ovsdb", daemon=True).start()

    @property
    def state(self) -> BridgeState:
        """The bridge as last read."""
        return self._state

    def wait_until(self, check: Callable[[BridgeState], T | None], deadline: float) -> T | None:
        """The first result of `check` that is true; None if there was none until `deadline` (`time.monotonic`)."""
        with self._changed:
            while not (checked := check(self._state)):
                seconds = deadline - time.monotonic()
                if seconds <= 0:
                    return None
                self._changed.wait(seconds)
            return checked

    def add(self, port: SandboxPort) -> None:
        """Add a port, and remove every other port of its pod and of its attachment, in one transaction.

        The port is transient: it does not survive a reboot. Raises CniError when the database cannot be written.
        """

        def change(bridge: Any, txn: ovs.db.idl.Transaction) -> None:
            for row in bridge.ports:
                other = sandbox_port(row)
                if other is not None and (other.pod == port.pod or other.attachment == port.attachment):
                    bridge.delvalue("ports", row)
            interface = txn.insert(self._idl.tables["Interface"])
            interface.name = port.name
            interface.external_ids = external_ids_of(port)
            row = txn.insert(self._idl.tables["Port"])
            row.name = port.name
            row.interfaces = [interface]
            row.other_config = {"transient": "true"}
            bridge.addvalue("ports", row)

        self._commit(change)

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of these ports that exist. Raises CniError when the database cannot be written."""
        gone = frozenset(names)

        def change(bridge: Any, _: ovs.db.idl.Transaction) -> None:
            for row in bridge.ports:
                if row.name in gone:
                    bridge.delvalue("ports", row)

        if gone:
            self._commit(change)

    def configure_gateway(self, mac: str, mtu: int) -> None:
        """Ask for this MAC and MTU of the bridge's local port. Raises CniError when the database cannot be written.

        The datapath id, which would follow the MAC, stays as it is: a switch with another one is another switch to its
        controller.
        """

        def change(bridge: Any, _: ovs.db.idl.Transaction) -> None:
            if DATAPATH_ID not in bridge.other_config and bridge.datapath_id:
                bridge.setkey("other_config", DATAPATH_ID, bridge.datapath_id[0])
            bridge.setkey("other_config", HWADDR, mac)
            for interface in local_interfaces(bridge):
                interface.mtu_request = mtu

        self._commit(change)

    def wake(self) -> None:
        """Make all waiting threads check again, although the state is the same."""
        with self._changed:
            self._changed.notify_all()

    def _commit(self, change: Change) -> None:
        pending = _Pending(change, time.monotonic() + TRANSACTION_SECONDS)
        self._queue.append(pending)
        self._wakeup.set()
        pending.done.wait()
        if pending.error:
            raise CniError(errors.TRY_AGAIN_LATER, pending.error)

    # The thread that owns the IDL.

    def _run_or_end(self) -> None:
        try:
            self._run()
        except Exception:  # Requests would wait for ever: a supervisor starts the next process.
            LOG.exception("internal error; the process ends; please report this")
            os._exit(1)

    def _run(self) -> None:
        known = -1
        connected = False
        while True:
            self._idl.run()
            now_connected = self._idl.state == ovs.db.idl.Idl.IDL_S_MONITORING
            if self._idl.change_seqno != known or now_connected != connected:
                known, connected = self._idl.change_seqno, now_connected
                self._publish(connected)
            # After the state has been published: whoever waits for a change finds it there.
            self._advance()
            self._begin(connected)
            poller = ovs.poller.Poller()
            self._idl.wait(poller)
            poller.fd_wait(self._wakeup.fileno(), ovs.poller.POLLIN)
            if self._queue or self._running:
                poller.timer_wait(100)
            poller.block()
            self._wakeup.clear()

    def _publish(self, connected: bool) -> None:
        state = bridge_state(self._idl.tables["Bridge"].rows.values(), self._bridge, connected=connected)
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _row(self) -> Any:
        rows = self._idl.tables["Bridge"].rows.values()
        return next((row for row in rows if row.name == self._bridge), None)

    def _begin(self, connected: bool) -> None:
        """Begin queued changes, or fail those whose time is over."""
        while self._queue:
            pending = self._queue[0]
            bridge = self._row() if connected else None
            if bridge is None:
                if time.monotonic() < pending.deadline:
                    return
                reason = f"Open vSwitch has no bridge {self._bridge}" if connected else "it cannot be reached"
                self._finish(self._queue.popleft(), f"the database of Open vSwitch cannot be changed: {reason}")
                continue
            self._queue.popleft()
            pending.txn = ovs.db.idl.Transaction(self._idl)
            pending.change(bridge, pending.txn)
            self._running.append(pending)
            self._advance()

    def _advance(self) -> None:
        """Take note of transactions that have ended; those that met another change are begun again."""
        for pending in tuple(self._running):
            if pending.txn is None:
                continue
            status = pending.txn.commit()
            late = time.monotonic() >= pending.deadline
            if status == ovs.db.idl.Transaction.INCOMPLETE and not late:
                continue
            self._running.remove(pending)
            if status in (ovs.db.idl.Transaction.SUCCESS, ovs.db.idl.Transaction.UNCHANGED):
                self._finish(pending)
            elif status == ovs.db.idl.Transaction.TRY_AGAIN and not late:
                self._queue.append(pending)
            else:
                pending.txn.abort()
                reason = pending.txn.get_error() or ("no answer" if late else status)
                self._finish(pending, f"the database of Open vSwitch cannot be changed: {reason}")

    def _finish(self, pending: _Pending, error: str = "") -> None:
        pending.error = error
        pending.done.set()
