"""Keeps connections open and pushes data in both directions, to see when a permission ends.

Each end sends a small piece every `PUSH_SECONDS` and records when it last received data. Times are
CLOCK_MONOTONIC seconds, the same for every process of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Coroutine

PUSH_SECONDS = 0.02
PIECE = b"x" * 16
STREAM = b"romana-stream"
UDP_SERVER_SECONDS = 60.0
"""How long a UDP server goes on pushing to a client that sends nothing, in seconds."""
READ_BYTES = 65536


class Stream:
    """One end of a stream: what it received, and when last."""

    def __init__(self, role: str, protocol: str, peer: str, sock: socket.socket | None = None) -> None:
        """`sock` is the UDP server's socket that the stream shares with others."""
        self.role = role
        self.protocol = protocol
        self.peer = peer
        self.socket = sock
        self.received = 0
        self.last = 0.0
        self.error = ""
        self._task: asyncio.Task[None] | None = None

    def start(self, work: Coroutine[None, None, None]) -> None:
        """Run the coroutine that reads and writes this end, until `close`."""
        self._task = asyncio.get_running_loop().create_task(work)

    def close(self) -> None:
        """Stop pushing and reading."""
        if self._task is not None:
            self._task.cancel()

    def on_received(self, count: int) -> None:
        """Record that `count` bytes were received now."""
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


class Streams:
    """All streams that end in a pod."""

    def __init__(self) -> None:
        self._streams: list[Stream] = []

    def open(self, address: str, port: int, protocol: str, *, push: bool) -> None:
        """Open a stream to a server; with `push` this end sends too. Raises OSError."""
        stream = self._add(Stream("client", protocol, f"{address}:{port}"))
        if protocol == "udp":
            stream.start(_udp_client(stream, address, port, push=push))
        else:
            stream.start(_tcp_client(stream, address, port, push=push))

    async def serve_tcp(self, connection: socket.socket) -> None:
        """Push on an accepted connection. Raises OSError."""
        stream = self._add(Stream("server", "tcp", "{}:{}".format(*connection.getpeername()[:2])))
        loop = asyncio.get_running_loop()
        transport, end = await loop.connect_accepted_socket(lambda: _TcpEnd(stream), connection)
        hello = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n"
        stream.start(end.run(transport, hello, push=True))

    def serve_udp(self, sock: socket.socket, client: tuple[str, int], count: int) -> None:
        """Push to a client that asked for it; a further request only counts as received."""
        peer = f"{client[0]}:{client[1]}"
        stream = next((one for one in self._streams if one.socket is sock and one.peer == peer), None)
        if stream is None:
            stream = self._add(Stream("server", "udp", peer, sock))
            stream.start(_udp_server_end(stream, sock, client))
        stream.on_received(count)

    def drop_udp(self, sock: socket.socket) -> None:
        """End the pushes of a UDP server that stops."""
        for stream in self._streams:
            if stream.socket is sock:
                stream.close()

    def report(self) -> list[dict[str, object]]:
        """The state of every stream, oldest first."""
        return [stream.report() for stream in self._streams]

    def close(self) -> None:
        """End and forget all streams."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()

    def _add(self, stream: Stream) -> Stream:
        self._streams.append(stream)
        return stream


class _TcpEnd(asyncio.Protocol):
    """One end of a TCP stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._stream.on_received(len(data))

    def connection_lost(self, error: Exception | None) -> None:
        self._stream.error = str(error or "closed by the other end")
        if not self._lost.done():
            self._lost.set_result(None)

    async def run(self, transport: asyncio.WriteTransport, hello: bytes, *, push: bool) -> None:
        """Send `hello`, then push, until the connection is lost or this task cancelled."""
        try:
            transport.write(hello)
            while push and not self._lost.done():
                transport.write(PIECE)
                await asyncio.sleep(PUSH_SECONDS)
            await self._lost
        finally:
            transport.abort()  # unsent data may never be delivered: the path may be closed


async def _tcp_client(stream: Stream, address: str, port: int, *, push: bool) -> None:
    loop = asyncio.get_running_loop()
    try:
        transport, end = await loop.create_connection(lambda: _TcpEnd(stream), address, port)
    except OSError as error:
        stream.error = str(error)
        return
    await end.run(transport, f"GET /stream HTTP/1.1\r\nHost: {address}\r\n\r\n".encode(), push=push)


async def _udp_client(stream: Stream, address: str, port: int, *, push: bool) -> None:
    """Send and read until `close`; without `push` only the first datagrams are sent, until one is answered."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((address, port))
        pushing = loop.create_task(_push_udp(stream, sock, push=push))
        try:
            while True:
                with contextlib.suppress(OSError):
                    stream.on_received(len(await loop.sock_recv(sock, READ_BYTES)))
        finally:
            pushing.cancel()


async def _push_udp(stream: Stream, sock: socket.socket, *, push: bool) -> None:
    while push or not stream.received:
        with contextlib.suppress(OSError):
            sock.send(STREAM)
        await asyncio.sleep(PUSH_SECONDS)


async def _udp_server_end(stream: Stream, sock: socket.socket, client: tuple[str, int]) -> None:
    """Push from a UDP server to one client, until it has sent nothing for UDP_SERVER_SECONDS."""
    while time.monotonic() < stream.last + UDP_SERVER_SECONDS:
        with contextlib.suppress(OSError):
            sock.sendto(PIECE, client)
        await asyncio.sleep(PUSH_SECONDS)
