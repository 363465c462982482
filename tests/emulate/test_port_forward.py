"""Connections to a port on loopback here reach a port on loopback in another network namespace."""

from __future__ import annotations

import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from romana_ovs.model.errors import SetupError
from romana_ovs_emulate.port_forward import PortForward
from romana_ovs_emulate.system import in_netns
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.root


@pytest.fixture
def netns() -> Iterator[str]:
    """A network namespace with its loopback up."""
    name = f"forward-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def test_both_directions_and_their_ends_pass(netns: str) -> None:
    listeners: list[socket.socket] = []
    in_netns(netns, lambda: listeners.append(socket.create_server(("127.0.0.1", 0))))
    (listener,) = listeners
    forward = PortForward(netns, listener.getsockname()[1])
    port = forward.start()

    def answer() -> None:
        peer, _ = listener.accept()
        with peer, peer.makefile("rwb") as stream:
            stream.write(b"got " + stream.read())

    thread = threading.Thread(target=answer)
    thread.start()
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b"got hello"
    thread.join()
    listener.close()
    forward.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def test_nobody_listens_there(netns: str) -> None:
    forward = PortForward(netns, 9)
    with socket.create_connection(("127.0.0.1", forward.start()), timeout=PATIENCE) as client:
        assert client.recv(1) == b""
    forward.close()


def test_a_missing_namespace_is_an_error() -> None:
    forward = PortForward("nowhere", 9)
    with pytest.raises(SetupError, match="nowhere cannot be entered: No such file"):
        forward.start()
    forward.close()
