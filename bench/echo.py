"""Measures how long a controller takes to answer OpenFlow echo requests, sent continuously by another process."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from types import TracebackType

HEADER = struct.Struct("!BBHI")
VERSION, HELLO, ECHO_REQUEST, ECHO_REPLY = 6, 0, 2, 3
PACE_SECONDS = 0.01
PATIENCE_SECONDS = 30.0
LONGEST_CONNECTION = 3.0
"""Seconds: who does not finish the handshake is cut off after 5, and this asker never does."""


class EchoProbe:
    """Context manager that asks on the controller's unix socket until it ends; `delays` are in milliseconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.delays: list[float] = []
        self.fault = ""

    def __enter__(self) -> EchoProbe:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def longest(self) -> float:
        """The longest delay so far."""
        return max(self.delays, default=0.0)

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                self._ask()
            except OSError as error:
                self.fault = str(error)
                # Its socket is not there yet, or it is being started again.
                self._ending.wait(PACE_SECONDS)

    def _ask(self) -> None:
        end = time.monotonic() + LONGEST_CONNECTION
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(PATIENCE_SECONDS)
            peer.connect(str(self._path))
            peer.sendall(HEADER.pack(VERSION, HELLO, HEADER.size, 1))
            with peer.makefile("rb") as stream:
                number = 1
                while not self._ending.wait(PACE_SECONDS) and time.monotonic() < end:
                    number += 1
                    start = time.perf_counter()
                    peer.sendall(HEADER.pack(VERSION, ECHO_REQUEST, HEADER.size, number))
                    _await_reply(stream, number)
                    self.delays.append((time.perf_counter() - start) * 1000)


def _await_reply(stream: object, number: int) -> None:
    """Reads until the reply of this number. Raises ConnectionError when the connection ends before."""
    read = stream.read  # type: ignore[attr-defined]
    while True:
        head = read(HEADER.size)
        if len(head) < HEADER.size:
            raise ConnectionError("the controller hung up")
        _, kind, length, xid = HEADER.unpack(head)
        read(length - HEADER.size)
        if kind == ECHO_REPLY and xid == number:
            return
