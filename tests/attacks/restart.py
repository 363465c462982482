"""What is prepared before a node's switch is killed, the kill, and the start of another process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from romana_ovs_emulate.fabric import Fabric
from tests.attacks import craft, ground
from tests.attacks.craft import End
from tests.attacks.outside import PORT, outside
from tests.attacks.scene import Scene, is_of, scene_of
from tests.support.live_cluster import LiveCluster
from tests.support.manifests import placed_pod
from tests.support.waiting import TICK, eventually

STREAM = 81
HANG_SECONDS = 10.0
"""A connection on which neither a byte nor a reset comes for so long hangs; the switch is away for less than one."""
QUIET = "app: quiet"
SERVERS = {"blue/quiet1": "blue/far", "blue/quiet2": "blue/near"}
"""Clients that a policy will shut, and their servers on the other node."""
HEIRS = {"node1": ("192.0.2.61", "blue/far"), "node2": ("192.0.2.62", "blue/near")}
"""An address on each node that a pod has and then another, and a server on the other node that knows it."""
STREAMS = {
    "inside node1": ("blue/talk1", "blue/near"),
    "inside node2": ("blue/talk2", "blue/far"),
    "from node1 to node2": ("blue/talk1", "blue/far"),
    "from node2 to node1": ("blue/talk2", "blue/near"),
    "from node1 to outside": ("blue/talk1", "outside"),
}
BUSY = frozenset({"blue/talk1", "blue/talk2", "blue/near", "blue/far"})
"""Pods that have connections of their own, so that they hear something."""
PODS = (
    placed_pod("talk1", "node1", "blue")
    + placed_pod("talk2", "node2", "blue")
    + placed_pod("near", "node1", "blue")
    + placed_pod("far", "node2", "blue")
    + placed_pod("quiet1", "node1", "blue", app="quiet")
    + placed_pod("quiet2", "node2", "blue", app="quiet")
    + placed_pod("sealed1", "node1", "blue", app="sealed")
    + placed_pod("sealed2", "node2", "blue", app="sealed")
)
SEALED = f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: sealed, namespace: blue}}
spec:
  podSelector: {{matchLabels: {{app: sealed}}}}
  policyTypes: [Ingress, Egress]
  ingress: [{ground.ONE_PORT}]
  egress: [{{to: [{{podSelector: {{matchLabels: {{app: pal}}}}}}]}}]
"""
"""Pods that may not open connections to the attacker either: what it sends them can be no reply, lost or not."""
SHUT = f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: shut, namespace: blue}}
spec:
  podSelector: {{matchLabels: {{{QUIET}}}}}
  policyTypes: [Ingress, Egress]
  ingress: [{ground.ONE_PORT}]
  egress: []
"""


def _holding(name: str, node: str, app: str) -> str:
    """A pod that has the address of `node` in HEIRS."""
    return placed_pod(name, node, "blue", app=app, status={"phase": "Running", "podIP": HEIRS[node][0]})


@dataclass(frozen=True, slots=True)
class Restarted:
    """A scene in which `node`'s switch lost its connections, and what became of TCP connections that were open.

    `hung` are those of STREAMS on which an end heard neither bytes nor a reset afterwards. `segments` has, for each
    client that was shut, the last segment that it heard of its server before.
    """

    scene: Scene
    node: str
    hung: frozenset[str]
    segments: Mapping[str, bytes]


@contextmanager
def restarted(folder: Path, fabric: Fabric, node: str) -> Iterator[Restarted]:
    """Connections of all kinds are open, then policies shut some and pods change, then `node`'s switch dies."""
    with (
        ground.cluster(folder, fabric, more=PODS + SEALED) as cluster,
        outside(cluster.node("node1")) as host,
        scene_of(cluster, fabric) as scene,
    ):
        for key in ("blue/near", "blue/far"):
            cluster.pod(key).agent.serve((f"{STREAM}/tcp",))
        _address_again(scene, "old", "old")
        segments = {client: _ask_by_tcp(scene, client, server) for client, server in SERVERS.items()}
        for client, server in SERVERS.items():
            _ask(scene, client, server)
        cluster.edit(lambda: cluster.write("shut", SHUT))
        # An heir admits its friend alone, and has never asked anybody.
        _address_again(scene, "heir", "iso")
        scene.in_force()
        _open_streams(cluster, host)
        _restart(cluster, node)
        hung = _hung(cluster, host)
        for key in BUSY:
            cluster.pod(key).agent.close_streams()
        yield Restarted(scene, node, hung, segments)


def _address_again(scene: Scene, name: str, app: str) -> None:
    """Pods of this name have the addresses now; those of app `old` ask the servers on the other node."""
    cluster = scene.cluster
    if app != "old":
        cluster.edit(lambda: cluster.remove("old"))
    ground.add(cluster, name, "".join(_holding(f"{name}{node[-1]}", node, app) for node in HEIRS))
    scene.join()
    if app == "old":
        for node, (_, server) in HEIRS.items():
            _ask(scene, f"blue/old{node[-1]}", server)


def _ask(scene: Scene, client: str, server: str) -> None:
    """A UDP and an echo connection of a client and its server on both their nodes, by raw packets."""
    a, b = scene.end(client), scene.end(server)
    scene.through(client, _ally(scene, server), [craft.udp(a, b, (9000, 9000)), craft.icmp(a, b, 8)])
    scene.forget()
    scene.through(server, _ally(scene, client), pushes(b, a))
    assert [frame for frame in scene.heard(client) if is_of(frame, b)], f"{client} never heard {server}"


def _ask_by_tcp(scene: Scene, client: str, server: str) -> bytes:
    """A TCP connection on which the server pushes; a segment of it that the client heard."""
    agent, end = scene.cluster.pod(client).agent, scene.end(server)
    agent.stream(str(end.address), STREAM, push=False)
    eventually(lambda: [one["received"] > 100 for one in agent.streams()] == [True], "the server pushes")
    heard = [frame for frame in scene.heard(client) if is_of(frame, end) and frame[23] == craft.TCP]
    agent.close_streams()
    return heard[-1]


def _ally(scene: Scene, key: str) -> str:
    """A pod on the node of another that everybody of blue may reach."""
    return {"node1": "blue/v1", "node2": "blue/v2"}[scene.cluster.pod(key).place.node]


def pushes(server: End, client: End) -> list[bytes]:
    """What a server sends on the connections that `restarted` opened by raw packets."""
    return [craft.udp(server, client, (9000, 9000)), craft.icmp(server, client, 0)]


def again(server: End, client: End, segment: bytes) -> bytes:
    """A segment that the client heard, as its server sends it once more."""
    return craft.ether(server.mac, client.hop, craft.IPV4, segment[14:])


def turned(segment: bytes) -> bytes:
    """The same with its ends changed: as what the client may have sent."""
    return segment[:26] + segment[30:34] + segment[26:30] + segment[36:38] + segment[34:36] + segment[38:]


def _open_streams(cluster: LiveCluster, host: str) -> None:
    for client, server in STREAMS.values():
        address, port = (host, PORT) if server == "outside" else (cluster.pod(server).place.address, STREAM)
        cluster.pod(client).agent.stream(address, port)
    eventually(lambda: all(count > 100 for count in _received(cluster, host).values()), "every stream flows both ways")


def _restart(cluster: LiveCluster, node: str) -> None:
    """Kill a node's ovs-vswitchd, start another; returns when the controller has programmed that."""
    before = cluster.meaning(node)
    cluster.kill_switch(node)
    cluster.await_state(lambda state: not state.nodes[node].connected, "its death is noticed")
    cluster.node(node).start_switch()
    eventually(lambda: cluster.meaning(node) == before, "every flow is back")
    eventually(lambda: cluster.emulation.settled, "all is settled")


def _received(cluster: LiveCluster, host: str) -> dict[tuple[str, str], float]:
    """What each end of each stream has received, in bytes; infinite where it has ended. By stream and role."""
    address = {
        server: host if server == "outside" else cluster.pod(server).place.address
        for pair in STREAMS.values()
        for server in pair
    }
    found = {}
    for name, (client, server) in STREAMS.items():
        ends = [("client", client, server)] + [("server", server, client)] * (server != "outside")
        for role, key, other in ends:
            for one in cluster.pod(key).agent.streams():
                if one["role"] == role and one["peer"].startswith(f"{address[other]}:"):
                    found[name, role] = float("inf") if one["error"] else one["received"]
    return found


def _hung(cluster: LiveCluster, host: str) -> frozenset[str]:
    """The streams of which an end neither hears bytes nor ends within HANG_SECONDS."""
    before = _received(cluster, host)
    limit = time.monotonic() + HANG_SECONDS
    while True:
        now = _received(cluster, host)
        waiting = {name for name, role in before if now[name, role] <= before[name, role] < float("inf")}
        if not waiting or time.monotonic() > limit:
            return frozenset(waiting)
        time.sleep(TICK)
