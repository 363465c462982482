"""SCTP between the kernel's own sockets, where it has them: handshakes, heartbeats and retransmissions are real ones.

The probes of all other tests send SCTP from raw sockets, because many kernels have no module for it.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.patience import patience
from tests.support.api_objects import as_yaml, pod
from tests.support.editable_cluster import EditableCluster
from tests.support.netns_sockets import within
from tests.support.waiting import PATIENCE

SETTINGS = "[romana]\nisolation = none\ntenant_source = namespace\n"
PLACES = {"client": "node1", "other": "node1", "near": "node1", "far": "node2"}
PODS = as_yaml(*(pod(f"p/{name}", node, pod=name, role="server" if name in ("near", "far") else "")
                 for name, node in PLACES.items()))  # fmt: skip
POLICY = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: servers, namespace: p}
spec:
  podSelector: {matchLabels: {role: server}}
  ingress: %s
"""
OPEN = POLICY % "[{from: [{podSelector: {matchLabels: {pod: client}}}], ports: [{port: 80, protocol: SCTP}]}]"
SHUT = POLICY % "[]"
ADMITTED, REFUSED = 80, 81
SECONDS = patience(2.0)
"""How long to wait for what must not come."""


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)


def _has_sctp() -> bool:
    with contextlib.suppress(OSError), _socket():
        return True
    return False


class EchoServer:
    """Context manager: sends back what associations with a port of a network namespace send."""

    def __init__(self, netns: str, port: int) -> None:
        self._listener = within(netns, _socket)
        self._listener.bind(("0.0.0.0", port))
        self._listener.listen()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> EchoServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(self._listener)]
            while not self._ended.is_set():
                for ready in select.select(sockets, [], [], 0.1)[0]:
                    if ready is self._listener:
                        sockets.append(stack.enter_context(ready.accept()[0]))
                        continue
                    with contextlib.suppress(OSError):
                        if data := ready.recv(1000):
                            ready.send(data)
                            continue
                    sockets.remove(ready)


@pytest.fixture(scope="module", params=[Fabric.LINK, Fabric.VXLAN], ids=lambda fabric: fabric.value)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditableCluster]:
    """Two servers, on the client's node and on another, with an echo on both ports."""
    # Asked here, not at import: the first such socket loads the module. Its answer to other tests' probes of SCTP, an
    # ABORT from a pod that has no such socket, races with that of the emulator's agents.
    if not _has_sctp():
        pytest.skip("this kernel has no SCTP")
    folder: Path = tmp_path_factory.mktemp("sctp")
    ports = ("80/tcp",)
    with (
        EditableCluster(folder, request.param, ports=ports, settings=SETTINGS, manifests=PODS + OPEN) as cluster,
        contextlib.ExitStack() as stack,
    ):
        for name in ("near", "far"):
            for port in (ADMITTED, REFUSED):
                stack.enter_context(EchoServer(netns_of(cluster, name), port))
        yield cluster


def netns_of(live: EditableCluster, name: str) -> str:
    return live.emulation.pods[PodKey(f"p/{name}")].netns


@contextlib.contextmanager
def association(live: EditableCluster, server: str, port: int = ADMITTED, *, client: str = "client",
                seconds: float = PATIENCE) -> Iterator[socket.socket]:  # fmt: skip
    """An association, which raises TimeoutError if it is not there in time."""
    with within(netns_of(live, client), _socket) as made:
        made.settimeout(seconds)
        made.connect((live.pod(f"p/{server}"), port))
        yield made


def answers(connection: socket.socket, text: bytes) -> bool:
    """Whether what is sent comes back."""
    try:
        connection.send(text)
        return connection.recv(1000) == text
    except TimeoutError:
        return False


@pytest.mark.parametrize("server", ["near", "far"])
def test_the_admitted_port_answers_and_no_other(live: EditableCluster, server: str) -> None:
    with association(live, server) as first:
        assert answers(first, b"alone")
        with pytest.raises(TimeoutError), association(live, server, REFUSED, seconds=SECONDS):
            pass
        with pytest.raises(TimeoutError), association(live, server, client="other", seconds=SECONDS):
            pass
        with association(live, server) as second:
            assert answers(second, b"beside the first")
        assert answers(first, b"still there")


@pytest.mark.slow("two edits and an association that must not answer")
@pytest.mark.parametrize("server", ["near", "far"])
def test_an_association_ends_with_its_policy(live: EditableCluster, server: str) -> None:
    with association(live, server) as open_one:
        assert answers(open_one, b"before")
        live.show(SETTINGS, PODS + SHUT)
        try:
            open_one.settimeout(SECONDS)
            assert not answers(open_one, b"after")
        finally:
            live.show(SETTINGS, PODS + OPEN)
        open_one.settimeout(PATIENCE)
        assert open_one.recv(1000) == b"after", "sent again until it is admitted"
