"""Probes other pods, all at once: which pod answers on a port?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from romana_ovs_emulate.agent.servers import SctpEndpoint

RESEND_SECONDS = (0.15, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8)
"""When a request over UDP or SCTP is sent again, in seconds from its start: a slow machine's datapath may drop by an
earlier verdict for seconds. TCP sends its SYN again for as long."""
READ_BYTES = 65536


class Target(NamedTuple):
    """What to probe: IPv4 address, port, protocol (`tcp`, `udp`, `sctp`), and the name that should answer."""

    address: str
    port: int
    protocol: str
    expected: str = ""


class Result:
    """The result of a probe so far: the name that answered, or why none has."""

    __slots__ = ("name", "detail", "milliseconds")

    def __init__(self) -> None:
        self.name: str | None = None
        self.detail = "no answer"
        self.milliseconds = 0.0

    def report(self, expected: str) -> dict[str, object]:
        """As JSON values: open when the expected pod (empty: any) answered."""
        name, detail = self.name, self.detail
        matches = name is not None and expected in ("", name)
        if name is not None:
            detail = "" if matches else f"{name} answered instead of {expected}"
        return {"open": matches, "name": name, "milliseconds": round(self.milliseconds, 1), "detail": detail}


async def probe_all(targets: Sequence[Target], sctp: SctpEndpoint, *, seconds: float) -> list[dict[str, object]]:
    """One result for each target, in order; they are probed in parallel, for at most `seconds`."""
    if not targets:
        return []
    results = [Result() for _ in targets]
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(_probe(*each, sctp)) for each in zip(targets, results, strict=True)]
    _, late = await asyncio.wait(tasks, timeout=seconds)
    if late:
        for task in late:
            task.cancel()
        await asyncio.wait(late)
    return [result.report(target.expected) for target, result in zip(targets, results, strict=True)]


async def _probe(target: Target, result: Result, sctp: SctpEndpoint) -> None:
    began = time.monotonic()
    try:
        if target.protocol == "tcp":
            await _probe_tcp(target, result)
        elif target.protocol == "udp":
            result.name = await _probe_udp(target)
        else:
            result.name = await _probe_sctp(target, sctp)
    except OSError as error:
        result.detail = os.strerror(error.errno) if error.errno else str(error)
    finally:
        result.milliseconds = (time.monotonic() - began) * 1000


async def _probe_tcp(target: Target, result: Result) -> None:
    """Connect and send `GET /`; the answer's body is the name. Raises OSError."""
    loop = asyncio.get_running_loop()
    request = f"GET / HTTP/1.1\r\nHost: {target.address}\r\nConnection: close\r\n\r\n"
    with _socket(socket.SOCK_STREAM) as sock:
        await loop.sock_connect(sock, (target.address, target.port))
        result.detail = "connected, but no answer"
        await loop.sock_sendall(sock, request.encode())
        answer = b""
        while data := await loop.sock_recv(sock, READ_BYTES):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " in head.split(b"\r\n")[0]:
        result.name = body.decode(errors="replace").strip()
    else:
        result.detail = "the answer is not HTTP 200"


async def _probe_udp(target: Target) -> str:
    """The name that comes back with a random datagram, which is sent a few times. Raises OSError."""
    loop = asyncio.get_running_loop()
    request = os.urandom(8).hex().encode()
    with _socket(socket.SOCK_DGRAM) as sock:
        sock.connect((target.address, target.port))
        with _sending(lambda: sock.send(request)):
            while True:
                echo, _, name = (await loop.sock_recv(sock, READ_BYTES)).partition(b" ")
                if echo == request:
                    return name.decode(errors="replace")


async def _probe_sctp(target: Target, endpoint: SctpEndpoint) -> str:
    """The name in the INIT ACK that answers an INIT, which is sent a few times."""
    with endpoint.initiating(target.address, target.port) as association, _sending(association.send):
        return await association.name


def _socket(kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def _sending(send: Callable[[], object]) -> Iterator[None]:
    """Send now, and again at RESEND_SECONDS; an error of `send` counts as a lost packet."""

    def attempt() -> None:
        with contextlib.suppress(OSError):
            send()

    loop = asyncio.get_running_loop()
    attempt()
    timers = [loop.call_later(seconds, attempt) for seconds in RESEND_SECONDS]
    try:
        yield
    finally:
        for timer in timers:
            timer.cancel()
