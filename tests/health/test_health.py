"""Health endpoints answer what kubelet's HTTP probes ask."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from romana_ovs.health import HOST, HealthServer, response
from romana_ovs.model.errors import SetupError


def in_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, daemon=True).start()


@contextmanager
def free_port() -> Iterator[tuple[socket.socket, int]]:
    """A socket that is bound to a port, and the port."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        yield bound, bound.getsockname()[1]


@pytest.mark.parametrize(
    ("line", "reason", "status", "text"),
    [
        ("GET /livez HTTP/1.1", "why", 200, "ok"),
        ("GET /readyz HTTP/1.1", "", 200, "ok"),
        ("GET /readyz HTTP/1.1", "the bridge is missing", 503, "the bridge is missing"),
        ("GET /metrics HTTP/1.1", "", 404, "there are /livez and /readyz"),
        ("", "", 404, "there are /livez and /readyz"),
        ("\x00\xff", "", 404, "there are /livez and /readyz"),
    ],
)
def test_an_answer(line: str, reason: str, status: int, text: str) -> None:
    answer = response(f"{line}\r\nHost: {HOST}\r\n\r\n".encode(), lambda: reason).decode()
    head, body = answer.split("\r\n\r\n")
    assert head.split()[:2] == ["HTTP/1.1", str(status)]
    assert body == f"{text}\n"
    assert f"Content-Length: {len(body)}" in head.split("\r\n")


def test_a_client_that_is_silent_delays_nobody() -> None:
    with free_port() as (bound, port):
        bound.close()
        reasons = iter(["not yet", ""])
        server = HealthServer(port, lambda: next(reasons), in_thread)
        server.listen()
        in_thread(server.serve)
        with socket.create_connection((HOST, port)):
            statuses = []
            for path in ("/readyz", "/readyz", "/livez"):
                with closing(http.client.HTTPConnection(HOST, port, timeout=30)) as client:
                    client.request("GET", path)
                    statuses.append(client.getresponse().status)
        assert statuses == [503, 200, 200]


def test_a_port_in_use_is_one_sentence() -> None:
    with free_port() as (bound, port):
        bound.listen()
        with pytest.raises(SetupError, match=rf"^health port 127\.0\.0\.1:{port}: Address already in use$"):
            HealthServer(port, lambda: "", in_thread).listen()
