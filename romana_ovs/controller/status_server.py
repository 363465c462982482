"""Serves the status socket: one JSON object a line to every client.

`state` is sent at once and after changes (those within 20 ms as one), `programmed` and `refused` when they happen. A
client that does not read is disconnected; nothing waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import eventlet
from eventlet.queue import Full, LightQueue

from romana_ovs.flag import Flag
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.status")

BACKLOG = 1000
"""Lines queued for a slow client at most."""
BACKLOG_BYTES = 64 << 20
"""Their size at most, except for a single line: the state of a large cluster has megabytes."""
MIN_INTERVAL_SECONDS = 0.02
"""Between two states: a burst of changes is sent as one."""
MODE = 0o600

State = Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Client:
    """A connection, the lines queued for it, and their size."""

    connection: socket.socket
    lines: LightQueue = field(default_factory=lambda: LightQueue(BACKLOG))
    queued_bytes: int = 0

    def put(self, line: bytes) -> bool:
        """Queue `line`; returns False when too much is queued."""
        if self.queued_bytes and self.queued_bytes + len(line) > BACKLOG_BYTES:
            return False
        try:
            self.lines.put_nowait(line)
        except Full:
            return False
        self.queued_bytes += len(line)
        return True

    def close(self) -> None:
        """End the connection; a green thread that is blocked sending over it gets an error."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            LOG.debug("a client of the status socket has hung up already: %s", error)


class StatusServer:
    """Serves on a unix socket at `path`; `state` returns the present state, or None when it is available only later."""

    def __init__(self, path: Path, state: Callable[[], State | None]) -> None:
        self._path = path
        self._state = state
        self._clients: set[_Client] = set()
        self._wake = Flag()
        self._last_line = b""

    def listen(self) -> None:
        """Bind the socket in place of any old one. Raises SetupError."""
        try:
            if self._path.is_socket():
                self._path.unlink()
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.bind(str(self._path))
            os.chmod(self._path, MODE)
            self._socket.listen()
        except OSError as error:
            raise SetupError(f"status socket {self._path}: {error.strerror or error}") from error

    def serve(self) -> None:
        """Never returns: accepts clients."""
        while True:
            connection, _ = self._socket.accept()
            client = _Client(connection)
            state = self._state()
            if state is not None:
                client.put(_line(state))
            else:
                self._last_line = b""
                self._wake.set()
            self._clients.add(client)
            eventlet.spawn(self._write, client)

    def publish(self) -> None:
        """Never returns: sends the state after `changed` was called, if it differs from the last."""
        while True:
            self._wake.wait()
            state = self._state() if self._clients else None
            if state is not None:
                line = _line(state)
                if line != self._last_line:
                    self._last_line = line
                    self._send(line)
            eventlet.sleep(MIN_INTERVAL_SECONDS)

    def changed(self) -> None:
        """The state may have changed."""
        self._wake.set()

    def broadcast(self, event: Mapping[str, Any]) -> None:
        """Send one event to every client."""
        if self._clients:
            self._send(_line(event))

    def _send(self, line: bytes) -> None:
        for client in tuple(self._clients):
            if not client.put(line):
                LOG.warning("a client of the status socket does not read: it is disconnected")
                self._clients.discard(client)
                client.close()

    def _write(self, client: _Client) -> None:
        try:
            while client in self._clients:
                line = client.lines.get()
                client.connection.sendall(line)
                client.queued_bytes -= len(line)
        except OSError as error:
            LOG.debug("a client of the status socket has gone: %s", error)
        finally:
            self._clients.discard(client)
            client.connection.close()


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
