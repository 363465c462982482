"""The servers of a pod: each answers with the pod's name, so that a client knows whom it reached.

TCP ports speak HTTP: `/` answers the name, `/stream` keeps the connection open and pushes both ways. UDP ports
answer the datagram followed by a space and the name; `STREAM` as datagram starts a push to its sender.
SCTP ports answer an INIT with an INIT ACK whose cookie is the name.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from romana_ovs_emulate.agent import sctp
from romana_ovs_emulate.agent.loop import READ, WRITE, Loop
from romana_ovs_emulate.agent.streams import STREAM, Streams

REQUEST_LIMIT = 8192
IDLE_SECONDS = 10.0


class HttpServer:
    """An HTTP server on one TCP port."""

    def __init__(self, loop: Loop, streams: Streams, name: str, port: int) -> None:
        """Listens at once; raises OSError when the port is taken."""
        self._loop = loop
        self._streams = streams
        self._name = name
        self._listener = socket.create_server(("0.0.0.0", port), backlog=512)
        self._listener.setblocking(False)
        loop.watch(self._listener, READ, self._accept)

    def close(self) -> None:
        """Listen no more; open connections live on."""
        self._loop.forget(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                HttpConnection(self._loop, self._streams, self._name, connection)


class HttpConnection:
    """One request and its answer."""

    def __init__(self, loop: Loop, streams: Streams, name: str, connection: socket.socket) -> None:
        self._loop = loop
        self._streams = streams
        self._name = name
        self._connection = connection
        self._request = b""
        self._answer = b""
        self._limit = loop.later(IDLE_SECONDS, self._close)
        loop.watch(connection, READ, self._read)

    def _read(self) -> None:
        try:
            data = self._connection.recv(REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._request += data
        if b"\r\n\r\n" in self._request:
            self._dispatch()
        elif not data or len(self._request) > REQUEST_LIMIT:
            self._close()

    def _dispatch(self) -> None:
        words = self._request.split(b" ", 2)
        path = words[1] if len(words) == 3 else b""
        if path == b"/stream":
            self._limit.cancel()
            self._streams.serve_tcp(self._connection)
            return
        status, body = ("200 OK", f"{self._name}\n") if path == b"/" else ("404 Not Found", "no such page\n")
        fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
        self._answer = f"HTTP/1.1 {status}\r\n{fields}\r\n\r\n{body}".encode()
        self._loop.watch(self._connection, WRITE, self._write)

    def _write(self) -> None:
        try:
            self._answer = self._answer[self._connection.send(self._answer) :]
        except BlockingIOError:
            return
        except OSError:
            self._answer = b""
        if not self._answer:
            self._close()

    def _close(self) -> None:
        self._limit.cancel()
        self._loop.forget(self._connection)
        self._connection.close()


class UdpServer:
    """Answers datagrams on one UDP port."""

    def __init__(self, loop: Loop, streams: Streams, name: str, port: int) -> None:
        """Serves at once; raises OSError when the port is taken."""
        self._loop = loop
        self._streams = streams
        self._name = name.encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("0.0.0.0", port))
        self._socket.setblocking(False)
        loop.watch(self._socket, READ, self._read)

    def close(self) -> None:
        """Answer no more."""
        self._loop.forget(self._socket)
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


class SctpEndpoint:
    """One raw socket for everything that is SCTP in a pod: its open ports and its own questions."""

    def __init__(self, loop: Loop, name: str) -> None:
        """Raises OSError when raw sockets are not permitted."""
        self.ports: set[int] = set()
        self._name = name.encode()
        self._waiting: dict[int, Callable[[str], None]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, sctp.PROTOCOL)
        self._socket.setblocking(False)
        loop.watch(self._socket, READ, self._read)

    def ask(self, address: str, port: int, answered: Callable[[str], None]) -> Callable[[], None]:
        """The function that sends (again) an INIT to a port; `answered` gets the name in the answer."""
        initiate = int.from_bytes(os.urandom(4), "big") | 1
        source = 32768 + int.from_bytes(os.urandom(2), "big") % 28000
        packet = sctp.encode(sctp.Message(source, port, 0, sctp.INIT, initiate))
        self._waiting[initiate] = answered

        def send() -> None:
            with contextlib.suppress(OSError):
                self._socket.sendto(packet, (address, 0))

        return send

    def ignore(self, answered: Callable[[str], None]) -> None:
        """Forget whoever waits with `answered`."""
        self._waiting = {tag: one for tag, one in self._waiting.items() if one != answered}

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
            self._waiting.pop(message.tag)(message.cookie.decode(errors="replace"))
