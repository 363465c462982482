"""Serves the agent's Unix socket: one request and one answer for each connection, each in a thread of its own."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from romana_ovs.attach import errors
from romana_ovs.attach.errors import CniError
from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.attach")

MODE = 0o600
BACKLOG = 1024
MAX_REQUEST = 1 << 20
"""Bytes."""
RECEIVE_SECONDS = 10.0
RETRY_SECONDS = 0.1

Handler = Callable[[bytes], dict[str, Any]]
"""Serves a request; returns the result, empty for none. Raises CniError."""


class Server:
    """Serves `handle` on a Unix socket at `path`, to root and to the user of this process only."""

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path = path
        self._handle = handle
        self._socket = socket.socket(socket.AF_UNIX)

    def listen(self) -> None:
        """Bind the socket in place of any old one. Raises SetupError, also when another agent serves it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.is_socket():
                with socket.socket(socket.AF_UNIX) as other:
                    if other.connect_ex(str(self._path)) == 0:
                        raise SetupError(f"socket {self._path}: another attach agent serves it")
                self._path.unlink()
            self._socket.bind(str(self._path))
            os.chmod(self._path, MODE)
            self._socket.listen(BACKLOG)
        except OSError as error:
            raise SetupError(f"socket {self._path}: {error.strerror or error}") from error

    def serve(self) -> None:
        """Never returns: accepts connections."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:  # Such as too many open files: some will be closed.
                LOG.error("socket %s: %s", self._path, error.strerror)
                time.sleep(RETRY_SECONDS)
                continue
            threading.Thread(target=self._serve_one, args=(connection,), name="request", daemon=True).start()

    def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            try:
                if not _is_trusted(connection):
                    LOG.warning("a client of another user is refused")
                    return
                data = _receive(connection)
                connection.sendall(json.dumps(self._answer(data)).encode() if data is not None else b"")
            except OSError as error:
                # The plugin was killed: what its request has done stays until the runtime's DEL.
                LOG.info("a client has gone: %s", error)

    def _answer(self, data: bytes) -> dict[str, Any]:
        try:
            return {"result": self._handle(data)}
        except CniError as error:
            return {"error": error.to_json()}
        except Exception as error:  # An internal error must not end the agent.
            LOG.exception("internal error; please report this")
            return {"error": CniError(errors.INTERNAL, f"internal error: {error!r}").to_json()}


def _is_trusted(connection: socket.socket) -> bool:
    """Whether the client is root's or our own user's (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return user in (0, os.geteuid())


def _receive(connection: socket.socket) -> bytes | None:
    """All bytes until the client ends its side; None if it sends too many. Raises OSError."""
    connection.settimeout(RECEIVE_SECONDS)
    data = bytearray()
    while chunk := connection.recv(65536):
        data += chunk
        if len(data) > MAX_REQUEST:
            LOG.warning("a request of more than %d bytes is refused", MAX_REQUEST)
            return None
    connection.settimeout(None)
    return bytes(data)
