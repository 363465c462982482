"""Runs inside one emulated pod: serves ports, probes other pods and keeps streams open, on requests of its parent.

Requests are JSON lines `{"id": n, "op": ..., ...}`, answers `{"id": n, ...}`, with `error` when a request failed:
- `serve` `ports`: listen on exactly these (`["80/tcp", ...]`); answers `failed`, `{port: reason}`.
- `probe` `targets` (`[address, port, protocol, expected name]`), `seconds`: answers `results`, in order.
- `stream` `address`, `port`, `protocol`, `push`: opens a stream; `streams` answers all; `close_streams` ends all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Coroutine
from typing import Any

from romana_ovs_emulate.agent.probes import Target, probe_all
from romana_ovs_emulate.agent.servers import HttpServer, SctpEndpoint, UdpServer
from romana_ovs_emulate.agent.streams import Streams

REQUEST_BYTES = 1 << 26
"""The longest request: a probe of every port of thousands of pods is some megabytes."""


class PodAgent:
    """Serves one pod until its control socket closes."""

    def __init__(self, name: str, control: socket.socket) -> None:
        """Raises OSError when raw sockets are not permitted."""
        self._name = name
        self._control = control
        self._streams = Streams()
        self._sctp = SctpEndpoint(name)
        self._servers: dict[str, HttpServer | UdpServer] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the control socket closes. Requests may be answered out of order."""
        reader, writer = await asyncio.open_unix_connection(sock=self._control, limit=REQUEST_BYTES)
        self._sctp.start()
        while line := await reader.readline():
            request = json.loads(line)
            if request.get("op") == "probe":
                self._start(self._answer(request, writer))
            else:
                await self._answer(request, writer)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine concurrently, with a reference to its task: the event loop keeps none."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._handle(request)
        except (OSError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{request.get('op')}: {error}"}
        # When the parent has ended, `run` ends, too.
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps({"id": request["id"], **answer}).encode() + b"\n")
            await writer.drain()

    async def _handle(self, request: dict[str, Any]) -> dict[str, object]:
        operation = request["op"]
        if operation == "serve":
            return {"failed": self._serve(request["ports"])}
        if operation == "probe":
            targets = [Target(*target) for target in request["targets"]]
            return {"results": await probe_all(targets, self._sctp, seconds=request["seconds"])}
        if operation == "stream":
            self._streams.open(request["address"], request["port"], request["protocol"], push=request["push"])
            return {}
        if operation == "streams":
            return {"streams": self._streams.report()}
        if operation == "close_streams":
            self._streams.close()
            return {}
        return {"error": f"unknown operation {operation}"}

    def _serve(self, ports: list[str]) -> dict[str, str]:
        """Listen on exactly `ports`; the reasons of those that failed."""
        for port in sorted(set(self._servers) - set(ports)):
            self._servers.pop(port).close()
        failed = {}
        self._sctp.ports = {int(port.partition("/")[0]) for port in ports if port.endswith("/sctp")}
        for port in ports:
            number, _, protocol = port.partition("/")
            if protocol == "sctp" or port in self._servers:
                continue
            server = HttpServer if protocol == "tcp" else UdpServer
            try:
                self._servers[port] = server(self._name, int(number), self._streams)
            except OSError as error:
                failed[port] = str(error.strerror)
        return failed
