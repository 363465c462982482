"""A server that does what it is told, byte by byte: what no real API server can be made to do on demand."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import yaml

from romana_ovs.kube.api.source import ApiSource

Step = Callable[["Exchange"], None]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Exchange:
    """One request and the connection that it came on."""

    request: Request
    connection: socket.socket
    open: bool = True

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.connection.sendall(data)

    def answer(self, status: int, body: object = None, **headers: object) -> None:
        """A complete answer; `body` as JSON, or as it is when it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(data)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + data)

    def begin(self) -> None:
        """The head of a stream."""
        self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        """One piece of a stream; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def hang_up(self) -> None:
        """Close the connection as it is."""
        self.open = False


@dataclass(slots=True)
class ScriptedServer:
    """Takes the next step for every request, without one the usual one. `requests` is what came so far."""

    port: int
    scheme: str
    steps: queue.Queue[Step] = field(default_factory=queue.Queue)
    requests: list[Request] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)
    usual: Step = lambda exchange: exchange.answer(503, {"kind": "Status", "message": "no step left"})

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def then(self, *steps: Step) -> None:
        """Do these for the next requests, in the order in which those come."""
        for step in steps:
            self.steps.put(step)

    def serve(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        """Never returns before `listener` is closed."""
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._talk, args=(connection, context), daemon=True).start()

    def _talk(self, connection: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            while (request := _read(connection)) is not None:
                self.requests.append(request)
                exchange = Exchange(request, connection)
                try:
                    step = self.steps.get_nowait()
                except queue.Empty:
                    step = self.usual
                step(exchange)
                if not exchange.open:
                    break
        except OSError:
            pass
        finally:
            connection.close()


@contextmanager
def scripted_server(
    context: ssl.SSLContext | None = None, *, port: int = 0, usual: Step | None = None
) -> Iterator[ScriptedServer]:
    """A running server on 127.0.0.1, of HTTPS with a `context`; all its connections are closed at the end."""
    listener = socket.create_server(("127.0.0.1", port))
    server = ScriptedServer(listener.getsockname()[1], "http" if context is None else "https")
    server.usual = usual or server.usual
    thread = threading.Thread(target=server.serve, args=(listener, context), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in server.connections:
            with suppress(OSError):  # many are closed already
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()


def _read(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body)


def kubeconfig(folder: Path, url: str, **user: object) -> ApiSource:
    """The credentials of a user at `url`, as a file."""
    path = folder / "config"
    content = {
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))
    return ApiSource(str(path))


def page(*names: str, version: str = "v10", rest: str = "") -> Step:
    """Answers a list with objects of these names; `rest` continues it."""
    items = [{"metadata": {"name": name, "uid": name, "resourceVersion": f"v-{name}"}} for name in names]
    return lambda exchange: exchange.answer(
        200, {"metadata": {"resourceVersion": version, "continue": rest}, "items": items}
    )


def refuse(status: int, **headers: object) -> Step:
    """Answers with an error of this HTTP status."""
    return lambda exchange: exchange.answer(status, {"kind": "Status", "message": "no"}, **headers)


def event(kind: str, name: str, version: str) -> bytes:
    """One line of a watch."""
    value = {"metadata": {"name": name, "uid": name, "resourceVersion": version}}
    return json.dumps({"type": kind, "object": value}).encode() + b"\n"


def watch(*lines: bytes, after: Callable[[Exchange], object] = lambda exchange: exchange.chunk(b"")) -> Step:
    """Begins a watch, sends these lines, then does `after`."""

    def step(exchange: Exchange) -> None:
        exchange.begin()
        for line in lines:
            exchange.chunk(line)
        after(exchange)

    return step


EXPIRED = b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n'
