"""Runs the attach agent: its database, its socket, and the loop that collects and offers the configuration list."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from romana_ovs.attach import conflist, namespaces
from romana_ovs.attach.attachment import BridgeState, not_ready
from romana_ovs.attach.bridge_creation import ensure_bridge
from romana_ovs.attach.database import Database
from romana_ovs.attach.delete_queue import DeleteQueue
from romana_ovs.attach.errors import CniError
from romana_ovs.attach.gateway import Gateway
from romana_ovs.attach.host_check import HostCheck
from romana_ovs.attach.operations import AttachSettings, Operations
from romana_ovs.attach.server import Server
from romana_ovs.health import HealthServer
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.attach")

COLLECT_SECONDS = 5.0
"""Between two searches for what was left behind."""
READY_SECONDS = 1.0
"""How often the loop looks until the bridge is ready."""
OVERLAY_BYTES = 50
"""What VXLAN and Geneve over IPv4 add to a packet."""
DEFAULT_MTU = 1450


def learned_mtu() -> int:
    """The MTU of pods: that of the device with the default route, less what a tunnel adds; bytes."""
    uplink = namespaces.uplink_mtu()
    return DEFAULT_MTU if uplink is None else uplink - OVERLAY_BYTES


def not_serving(settings: AttachSettings, state: BridgeState) -> str:
    """Why a runtime cannot attach pods, in a sentence; empty when it can: the configuration list is written, too."""
    if reason := not_ready(state, settings.bridge):
        return reason
    path = settings.conf_folder / conflist.FILE_NAME if settings.conf_folder is not None else None
    return f"{path} is not written yet" if path is not None and not path.exists() else ""


def _in_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="health", daemon=True).start()


def run(settings: AttachSettings) -> int:
    """Serve until SIGTERM or SIGINT; returns exit code 0. Raises SetupError.

    Pods, their ports and the configuration list stay as they are.
    """
    stop = threading.Event()

    def end(number: int, _: FrameType | None) -> None:
        LOG.info("ending after %s", signal.Signals(number).name)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    queue = DeleteQueue(settings.queue)
    queue.create()
    database = Database(settings.ovsdb, settings.bridge)
    check = HostCheck(settings.ovsdb, database)
    operations = Operations(settings, database, queue, lambda: check.reason)
    server = Server(settings.socket, operations.handle)
    server.listen()
    if settings.health_port is not None:
        health = HealthServer(settings.health_port, lambda: not_serving(settings, database.state), _in_thread)
        health.listen()
        _in_thread(health.serve)
    database.start()
    if settings.gateway is not None:
        Gateway(settings.bridge, settings.gateway, database).start()
    if settings.host_check:
        check.start()
    threading.Thread(target=server.serve, name="server", daemon=True).start()
    LOG.info("serving %s for bridge %s, MTU of pods %d", settings.socket, settings.bridge, settings.mtu)
    try:
        _maintain(settings, database, operations, check, stop)
    finally:
        check.stop()
        settings.socket.unlink(missing_ok=True)
    return 0


def _maintain(
    settings: AttachSettings, database: Database, operations: Operations, check: HostCheck, stop: threading.Event
) -> None:
    """Collect what was left behind, and offer the configuration list once the bridge is ready, until `stop`."""
    logged, collected_at, ensured = "", 0.0, False
    while not stop.is_set():
        try:
            if settings.new_bridge is not None and not (ensured and database.state.exists):
                ensure_bridge(settings.ovsdb, settings.new_bridge)
                ensured = True
        except SetupError as error:
            LOG.warning("%s", error)
        reason = operations.not_ready()
        if reason != logged:
            LOG.info("%s", reason or f"bridge {settings.bridge} is ready")
            logged = reason
        try:
            if not reason and not check.pending and settings.conf_folder is not None:
                configuration = conflist.network_configuration(
                    settings.socket, settings.queue, portmap=settings.portmap
                )
                if conflist.write(settings.conf_folder, configuration):
                    LOG.info("wrote %s", settings.conf_folder / conflist.FILE_NAME)
            if time.monotonic() - collected_at >= COLLECT_SECONDS and database.state.exists:
                collected_at = time.monotonic()
                operations.collect()
        except (CniError, SetupError) as error:
            LOG.warning("%s", error)
        if not_ready(database.state, settings.bridge):
            database.wait_until(lambda state: not not_ready(state, settings.bridge), time.monotonic() + READY_SECONDS)
        elif reason or check.pending:
            stop.wait(READY_SECONDS)
        else:
            stop.wait(COLLECT_SECONDS)
