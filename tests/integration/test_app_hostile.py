"""Whoever reaches the listener cannot hang, grow or end the controller (docs/hazards.md D12)."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controller_process import Controller
from tests.support.manifests import TWO_NODES, placed_pod
from tests.support.private_ovs import Ovs, needs_ovs
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, needs_ovs]

HELLO = bytes.fromhex("0600000800000001")
FEATURES = struct.pack("!BBHIQIBB2xII", 6, 6, 32, 2, 0xABCDEF, 0, 254, 0, 0, 0)


def _message(kind: int, body: bytes, version: int = 6) -> bytes:
    return struct.pack("!BBHI", version, kind, 8 + len(body), 7) + body


FEATURES_REQUEST, MULTIPART_REQUEST, ECHO_REPLY = 5, 18, 3
ECHO_REQUEST = _message(2, b"behind it")
PORTS = _message(19, struct.pack("!HH4x", 13, 0))
BEFORE_HANDSHAKE = {
    "a hello element of length zero": bytes.fromhex("0600001000000001") + bytes.fromhex("0001000000000000"),
    "an endless hello": bytes.fromhex("0600ffff00000001") + bytes(100),
    "a message of length zero": bytes.fromhex("0600000000000001"),
    "nonsense": b"GET / HTTP/1.1\r\n\r\n",
    "features of OpenFlow 1.0 at once": bytes.fromhex("0106000800000001") + bytes(24),
}
AFTER_HELLO = {
    "a port property of length zero": FEATURES
    + _message(19, struct.pack("!HH4x", 13, 0) + struct.pack("!IH2x6s2x16sII", 1, 48, bytes(6), b"p", 0, 0) + bytes(8)),
    "a port of length zero": FEATURES + _message(19, struct.pack("!HH4x", 13, 0) + bytes(48)),
    "a multipart reply without body": FEATURES + _message(19, b"\0\1"),
    "a flow of length zero": FEATURES + PORTS + _message(19, struct.pack("!HH4x", 1, 0) + bytes(64)),
    "a bucket of length zero": FEATURES
    + PORTS
    + _message(19, struct.pack("!HH4x", 7, 0) + struct.pack("!HBxI", 16, 0, 1) + bytes(8)),
    "a packet-in with an impossible match": FEATURES + PORTS + _message(10, bytes(16) + b"\0\1\0\0" + bytes(40)),
    "an error without content": FEATURES + PORTS + _message(1, b""),
}


NEVER_PARSED = ("a bucket of length zero", "a packet-in with an impossible match", "a flow of length zero")
"""Nobody asked for these, so they are passed over; the connection may stay."""


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Ovs, Controller]]:
    with Ovs() as ovs, Controller((ovs.remote,)) as controller:
        controller.write("pods.yaml", TWO_NODES + placed_pod("x"))
        controller.start()
        ovs.bridge("br-int", node="node1", controller=controller.openflow)
        ovs.port("br-int", "px", iface_id="a/x", ofport=1)
        controller.until(lambda state: state["pods"]["a/x"]["port"] == 1, "the port is known")
        controller.settled()
        yield ovs, controller


def _memory(controller: Controller) -> int:
    assert controller.process is not None
    status = Path(f"/proc/{controller.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def _connect(controller: Controller) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(8)
    connection.connect(controller.openflow)
    return connection


def _until_closed(connection: socket.socket) -> float:
    start = time.monotonic()
    try:
        while connection.recv(4096):
            continue
    except ConnectionResetError:
        pass
    return time.monotonic() - start


class _Heard:
    """What the controller says, message by message."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def until(self, kind: int) -> bool:
        """True once a message of this kind has come, False when the controller hangs up before."""
        while True:
            while len(self._data) >= 8 and len(self._data) >= int.from_bytes(self._data[2:4], "big"):
                found, self._data = self._data[1], self._data[int.from_bytes(self._data[2:4], "big") :]
                if found == kind:
                    return True
            try:
                more = self._connection.recv(4096)
            except ConnectionResetError:
                more = b""
            if not more:
                return False
            self._data += more


def _alive(controller: Controller, port: int) -> None:
    """The controller still does its work, at once."""
    name = f"alive{port}"
    start = time.monotonic()
    controller.after_change(lambda: controller.write(f"{name}.yaml", placed_pod(name)))
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("what", BEFORE_HANDSHAKE)
def test_before_the_handshake(running: tuple[Ovs, Controller], what: str) -> None:
    _, controller = running
    before = _memory(controller)
    connection = _connect(controller)
    connection.sendall(BEFORE_HANDSHAKE[what])
    assert _until_closed(connection) < 1
    connection.close()
    _alive(controller, list(BEFORE_HANDSHAKE).index(what))
    assert _memory(controller) - before < 20_000


@pytest.mark.parametrize("what", AFTER_HELLO)
def test_after_the_hello(running: tuple[Ovs, Controller], what: str) -> None:
    _, controller = running
    before = _memory(controller)
    connection = _connect(controller)
    heard = _Heard(connection)
    connection.sendall(HELLO)
    assert heard.until(FEATURES_REQUEST)
    connection.sendall(AFTER_HELLO[what][: len(FEATURES)])
    assert heard.until(MULTIPART_REQUEST)
    # In one piece: after the first of them the controller may hang up at any moment.
    connection.sendall(AFTER_HELLO[what][len(FEATURES) :] + ECHO_REQUEST)
    # Messages are taken in their order: who answers the last one has passed over what came before it.
    assert heard.until(ECHO_REPLY) == (what in NEVER_PARSED)
    connection.close()
    _alive(controller, 50 + list(AFTER_HELLO).index(what))
    assert _memory(controller) - before < 20_000


@pytest.mark.alone
def test_who_says_nothing_is_cut_off(running: tuple[Ovs, Controller]) -> None:
    _, controller = running
    silent = [_connect(controller) for _ in range(20)]
    start = time.monotonic()
    for connection in silent:
        _until_closed(connection)
        connection.close()
    assert 3 < time.monotonic() - start < 8


@pytest.mark.alone
def test_the_switch_was_never_disturbed(running: tuple[Ovs, Controller]) -> None:
    ovs, controller = running
    assert controller.log.count("connected") - controller.log.count("disconnected") >= 1
    eventually(lambda: controller.state["nodes"]["node1"]["connected"], "it is connected")
    connected = ovs.vsctl("get", "controller", "br-int", "is_connected").strip()
    assert connected == "true"
    assert "internal" not in "".join(controller.state["problems"])
