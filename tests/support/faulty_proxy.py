"""A proxy between a controller and a real API server that can be told to spoil what goes through it.

with faulty_proxy(plane) as proxy:
    controller asks proxy.url
    with proxy.inject(Fault(refuse(403))): ...
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.scripted_server import Exchange, Request, Step, scripted_server

SECONDS = 60.0
_PASSED_ON = ("authorization", "accept", "content-type", "user-agent")


@dataclass(frozen=True)
class Fault:
    """What becomes of what goes through: by default nothing but the end of all watches when it begins.

    `answer` is given to all requests, or with `watches_only` to those. `farewell` is the last that watches say that are
    under way. With `tears` they stay, and end in the middle of the next object; with `stalls` nothing goes on until it
    is over; with `refuses` nobody listens.
    """

    answer: Step | None = None
    watches_only: bool = False
    farewell: bytes = b""
    tears: bool = False
    stalls: bool = False
    refuses: bool = False


@dataclass
class FaultyProxy:
    """Made by `between`. `met` are the requests that came during the fault, answered or not."""

    plane: ControlPlane
    fault: Fault = field(default_factory=Fault)
    met: list[Request] = field(default_factory=list)
    _port: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _watches: set[socket.socket] = field(default_factory=set)
    _listening: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Listen, again too, at the same port."""
        self._over.set()
        self._port = self._listening.enter_context(scripted_server(port=self._port, usual=self._meet)).port

    def close(self) -> None:
        """Nobody listens, and all connections end."""
        self._over.set()
        self._end_watches()
        self._listening.close()

    @contextmanager
    def inject(self, fault: Fault) -> Iterator[None]:
        """The fault, for as long as this lasts."""
        self.met.clear()
        self._over.clear()
        self.fault = fault
        if fault.refuses:
            self.close()
        elif not (fault.tears or fault.stalls):
            self._end_watches()
        try:
            yield
        finally:
            self.fault = Fault()
            self._over.set()
            if fault.refuses:
                self.open()

    def _end_watches(self) -> None:
        for upstream in list(self._watches):
            with contextlib.suppress(OSError):
                upstream.shutdown(socket.SHUT_RDWR)

    def _meet(self, exchange: Exchange) -> None:
        fault, watches = self.fault, exchange.request.query.get("watch") == "true"
        if not self._over.is_set():
            self.met.append(exchange.request)
            if fault.stalls:
                self._over.wait(SECONDS)
            elif fault.answer is not None and (watches or not fault.watches_only):
                fault.answer(exchange)
                return
        with contextlib.closing(self._ask(exchange.request)) as upstream:
            answer = upstream.getresponse()
            if watches and answer.status == http.client.OK:
                self._watch(exchange, upstream.sock, answer)
            else:
                exchange.answer(answer.status, answer.read(), Content_Type=answer.headers["Content-Type"])

    def _ask(self, request: Request) -> http.client.HTTPSConnection:
        """The same request, to the API server."""
        place = urlsplit(self.plane.url)
        context = ssl.create_default_context(cafile=self.plane.authority)
        upstream = http.client.HTTPSConnection(str(place.hostname), place.port, context=context)
        headers = {name: value for name, value in request.headers.items() if name in _PASSED_ON}
        query = f"?{urlencode(request.query)}" if request.query else ""
        upstream.request(request.method, request.path + query, request.body or None, headers)
        return upstream

    def _watch(self, exchange: Exchange, upstream: socket.socket, answer: http.client.HTTPResponse) -> None:
        exchange.begin()
        self._watches.add(upstream)
        try:
            # A chunk is an event, and no event is longer than this here.
            with contextlib.suppress(OSError, http.client.HTTPException):
                while piece := answer.read1(1 << 20):
                    if self.fault.tears:
                        exchange.chunk(piece[: len(piece) // 2])
                        exchange.hang_up()
                        return
                    if self.fault.stalls:
                        self._over.wait(SECONDS)
                    exchange.chunk(piece)
            if self.fault.farewell:
                exchange.chunk(self.fault.farewell)
                exchange.chunk(b"")
            exchange.hang_up()
        finally:
            self._watches.discard(upstream)


@contextmanager
def faulty_proxy(plane: ControlPlane) -> Iterator[FaultyProxy]:
    """A running proxy to this API server."""
    proxy = FaultyProxy(plane)
    proxy.open()
    try:
        yield proxy
    finally:
        proxy.close()
