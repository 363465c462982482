"""Serves a pod's ports; each answer contains the pod's name, so that a client knows which pod it reached.

TCP ports serve HTTP: `/` answers with the name, `/stream` keeps the connection open and pushes both ways. UDP ports
answer with the datagram, a space and the name; the datagram `STREAM` starts a push to its sender. SCTP ports answer an
INIT with an INIT ACK whose cookie is the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from romana_ovs_emulate.agent import sctp
from romana_ovs_emulate.agent.streams import STREAM, Streams

REQUEST_BYTES = 8192
IDLE_SECONDS = 10.0
"""How long a client may take to send its request, in seconds."""


class HttpServer:
    """An HTTP server on one TCP port. On bare sockets, as transports take twice the time."""

    def __init__(self, name: str, port: int, streams: Streams) -> None:
        """Listens at once. Raises OSError when the port is taken."""
        self._name = name
        self._streams = streams
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("0.0.0.0", port), backlog=512)
        self._listener.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        """Stop listening; open connections stay."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                task = self._loop.create_task(self._serve(connection))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        """Answer one request of a connection."""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(IDLE_SECONDS):
                path = await self._path(connection)
            if path == b"/stream":
                await self._streams.serve_tcp(connection)
                return
            if path is not None:
                await self._loop.sock_sendall(connection, self._answer(path))
        connection.close()

    async def _path(self, connection: socket.socket) -> bytes | None:
        """The path in the request, empty when it is not HTTP; None when the client closes. Raises OSError."""
        request = b""
        while b"\r\n\r\n" not in request:
            data = await self._loop.sock_recv(connection, REQUEST_BYTES)
            request += data
            if not data or len(request) > REQUEST_BYTES:
                return None
        words = request.split(b" ", 2)
        return words[1] if len(words) == 3 else b""

    def _answer(self, path: bytes) -> bytes:
        status, body = ("200 OK", f"{self._name}\n") if path == b"/" else ("404 Not Found", "no such page\n")
        fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
        return f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}".encode()


class UdpServer:
    """Answers datagrams on one UDP port."""

    def __init__(self, name: str, port: int, streams: Streams) -> None:
        """Answers at once. Raises OSError when the port is taken."""
        self._name = name.encode()
        self._streams = streams
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", port))
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def close(self) -> None:
        """Stop answering."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._streams.drop_udp(self._socket)
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(65535)
                if data.startswith(STREAM):
                    self._streams.serve_udp(self._socket, sender, len(data))
                else:
                    self._socket.sendto(data + b" " + self._name, sender)


@dataclass(frozen=True, slots=True)
class Association:
    """An association that is being opened: `send` sends the INIT, `name` is the name in the INIT ACK."""

    send: Callable[[], object]
    name: asyncio.Future[str]


class SctpEndpoint:
    """The raw socket for all SCTP of a pod: its open ports and its own probes."""

    def __init__(self, name: str) -> None:
        """Raises OSError when raw sockets are not permitted."""
        self.ports: set[int] = set()
        self._name = name.encode()
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, sctp.PROTOCOL)
        self._socket.setblocking(False)

    @contextlib.contextmanager
    def initiating(self, address: str, port: int) -> Iterator[Association]:
        """An association with a port; the INIT ACK is expected while the context lasts."""
        tag = int.from_bytes(os.urandom(4), "big") | 1
        source = 32768 + int.from_bytes(os.urandom(2), "big") % 28000
        packet = sctp.encode(sctp.Message(source, port, 0, sctp.INIT, tag))
        answered = self._waiting[tag] = asyncio.get_running_loop().create_future()
        try:
            yield Association(lambda: self._socket.sendto(packet, (address, 0)), answered)
        finally:
            del self._waiting[tag]

    def start(self) -> None:
        """Handle packets that arrive, from now on."""
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                datagram, (sender, _) = self._socket.recvfrom(65535)
                message = sctp.decode(sctp.payload(datagram))
                if message is not None:
                    self._handle(message, sender)

    def _handle(self, message: sctp.Message, sender: str) -> None:
        if message.kind == sctp.INIT and message.destination in self.ports:
            tag = int.from_bytes(os.urandom(4), "big") | 1
            answer = sctp.Message(message.destination, message.source, message.initiate, sctp.INIT_ACK, tag, self._name)
            self._socket.sendto(sctp.encode(answer), (sender, 0))
        elif message.kind == sctp.INIT_ACK and message.tag in self._waiting:
            answered = self._waiting[message.tag]
            if not answered.done():
                answered.set_result(message.cookie.decode(errors="replace"))
