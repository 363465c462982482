"""Clients on another node than their servers, which become others and send nothing: real packets, both ways.

The client is on node1, its servers on node3; what node2 forwards it never looks at (over tunnels it sees nothing).
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.support.live_cluster import LiveCluster, live_cluster
from tests.support.manifests import ingress_policy, placed_pod
from tests.support.netns_sockets import udp_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

NODES = ("node1", "node2", "node3")
SERVERS = (
    placed_pod("server", "node3") + placed_pod("other", "node3") + placed_pod("twin", "node1", app="client", role="a")
)
ROLES = "{from: [{podSelector: {matchExpressions: [{key: role, operator: In, values: [a, b]}]}}]}"
ONLY_A = "{from: [{podSelector: {matchLabels: {role: a}}}]}"
ONLY_C = "{from: [{podSelector: {matchLabels: {role: c}}}]}"
POLICIES = (
    ingress_policy("server", "app: server", ROLES)
    + ingress_policy("other", "app: other", ONLY_A, ONLY_C)
    # So that what a server sends of its own accord never passes for a reply.
    + ingress_policy("client", "app: client")
)
INTERVAL = 0.005
"""Between two datagrams of a steady push, in seconds."""
ROUND_TRIP = 20
"""Datagrams that may be on their way while one node asks the other, on a busy machine."""
QUIET = 0.5
"""Nothing may happen so long, in seconds: there is nothing to wait for."""


@pytest.fixture(scope="module", params=[Fabric.LINK, Fabric.VXLAN], ids=lambda fabric: fabric.value)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """`server` accepts roles a and b, `other` a and c, so that all three are classes of their own."""
    manifests = {"servers": SERVERS, "policies": POLICIES, "client": wearing("a")}
    with live_cluster(tmp_path_factory.mktemp("m"), NODES, fabric=request.param, manifests=manifests) as running:
        for role in ("b", "c", "a"):
            relabel(running, role)
        yield running


def wearing(role: str) -> str:
    return placed_pod("client", "node1", role=role)


def relabel(cluster: LiveCluster, role: str) -> Mapping[str, int]:
    """The client of another role from now on; the flow-mods that this took on each node."""
    return cluster.edit(lambda: cluster.write("client", wearing(role)))


@dataclass
class Push:
    """A server that sends numbered datagrams to a client that asked once: `sent` and `received` numbers."""

    server: socket.socket
    client: socket.socket
    target: tuple[str, int]
    sent: int = 0
    received: list[int] = field(default_factory=list)
    size: int = 8

    def send(self, count: int = 1) -> None:
        """The next datagrams."""
        for _ in range(count):
            self.server.sendto(b"%d " % self.sent + b"x" * self.size, self.target)
            self.sent += 1

    def take(self) -> list[int]:
        """Everything that has arrived."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.received.append(int(self.client.recv(65535).split()[0]))
        return self.received

    def until(self, number: int) -> None:
        """Returns when that datagram has arrived."""
        eventually(lambda: number in self.take(), f"datagram {number} arrives")


@contextlib.contextmanager
def pushing(cluster: LiveCluster, name: str, port: int = 5000) -> Iterator[Push]:
    """A push from a/NAME to a/client that goes well."""
    place, target = cluster.pod("a/client").place, cluster.pod(f"a/{name}").place
    with (
        udp_socket(cluster.pod(f"a/{name}").netns, target.address, port) as server,
        udp_socket(cluster.pod("a/client").netns, place.address) as client,
    ):
        client.sendto(b"hello", (target.address, port))
        asking = server.recvfrom(100)[1]
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        push = Push(server, client, asking)
        push.send()
        push.until(0)
        yield push


@contextlib.contextmanager
def steadily(push: Push) -> Iterator[None]:
    """The push goes on by itself meanwhile."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(INTERVAL):
            push.send()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def lost(push: Push) -> list[list[int]]:
    """The datagrams that never arrived, those that follow each other together."""
    gaps: list[list[int]] = []
    for number in sorted(set(range(push.sent)) - set(push.received)):
        if gaps and gaps[-1][-1] == number - 1:
            gaps[-1].append(number)
        else:
            gaps.append([number])
    return gaps


def after(push: Push, count: int = 5) -> list[int]:
    """Which of the next datagrams arrive: 0 is the first of them."""
    begun = push.sent
    for _ in range(count):
        push.send()
        time.sleep(0.1)  # Each has its time: whether the one before it was lost shows by nothing.
    limit = time.monotonic() + QUIET
    eventually(lambda: time.monotonic() > limit or begun + count - 1 in push.take(), "they would have arrived")
    return [number - begun for number in push.take() if number >= begun]


@pytest.mark.parametrize("size", [8, 6000], ids=["datagrams", "fragments"])
def test_new_labels_keep_or_cut_each_connection(cluster: LiveCluster, size: int) -> None:
    with pushing(cluster, "server") as kept, pushing(cluster, "other") as cut:
        for push in (kept, cut):
            push.size = size
            push.send()
            push.until(1)
        sent = relabel(cluster, "b")
        assert sent["node1"] > 0
        assert (sent["node2"], sent["node3"]) == (0, 0)
        assert after(cut) == []
        assert after(kept) in ([0, 1, 2, 3, 4], [1, 2, 3, 4])
        relabel(cluster, "c")
        assert after(kept) == []
    relabel(cluster, "a")


def test_a_flow_allowed_by_both_labels_is_interrupted_once(cluster: LiveCluster) -> None:
    with pushing(cluster, "server") as push:
        with steadily(push):
            for role in ("b", "a", "b", "a"):
                relabel(cluster, role)
                push.until(push.sent + 10)
        push.until(push.sent - 1)
        gaps = lost(push)
        assert len(gaps) <= 4
        assert max(map(len, gaps), default=0) <= ROUND_TRIP
        assert len(push.received) == len(set(push.received))


def test_the_first_ack_cuts_or_keeps_tcp(cluster: LiveCluster) -> None:
    client = cluster.pod("a/client").agent
    ends = {name: cluster.pod(f"a/{name}").place.address for name in ("server", "other")}
    try:
        for address in ends.values():
            client.stream(address, 81, "tcp", push=False)
        eventually(lambda: [one["received"] > 100 for one in client.streams()] == [True] * 2, "both push")
        relabel(cluster, "b")
        told = time.monotonic()

        def heard(name: str) -> float:
            return next(float(one["last"]) for one in client.streams() if one["peer"].startswith(f"{ends[name]}:"))

        eventually(lambda: heard("server") > told + QUIET, "the allowed one goes on")
        assert heard("other") < told + QUIET
    finally:
        for agent in (client, *(cluster.pod(f"a/{name}").agent for name in ends)):
            agent.close_streams()
    relabel(cluster, "a")


KEYS = ("mood", "temper", "spirit")
"""Labels of the client that no rule asks about; each test asks about one, for classes once split stay apart."""


@contextlib.contextmanager
def one_class(cluster: LiveCluster) -> Iterator[Push]:
    """A push to a/client from a/target, whom no policy selects; nothing tells the client from its twin yet."""
    cluster.edit(lambda: cluster.write("target", placed_pod("target", "node3")))
    relabel(cluster, "c")  # and back, into the class of its twin, wherever the last split left it
    cluster.edit(
        lambda: cluster.write("client", placed_pod("client", "node1", role="a", **dict.fromkeys(KEYS, "good")))
    )
    try:
        with pushing(cluster, "target") as push:
            yield push
    finally:
        cluster.edit(lambda: cluster.remove("target"))
        cluster.edit(lambda: cluster.remove("finer"))
        relabel(cluster, "a")


def split(cluster: LiveCluster, key: str, operator: str) -> None:
    """A rule of a/target that asks about one of the client's labels, with which the client is told from its twin."""
    peer = f"{{podSelector: {{matchExpressions: [{{key: {key}, operator: {operator}, values: [good]}}]}}}}"
    sent = cluster.edit(lambda: cluster.write("finer", ingress_policy("finer", "app: target", f"{{from: [{peer}]}}")))
    assert sent["node3"] > 0
    assert sent["node1"] > 0, "the client has another number"


def test_finer_classes_interrupt_no_allowed_push(cluster: LiveCluster) -> None:
    with one_class(cluster) as push:
        with steadily(push):
            split(cluster, "mood", "In")
            push.until(push.sent + 10)
        push.until(push.sent - 1)
        gaps = lost(push)
        assert len(gaps) <= 1, "none, if one was sent while the new identities were used under the old rules"
        assert max(map(len, gaps), default=0) <= ROUND_TRIP


def test_a_paused_push_loses_one_datagram_to_finer_classes(cluster: LiveCluster) -> None:
    with one_class(cluster) as push:
        split(cluster, "temper", "In")
        assert after(push) == [1, 2, 3, 4]


def test_a_rule_that_tells_its_client_apart_stops_a_push_at_once(cluster: LiveCluster) -> None:
    with one_class(cluster) as push:
        split(cluster, "spirit", "NotIn")
        assert after(push) == []
