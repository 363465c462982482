"""A controller whose API server, or the way to it, goes wrong in every way: its bridge goes on, and nothing is lost."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs.policy.matrix import PodPath
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from romana_ovs_emulate.probe import probe_once
from tests.support.control_plane import needed_binaries
from tests.support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.support.live_cluster import Traffic
from tests.support.scripted_server import EXPIRED, refuse, watch
from tests.support.split_cluster import SplitCluster, split_cluster

pytestmark = pytest.mark.root
NODES = ("n1", "n2")
RESOURCES = 11
"""What a node's controller watches; it asks for each by itself."""
CLOSED_SECONDS = 0.5
"""No connection within this time, and the path is closed; on this machine it takes a millisecond."""
BLIND = {
    "unknown": (Fault(refuse(401)), "401, no"),
    "forbidden": (Fault(refuse(403)), "403, no"),
    "busy": (Fault(refuse(429, Retry_After=1)), "429, no"),
    "faulty": (Fault(refuse(500)), "500, no"),
    "torn": (Fault(tears=True), "a response was interrupted"),
    "refused": (Fault(refuses=True), "Connection refused"),
}
EXPIRES = {
    "an event": Fault(watch(EXPIRED), watches_only=True, farewell=EXPIRED),
    "an answer": Fault(refuse(410), watches_only=True),
}


class Scene:
    """A node with a client, a server and another pod: the policy lets the client reach the server at one port.

    The node's controller knows only its proxy.
    """

    def __init__(self, cluster: SplitCluster, node: str, proxy: FaultyProxy) -> None:
        self.cluster, self.node, self.proxy = cluster, node, proxy
        self.controller = cluster.controllers[node]
        self.namespace = cluster.namespace(f"of-{node}")
        self.client, self.server, self.other = (cluster.pod(self.namespace, name, node) for name in "cso")
        self.allow(80)

    def allow(self, port: int) -> None:
        """Have the policy be for this port only."""
        ports = [{"port": port}, {"port": port, "protocol": "UDP"}]
        rule = {"from": [{"podSelector": {"matchLabels": {"app": "c"}}}], "ports": ports}
        self.cluster.policy(
            self.namespace,
            "p",
            {
                "podSelector": {"matchLabels": {"app": "s"}},
                "policyTypes": ["Ingress"],
                "ingress": [rule],
            },
        )

    def settled(self) -> None:
        """Returns when this node has all that there is."""
        self.cluster.settled(but=[node for node in NODES if node != self.node])

    def restart(self) -> None:
        """A new controller: it has met no trouble yet, so it asks again soon after the first."""
        self.controller.stop(signal.SIGKILL)
        self.controller.start()

    def flows(self) -> set[str]:
        return self.cluster.flows(self.node)

    def traffic(self, source: PodKey) -> Traffic:
        """UDP to the server at the port that is allowed at first."""
        task = {"kind": "udp", "address": self.cluster.address(self.server), "port": 80}
        return Traffic(self.cluster.pods.running[source], [task])

    def is_for(self, port: int) -> bool:
        """Whether just that port is open, and to the client only, by real connections."""
        wanted = PodPath(self.client, self.server, f"{port}/tcp")
        others = [PodPath(self.client, self.server, f"{each}/tcp") for each in (80, 81) if each != port]
        others += [PodPath(self.other, self.server, f"{each}/tcp") for each in (80, 81)]
        running = self.cluster.pods.running
        closed = not any(answer.open for answer in probe_once(running, others, seconds=CLOSED_SECONDS).values())
        return closed and probe_once(running, [wanted])[wanted].open

    def troubles(self, begin: int) -> list[str]:
        """What the log says, from there on, of the API server in trouble."""
        lines = [line for line in self.controller.log[begin:].splitlines() if "API server: " in line]
        return [line.partition("API server: ")[2] for line in lines if not line.endswith("fine again")]


@pytest.fixture(scope="module")
def scenes() -> Iterator[deque[Scene]]:
    """A scene on each node: while one has its fault the other's controller, which is new, comes to know everything."""
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(binaries=needed_binaries()))
        plane.apply(manifests_folder())
        proxies = {node: stack.enter_context(faulty_proxy(plane)) for node in NODES}
        through = {node: proxy.url for node, proxy in proxies.items()}
        cluster = stack.enter_context(split_cluster(plane, NODES, through))
        made = [Scene(cluster, node, proxy) for node, proxy in proxies.items()]
        cluster.settled()
        yield deque(made)


@pytest.fixture
def scene(scenes: deque[Scene]) -> Iterator[Scene]:
    """Everything is as it should be; the client reaches the server at port 80."""
    scene = scenes.popleft()
    scene.allow(80)
    scene.settled()
    yield scene
    scene.restart()
    scenes.append(scene)


def few(scene: Scene, begun: float) -> bool:
    """Whether what was asked since then is what growing pauses allow: the first is half a second at least."""
    asked = Counter((request.path, "watch" in request.query) for request in scene.proxy.met)
    return max(asked.values(), default=0) <= 2 + (time.monotonic() - begun) / 0.5


@pytest.mark.parametrize("name", BLIND)
def test_a_bridge_goes_on_and_what_was_missed_is_made_up_for(scene: Scene, name: str) -> None:
    fault, sentence = BLIND[name]
    cluster, controller, node = scene.cluster, scene.controller, scene.node
    flows, child, said = scene.flows(), controller.child(), len(controller.log)
    allowed, denied = scene.traffic(scene.client), scene.traffic(scene.other)
    try:
        allowed.flowing()
        begun = time.monotonic()
        with scene.proxy.inject(fault):
            scene.allow(81)
            whose = "networkpolicies.networking.k8s.io: "
            cluster.until(
                lambda: any(each.startswith(whose) and sentence in each for each in scene.troubles(said)), "it says so"
            )
            cluster.until(
                lambda: any(sentence in each for each in controller.state["problems"]), "the feed says so too"
            )
            allowed.unharmed()
            assert [task["good"] for task in denied.report()] == [0]
            assert scene.flows() == flows
            assert cluster.youngest(node) > time.monotonic() - begun
            troubles = scene.troubles(said)
            assert len(set(troubles)) == len(troubles) <= RESOURCES + 1, troubles
            assert few(scene, begun), scene.proxy.met
        scene.settled()
        assert scene.is_for(81)
        assert controller.child() == child
        cluster.until(lambda: not controller.state["problems"], "all is well again")
    finally:
        allowed.close()
        denied.close()


@pytest.mark.parametrize("name", EXPIRES)
def test_a_server_that_forgets_is_listed_anew(scene: Scene, name: str) -> None:
    """Whatever a watch missed is found by a listing, also when no watch ever comes about; and listings are few."""
    begun, said = time.monotonic(), len(scene.controller.log)
    with scene.proxy.inject(EXPIRES[name]):
        scene.allow(81)
        scene.settled()
        assert scene.is_for(81)
        assert few(scene, begun), scene.proxy.met
    assert scene.troubles(said) == []
    scene.allow(80)
    scene.settled()
    assert scene.is_for(80)


def test_a_server_that_stands_still_for_a_while(scene: Scene) -> None:
    """Nothing is said and nothing happens, and when it goes on, so do the same watches.

    That a longer standstill is noticed is shown in tests/kube/api/test_liveness.py and tests/apiserver/test_source.py.
    """
    flows, said = scene.flows(), len(scene.controller.log)
    allowed = scene.traffic(scene.client)
    try:
        allowed.flowing()
        with scene.proxy.inject(Fault(stalls=True)):
            scene.allow(81)
            allowed.unharmed()
            assert scene.flows() == flows
        scene.settled()
        assert scene.is_for(81)
        assert scene.troubles(said) == [] and not any("watch" in each.query for each in scene.proxy.met)
    finally:
        allowed.close()
