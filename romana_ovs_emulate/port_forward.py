"""Forwards TCP connections to a port on loopback here to a port on loopback in another network namespace."""

from __future__ import annotations

import contextlib
import socket
import threading

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.netns import enter
from romana_ovs_emulate.system import NETNS_FOLDER

LOOPBACK = "127.0.0.1"
CHUNK_BYTES = 65536


class PortForward:
    """Listens from `start` until `close`, or the end of this process; its threads end with their connections."""

    def __init__(self, netns: str, port: int) -> None:
        """`port` is that inside the named network namespace."""
        self._netns = netns
        self._target = (LOOPBACK, port)
        self._listener: socket.socket | None = None

    def start(self) -> int:
        """Listen on a free port, and return it. Raises SetupError when the namespace cannot be entered."""
        self._listener = socket.create_server((LOOPBACK, 0))
        port = int(self._listener.getsockname()[1])
        ready = threading.Event()
        errors: list[OSError] = []
        threading.Thread(target=self._serve, args=(self._listener, ready, errors), daemon=True).start()
        ready.wait()
        if errors:
            raise SetupError(f"the network namespace {self._netns} cannot be entered: {errors[0].strerror}")
        return port

    def close(self) -> None:
        """Accept no more connections. Idempotent."""
        if self._listener is not None:
            # Unlike close(2), shutdown(2) wakes the thread that waits in accept(2).
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _serve(self, listener: socket.socket, ready: threading.Event, errors: list[OSError]) -> None:
        """Accept in the namespace where `listener` was made, and connect in the other one."""
        try:
            enter(str(NETNS_FOLDER / self._netns))
        except OSError as error:
            errors.append(error)
            return
        finally:
            ready.set()
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Send what `source` receives to `target`, until its end; then `target` is at its end, too."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
