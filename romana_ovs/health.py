"""Serves the health of a process over HTTP: `/livez` and `/readyz`, as Kubernetes' own components do.

On the loopback address only. kubelet asks by itself (httpGet), so that a probe starts no process.

Source: kubernetes.io, "Kubernetes API health endpoints".
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from romana_ovs.model.errors import SetupError

LOG = logging.getLogger("romana_ovs.health")

HOST = "127.0.0.1"
MAX_PORT = 65535
BACKLOG = 16
MAX_REQUEST = 4096
"""Bytes that are read of a request: its first line is enough."""
REQUEST_SECONDS = 5.0
RETRY_SECONDS = 0.1

NotReady = Callable[[], str]
"""Why the process is not ready, in a sentence; empty when it is."""
Spawn = Callable[[Callable[[], None]], object]
"""Runs a function beside the caller: in a thread, or in a green one."""


def response(request: bytes, not_ready: NotReady) -> bytes:
    """The answer to an HTTP request.

    `/livez` is fine whenever there is an answer at all; `/readyz` has the status 503 and the reason while the process
    is not ready.
    """
    path = request.split(b"\r\n", 1)[0].split(b" ")[1:2]
    if path == [b"/livez"]:
        return _http(HTTPStatus.OK, "ok")
    if path == [b"/readyz"]:
        reason = not_ready()
        return _http(HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK, reason or "ok")
    return _http(HTTPStatus.NOT_FOUND, "there are /livez and /readyz")


def _http(status: HTTPStatus, text: str) -> bytes:
    body = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class HealthServer:
    """Serves on a port of the loopback address. `spawn` runs an answer beside `serve`."""

    def __init__(self, port: int, not_ready: NotReady, spawn: Spawn) -> None:
        self._address = (HOST, port)
        self._not_ready = not_ready
        self._spawn = spawn
        self._socket = socket.socket()

    def listen(self) -> None:
        """Bind the port. Raises SetupError."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(self._address)
            self._socket.listen(BACKLOG)
        except OSError as error:
            host, port = self._address
            raise SetupError(f"health port {host}:{port}: {error.strerror or error}") from error

    def serve(self) -> None:
        """Never returns: answers requests."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError as error:  # Such as too many open files: some will be closed.
                LOG.error("health port %d: %s", self._address[1], error.strerror)
                time.sleep(RETRY_SECONDS)
                continue
            self._spawn(partial(self._answer, connection))

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(REQUEST_SECONDS)
                connection.sendall(response(connection.recv(MAX_REQUEST), self._not_ready))
            except OSError as error:
                LOG.debug("a client of the health port has gone: %s", error)
