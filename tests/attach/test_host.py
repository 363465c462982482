"""The host's rules with real packets: what a node forwards, translates and refuses beside the bridge.

One node with a kube-proxy's rules, and a machine outside that knows no way to pods.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address

import pytest

from romana_ovs_emulate.system import inside, ip_batch
from tests.support import frames
from tests.support.api_objects import as_yaml, pod, policy
from tests.support.cni_node import BRIDGE, CniNode, Sandbox, needs_plugin
from tests.support.datapath import on_netdev
from tests.support.netns_sockets import Page, Tap, fetch, run, udp_socket
from tests.support.waiting import eventually

pytestmark = [
    needs_plugin,
    pytest.mark.skipif(not (shutil.which("nft") or os.environ.get("CI")), reason="needs nft"),
]
NODE_SIDE, OUTSIDE, FORGED = "198.51.100.1", "198.51.100.2", "10.0.64.77"
FORWARDED = "192.0.0.8"
SERVICES, VIRTUAL = "172.30.0.0/16", "172.30.0.10"
PODS = ("open", "closed", "public", "client")
NODE_PORTS = {pod: number for number, pod in enumerate(PODS, start=30001)}
CLUSTER_IPS = {pod: f"172.30.0.{number}" for number, pod in enumerate(PODS, start=21)}
_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
SOON = 0.8
"""Seconds after which what nobody answered counts as refused: hundreds of times what an answer takes."""
POLICIES = as_yaml(
    policy("a/closed", {"podSelector": {"matchLabels": {"pod": "closed"}}, "policyTypes": ["Ingress"]}),
    policy(
        "a/public",
        {
            "podSelector": {"matchLabels": {"pod": "public"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}],
        },
    ),
)


@dataclass
class Scene:
    """The node, its pods with their addresses, and the namespace of the machine outside."""

    node: CniNode
    outside: str
    sandboxes: dict[str, Sandbox] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)

    def netns(self, who: str) -> str:
        """The namespace of a pod, of the node or of the machine outside."""
        spaces = {"outside": self.outside, "node": self.node.name}
        return spaces.get(who) or self.sandboxes[who].netns

    def by_node_port(self, who: str, target: str, *, seconds: float = 4.0) -> str | None:
        """Which pod answers on the node port of `target`."""
        return fetch(self.netns(who), NODE_SIDE, NODE_PORTS[target], seconds=seconds)

    def nft(self, text: str) -> None:
        """Change nftables of the node."""
        argv = inside(self.node.name, ["nft", "-f", "-"])
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def table(self) -> str:
        """Our table as nft lists it; empty when there is none."""
        return run(self.node.name, "nft", "-s", "-t", "list", "table", "inet", "romana-ovs").stdout

    def until_complete(self) -> None:
        """Wait until our table has all its rules."""
        eventually(lambda: "redirect" in self.table() and FORWARDED in self.table(), self.node.agent_log[-2000:])


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with CniNode() as node, contextlib.ExitStack() as stack:
        made = Scene(node, f"{node.name}-out")
        _add_outside(node, made.outside)
        node.controller.settings = f"service_ranges = {SERVICES}"
        for name in PODS:
            node.controller.write(f"{name}.yaml", as_yaml(pod(f"a/{name}", "node1", uid=f"{name}-1", pod=name)))
        node.controller.write("policies.yaml", POLICIES)
        node.start()
        for name in PODS:
            made.sandboxes[name] = node.sandbox(name)
            made.addresses[name] = node.add(made.sandboxes[name]).address
            stack.enter_context(Page(made.netns(name), 80, name))
        stack.enter_context(Page(made.outside, 80, "outside"))
        made.until_complete()
        eventually(lambda: SERVICES in made.table(), "the range of Services is known")
        eventually(lambda: "leads to 10.0.0.0/8" in node.agent_log, "the gateway is configured")
        made.nft(_kube_proxy(made.addresses))
        yield made


def _add_outside(node: CniNode, netns: str) -> None:
    """A machine behind the node's card, to which the node has its default route; it has none to pods."""
    node.make_netns(netns)
    ip_batch([f"link add up0 netns {node.name} type veth peer name eth0 netns {netns}"])
    ip_batch(
        [f"addr add {NODE_SIDE}/24 dev up0", "link set up0 up", f"route add default via {OUTSIDE}"], netns=node.name
    )
    ip_batch(
        [f"addr add {OUTSIDE}/24 dev eth0", f"addr add {FORGED}/32 dev eth0", f"addr add {VIRTUAL}/32 dev eth0"]
        + ["link set lo up", "link set eth0 up"],
        netns=netns,
    )
    for name in ("all", "up0"):
        assert run(node.name, "sysctl", "-w", f"net.ipv4.conf.{name}.rp_filter=0").returncode == 0


def _kube_proxy(addresses: dict[str, str]) -> str:
    ports = "".join(
        f"tcp dport {port} mark set mark or 0x4000 dnat to {addresses[name]}:80\n" for name, port in NODE_PORTS.items()
    )
    clusters = "".join(f"ip daddr {CLUSTER_IPS[name]} tcp dport 80 dnat to {addresses[name]}\n" for name in PODS)
    return f"""
table ip kube-proxy {{
  chain services {{ {ports} }}
  chain clusters {{ {clusters} }}
  chain prerouting {{ type nat hook prerouting priority dstnat; jump clusters; fib daddr type local jump services; }}
  chain output {{ type nat hook output priority -100;
    ip daddr {SERVICES} mark set mark or 0x4000; jump clusters; fib daddr type local jump services; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; meta mark & 0x4000 == 0x4000 masquerade; }}
}}
"""


def test_pods_leave_the_cluster_with_the_nodes_address(scene: Scene) -> None:
    assert fetch(scene.netns("client"), OUTSIDE) == "outside"
    with contextlib.closing(Tap(scene.outside)) as wire:
        assert fetch(scene.netns("closed"), OUTSIDE) == "outside"
        assert {frames.source_of(frame) for frame in wire.drain() if frame[12:14] == b"\x08\x00"} == {NODE_SIDE}


@pytest.mark.parametrize("who", ["outside", "client", "closed"])
def test_a_node_port_is_not_the_node(scene: Scene, who: str) -> None:
    """Default-deny holds for it, also for a pod's own port; what is open to all outside stays so."""
    assert scene.by_node_port(who, "public") == "public"
    assert scene.by_node_port(who, "open") == "open"
    assert scene.by_node_port(who, "closed", seconds=SOON) is None


def test_the_node_itself_reaches_all_its_pods(scene: Scene) -> None:
    for name in PODS:
        assert fetch(scene.node.name, scene.addresses[name]) == name
        assert scene.by_node_port("node", name) == name


def test_a_pod_sees_that_it_was_forwarded(scene: Scene) -> None:
    with contextlib.closing(Tap(scene.netns("public"))) as public:
        assert scene.by_node_port("outside", "public") == "public"
        assert {frames.source_of(frame) for frame in public.drain() if frame[12:14] == b"\x08\x00"} == {FORWARDED}


def test_a_service_keeps_its_clients_source(scene: Scene) -> None:
    """From a pod by its cluster address: policy is about the pod behind it, and sees the client itself."""
    with contextlib.closing(Tap(scene.netns("public"))) as public:
        assert fetch(scene.netns("client"), CLUSTER_IPS["public"]) == "public"
        sources = {frames.source_of(frame) for frame in public.drain() if frame[12:14] == b"\x08\x00"}
        assert sources == {scene.addresses["client"]}
    assert fetch(scene.netns("client"), CLUSTER_IPS["closed"], seconds=SOON) is None
    assert fetch(scene.node.name, CLUSTER_IPS["closed"]) == "closed", "the node itself is the node"


@pytest.mark.parametrize(("mark", "public"), [("0x2000", "public"), ("0x1", None)])
def test_other_masquerade_counts_by_its_mark(scene: Scene, mark: str, public: str | None) -> None:
    """That of portmap is known. What is masqueraded with any other mark reaches no pod of this node."""
    ports = {"closed": 30101, "public": 30102}
    rules = "".join(
        f"tcp dport {port} mark set {mark} dnat to {scene.addresses[name]}:80\n" for name, port in ports.items()
    )
    scene.nft(f"""
table ip other {{
  chain pre {{ type nat hook prerouting priority dstnat - 1; {rules} }}
  chain post {{ type nat hook postrouting priority srcnat; ct status dnat masquerade; }}
}}
""")
    try:
        assert fetch(scene.outside, NODE_SIDE, ports["public"], seconds=SOON) == public
        assert fetch(scene.outside, NODE_SIDE, ports["closed"], seconds=SOON) is None
    finally:
        scene.nft("delete table ip other")


@pytest.mark.parametrize("forged", [FORGED, VIRTUAL])
def test_a_pods_address_from_elsewhere_is_forged(scene: Scene, forged: str) -> None:
    """So is one of Services."""
    target = (scene.addresses["open"], 7)
    assert run(scene.outside, "ip", "route", "add", "10.0.0.0/8", "via", NODE_SIDE).returncode == 0
    try:
        with (
            contextlib.closing(Tap(scene.netns("open"))) as tap,
            udp_socket(scene.outside, forged) as liar,
            udp_socket(scene.outside, OUTSIDE) as honest,
        ):
            liar.sendto(b"forged", target)
            honest.sendto(b"honest", target)
            eventually(lambda: tap.has(b"honest"), "what is not forged arrives")
            assert not tap.has(b"forged")
    finally:
        run(scene.outside, "ip", "route", "del", "10.0.0.0/8")


@pytest.mark.parametrize("address", [FORWARDED, VIRTUAL])
def test_what_is_for_nobody_stays_inside(scene: Scene, address: str) -> None:
    """It would leave the node: the forwarded source, and a Service that no proxy knows."""
    with contextlib.closing(Tap(scene.outside)) as wire, udp_socket(scene.netns("client")) as sender:
        sender.sendto(b"to nobody", (address, 7))
        sender.sendto(b"to outside", (OUTSIDE, 7))
        eventually(lambda: wire.has(b"to outside"), "what is for outside arrives")
        assert not wire.has(b"to nobody")


@on_netdev
def test_nothing_passes_beside_the_bridge(scene: Scene) -> None:
    """The userspace datapath reads a port beside the kernel, which takes what is sent to the port's own MAC."""
    port = scene.node.port_of(scene.sandboxes["client"])
    shown = json.loads(run(scene.node.name, "ip", "-j", "link", "show", port).stdout)
    source, target = IPv4Address(scene.addresses["client"]), IPv4Address(OUTSIDE)
    own = json.loads(run(scene.netns("client"), "ip", "-j", "link", "show", "eth0").stdout)[0]["address"]
    data = frames.udp_payload(source, target, (7000, 9), b"beside")
    with contextlib.closing(Tap(scene.outside)) as wire, contextlib.closing(Tap(scene.netns("client"))) as pod_side:
        pod_side.send(frames.Frame(source, target, 17, data, own, shown[0]["address"]).bytes())
        with udp_socket(scene.netns("client")) as honest:
            honest.sendto(b"by the bridge", (OUTSIDE, 9))
        eventually(lambda: wire.has(b"by the bridge"), "what the bridge lets out arrives")
        assert not wire.has(b"beside")


CHANGES = {
    "deleted": "delete table inet romana-ovs",
    "flushed": "flush table inet romana-ovs",
    "one chain flushed": "flush chain inet romana-ovs translations",
    "a rule added": "insert rule inet romana-ovs forwarded-checked accept",
}


def test_the_table_is_put_back_whatever_is_done_to_it(scene: Scene) -> None:
    before = scene.table()
    for what, text in CHANGES.items():
        scene.nft(text)
        eventually(lambda: scene.table() == before, f"the table is put back after it was {what}")
    assert scene.by_node_port("outside", "closed", seconds=SOON) is None
    assert scene.by_node_port("outside", "public") == "public"


def test_the_table_outlives_the_agent(scene: Scene) -> None:
    before = scene.table()
    for number in (signal.SIGTERM, signal.SIGKILL):
        scene.node.stop_agent(number)
        assert scene.table() == before
        scene.node.start_agent()
        scene.node.until_ready()
    assert run(scene.node.name, "ip", "route", "show", "dev", BRIDGE).stdout.startswith("10.0.0.0/8 via 169.254.1.1")


def test_a_pod_learns_of_a_smaller_mtu_outside(scene: Scene) -> None:
    """The node is the router: its error passes the tables, also to a pod that nothing may reach."""
    assert run(scene.node.name, "ip", "link", "set", "up0", "mtu", "1000").returncode == 0
    try:
        with udp_socket(scene.netns("closed")) as sender:
            sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)

            def refused() -> bool:
                try:
                    sender.sendto(bytes(1300), (OUTSIDE, 7))
                except OSError as error:
                    return error.errno == errno.EMSGSIZE
                return False

            eventually(refused, "its kernel knows that the packet is too big")
    finally:
        run(scene.node.name, "ip", "link", "set", "up0", "mtu", "1500")
