"""Makes the ports of a bridge on the kernel's datapath: veth pairs, through whose other ends tests send and receive.

A session's network namespace is its own, so names cannot meet those of the machine.
"""

from __future__ import annotations

import select
import socket
import subprocess
import time
from collections.abc import Iterable

from tests.integration.wire import MARKER

BRIDGE = "br0"
MARKER_NAME, MARKER_PORT = "p999", 999
"""The port by which the marker frame leaves."""
_MARKER_MATCH = f"table=0,priority=65535,dl_type=0x{MARKER[12:14].hex()}"
MARKER_FLOWS = (
    f"{_MARKER_MATCH} actions=output:{MARKER_PORT}",
    f"{_MARKER_MATCH},dl_src=02:00:00:00:00:00 actions=drop",
)
"""The second one matches nothing that is sent: with it megaflows have the source, so that every marker is an upcall."""
QUIET_SECONDS = 0.12
UPCALLS = 8
"""How long nothing comes out when a frame is done: at least so many seconds, and the time of so many upcalls. Each pass
of a frame through conntrack may be an upcall of its own, which the marker does not wait for."""
PATIENCE = 60.0
_ETH_P_ALL = 3


class VethPorts:
    """A veth pair for each of `names` (and one for the marker), with a packet socket at its other end and at br0."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [name for name in (*names, MARKER_NAME) if name != BRIDGE]
        self._sockets: dict[str, socket.socket] = {}
        self._markers = 0

    def make(self) -> None:
        """Make the pairs. Without addresses, so that nothing but the tests sends by them."""
        lines = [
            line
            for name in self._names
            for line in (
                f"link add {name} type veth peer name x{name}",
                f"link set {name} addrgenmode none up",
                f"link set x{name} addrgenmode none up",
            )
        ]
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)

    def open(self) -> None:
        """Open the sockets; the bridge has to exist."""
        subprocess.run(["ip", "link", "set", BRIDGE, "addrgenmode", "none", "up"], check=True)
        for name in (*self._names, BRIDGE):
            endpoint = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
            endpoint.bind((BRIDGE if name == BRIDGE else f"x{name}", 0))
            endpoint.setblocking(False)
            self._sockets[name] = endpoint

    def close(self) -> None:
        """Close the sockets and remove the pairs; those that were never made are skipped."""
        for endpoint in self._sockets.values():
            endpoint.close()
        for name in self._names:
            subprocess.run(["ip", "link", "del", f"x{name}"], capture_output=True, check=False)

    def exchange(self, port: str, frame: bytes) -> list[tuple[str, bytes]]:
        """What leaves by which port when `frame` comes in by `port`, in the order of arrival."""
        while self._receive(0):
            pass
        self._markers += 1
        self._sockets[port].send(frame)
        began = last = time.monotonic()
        self._sockets[port].send(MARKER[:6] + (0x02 << 40 | self._markers).to_bytes(6, "big") + MARKER[12:])
        received: list[tuple[str, bytes]] = []
        quiet: float | None = None
        while quiet is None or time.monotonic() - last < quiet:
            assert time.monotonic() < began + PATIENCE, "the marker frame never came out"
            for name, data in self._receive(QUIET_SECONDS / 4):
                last = time.monotonic()
                if name == MARKER_NAME:
                    quiet = max(QUIET_SECONDS, UPCALLS * (last - began))
                else:
                    received.append((name, data))
        return received

    def _receive(self, seconds: float) -> list[tuple[str, bytes]]:
        """The frames that have come out, after waiting for the first of them; without those that the tests sent."""
        ready, _, _ = select.select(list(self._sockets.values()), [], [], seconds)
        received = []
        for name, endpoint in self._sockets.items():
            while endpoint in ready:
                try:
                    data, address = endpoint.recvfrom(65600)
                except BlockingIOError:
                    break
                if address[2] != socket.PACKET_OUTGOING:
                    received.append((name, data))
        return received
