"""A host beyond the cluster, behind a node that forwards, with a server that pushes on every TCP connection."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.system import ip_batch
from tests.support.netns_sockets import run, within

ADDRESS = "203.0.113.5"
PORT = 8080
INTERVAL = 0.02
"""Between two pieces that the server pushes, in seconds."""


@contextmanager
def outside(node: Node) -> Iterator[str]:
    """The address of a host behind `node`; its server runs until the end."""
    host = node.run.netns("outside")
    ip_batch([f"netns add {host}", f"link add up0 netns {node.netns} type veth peer name eth0 netns {host}"])
    # An emulated node hears its bridges only, so it is told to hear this card too.
    ip_batch(
        ["rule add pref 9 iif up0 lookup local", "addr add 203.0.113.1/24 dev up0", "link set up0 up"], netns=node.netns
    )
    ip_batch([f"addr add {ADDRESS}/24 dev eth0", "link set eth0 up", "route add default via 203.0.113.1"], netns=host)
    assert run(node.netns, "sysctl", "-w", "net.ipv4.ip_forward=1").returncode == 0
    listener = within(host, lambda: socket.create_server((ADDRESS, PORT)))
    ended = threading.Event()
    thread = threading.Thread(target=_serve, args=(listener, ended))
    thread.start()
    try:
        yield ADDRESS
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
        ip_batch([f"netns del {host}"])


def _serve(listener: socket.socket, ended: threading.Event) -> None:
    threads = []
    with contextlib.suppress(OSError):
        while True:
            connection = listener.accept()[0]
            threads.append(threading.Thread(target=_push, args=(connection, ended)))
            threads[-1].start()
    for thread in threads:
        thread.join()


def _push(connection: socket.socket, ended: threading.Event) -> None:
    """Read what there is and write a little, until the end or a reset; a full buffer is waited for."""
    connection.setblocking(False)
    with connection:
        while not ended.wait(INTERVAL):
            try:
                with contextlib.suppress(BlockingIOError):
                    connection.recv(65536)
                with contextlib.suppress(BlockingIOError):
                    connection.send(b"x")
            except OSError:
                return
