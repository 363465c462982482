"""Services on real bridges and kernels: the node's kernel translates as kube-proxy does, and policy sees the backend.

The rules for nodes that forward are those of etc/nftables/forwarding-node.nft.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.fabric import Fabric, underlay_address
from romana_ovs_emulate.nodes import BRIDGE, UNDERLAY_BRIDGE, Node
from romana_ovs_emulate.system import inside, ip_batch
from tests.support import frames
from tests.support.api_objects import Object, as_yaml, pod, policy
from tests.support.editable_cluster import EditableCluster
from tests.support.netns_sockets import Tap, fetch, run, udp_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not (shutil.which("nft") or os.environ.get("CI")), reason="needs nft")
RULES = Path(__file__).parents[2] / "etc" / "nftables" / "forwarding-node.nft"
NETWORK, RANGE = "10.0.0.0/8", "172.30.0.0/16"
SETTINGS = f"[romana]\nisolation = tenant\ntenant_source = namespace\nservice_ranges = {RANGE}\n"
UPLINK, OUTSIDE = "up0", "198.51.100.2"
FORWARDED_SOURCE = "192.0.0.8"
SERVICES = {
    "172.30.0.10": "red/near",
    "172.30.0.11": "red/far",
    "172.30.0.12": "red/shut",
    "172.30.0.13": "blue/own",
    "172.30.0.14": "red/client",
    "172.30.0.15": "red/open",
}
"""By cluster address the backend, of port 80 for 8080 and of 81 for 8081."""
NEAR, FAR, SHUT, OTHER_TENANT, HAIRPIN, OPEN = SERVICES
HTTP, WRONG_PORT, UDP = 8080, 8081, 5300
SOON = 0.8
"""Seconds after which what nobody answered counts as closed: hundreds of times what an answer takes."""
CLIENT = [{"podSelector": {"matchLabels": {"pod": "client"}}}, {"podSelector": {"matchLabels": {"pod": "narrow"}}}]
PODS = {
    "node1": ("red/client", "red/near", "red/walled", "red/narrow", "blue/stranger"),
    "node2": ("red/far", "red/shut", "red/open", "blue/own"),
}


def policy_of(key: str, **spec: object) -> Object:
    """The policy of the pod of this key."""
    return policy(key, {"podSelector": {"matchLabels": {"pod": key.rpartition("/")[2]}}, **spec})


PORT80 = [{"port": 80}]
MANIFESTS = as_yaml(
    *(pod(key, node, pod=key.rpartition("/")[2]) for node, keys in PODS.items() for key in keys),
    *(policy_of(key, ingress=[{"from": CLIENT, "ports": PORT80}]) for key in ("red/near", "red/far")),
    policy_of("red/shut", policyTypes=["Ingress"]),
    policy_of("red/walled", policyTypes=["Egress"]),
    policy_of(
        "red/narrow",
        policyTypes=["Egress"],
        egress=[{"to": [{"podSelector": {"matchLabels": {"pod": "far"}}}], "ports": PORT80}],
    ),
)


class Cluster(EditableCluster):
    """Two nodes, whose kernels translate Services, and what lies behind node1."""

    def netns(self, key: str) -> str:
        """The namespace of a pod."""
        return self.emulation.pods[PodKey(key)].netns

    def node(self, number: int) -> Node:
        """A node, from 1."""
        return self.emulation.nodes[f"node{number}"]

    def own(self, number: int) -> str:
        """A node's own address on its bridge."""
        return str(self.emulation.node_addresses[f"node{number}"])


def nft(node: Node, text: str) -> None:
    done = subprocess.run(
        inside(node.netns, ["nft", "-f", "-"]), input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def proxy(live: Cluster) -> str:
    """What kube-proxy makes of the Services: translated to the backend; a pod's packets to itself are marked first."""
    rows = []
    for virtual, key in SERVICES.items():
        backend = live.pod(key)
        rows.append(f"ip saddr {backend} ip daddr {virtual} mark set mark or 0x4000")
        for frontend, port in ((HTTP, 80), (WRONG_PORT, 81)):
            rows.append(f"ip daddr {virtual} tcp dport {frontend} dnat to {backend}:{port}")
        rows.append(f"ip daddr {virtual} udp dport {UDP} dnat to {backend}:{UDP}")
    return f"""
table ip kube-proxy
delete table ip kube-proxy
table ip kube-proxy {{
  chain services {{ {"; ".join(rows)}; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; meta mark & 0x4000 == 0x4000 masquerade; }}
}}
"""


def rules(live: Cluster, number: int) -> str:
    """The rules of a node of this cluster."""
    defined = {
        "NODE": live.own(number),
        "HOST_MASK": str(IPv4Address(AddressPlan.of(Settings()).host_match(0)[1])),
        "NODE_INTERFACES": f'{{ "lo", "{BRIDGE}", "{UNDERLAY_BRIDGE}", "{UPLINK}" }}',
        "NODES": f"{{ {underlay_address(0)}, {underlay_address(1)} }}",
        "FORWARDED_SOURCE": FORWARDED_SOURCE,
        "SERVICES": f"{{ {RANGE} }}",
    }
    text = RULES.read_text()
    for name, value in defined.items():
        text, count = re.subn(rf"^define {name} = .*$", f"define {name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    return text


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("services"),
        Fabric.VXLAN,
        ports=("80/tcp", "81/tcp"),
        settings=SETTINGS,
        manifests=MANIFESTS,
    ) as running:
        for number in (1, 2):
            node = running.node(number)
            for name in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
                assert run(node.netns, "sysctl", "-w", f"net.ipv4.{name}").returncode == 0
            for name in ("all", BRIDGE):
                done = run(node.netns, "sysctl", "-w", f"net.ipv4.conf.{name}.send_redirects=0")
                assert done.returncode == 0
            for text in (rules(running, number), proxy(running)):
                nft(node, text)
        yield running


@pytest.fixture(scope="module")
def outside(live: Cluster) -> str:
    """The namespace of a machine behind node1, which routes the pods' network there."""
    node = live.node(1)
    host = node.run.netns("outside")
    ip_batch([f"netns add {host}", f"link add {UPLINK} netns {node.netns} type veth peer name eth0 netns {host}"])
    # An emulated node hears its bridges only, so it is told to hear this card too.
    ip_batch(
        [
            f"rule add pref 9 iif {UPLINK} lookup local",
            f"addr add 198.51.100.1/24 dev {UPLINK}",
            f"link set {UPLINK} up",
        ],
        netns=node.netns,
    )
    ip_batch(
        [
            f"addr add {OUTSIDE}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            f"route add {NETWORK} via 198.51.100.1",
        ],
        netns=host,
    )
    return host


def asks(live: Cluster, who: str, virtual: str, port: int = HTTP, *, seconds: float = 4.0) -> str | None:
    """Which pod answers on a cluster address, if any."""
    return fetch(live.netns(who), virtual, port, seconds=seconds)


@pytest.mark.parametrize("virtual", [NEAR, FAR])
def test_the_server_sees_its_client(live: Cluster, virtual: str) -> None:
    """docs/hazards.md A26, A27: on one node and between two, the source is kept."""
    server = SERVICES[virtual]
    with contextlib.closing(Tap(live.netns(server))) as tap:
        assert asks(live, "red/client", virtual) == server
        sources = {frames.source_of(frame) for frame in tap.drain() if frame[12:14] == b"\x08\x00"}
    assert sources == {live.pod("red/client")}


def test_policy_is_about_the_backend(live: Cluster) -> None:
    """docs/hazards.md A26: at its port, and deny-all holds at either end."""
    for virtual in (NEAR, FAR):
        assert asks(live, "red/client", virtual, WRONG_PORT, seconds=SOON) is None
        assert asks(live, "red/walled", virtual, seconds=SOON) is None
    assert asks(live, "red/client", SHUT, seconds=SOON) is None
    assert asks(live, "red/narrow", FAR) == "red/far"
    assert asks(live, "red/narrow", NEAR, seconds=SOON) is None


def test_tenants_are_separate(live: Cluster) -> None:
    assert asks(live, "blue/stranger", OTHER_TENANT) == "blue/own"
    for virtual in (NEAR, OPEN):
        assert asks(live, "blue/stranger", virtual, seconds=SOON) is None
    assert asks(live, "red/client", OTHER_TENANT, seconds=SOON) is None


def test_a_pod_reaches_itself_by_its_service(live: Cluster) -> None:
    """docs/hazards.md A28: as an outsider, for which the rules of the node choose the source."""
    with contextlib.closing(Tap(live.netns("red/client"))) as tap:
        assert asks(live, "red/client", HAIRPIN) == "red/client"
        sources = {frames.source_of(frame) for frame in tap.drain() if frame[12:14] == b"\x08\x00"}
    assert sources == {FORWARDED_SOURCE, HAIRPIN}


@pytest.mark.parametrize("other_size", [1, 4000])
def test_datagrams_and_their_answers(live: Cluster, other_size: int) -> None:
    """Also in fragments: the client gets the answer from the address that it asked."""
    size = b"x" * other_size
    with (
        udp_socket(live.netns("red/open"), "0.0.0.0", UDP) as server,
        udp_socket(live.netns("red/client")) as client,
    ):
        for text in (b"first" + size, b"second" + size):
            client.sendto(text, (OPEN, UDP))
            data, peer = server.recvfrom(65535)
            assert (data, peer[0]) == (text, live.pod("red/client"))
            server.sendto(b"answer to " + data, peer)
            assert client.recvfrom(65535) == (b"answer to " + text, (OPEN, UDP))


def test_a_closed_port_is_reported(live: Cluster) -> None:
    """The ICMP error about the translated datagram reaches the client, as one about its own."""
    with udp_socket(live.netns("red/client")) as client:
        client.connect((OPEN, UDP))
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)


def test_one_source_port_for_a_service_and_its_backend(live: Cluster) -> None:
    """The last packet decides how replies travel."""
    with (
        udp_socket(live.netns("red/open"), "0.0.0.0", UDP) as server,
        udp_socket(live.netns("red/client"), "0.0.0.0", 7777) as client,
    ):
        for target in (OPEN, live.pod("red/open")) * 2:
            client.sendto(b"question", (target, UDP))
            _, peer = server.recvfrom(100)
            server.sendto(b"answer", peer)
            assert client.recvfrom(100) == (b"answer", (target, UDP))


@pytest.fixture
def wire(live: Cluster, outside: str) -> Iterator[Callable[[bytes], None]]:
    """Sends a frame from outside to node1's kernel, whatever its own destination MAC is."""
    [device] = json.loads(run(live.node(1).netns, "ip", "-j", "link", "show", UPLINK).stdout)
    with contextlib.closing(Tap(outside)) as tap:
        yield lambda frame: tap.send(frames.mac(device["address"]) + frame[6:])


def test_no_pods_source_from_elsewhere(live: Cluster, outside: str, wire: Callable[[bytes], None]) -> None:
    """docs/hazards.md B24: who makes the host forward a pod's address is that pod, so rules drop it on its way in."""
    client, victim = IPv4Address(live.pod("red/client")), IPv4Address(live.pod("red/near"))

    def forged(port: int, text: bytes) -> bytes:
        return frames.tcp(client, victim, (port, 80), frames.SYN, eth_src="02:00:00:00:00:99", data=text)

    with (
        contextlib.closing(Tap(live.netns("red/near"))) as near,
        contextlib.closing(Tap(live.netns("red/client"))) as own,
        udp_socket(outside) as honest,
    ):
        nft(live.node(1), "flush chain inet romana-ovs pod-sources")
        wire(forged(7001, b"without rules"))
        eventually(lambda: near.has(b"without rules"), "without rules it arrives")
        nft(live.node(1), rules(live, 1))
        wire(forged(7002, b"with rules"))
        honest.sendto(b"honest", (str(client), 9))
        eventually(lambda: own.has(b"honest"), "what is outside's goes on")
        assert not near.has(b"with rules")


def test_the_outside_is_no_service(live: Cluster, outside: str, wire: Callable[[bytes], None]) -> None:
    """A cluster address as source, from outside, enters no pod's connection."""
    with (
        contextlib.closing(Tap(live.netns("red/client"))) as tap,
        udp_socket(live.netns("red/client"), "0.0.0.0", 7778) as client,
        udp_socket(live.netns("red/open"), "0.0.0.0", UDP) as server,
    ):
        client.sendto(b"question", (OPEN, UDP))
        _, peer = server.recvfrom(100)
        ends = IPv4Address(OPEN), IPv4Address(live.pod("red/client"))
        wire(frames.udp(*ends, (UDP, 7778), eth_src="02:00:00:00:00:99", data=b"forged"))
        server.sendto(b"answer", peer)
        assert client.recvfrom(100) == (b"answer", (OPEN, UDP))
        eventually(lambda: tap.has(b"answer"), "the answer arrives")
        assert not tap.has(b"forged")
