"""What lies beyond the cluster: addresses behind a node, routers with a small MTU, strangers on the underlay."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.fabric import TUNNEL_KEY, Fabric
from romana_ovs_emulate.nodes import BRIDGE
from romana_ovs_emulate.system import ip_batch
from tests.support import frames
from tests.support.api_objects import as_yaml, pod
from tests.support.editable_cluster import EditableCluster, identity_of
from tests.support.frames import Frame
from tests.support.netns_sockets import Attempt, Page, Tap, fetch, run, udp_socket, within
from tests.support.waiting import eventually

OUTSIDE, EXCEPTED = "203.0.113.5", "203.0.113.9"
SMALL_MTU = 1200
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
"""Of ip(7); Python names them only in later versions."""
TUNNEL_PORT = 4789
SETTINGS = "[romana]\nisolation = none\ntenant_source = namespace\n"
PLACES = {"plain": "node1", "asked": "node1", "asks": "node1", "cut": "node1", "far": "node2"}
PODS = as_yaml(*(pod(f"p/{name}", node, pod=name) for name, node in PLACES.items()))
POLICIES = f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: asked, namespace: p}}
spec:
  podSelector: {{matchLabels: {{pod: asked}}}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{{ipBlock: {{cidr: 203.0.113.0/24, except: [{EXCEPTED}/32]}}}}]
    ports: [{{port: 80}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: asks, namespace: p}}
spec:
  podSelector: {{matchLabels: {{pod: asks}}}}
  policyTypes: [Egress]
  egress:
  - to: [{{ipBlock: {{cidr: 203.0.113.0/24, except: [{EXCEPTED}/32]}}}}]
    ports: [{{port: 8080}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: cut, namespace: p}}
spec: {{podSelector: {{matchLabels: {{pod: cut}}}}, policyTypes: [Egress]}}
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditableCluster]:
    with EditableCluster(
        tmp_path_factory.mktemp("outside"),
        Fabric.VXLAN,
        ports=("81/tcp", "81/udp"),
        settings=SETTINGS,
        manifests=PODS + POLICIES,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def outside(live: EditableCluster) -> str:
    """The namespace of a host behind node1, and behind a router whose link to it takes `SMALL_MTU` bytes."""
    node = live.emulation.nodes["node1"]
    router, host = node.run.netns("router"), node.run.netns("outside")
    ip_batch(
        [
            f"netns add {router}",
            f"netns add {host}",
            f"link add up0 netns {node.netns} type veth peer name eth0 netns {router}",
            f"link add down0 netns {router} mtu {SMALL_MTU} type veth peer name eth0 netns {host}",
        ]
    )
    # An emulated node hears its bridges only, so it is told to hear this card too.
    ip_batch(
        [
            "rule add pref 9 iif up0 lookup local",
            "addr add 198.51.100.1/24 dev up0",
            "link set up0 up",
            "route add 203.0.113.0/24 via 198.51.100.2",
        ],
        netns=node.netns,
    )
    ip_batch(
        [
            "addr add 198.51.100.2/24 dev eth0",
            "link set eth0 up",
            "addr add 203.0.113.1/24 dev down0",
            "link set down0 up",
            "route add 10.0.0.0/8 via 198.51.100.1",
        ],
        netns=router,
    )
    ip_batch(
        [
            f"addr add {OUTSIDE}/24 dev eth0",
            f"addr add {EXCEPTED}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            "route add default via 203.0.113.1",
        ],
        netns=host,
    )
    for netns in (node.netns, router):
        assert run(netns, "sysctl", "-w", "net.ipv4.ip_forward=1").returncode == 0
    return host


def address(live: EditableCluster, name: str) -> str:
    return live.emulation.pods[PodKey(f"p/{name}")].place.address


def netns(live: EditableCluster, name: str) -> str:
    return live.emulation.pods[PodKey(f"p/{name}")].netns


def test_ingress_from_outside_is_judged_by_address(live: EditableCluster, outside: str) -> None:
    with Page(netns(live, "asked"), 80, "asked"), Page(netns(live, "plain"), 80, "plain"):
        asked, plain = address(live, "asked"), address(live, "plain")
        with (
            Attempt(outside, asked, 81) as port,
            Attempt(outside, asked, source=EXCEPTED) as excepted,
            Attempt(netns(live, "plain"), asked) as pod,
        ):
            assert fetch(outside, asked) == "asked", "its answer passes though it may send nothing"
            assert fetch(outside, plain) == "plain"
            from_excepted = ("curl", "-s", "--interface", EXCEPTED, f"http://{plain}/")
            assert run(outside, *from_excepted).stdout == "plain\n"
            assert port.unanswered
            assert excepted.unanswered
            assert pod.unanswered, "a pod is not in the block"


def test_egress_to_outside_is_judged_by_address(live: EditableCluster, outside: str) -> None:
    with Page(outside, 8080, "outside"), Page(outside, 8081, "other"):
        closed = (("asks", OUTSIDE, 8081), ("asks", EXCEPTED, 8080), ("cut", OUTSIDE, 8080), ("asked", OUTSIDE, 8080))
        with contextlib.ExitStack() as stack:
            attempts = [stack.enter_context(Attempt(netns(live, pod), end, port)) for pod, end, port in closed]
            assert fetch(netns(live, "asks"), OUTSIDE, 8080) == "outside"
            assert fetch(netns(live, "plain"), EXCEPTED, 8081) == "other"
            assert fetch(outside, address(live, "cut"), 81) == "p/cut"
            assert [attempt.unanswered for attempt in attempts] == [True] * len(closed)


def test_a_router_can_tell_a_pod_that_packets_are_too_big(live: EditableCluster, outside: str) -> None:
    """Also a pod that may send nothing of its own: the error is about a connection that is allowed."""
    with Page(netns(live, "asked"), 80, "asked", size=200_000):
        done = run(outside, "curl", "-s", "-m", "10", f"http://{address(live, 'asked')}/")
    assert len(done.stdout) == len("asked\n") + 200_000
    assert f"mtu {SMALL_MTU}" in run(netns(live, "asked"), "ip", "route", "get", OUTSIDE).stdout
    with udp_socket(netns(live, "plain")) as client:
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        client.connect((OUTSIDE, 9))
        assert client.getsockopt(socket.IPPROTO_IP, IP_MTU) > SMALL_MTU
        client.send(b"x" * 1400)
        eventually(lambda: client.getsockopt(socket.IPPROTO_IP, IP_MTU) == SMALL_MTU, "the pod learns of the small MTU")


def test_an_error_about_nothing_does_not_pass(live: EditableCluster, outside: str) -> None:
    """Frag-needed about a connection that there never was, beside an honest datagram from the same host."""
    target = IPv4Address(address(live, "asked"))
    source = IPv4Address(OUTSIDE)
    about = Frame(target, source, 17, frames.udp_payload(target, source, (5000, 5001), b"x" * 40), "02:00:00:00:00:01")
    error = frames.icmp_error(source, about.bytes(), eth_src="02:00:00:00:00:01")[34:]
    plain = netns(live, "plain")
    with contextlib.closing(Tap(netns(live, "asked"))) as asked, contextlib.closing(Tap(plain)) as honest:
        with raw_icmp(outside) as sender:
            sender.sendto(error, (str(target), 0))
        with udp_socket(outside) as client:
            client.sendto(b"honest", (address(live, "plain"), 81))
        eventually(lambda: honest.has(b"honest"), "the honest datagram arrives")
        assert not asked.has(error)


def raw_icmp(space: str) -> socket.socket:
    """A socket that sends ICMP messages from a namespace."""
    return within(space, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))


def test_the_node_port_brings_no_pods_address(live: EditableCluster, outside: str) -> None:
    """What a node forwards may claim any source: those of pods do not count there, whatever MAC they come with."""
    node, target = live.emulation.nodes["node1"], IPv4Address(address(live, "plain"))
    number = identity_of(live.emulation.nodes["node2"], address(live, "far")).to_bytes(4, "big")
    wire_mac = "0a:05:" + ":".join(f"{byte:02x}" for byte in number)
    gateway, plain = Tap(node.netns, BRIDGE), Tap(netns(live, "plain"))
    try:
        for source in (address(live, "far"), address(live, "asks"), str(target), "10.77.0.1"):
            for mac in ("02:00:00:00:00:55", wire_mac):
                gateway.send(frames.udp(IPv4Address(source), target, (7000, 81), eth_src=mac, data=b"forged"))
        honest = frames.udp(IPv4Address(OUTSIDE), target, (7000, 81), eth_src="02:00:00:00:00:55", data=b"honest")
        gateway.send(honest[:12] + struct.pack("!HH", 0x8100, 5) + honest[12:].replace(b"honest", b"forged"))
        gateway.send(honest)
        eventually(lambda: plain.has(b"honest"), "the honest datagram arrives")
        assert not plain.has(b"forged")
    finally:
        gateway.close()
        plain.close()


@pytest.fixture
def stranger(live: EditableCluster) -> Iterator[Tap]:
    """A tap on the card of a machine on the underlay that is none of the nodes."""
    made = live.emulation.nodes["node1"].run
    space, underlay = made.netns("stranger"), made.netns("underlay")
    ip_batch([f"netns add {space}", f"link add stranger netns {underlay} type veth peer name eth0 netns {space}"])
    ip_batch(["link set stranger master underlay up"], netns=underlay)
    ip_batch(["link set eth0 addrgenmode none up"], netns=space)
    tap = Tap(space)
    yield tap
    tap.close()
    ip_batch([f"netns del {space}"])


def tunnelled(live: EditableCluster, outer_source: str, text: bytes) -> bytes:
    """A frame to node1's tunnel: inside, p/far with its right identity and address sends to p/plain."""
    far, plain = IPv4Address(address(live, "far")), IPv4Address(address(live, "plain"))
    number = identity_of(live.emulation.nodes["node2"], str(far)).to_bytes(4, "big")
    inner = frames.udp(far, plain, (6000, 81), eth_src="0a:05:" + ":".join(f"{byte:02x}" for byte in number), data=text)
    header = struct.pack("!II", 0x08000000, TUNNEL_KEY << 8)
    payload = struct.pack("!HHHH", 50000, TUNNEL_PORT, 8 + len(header) + len(inner), 0) + header + inner
    ends = IPv4Address(outer_source), IPv4Address("172.31.0.1")
    return Frame(*ends, 17, payload, "02:00:00:00:00:77", "02:00:ac:1f:00:01").bytes()


def test_a_tunnel_takes_packets_of_known_nodes_only(live: EditableCluster, stranger: Tap) -> None:
    plain = Tap(netns(live, "plain"))
    try:
        stranger.send(tunnelled(live, "172.31.0.99", b"of a stranger"))
        stranger.send(tunnelled(live, "10.0.0.64", b"of a node's inner address"))
        stranger.send(tunnelled(live, address(live, "far"), b"of a pod's address"))
        # What makes the difference is the address alone: an underlay that lets it be forged is not ours to guard.
        stranger.send(tunnelled(live, "172.31.0.2", b"from node2's address"))
        eventually(lambda: plain.has(b"from node2's address"), "the same frame from a node's address is delivered")
        assert not [frame for frame in plain.drain() if b"of a" in frame]
    finally:
        plain.close()


def test_a_pod_cannot_tunnel_through_its_node(live: EditableCluster, outside: str) -> None:
    """Its node routes it, but the packet keeps the pod's address, which is no node's."""
    frame = tunnelled(live, "172.31.0.2", b"of a pod")
    far, plain = Tap(netns(live, "far")), Tap(netns(live, "plain"))
    try:
        with udp_socket(netns(live, "plain")) as client:
            for target in ("172.31.0.1", "172.31.0.2"):
                client.sendto(frame[42:], (target, TUNNEL_PORT))
            client.sendto(b"behind it", (address(live, "far"), 81))
        eventually(lambda: far.has(b"behind it"), "the honest datagram arrives")
        # An ICMP error that quotes it may come back; what is inside must not come out.
        udp = [frame for tap in (far, plain) for frame in tap.drain() if frame[23] == socket.IPPROTO_UDP]
        assert not [frame for frame in udp if b"of a pod" in frame]
    finally:
        far.close()
        plain.close()
