"""The process inside one emulated pod: takes requests as JSON lines, serves and asks.

Requests are `{"id": n, "op": ..., ...}`, answers `{"id": n, ...}` with `error` when one failed:
- `serve` `ports`: listen on exactly these (`["80/tcp", ...]`); answers `failed`, `{port: reason}`.
- `probe` `targets` (`[address, port, protocol, expected name]`), `seconds`: answers `results`, in order.
- `stream` `address`, `port`, `protocol`, `push`: opens a stream; `streams`: answers all; `hush`: ends all.
"""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

from romana_ovs_emulate.agent.loop import READ, Loop
from romana_ovs_emulate.agent.probes import Batch, Target
from romana_ovs_emulate.agent.servers import HttpServer, SctpEndpoint, UdpServer
from romana_ovs_emulate.agent.streams import Streams


class PodAgent:
    """Serves one pod until its control socket closes."""

    def __init__(self, name: str, control: socket.socket) -> None:
        """Raises OSError when raw sockets are not permitted."""
        self._name = name
        self._control = control
        self._loop = Loop()
        self._streams = Streams(self._loop)
        self._sctp = SctpEndpoint(self._loop, name)
        self._servers: dict[str, HttpServer | UdpServer] = {}
        self._rest = b""
        self._loop.watch(control, READ, self._read)

    def run(self) -> None:
        """Serve until the control socket closes."""
        self._loop.run()

    def _read(self) -> None:
        data = self._control.recv(1 << 20)
        if not data:
            self._loop.stop()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._handle(json.loads(line))

    def _handle(self, request: dict[str, Any]) -> None:
        number = request["id"]
        try:
            answer = self._answer(number, request)
        except (OSError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{request.get('op')}: {error}"}
        if answer is not None:
            self._send({"id": number, **answer})

    def _answer(self, number: int, request: dict[str, Any]) -> dict[str, object] | None:
        """The answer to a request, or None when it comes later."""
        operation = request["op"]
        if operation == "serve":
            return {"failed": self._serve(request["ports"])}
        if operation == "probe":
            targets = [Target(*target) for target in request["targets"]]
            Batch(
                self._loop,
                self._sctp,
                targets,
                seconds=request["seconds"],
                finished=lambda results: self._send({"id": number, "results": results}),
            )
            return None
        if operation == "stream":
            self._streams.open(request["address"], request["port"], request["protocol"], push=request["push"])
            return {}
        if operation == "streams":
            return {"streams": self._streams.report()}
        if operation == "hush":
            self._streams.close()
            return {}
        return {"error": f"unknown operation {operation}"}

    def _serve(self, ports: list[str]) -> dict[str, str]:
        """Listen on exactly `ports`; the reasons of those that could not be had."""
        for port in sorted(set(self._servers) - set(ports)):
            self._servers.pop(port).close()
        failed = {}
        self._sctp.ports = set()
        for port in ports:
            number, _, protocol = port.partition("/")
            try:
                if protocol == "sctp":
                    self._sctp.ports.add(int(number))
                elif port not in self._servers:
                    server = HttpServer if protocol == "tcp" else UdpServer
                    self._servers[port] = server(self._loop, self._streams, self._name, int(number))
            except OSError as error:
                failed[port] = str(error.strerror)
        return failed

    def _send(self, answer: dict[str, object]) -> None:
        """Answer; a vanished parent is noticed by `_read`."""
        self._control.setblocking(True)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(json.dumps(answer).encode() + b"\n")
