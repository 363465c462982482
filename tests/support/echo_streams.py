"""Exchanges messages over TCP, UDP and SCTP between two pods, and measures the longest gap. A program.

`serve PORT` echoes on every protocol that the kernel has, and prints them once it does. `stream PROTOCOL ADDRESS PORT`
sends one message after the other on one connection, each once the one before is answered; a datagram is given up after
50 ms. It prints a line once connected. After a line on standard input it prints a JSON object: its own `port`, the
number of `answers`, the longest `gap` between two in seconds, how long it has been `silent`, and the `error` that ended
it (or null).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time

TYPES = {"tcp": (socket.SOCK_STREAM, 6), "sctp": (socket.SOCK_STREAM, 132), "udp": (socket.SOCK_DGRAM, 17)}
INTERVAL = 0.01
"""Between an answer and the next message, in seconds."""
DATAGRAM_SECONDS = 0.05
"""How long an answer to a datagram is awaited."""
CONNECT_SECONDS = 10.0 * max(1.0, float(os.environ.get("ROMANA_PATIENCE", "") or 1))


def protocols() -> tuple[str, ...]:
    """Those of TCP, UDP and SCTP that this kernel has sockets of."""
    return tuple(name for name in ("tcp", "udp", "sctp") if _supported(name))


def _supported(protocol: str) -> bool:
    try:
        socket.socket(socket.AF_INET, *TYPES[protocol]).close()
    except OSError:
        return False
    return True


def serve(port: int) -> None:
    """Echo until standard input ends."""
    for protocol in protocols():
        server = socket.socket(socket.AF_INET, *TYPES[protocol])
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("", port))
        if protocol != "udp":
            server.listen(16)
        threading.Thread(target=_datagrams if protocol == "udp" else _accept, args=(server,), daemon=True).start()
    print(*protocols(), flush=True)
    sys.stdin.read()


def _datagrams(server: socket.socket) -> None:
    while True:
        server.sendto(*server.recvfrom(2000))


def _accept(server: socket.socket) -> None:
    while True:
        threading.Thread(target=_echo, args=(server.accept()[0],), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := connection.recv(2000):
            connection.send(data)


class Stream:
    """One connection, and what came of it."""

    def __init__(self, protocol: str, address: str, port: int) -> None:
        self._datagrams = protocol == "udp"
        self._socket = socket.socket(socket.AF_INET, *TYPES[protocol])
        self._socket.settimeout(CONNECT_SECONDS)
        self._socket.connect((address, port))
        self._socket.settimeout(DATAGRAM_SECONDS if self._datagrams else None)
        self._port = self._socket.getsockname()[1]
        self._last = time.monotonic()
        self._gap = 0.0
        self._answers = 0
        self._error: str | None = None

    def run(self) -> None:
        """Exchange messages until the connection ends."""
        while self._error is None:
            try:
                self._socket.send(b"x" * 50)
                if not self._socket.recv(1000):
                    self._error = "closed by the other end"
                self._gap, self._last = max(self._gap, time.monotonic() - self._last), time.monotonic()
                self._answers += 1
            except TimeoutError:
                continue
            except OSError as error:
                if not self._datagrams:
                    self._error = repr(error)
            time.sleep(INTERVAL)

    def report(self) -> dict[str, object]:
        """The figures since it was connected."""
        silent = time.monotonic() - self._last
        gap = max(self._gap, silent)
        return {"port": self._port, "answers": self._answers, "gap": gap, "silent": silent, "error": self._error}


def main(words: list[str]) -> None:
    """Run as the first word says."""
    if words[0] == "serve":
        serve(int(words[1]))
        return
    stream = Stream(words[1], words[2], int(words[3]))
    threading.Thread(target=stream.run, daemon=True).start()
    print("connected", flush=True)
    for _ in sys.stdin:
        print(json.dumps(stream.report()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
