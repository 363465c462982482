"""Traffic inside one emulated pod that keeps account of itself. A program: run in the pod's namespace, asked by lines.

Its one argument is a JSON list of tasks `{"kind", "address", "port"}`:
- `udp`: numbered datagrams to a server that echoes them; what is never answered is lost.
- `dense`: the same, a thousand a second.
- `connect`: a new TCP connection again and again, asking for `/`.
- `stream`: one TCP connection to `/stream`, both ends pushing.
- `sink`: counts datagrams that arrive at a UDP port.
A line on standard input asks for a report, one JSON line with a list in the order of the tasks; its end ends all.
`udp` and `connect` number what they begin: `next` is the number that comes next, `oldest` the first without an outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

SLOWNESS = max(1.0, float(os.environ.get("ROMANA_PATIENCE", "") or 1))
"""How many times as long as usual everything may take here."""
INTERVAL = 0.02 * SLOWNESS
"""Between two datagrams, pieces or connections, in seconds: a slow machine is asked for no more than it can serve."""
DENSE_INTERVAL = 0.001 * SLOWNESS
GRACE = 1.5
"""In seconds: a question is not counted as lost before one that was asked so much later is answered."""
LONGEST = GRACE * SLOWNESS
"""A question is counted as lost when it has had no answer for so long, in seconds, whatever is answered."""
CONNECT_SECONDS = 0.95 * SLOWNESS
"""A connection takes less, unless its first packet was lost: that is sent again after a second (RFC 6298)."""


class Udp(asyncio.DatagramProtocol):
    """Questions and answers; `lost` are the numbers without an answer."""

    def __init__(self, interval: float = INTERVAL) -> None:
        self.interval = interval
        self.asked: dict[int, float] = {}
        self.answered = 0
        self.newest = 0.0
        self.last = 0.0
        self.next = 0

    def datagram_received(self, data: bytes, addr: object) -> None:
        if (asked := self.asked.pop(int(data.split()[0]), None)) is not None:
            self.answered += 1
            self.newest = max(self.newest, asked)
            self.last = time.monotonic()

    def error_received(self, exc: Exception) -> None:
        """An ICMP error: the datagram is not answered."""

    async def run(self, address: str, port: int) -> None:
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self, remote_addr=(address, port)
        )
        while True:
            self.asked[self.next] = time.monotonic()
            transport.sendto(b"%d " % self.next)
            self.next += 1
            await asyncio.sleep(self.interval)

    def report(self) -> dict[str, object]:
        due = max(self.newest - GRACE, time.monotonic() - LONGEST)
        lost = [number for number, when in self.asked.items() if when < due]
        oldest = min((number for number, when in self.asked.items() if when >= due), default=self.next)
        settled = self.next - len(self.asked)
        return {
            "good": self.answered,
            "lost": lost,
            "last": self.last,
            "settled": settled,
            "next": self.next,
            "oldest": oldest,
        }


class Connect:
    """New connections, one after the other, each with its own deadline."""

    def __init__(self) -> None:
        self.good = 0
        self.failed: list[str] = []
        self.last = 0.0
        self.next = 0
        self.pending: dict[int, asyncio.Task[None]] = {}

    async def run(self, address: str, port: int) -> None:
        while True:
            task = self.pending[self.next] = asyncio.create_task(self._one(address, port))
            task.add_done_callback(functools.partial(self._ended, self.next))
            self.next += 1
            await asyncio.sleep(INTERVAL)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self.pending[number]

    async def _one(self, address: str, port: int) -> None:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), CONNECT_SECONDS)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await asyncio.wait_for(reader.read(), CONNECT_SECONDS)
            writer.close()
        except (OSError, TimeoutError) as error:
            self.failed.append(f"{time.monotonic():.3f} {error!r}")
            return
        if b" 200 " in answer:
            self.good += 1
            self.last = time.monotonic()
        else:
            self.failed.append(repr(answer))

    def report(self) -> dict[str, object]:
        oldest = min(self.pending, default=self.next)
        return {"good": self.good, "lost": self.failed, "last": self.last, "next": self.next, "oldest": oldest}


class Stream:
    """One connection on which both ends push; `lost` says how it ended, if it did."""

    def __init__(self) -> None:
        self.received = 0
        self.last = 0.0
        self.gap = 0.0
        self.ended: list[str] = []

    async def run(self, address: str, port: int) -> None:
        try:
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            pushing = asyncio.create_task(self._push(writer))
            while data := await reader.read(65536):
                now = time.monotonic()
                self.gap = max(self.gap, now - self.last) if self.last else 0.0
                self.received += len(data)
                self.last = now
            pushing.cancel()
            self.ended.append("closed by the other end")
        except OSError as error:
            self.ended.append(repr(error))

    async def _push(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(INTERVAL)

    def report(self) -> dict[str, object]:
        gap, self.gap = max(self.gap, time.monotonic() - self.last), 0.0
        return {"good": self.received, "lost": self.ended, "last": self.last, "gap": gap}


class Sink(asyncio.DatagramProtocol):
    """Counts what arrives, and answers nothing."""

    def __init__(self) -> None:
        self.received = 0
        self.last = 0.0

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.received += 1
        self.last = time.monotonic()

    async def run(self, address: str, port: int) -> None:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, local_addr=(address, port))

    def report(self) -> dict[str, object]:
        return {"good": self.received, "lost": [], "last": self.last}


KINDS: dict[str, Callable[[], Any]] = {
    "udp": Udp,
    "dense": functools.partial(Udp, DENSE_INTERVAL),
    "connect": Connect,
    "stream": Stream,
    "sink": Sink,
}


async def main(tasks: list[dict[str, Any]]) -> None:
    """Do the tasks and answer lines until standard input ends."""
    doing = [KINDS[str(task["kind"])]() for task in tasks]
    running = [
        asyncio.create_task(each.run(task["address"], task["port"])) for each, task in zip(doing, tasks, strict=True)
    ]
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        print(json.dumps([each.report() for each in doing]), flush=True)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
