"""Serves the status socket: one JSON object a line to every client.

`state` comes at once and after every change, `programmed` and `refused` as they happen. A client that does not
read is dropped; nothing waits for it.
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

LOG = logging.getLogger("romana_ovs.feed")

BACKLOG = 1000
"""Lines that a slow client may be behind."""
BACKLOG_BYTES = 64 << 20
"""What these may weigh together, unless it is a single line: a state of a large cluster has megabytes."""
PACE_SECONDS = 0.02
"""Between two states: a burst of changes is told once."""
MODE = 0o600

State = Mapping[str, Any]


@dataclass(eq=False, slots=True)
class _Client:
    """A connection, the lines that it has yet to be sent, and their bytes."""

    connection: socket.socket
    lines: LightQueue = field(default_factory=lambda: LightQueue(BACKLOG))
    behind: int = 0

    def put(self, line: bytes) -> bool:
        """Have it sent; returns False when the client is too far behind."""
        if self.behind and self.behind + len(line) > BACKLOG_BYTES:
            return False
        try:
            self.lines.put_nowait(line)
        except Full:
            return False
        self.behind += len(line)
        return True

    def close(self) -> None:
        """End the connection, also for who is just waiting to send something over it."""
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            LOG.debug("a client of the status socket has hung up already: %s", error)


class StatusServer:
    """Serves on a unix socket at `path`; `state` gives the present state, or None when it will be told later."""

    def __init__(self, path: Path, state: Callable[[], State | None]) -> None:
        self._path = path
        self._state = state
        self._clients: set[_Client] = set()
        self._wake = Flag()
        self._last = b""

    def listen(self) -> None:
        """Take the socket's path over from whoever had it. Raises SetupError."""
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
                self._last = b""
                self._wake.set()
            self._clients.add(client)
            eventlet.spawn(self._write, client)

    def publish(self) -> None:
        """Never returns: tells the state after `changed` was called, if it is another."""
        while True:
            self._wake.wait()
            state = self._state() if self._clients else None
            if state is not None:
                line = _line(state)
                if line != self._last:
                    self._last = line
                    self._send(line)
            eventlet.sleep(PACE_SECONDS)

    def changed(self) -> None:
        """The state may be another."""
        self._wake.set()

    def broadcast(self, event: Mapping[str, Any]) -> None:
        """Send one event to everyone who is connected."""
        if self._clients:
            self._send(_line(event))

    def _send(self, line: bytes) -> None:
        for client in tuple(self._clients):
            if not client.put(line):
                LOG.warning("a client of the status socket does not read, dropping it")
                self._clients.discard(client)
                client.close()

    def _write(self, client: _Client) -> None:
        try:
            while client in self._clients:
                line = client.lines.get()
                client.connection.sendall(line)
                client.behind -= len(line)
        except OSError as error:
            LOG.debug("a client of the status socket has gone: %s", error)
        finally:
            self._clients.discard(client)
            client.connection.close()


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
