"""The status socket: one JSON object a line to everyone who connects.

`state` comes at once and after every change, `programmed` and `refused` as they happen. A client that does not
read is dropped; nothing waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import eventlet
from eventlet.queue import Full, LightQueue

from romana_ovs.controller.wake import Wake
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.feed")

BACKLOG = 1000
"""Lines that a slow client may be behind."""
PACE_SECONDS = 0.02
"""Between two states: a burst of changes is told once."""
MODE = 0o600

State = Mapping[str, Any]


class Feed:
    """Serves on a unix socket at `path`; `state` gives the present state, or None when it will be told later."""

    def __init__(self, path: Path, state: Callable[[], State | None]) -> None:
        self._path = path
        self._state = state
        self._clients: set[LightQueue] = set()
        self._wake = Wake()
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
            queue = LightQueue(BACKLOG)
            state = self._state()
            if state is not None:
                queue.put(_line(state))
            else:
                self._last = b""
                self._wake.set()
            self._clients.add(queue)
            eventlet.spawn(self._write, connection, queue)

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

    def tell(self, event: Mapping[str, Any]) -> None:
        """Send one event to everyone who is connected."""
        if self._clients:
            self._send(_line(event))

    def _send(self, line: bytes) -> None:
        for queue in tuple(self._clients):
            try:
                queue.put_nowait(line)
            except Full:
                LOG.warning("a client of the status socket does not read, dropping it")
                self._clients.discard(queue)

    def _write(self, connection: socket.socket, queue: LightQueue) -> None:
        try:
            while queue in self._clients:
                connection.sendall(queue.get())
        except OSError as error:
            LOG.debug("a client of the status socket has gone: %s", error)
        finally:
            self._clients.discard(queue)
            connection.close()


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
