"""Runs a real API server with a large cluster, and changes that cluster at a steady rate."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.objects import Object, everything
from romana_ovs.kube.api.client import JSON, Api
from romana_ovs.kube.api.resources import ALLOCATIONS, CLASS_SETS, NODE_REPORTS, ROMANA_POLICIES, TENANTS
from romana_ovs.kube.api.source import ApiSource
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import BusyError, MissingError
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder

CONNECTIONS = 8
KINDS_SECONDS = 0.2
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/romana-ovs"
MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class Request:
    """One change: with a body it is created (POST) or patched (PATCH), without it is removed (DELETE)."""

    method: str
    path: str
    body: Object | None = None


class Server:
    """An API server and who may do everything there."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = Api(ApiSource(str(plane.kubeconfig)))
        self._own = threading.local()

    def account(self, name: str, *, node: str = "") -> Path:
        """A kubeconfig with a token of that service account of ours."""
        return self.plane.kubeconfig_for_service_account("kube-system", name, node=node)

    def send(self, request: Request) -> None:
        """Carry out one change, on a connection of this thread's own. Raises RuntimeError when it is refused.

        By http.client, which takes a third of the processor time of the controller's own client: it is not measured.
        """
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connected()
        body = None if request.body is None else json.dumps(request.body)
        kind = MERGE_PATCH if request.method == "PATCH" else JSON
        connection.request(request.method, request.path, body, {"Content-Type": kind, "Accept": JSON})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"{request.method} {request.path}: {answer.status} {said.decode(errors='replace')}")

    def _connected(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.plane.authority)
        context.load_cert_chain(self.plane.admin.certificate, self.plane.admin.key)
        host, _, port = self.plane.url.rpartition("//")[2].rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=context)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def holder(self) -> str:
        """Which process leads; empty while none does."""
        try:
            lease = self.api.request("GET", LEASE).json()
        except MissingError:
            return ""
        return str(lease["spec"].get("holderIdentity") or "")

    def await_kinds(self) -> None:
        """Return when the kinds of ours are served: an API server begins with one when it is asked for it first."""
        for resource in (ROMANA_POLICIES, TENANTS, ALLOCATIONS, CLASS_SETS, NODE_REPORTS):
            while not self._serves(resource.path):
                time.sleep(KINDS_SECONDS)

    def _serves(self, path: str) -> bool:
        try:
            self.api.request("GET", path)
        except BusyError:
            return False
        return True

    def create(self, objects: Iterable[tuple[str, Object]]) -> None:
        """Create `objects` (path and object), in any order. Raises ApiError."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(lambda each: self.send(Request("POST", *each)), objects):
                pass

    def play(self, streams: Sequence[Sequence[Request]], rate: float) -> float:
        """Send every stream in its order, all together `rate` requests a second; returns how many it came to be."""
        start = time.monotonic()
        pause = len(streams) / rate
        threads = [
            threading.Thread(target=self._play, args=(stream, start + pause * number / len(streams), pause))
            for number, stream in enumerate(streams)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(map(len, streams)) / (time.monotonic() - start)

    def _play(self, stream: Sequence[Request], start: float, pause: float) -> None:
        for number, request in enumerate(stream):
            time.sleep(max(0.0, start + number * pause - time.monotonic()))
            self.send(request)


@contextmanager
def serving(cluster: Cluster) -> Iterator[Server]:
    """An API server that has `cluster`."""
    with ControlPlane(niceness=0) as plane:
        plane.apply(manifests_folder())
        server = Server(plane)
        server.await_kinds()
        for objects in everything(cluster):
            server.create(objects)
        yield server
