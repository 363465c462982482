"""Sockets, captures and small servers inside network namespaces, all of them held by the test's own process."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TypeVar

from romana_ovs.model.bridge import INGRESS_HOOK
from romana_ovs.switch.ethertypes import filter_hooks, filter_ports, unfilter_ports
from romana_ovs_emulate import system
from romana_ovs_emulate.netns import enter
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from romana_ovs_emulate.system import NETNS_FOLDER, inside
from tests.support.frames import checksum

ETH_P_ALL = 0x0003
OUTGOING = 4
"""The packet type of what the capturing side itself sends (packet(7))."""
BUFFER = 1 << 23
PATIENCE = patience(10.0)
ECHO_REQUEST, ECHO_ID = 8, 0x524F

T = TypeVar("T")


def within(netns: str, make: Callable[[], T]) -> T:
    """What `make` returns when it is called inside a network namespace; sockets stay in it."""
    made: list[T] = []
    failed: list[OSError] = []

    def work() -> None:
        try:
            enter(str(NETNS_FOLDER / netns))
            made.append(make())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def run(netns: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """The outcome of a command in a network namespace."""
    return subprocess.run(inside(netns, argv), capture_output=True, text=True, check=False, timeout=60)


@contextlib.contextmanager
def unfiltered(node: Node, port: str) -> Iterator[None]:
    """While frames of any ethertype come from a pod's port to its switch, which has to refuse them by itself."""
    hooks = system.in_netns(node.netns, lambda: filter_hooks([port]))
    assert hooks == {port: {INGRESS_HOOK[node.datapath]}}, "nothing drops them before"
    system.in_netns(node.netns, lambda: unfilter_ports([port]))
    try:
        yield
    finally:
        system.in_netns(node.netns, lambda: filter_ports([port], node.datapath))


def udp_socket(netns: str, address: str = "", port: int = 0) -> socket.socket:
    """A UDP socket in a network namespace, bound when a port is given."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(PATIENCE)
        if port or address:
            made.bind((address, port))
        return made

    return within(netns, make)


class Tap:
    """A packet socket on an interface: sends frames as they are, and takes what comes in (not what goes out)."""

    def __init__(self, netns: str, interface: str = "eth0") -> None:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            made.bind((interface, ETH_P_ALL))
            return made

        self._socket = within(netns, make)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.setblocking(False)
        self.seen: list[bytes] = []

    def send(self, frame: bytes) -> None:
        """Put one frame on the wire."""
        self._socket.send(frame)

    def drain(self) -> list[bytes]:
        """Everything that came in since the tap was made or forgot."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
                if kind != OUTGOING:
                    self.seen.append(frame)
        return self.seen

    def has(self, token: bytes) -> bool:
        """Whether a frame with `token` in it came in."""
        return any(token in frame for frame in self.drain())

    def forget(self) -> None:
        """Look at what comes from now on."""
        self.drain()
        self.seen = []

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class Page:
    """Context manager: answers HTTP with one line on a TCP port of a network namespace, `size` bytes more if asked."""

    def __init__(self, netns: str, port: int, line: str, size: int = 0) -> None:
        self._listener = within(netns, lambda: socket.create_server(("0.0.0.0", port)))
        self._body = f"{line}\n".encode() + b"x" * size
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Page:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        for connection in self._accepted():
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE)
                connection.recv(4096)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\nConnection: close\r\n\r\n"
                connection.sendall(head.encode() + self._body)

    def _accepted(self) -> Iterator[socket.socket]:
        with contextlib.suppress(OSError):
            while True:
                yield self._listener.accept()[0]


def fetch(netns: str, address: str, port: int = 80, *, seconds: float = 4.0) -> str | None:
    """The first line of a page, None when it cannot be had. `seconds` is how long to try."""
    done = run(netns, "curl", "-s", "-m", str(seconds), f"http://{address}:{port}/")
    return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else None


class Attempt:
    """Context manager: a TCP connection begun in a network namespace, for what must not come about.

    When an answer to something later has come by the same way, so would have the answer to this.
    """

    def __init__(self, netns: str, address: str, port: int = 80, *, source: str = "") -> None:
        def make() -> socket.socket:
            made = socket.socket()
            made.bind((source, 0))
            made.setblocking(False)
            made.connect_ex((address, port))
            return made

        self._socket = within(netns, make)

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def unanswered(self) -> bool:
        """Whether nothing has come back so far, neither consent nor refusal."""
        return not select.select([], [self._socket], [], 0)[1]


class Echo(Attempt):
    """The same for an echo request."""

    def __init__(self, netns: str, address: str) -> None:
        self._socket = within(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._socket.connect((address, 0))
        head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, ECHO_ID, 1)
        self._socket.send(head[:2] + struct.pack("!H", checksum(head)) + head[4:])

    @property
    def unanswered(self) -> bool:
        """Whether nothing has come back so far."""
        return not select.select([self._socket], [], [], 0)[0]


def pings(netns: str, address: str) -> bool:
    """Whether a host answers to an echo request."""
    return run(netns, "ping", "-c", "1", "-W", "2", address).returncode == 0
