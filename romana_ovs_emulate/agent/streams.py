"""Connections that stay open and push in both directions, to see when a permission stops.

Each end sends a small piece every `PUSH_SECONDS` and notes when it last received something. Times are
CLOCK_MONOTONIC seconds, the same for every process of the machine.
"""

from __future__ import annotations

import contextlib
import socket
import time

from romana_ovs_emulate.agent.loop import READ, WRITE, Loop

PUSH_SECONDS = 0.02
PIECE = b"x" * 16
STREAM = b"romana-stream"
UDP_SERVER_SECONDS = 60.0
"""How long a UDP server goes on pushing to a client that says nothing, in seconds."""


class Stream:
    """One end of a stream: what it received, and when last."""

    def __init__(self, role: str, protocol: str, peer: str) -> None:
        self.role = role
        self.protocol = protocol
        self.peer = peer
        self.received = 0
        self.last = 0.0
        self.error = ""

    def arrived(self, count: int) -> None:
        """Note that `count` bytes came in now."""
        self.received += count
        self.last = time.monotonic()

    def report(self) -> dict[str, object]:
        """Its state as JSON values: bytes received, and seconds of CLOCK_MONOTONIC of the last (0: none yet)."""
        return {
            "role": self.role,
            "protocol": self.protocol,
            "peer": self.peer,
            "received": self.received,
            "last": self.last,
            "error": self.error,
        }


class _TcpEnd(Stream):
    """An end of a TCP stream; `hello` goes out once it is connected."""

    def __init__(
        self, loop: Loop, connection: socket.socket, *, role: str, peer: str, hello: bytes, push: bool
    ) -> None:
        super().__init__(role, "tcp", peer)
        self._loop = loop
        self._connection = connection
        self._hello = hello
        self._push = push
        self._open = True
        loop.watch(connection, WRITE, self._connected)

    def close(self) -> None:
        """Push and read no more."""
        if self._open:
            self._open = False
            self._loop.forget(self._connection)
            self._connection.close()

    def _fail(self, error: OSError | None) -> None:
        self.error = str(error) if error else "closed by the other end"
        self.close()

    def _connected(self) -> None:
        code = self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._fail(OSError(code, "cannot connect"))
            return
        self._loop.watch(self._connection, READ, self._read)
        self._write(self._hello)
        if self._push:
            self._tick()

    def _tick(self) -> None:
        if self._open:
            self._write(PIECE)
            self._loop.later(PUSH_SECONDS, self._tick)

    def _write(self, data: bytes) -> None:
        try:
            self._connection.send(data)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            data = self._connection.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        if data:
            self.arrived(len(data))
        else:
            self._fail(None)


class _UdpClient(Stream):
    """The client's end of a UDP stream; without `push` it sends only its first datagrams, until answered."""

    def __init__(self, loop: Loop, address: str, port: int, *, push: bool) -> None:
        super().__init__("client", "udp", f"{address}:{port}")
        self._loop = loop
        self._push = push
        self._open = True
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((address, port))
        loop.watch(self._socket, READ, self._read)
        self._tick()

    def close(self) -> None:
        """Push and read no more."""
        if self._open:
            self._open = False
            self._loop.forget(self._socket)
            self._socket.close()

    def _tick(self) -> None:
        if self._open and (self._push or not self.received):
            with contextlib.suppress(OSError):
                self._socket.send(STREAM)
            self._loop.later(PUSH_SECONDS, self._tick)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.arrived(len(self._socket.recv(65535)))


class _UdpServerEnd(Stream):
    """A push from a UDP server to one client."""

    def __init__(self, loop: Loop, sock: socket.socket, client: tuple[str, int]) -> None:
        super().__init__("server", "udp", f"{client[0]}:{client[1]}")
        self._loop = loop
        self.socket = sock
        self._client = client
        self._open = True
        self._until = time.monotonic() + UDP_SERVER_SECONDS
        self._tick()

    def arrived(self, count: int) -> None:
        """Note that the client said something; it is worth pushing to for another while."""
        super().arrived(count)
        self._until = self.last + UDP_SERVER_SECONDS

    def close(self) -> None:
        """Push no more."""
        self._open = False

    def _tick(self) -> None:
        if self._open and time.monotonic() < self._until:
            with contextlib.suppress(OSError):
                self.socket.sendto(PIECE, self._client)
            self._loop.later(PUSH_SECONDS, self._tick)


class Streams:
    """All streams that end in a pod."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._streams: list[_TcpEnd | _UdpClient | _UdpServerEnd] = []

    def open(self, address: str, port: int, protocol: str, *, push: bool) -> None:
        """Open a stream to a server; with `push` this end sends too. Raises OSError."""
        if protocol == "udp":
            self._streams.append(_UdpClient(self._loop, address, port, push=push))
            return
        connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        connection.setblocking(False)
        connection.connect_ex((address, port))
        hello = f"GET /stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        peer = f"{address}:{port}"
        self._streams.append(_TcpEnd(self._loop, connection, role="client", peer=peer, hello=hello, push=push))

    def serve_tcp(self, connection: socket.socket) -> None:
        """Push on an accepted connection."""
        peer = "{}:{}".format(*connection.getpeername()[:2])
        hello = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
        self._streams.append(_TcpEnd(self._loop, connection, role="server", peer=peer, hello=hello, push=True))

    def serve_udp(self, sock: socket.socket, client: tuple[str, int], count: int) -> None:
        """Push to a client that asked for it; a further question only counts as received."""
        peer = f"{client[0]}:{client[1]}"
        for stream in self._streams:
            if isinstance(stream, _UdpServerEnd) and stream.peer == peer and stream.socket is sock:
                stream.arrived(count)
                return
        end = _UdpServerEnd(self._loop, sock, client)
        end.arrived(count)
        self._streams.append(end)

    def drop_udp(self, sock: socket.socket) -> None:
        """End the pushes of a UDP server that stops."""
        for stream in self._streams:
            if isinstance(stream, _UdpServerEnd) and stream.socket is sock:
                stream.close()

    def report(self) -> list[dict[str, object]]:
        """The state of every stream, oldest first."""
        return [stream.report() for stream in self._streams]

    def close(self) -> None:
        """End and forget all streams."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()
