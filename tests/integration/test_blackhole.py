"""A network that swallows everything: the watch's connection looks open for ever, and nobody is there any more."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.kube.api import client
from romana_ovs.kube.api.client import Api
from romana_ovs.model.errors import TornError
from romana_ovs_emulate.system import inside, ip_batch
from tests.support.scripted_server import kubeconfig

SERVER = """
import socket, time
listener = socket.create_server(("198.51.100.2", 8001))
print("ready", flush=True)
connection, _ = listener.accept()
connection.recv(65536)
connection.sendall(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n4\\r\\none\\n\\r\\n")
time.sleep(60)
"""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A network namespace with 198.51.100.2, one link away."""
    name = f"hole{secrets.token_hex(3)}"
    try:
        ip_batch([f"netns add {name}", f"link add {name} type veth peer name far netns {name}"])
        ip_batch([f"addr add 198.51.100.1/30 dev {name}", f"link set {name} up"])
        ip_batch(["addr add 198.51.100.2/30 dev far", "link set far up"], netns=name)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=False)
        subprocess.run(["ip", "netns", "delete", name], check=False)


def test_a_peer_that_vanished_is_noticed_by_the_kernel(
    elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before a silent stream is given up; in half a minute, which is shortened here."""
    usual = {option: value for level, option, value in client._SOCKET_OPTIONS if level == socket.IPPROTO_TCP}
    probing = usual[socket.TCP_KEEPIDLE] + usual[socket.TCP_KEEPINTVL] * usual[socket.TCP_KEEPCNT]
    assert probing <= 30 and usual[socket.TCP_USER_TIMEOUT] <= 30_000
    short = {socket.TCP_KEEPIDLE: 1, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 2, socket.TCP_USER_TIMEOUT: 3000}
    options = [
        (level, option, short.get(option, value) if level == socket.IPPROTO_TCP else value)
        for level, option, value in client._SOCKET_OPTIONS
    ]
    monkeypatch.setattr(client, "_SOCKET_OPTIONS", options)
    server = subprocess.Popen(inside(elsewhere, [sys.executable, "-c", SERVER]), stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None and server.stdout.readline() == "ready\n"
        lines = Api(kubeconfig(tmp_path, "http://198.51.100.2:8001")).stream("/w", deadline=300)
        assert next(lines) == b"one"
        ip_batch(["link set far down"], netns=elsewhere)
        begin = time.monotonic()
        with pytest.raises(TornError, match="timed out"):
            next(lines)
        assert time.monotonic() - begin < 20
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
