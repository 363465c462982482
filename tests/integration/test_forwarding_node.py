"""A node that forwards packets, as one with kube-proxy does: etc/nftables/forwarding-node.nft on real nodes' kernels.

Each attack is made without the rules first, where it succeeds: that shows that the test sees what it is about.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from romana_ovs_emulate.fabric import TUNNEL_KEY, Fabric, underlay_address
from romana_ovs_emulate.nodes import BRIDGE, UNDERLAY_BRIDGE, Node
from romana_ovs_emulate.system import inside, ip_batch
from tests.support import frames
from tests.support.api_objects import Object, as_yaml, pod, policy
from tests.support.editable_cluster import EditableCluster, identity_of
from tests.support.netns_sockets import Attempt, Page, Tap, fetch, run, udp_socket
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(not (shutil.which("nft") or os.environ.get("CI")), reason="needs nft")
RULES = Path(__file__).parents[2] / "etc" / "nftables" / "forwarding-node.nft"
OUTSIDE, OTHER, UPLINK = "198.51.100.2", "198.51.100.3", "up0"
SETTINGS = "[romana]\nisolation = tenant\ntenant_source = namespace\n"
PORTS = {Fabric.VXLAN: 4789, Fabric.GENEVE: 6081}
CLOSED, PUBLIC, UNSELECTED, FAR, SHUT_FAR, BEYOND, TUNNEL = range(30001, 30008)
"""Node ports: to a pod that nothing may reach, to one for all outside, to one without policy, to such as the first two
on node2, to outside, to node2's tunnel."""
MASQUERADED = "meta mark & 0x4000 == 0x4000"


def policy_of(key: str, **spec: object) -> Object:
    """The policy of the pod of this key."""
    return policy(key, {"podSelector": {"matchLabels": {"pod": key.rpartition("/")[2]}}, **spec})


EVERYBODY = [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]
PODS = {
    "node1": ("red/attacker", "red/cut", "red/closed", "red/public", "blue/client"),
    "node2": ("red/far", "red/shut", "blue/victim"),
}
MANIFESTS = as_yaml(
    *(pod(key, node, pod=key.rpartition("/")[2]) for node, keys in PODS.items() for key in keys),
    *(policy_of(key, policyTypes=["Ingress"]) for key in ("red/closed", "red/shut")),
    *(policy_of(key, ingress=EVERYBODY) for key in ("red/public", "red/far")),
    policy_of("red/cut", policyTypes=["Egress"]),
)


class Cluster(EditableCluster):
    """Two nodes and what lies behind node1."""

    @property
    def fabric(self) -> Fabric:
        """How its nodes are joined."""
        return self.emulation.plan.fabric

    def netns(self, key: str) -> str:
        """The namespace of a pod."""
        return self.emulation.pods[PodKey(key)].netns

    def node(self, number: int) -> Node:
        """A node, from 1."""
        return self.emulation.nodes[f"node{number}"]

    def own(self, number: int) -> str:
        """A node's own address on its bridge."""
        return str(self.emulation.node_addresses[f"node{number}"])


@pytest.fixture(scope="module", params=PORTS, ids=lambda fabric: fabric.value)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("forwarding"), request.param, ports=("80/tcp",), settings=SETTINGS, manifests=MANIFESTS
    ) as running:
        for node in running.emulation.nodes.values():
            # Neither what comes by the tunnel nor what goes to a pod has to come back by where it would go.
            for name in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
                assert run(node.netns, "sysctl", "-w", f"net.ipv4.{name}").returncode == 0
        yield running


@pytest.fixture(scope="module")
def outside(live: Cluster) -> str:
    """The namespace of a machine behind node1, with two addresses."""
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
            f"addr add {OTHER}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            "route add 10.0.0.0/8 via 198.51.100.1",
        ],
        netns=host,
    )
    return host


def nft(node: Node, text: str) -> None:
    done = subprocess.run(
        inside(node.netns, ["nft", "-f", "-"]), input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def rules(live: Cluster, number: int, **others: str) -> str:
    """The file as an operator writes it for a node of this cluster."""
    defined = {
        "NODE": live.own(number),
        "HOST_MASK": str(IPv4Address(AddressPlan.of(Settings()).host_match(0)[1])),
        "NODE_INTERFACES": f'{{ "lo", "{BRIDGE}", "{UNDERLAY_BRIDGE}", "{UPLINK}" }}',
        "NODES": f"{{ {underlay_address(0)}, {underlay_address(1)}, {OTHER} }}",
        **others,
    }
    text = RULES.read_text()
    for name, value in defined.items():
        text, count = re.subn(rf"^define {name} = .*$", f"define {name} = {value}", text, flags=re.MULTILINE)
        assert count == 1, name
    return text


@pytest.fixture
def proxy(live: Cluster) -> Iterator[None]:
    """What kube-proxy and a CNI plugin bring on node1: node ports, and masquerade of what leaves the cluster or is
    marked for it. Gone after the test, as all rules are."""
    ends = {CLOSED: "red/closed", PUBLIC: "red/public", UNSELECTED: "blue/client", FAR: "red/far", SHUT_FAR: "red/shut"}
    to = "".join(f"tcp dport {port} mark set mark or 0x4000 dnat to {live.pod(key)}:80\n" for port, key in ends.items())
    to += f"tcp dport {BEYOND} mark set mark or 0x4000 dnat to {OUTSIDE}:8080\n"
    to += f"udp dport {TUNNEL} mark set mark or 0x4000 dnat to {underlay_address(1)}:{PORTS[live.fabric]}\n"
    nft(
        live.node(1),
        f"""
table ip kube-proxy {{
  chain services {{ {to} }}
  chain prerouting {{ type nat hook prerouting priority dstnat; fib daddr type local jump services; }}
  chain output {{ type nat hook output priority -100; fib daddr type local jump services; }}
  chain postrouting {{ type nat hook postrouting priority srcnat;
    {MASQUERADED} masquerade
    ip saddr 10.0.0.0/8 ip daddr != 10.0.0.0/8 masquerade
  }}
}}
""",
    )
    yield
    for number in (1, 2):
        assert run(live.node(number).netns, "nft", "flush", "ruleset").returncode == 0


# Tunnels.


def forged(live: Cluster, text: bytes) -> bytes:
    """What a node's tunnel takes for blue/client sending to blue/victim."""
    client, victim = IPv4Address(live.pod("blue/client")), IPv4Address(live.pod("blue/victim"))
    number = identity_of(live.node(1), str(client)).to_bytes(4, "big")
    wire = "0a:05:" + ":".join(f"{byte:02x}" for byte in number)
    if live.fabric is Fabric.VXLAN:
        header = struct.pack("!II", 0x08000000, TUNNEL_KEY << 8)
    else:
        header = struct.pack("!HHI", 0, 0x6558, TUNNEL_KEY << 8)
    return header + frames.udp(client, victim, (6000, 81), eth_src=wire, data=text)


WAYS: dict[str, Callable[[Cluster], tuple[str, int]]] = {
    "to the node": lambda live: (str(underlay_address(1)), PORTS[live.fabric]),
    "by a node port": lambda live: (live.own(1), TUNNEL),
}


@pytest.mark.parametrize("lacking", ["", "tunnels-forwarded", "tunnels-translated"])
@pytest.mark.parametrize("way", WAYS)
def test_a_pod_forges_no_identity_by_way_of_its_node(
    live: Cluster,
    outside: str,
    proxy: None,
    way: str,
    lacking: str,
) -> None:
    """Either of two chains does it: one is for what the other does not see."""
    with contextlib.closing(Tap(live.netns("blue/victim"))) as victim:
        with udp_socket(live.netns("red/attacker")) as sender:
            sender.sendto(forged(live, b"forged without rules"), WAYS[way](live))
            eventually(lambda: victim.has(b"forged without rules"), "without rules it arrives")
        nft(live.node(1), rules(live, 1))
        if lacking:
            nft(live.node(1), f"flush chain inet romana-ovs {lacking}")
        with udp_socket(live.netns("red/attacker")) as sender, udp_socket(live.netns("blue/client")) as honest:
            sender.sendto(forged(live, b"forged with rules"), WAYS[way](live))
            honest.sendto(b"honest", (live.pod("blue/victim"), 81))
            eventually(lambda: victim.has(b"honest"), "the tunnel itself goes on")
        assert not victim.has(b"forged with rules")


def test_without_both_chains_it_is_forged(live: Cluster, outside: str, proxy: None) -> None:
    """The control of the test above: nothing else in the file closes it."""
    nft(live.node(1), rules(live, 1))
    for chain in ("tunnels-forwarded", "tunnels-translated"):
        nft(live.node(1), f"flush chain inet romana-ovs {chain}")
    with (
        contextlib.closing(Tap(live.netns("blue/victim"))) as victim,
        udp_socket(live.netns("red/attacker")) as sender,
    ):
        sender.sendto(forged(live, b"forged"), (str(underlay_address(1)), PORTS[live.fabric]))
        eventually(lambda: victim.has(b"forged"), "it arrives")


def test_only_known_nodes_send_to_the_tunnel_port(live: Cluster, outside: str, proxy: None) -> None:
    """Where the kernel has the tunnel. Here it stands on a card that the bridges do not have, and a socket for it."""
    here, port = "198.51.100.1", PORTS[live.fabric]
    node = live.node(1).netns
    with (
        udp_socket(node, here, port) as tunnel,
        udp_socket(node, here, 9) as other,
        udp_socket(outside, OUTSIDE) as stranger,
        udp_socket(outside, OTHER) as known,
        udp_socket(live.netns("red/attacker")) as attacker,
    ):
        for sender in (stranger, attacker, known):
            sender.sendto(b"before", (here, port))
            assert tunnel.recv(100) == b"before", "without rules it arrives"
        nft(live.node(1), rules(live, 1))
        for sender in (stranger, attacker):
            sender.sendto(b"refused", (here, port))
            sender.sendto(b"later", (here, 9))
            assert other.recv(100) == b"later"
        known.sendto(b"known", (here, port))
        assert tunnel.recv(100) == b"known"


# Node ports.


@pytest.fixture
def asks(live: Cluster, outside: str) -> Callable[[str, int], str | None]:
    """Which pod answers on a node port of node1, if any, when a pod, the outside or node1 itself asks."""

    def ask(who: str, port: int, seconds: float = 4.0) -> str | None:
        spaces = {"outside": outside, "node1": live.node(1).netns}
        address = "198.51.100.1" if who == "outside" else live.own(1)
        return fetch(spaces.get(who) or live.netns(who), address, port, seconds=seconds)

    return ask


SOON = 0.8
"""Seconds after which what nobody answered counts as closed: hundreds of times what an answer takes."""
STRANGERS = ("red/attacker", "blue/client", "outside")


def test_a_node_port_is_not_the_node(live: Cluster, proxy: None, asks: Callable[..., str | None]) -> None:
    for who in STRANGERS:
        assert asks(who, CLOSED) == "red/closed", f"without rules {who} passes for the node"
        assert asks(who, PUBLIC) == "red/public"
    nft(live.node(1), rules(live, 1))
    for who in STRANGERS:
        assert asks(who, PUBLIC) == "red/public", "what is open to all outside stays so"
        assert asks(who, CLOSED, SOON) is None
    assert asks("red/attacker", UNSELECTED) == "blue/client", "outside has no tenant: such a pod needs a policy"
    assert asks("node1", CLOSED) == "red/closed", "the node itself is the node, by its node ports too"
    assert fetch(live.node(1).netns, live.pod("red/closed")) == "red/closed"


def test_a_pod_sees_the_forwarded_source(live: Cluster, proxy: None, asks: Callable[..., str | None]) -> None:
    """So an ipBlock can match it, and it is not an address of the node."""
    nft(live.node(1), rules(live, 1, FORWARDED_SOURCE="192.0.2.77"))
    with contextlib.closing(Tap(live.netns("red/public"))) as public:
        assert asks("blue/client", PUBLIC) == "red/public"
        sources = {frames.source_of(frame) for frame in public.drain() if frame[12:14] == b"\x08\x00"}
    assert sources == {"192.0.2.77"}


def test_node_ports_of_pods_elsewhere_are_as_before(
    live: Cluster,
    proxy: None,
    asks: Callable[..., str | None],
) -> None:
    """The other node grants this one nothing."""
    for stage in ("without rules", "with rules"):
        for who in STRANGERS:
            assert asks(who, FAR) == "red/far", f"{who} {stage}"
            assert asks(who, SHUT_FAR, SOON) is None, f"{who} {stage}"
        nft(live.node(1), rules(live, 1))
        nft(live.node(2), rules(live, 2))


def test_what_is_masqueraded_without_a_mark_does_not_pass(
    live: Cluster,
    proxy: None,
    asks: Callable[..., str | None],
) -> None:
    nft(
        live.node(1),
        "flush chain ip kube-proxy postrouting\nadd rule ip kube-proxy postrouting masquerade\n"
        "flush chain ip kube-proxy services\n"
        f"add rule ip kube-proxy services tcp dport {CLOSED} dnat to {live.pod('red/closed')}:80\n",
    )
    for who in STRANGERS:
        assert asks(who, CLOSED) == "red/closed", f"without rules {who} passes for the node"
    nft(live.node(1), rules(live, 1))
    for who in STRANGERS:
        assert asks(who, CLOSED, SOON) is None
    assert asks("node1", CLOSED) == "red/closed"


def test_what_is_only_forwarded_keeps_its_source(
    live: Cluster,
    outside: str,
    proxy: None,
    asks: Callable[..., str | None],
) -> None:
    """Policies about addresses go on to see whom they mean."""
    nft(live.node(1), rules(live, 1))
    with contextlib.closing(Tap(live.netns("red/public"))) as public:
        assert fetch(outside, live.pod("red/public")) == "red/public"
        assert OUTSIDE in {frames.source_of(frame) for frame in public.drain() if frame[12:14] == b"\x08\x00"}
    with Page(outside, 8080, "outside"), Attempt(live.netns("red/cut"), OUTSIDE, 8080) as cut:
        assert fetch(live.netns("red/attacker"), OUTSIDE, 8080) == "outside", "masqueraded as before"
        assert asks("red/attacker", BEYOND) == "outside", "as this node's, which answers find"
        assert cut.unanswered


# Past the bridge.


def test_nothing_passes_beside_the_bridge(live: Cluster, outside: str, proxy: None) -> None:
    """The userspace datapath reads a port beside the kernel, which takes what is sent to the port's own MAC."""
    pod = live.emulation.pods[PodKey("red/cut")]
    shown = json.loads(run(live.node(1).netns, "ip", "-j", "link", "show", pod.port).stdout)
    [source, target] = IPv4Address(live.pod("red/cut")), IPv4Address(OUTSIDE)

    def sent(text: bytes) -> bytes:
        packet = frames.udp_payload(source, target, (7000, 9), text)
        return frames.Frame(source, target, 17, packet, pod.place.mac, shown[0]["address"]).bytes()

    with (
        contextlib.closing(Tap(outside)) as wire,
        contextlib.closing(Tap(live.netns("red/cut"))) as cut,
        udp_socket(live.netns("red/attacker")) as honest,
    ):
        cut.send(sent(b"without rules"))
        eventually(lambda: wire.has(b"without rules"), "a pod that may send nothing reaches outside")
        nft(live.node(1), rules(live, 1))
        cut.send(sent(b"with rules"))
        honest.sendto(b"honest", (OUTSIDE, 9))
        eventually(lambda: wire.has(b"honest"), "what the bridge lets out is forwarded")
        assert not wire.has(b"with rules")
