"""Questions of a pod to others, all at once: who answers on a port, and with which name?"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from romana_ovs_emulate.agent.loop import READ, WRITE, Loop
from romana_ovs_emulate.agent.servers import SctpEndpoint

RESEND_SECONDS = (0.0, 0.15, 0.4, 0.8)
"""When a question over UDP or SCTP is sent, in seconds from its start."""


class Target(NamedTuple):
    """Whom to ask: IPv4 address, port, protocol (`tcp`, `udp`, `sctp`), and the name that should answer."""

    address: str
    port: int
    protocol: str
    expected: str = ""


class _Probe:
    """One question; reports once, by `answered` (the name) or `failed`."""

    def __init__(self, loop: Loop, done: Callable[[], None]) -> None:
        self._loop = loop
        self._done = done
        self._begin = time.monotonic()
        self.name: str | None = None
        self.detail = "no answer"
        self.milliseconds = 0.0
        self.over = False

    def answered(self, name: str) -> None:
        """The other end said its name."""
        self.name = name
        self._end("")

    def failed(self, detail: str) -> None:
        """There will be no answer."""
        self._end(detail)

    def expire(self) -> None:
        """Time is over."""
        self._end(self.detail)

    def release(self) -> None:
        """Give back sockets; called once at the end."""

    def _end(self, detail: str) -> None:
        if not self.over:
            self.over = True
            self.detail = detail
            self.milliseconds = (time.monotonic() - self._begin) * 1000
            self.release()
            self._done()


class _TcpProbe(_Probe):
    """Connects and asks for `/`."""

    def __init__(self, loop: Loop, target: Target, done: Callable[[], None]) -> None:
        super().__init__(loop, done)
        self._host = target.address
        self._answer = b""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        code = self._socket.connect_ex((target.address, target.port))
        if code in (0, 115):
            loop.watch(self._socket, WRITE, self._connected)
        else:
            loop.later(0, lambda: self.failed(os.strerror(code)))

    def release(self) -> None:
        self._loop.forget(self._socket)
        self._socket.close()

    def _connected(self) -> None:
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.failed(os.strerror(code))
            return
        self.detail = "connected, but no answer"
        try:
            self._socket.send(f"GET / HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode())
        except OSError as error:
            self.failed(str(error))
            return
        self._loop.watch(self._socket, READ, self._read)

    def _read(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(str(error))
            return
        self._answer += data
        if not data:
            head, _, body = self._answer.partition(b"\r\n\r\n")
            if b" 200 " in head.split(b"\r\n")[0]:
                self.answered(body.decode(errors="replace").strip())
            else:
                self.failed("the answer is not HTTP 200")


class _UdpProbe(_Probe):
    """Sends a datagram that nobody else knows, a few times, until it comes back with a name."""

    def __init__(self, loop: Loop, target: Target, done: Callable[[], None]) -> None:
        super().__init__(loop, done)
        self._question = os.urandom(8).hex().encode()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect((target.address, target.port))
        loop.watch(self._socket, READ, self._read)
        self._timers = [loop.later(seconds, self._send) for seconds in RESEND_SECONDS]

    def release(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._loop.forget(self._socket)
        self._socket.close()

    def _send(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(self._question)

    def _read(self) -> None:
        try:
            question, _, name = self._socket.recv(65535).partition(b" ")
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(str(error))
            return
        if question == self._question:
            self.answered(name.decode(errors="replace"))


class _SctpProbe(_Probe):
    """Sends an INIT a few times, until an INIT ACK comes."""

    def __init__(self, loop: Loop, endpoint: SctpEndpoint, target: Target, done: Callable[[], None]) -> None:
        super().__init__(loop, done)
        self._endpoint = endpoint
        send = endpoint.ask(target.address, target.port, self.answered)
        self._timers = [loop.later(seconds, send) for seconds in RESEND_SECONDS]

    def release(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._endpoint.ignore(self.answered)


class Batch:
    """All questions of one request, asked in parallel; `finished` gets one result for each, in order."""

    def __init__(
        self,
        loop: Loop,
        endpoint: SctpEndpoint,
        targets: Sequence[Target],
        *,
        seconds: float,
        finished: Callable[[list[dict[str, object]]], None],
    ) -> None:
        self._targets = targets
        self._finished = finished
        self._left = len(targets)
        self._probes: list[_Probe] = []
        self._limit = loop.later(seconds, self._expire)
        for target in targets:
            self._probes.append(self._start(loop, endpoint, target))
        if not targets:
            self._limit.cancel()
            finished([])

    def _start(self, loop: Loop, endpoint: SctpEndpoint, target: Target) -> _Probe:
        if target.protocol == "tcp":
            return _TcpProbe(loop, target, self._one_done)
        if target.protocol == "udp":
            return _UdpProbe(loop, target, self._one_done)
        return _SctpProbe(loop, endpoint, target, self._one_done)

    def _expire(self) -> None:
        for probe in self._probes:
            probe.expire()

    def _one_done(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._limit.cancel()
            self._finished([_result(target, probe) for target, probe in zip(self._targets, self._probes, strict=True)])


def _result(target: Target, probe: _Probe) -> dict[str, object]:
    right = probe.name is not None and target.expected in ("", probe.name)
    detail = probe.detail if probe.name is None or right else f"{probe.name} answered instead of {target.expected}"
    return {"open": right, "name": probe.name, "milliseconds": round(probe.milliseconds, 1), "detail": detail}
