"""Packets that no honest pod sends, and honest ones that are easily lost, on emulated clusters of both kinds."""

from __future__ import annotations

import contextlib
import re
import struct
from collections import Counter
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address

import pytest

from romana_ovs.model.objects import PodKey
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import BRIDGE, Node
from romana_ovs_emulate.pods import RunningPod
from tests.support import frames
from tests.support.editable_cluster import EditableCluster
from tests.support.frames import Frame, mac
from tests.support.netns_sockets import Attempt, Echo, Page, Tap, fetch, pings, run, udp_socket, unfiltered
from tests.support.waiting import eventually

ARP = b"\x08\x06"
CONSTANT_MAC = mac("0a:58:00:00:00:01")
NEXT_HOP = "0a:58:00:00:00:01"
NEIGHBOUR = ["169.254.1.1", "lladdr", NEXT_HOP, "PERMANENT"]
"""The neighbours of a pod or node, as iproute2 shows them."""
ALL_HOSTS = "ff:ff:ff:ff:ff:ff"
UNSPECIFIED = IPv4Address("0.0.0.0")
TIMES = 3
"""How often each forged frame is sent, at least: the first makes a megaflow, which counts the others."""
BIG = 8000

SETTINGS = "[romana]\nisolation = none\ntenant_source = namespace\n"
NODE_OF = {"evil": 1, "near": 1, "far": 2, "third": 3, "shut": 1, "half": 1, "far-half": 2}
PODS = "---".join(
    f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: p, labels: {{pod: {name}, kind: {name.split("-")[-1]}}}}}
spec: {{nodeName: node{node}, containers: [{{name: c, image: i}}]}}
"""
    for name, node in NODE_OF.items()
)
POLICIES = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: shut, namespace: p}
spec: {podSelector: {matchLabels: {pod: shut}}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: half, namespace: p}
spec: {podSelector: {matchLabels: {kind: half}}, ingress: [{ports: [{port: 81, protocol: UDP}]}]}
"""


@pytest.fixture(scope="module", params=[Fabric.LINK, Fabric.VXLAN], ids=lambda fabric: fabric.value)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditableCluster]:
    ports = ("80/tcp", "80/udp", "81/udp")
    with EditableCluster(
        tmp_path_factory.mktemp("packets"), request.param, ports=ports, settings=SETTINGS, manifests=PODS + POLICIES
    ) as running:
        yield running


@pytest.fixture
def taps(live: EditableCluster) -> Iterator[dict[str, Tap]]:
    """A tap on every pod's interface, by the pod's name."""
    with contextlib.ExitStack() as stack:
        made = {}
        for key, pod in live.emulation.pods.items():
            made[key.partition("/")[2]] = tap = Tap(pod.netns)
            stack.callback(tap.close)
        yield made


def pod_of(live: EditableCluster, name: str) -> RunningPod:
    return live.emulation.pods[PodKey(f"p/{name}")]


def address(live: EditableCluster, name: str) -> IPv4Address:
    return IPv4Address(pod_of(live, name).place.address)


def node_of(live: EditableCluster, number: int) -> Node:
    return live.emulation.nodes[f"node{number}"]


def node_address(live: EditableCluster, number: int) -> IPv4Address:
    return live.emulation.node_addresses[f"node{number}"]


def identity(live: EditableCluster, name: str) -> int:
    """The identity of a pod, as its own node's tables say."""
    shown = node_of(live, NODE_OF[name]).ofctl("dump-flows", "--no-stats")
    found = re.search(rf"nw_src={re.escape(str(address(live, name)))} actions=.*set_field:(0x[0-9a-f]+)->reg1\b", shown)
    assert found is not None
    return int(found[1], 16)


def dropped(live: EditableCluster, name: str) -> Counter[str]:
    """How many packets the switch has dropped of those that came in at a pod's port, by megaflow."""
    shown = node_of(live, NODE_OF[name]).appctl("dpctl/dump-flows", "--names")
    lines = [line for line in shown.splitlines() if f"in_port({pod_of(live, name).port})" in line]
    return Counter(
        {
            found[1]: int(found[2])
            for line in lines
            if line.endswith("actions:drop") and (found := re.match(r"(.*), packets:(\d+)", line))
        }
    )


def datagram(
    source: IPv4Address,
    destination: IPv4Address,
    eth_src: str,
    eth_dst: str = NEXT_HOP,
    *,
    ports: tuple[int, int] = (5353, 80),
    fragment: int = 0,
) -> bytes:
    payload = frames.udp_payload(source, destination, ports, b"forged" * 230)
    if fragment & 0x1FFF:
        payload = b"forged" * 230
    return Frame(source, destination, 17, payload[:1304] if fragment else payload, eth_src, eth_dst, fragment).bytes()


def tagged(frame: bytes, tci: int) -> bytes:
    return frame[:12] + struct.pack("!HH", 0x8100, tci) + frame[12:]


def plain_arp(
    sender: IPv4Address, target: IPv4Address, eth_src: str, operation: int = 1, sender_mac: str | None = None
) -> bytes:
    return frames.arp(sender, target, eth_src=eth_src, operation=operation, sender_mac=sender_mac) + b"forged-arp" * 2


def forgeries(live: EditableCluster) -> dict[str, bytes]:
    """Frames that p/evil must not get rid of, by what they try."""
    here, me = pod_of(live, "evil").place.mac, address(live, "evil")
    gateway, other_gateway = node_address(live, 1), node_address(live, 2)
    gateway_mac = "0a:58:" + ":".join(f"{byte:02x}" for byte in gateway.packed)
    wire_mac = "0a:05:" + ":".join(f"{byte:02x}" for byte in identity(live, "far").to_bytes(4, "big"))
    made: dict[str, bytes] = {}
    for name in ("near", "far"):
        target, its_mac = address(live, name), pod_of(live, name).place.mac
        friend, friend_mac = address(live, "third"), pod_of(live, "third").place.mac
        made |= {
            f"{name}: another's MAC": datagram(me, target, friend_mac),
            f"{name}: another's address": datagram(friend, target, here),
            f"{name}: another's MAC and address": datagram(friend, target, friend_mac),
            f"{name}: its own address": datagram(target, target, its_mac),
            f"{name}: the gateway's address": datagram(gateway, target, here),
            f"{name}: the gateway's MAC and address": datagram(gateway, target, gateway_mac),
            f"{name}: another node's address": datagram(other_gateway, target, here),
            f"{name}: an address of nobody": datagram(IPv4Address("10.77.0.1"), target, here),
            f"{name}: an address outside": datagram(IPv4Address("203.0.113.5"), target, here),
            f"{name}: no address": datagram(UNSPECIFIED, target, here),
            f"{name}: this host": datagram(IPv4Address("127.0.0.1"), target, here),
            f"{name}: an identity's MAC": datagram(me, target, wire_mac),
            f"{name}: an identity's MAC and address": datagram(address(live, "far"), target, wire_mac),
            f"{name}: a reply's MAC": datagram(me, target, "0a:06" + wire_mac[5:]),
            f"{name}: the MAC of delivery": datagram(me, target, "0a:58:00:00:00:01"),
            f"{name}: a VLAN": tagged(datagram(me, target, here), 5),
            f"{name}: a priority tag": tagged(datagram(me, target, here), 0),
            f"{name}: first fragment of another": datagram(friend, target, here, fragment=0x2000),
            f"{name}: later fragment of another": datagram(friend, target, here, fragment=163),
            f"{name}: ARP for another": plain_arp(friend, target, here),
            f"{name}: ARP for another with its MAC": plain_arp(friend, target, friend_mac),
            f"{name}: ARP with another's hardware address": plain_arp(me, target, here, sender_mac=friend_mac),
            f"{name}: ARP for the gateway": plain_arp(gateway, target, here),
            f"{name}: ARP answer for another": plain_arp(friend, target, here, 2),
            f"{name}: ARP answer of its own": plain_arp(me, target, here, 2),
        }
    nowhere = IPv4Address("255.255.255.255")
    made |= {
        "gratuitous ARP for another": plain_arp(address(live, "near"), address(live, "near"), here),
        "gratuitous ARP for the gateway": plain_arp(gateway, gateway, here),
        "gratuitous ARP answer": plain_arp(me, me, here, 2),
        "tagged ARP": tagged(plain_arp(me, address(live, "near"), here), 5),
        "RARP": plain_arp(me, me, here, 3).replace(b"\x08\x06", b"\x80\x35", 1),
        "DHCP client": datagram(UNSPECIFIED, nowhere, here, ALL_HOSTS, ports=(68, 67)),
        "DHCP client of another address": datagram(address(live, "near"), nowhere, here, ALL_HOSTS, ports=(68, 67)),
        "DHCP server": datagram(me, nowhere, here, ALL_HOSTS, ports=(67, 68)),
        "broadcast": datagram(me, nowhere, here, ALL_HOSTS),
        "broadcast of the network": datagram(me, IPv4Address("10.255.255.255"), here, ALL_HOSTS),
        "multicast": datagram(me, IPv4Address("224.0.0.251"), here, "01:00:5e:00:00:fb"),
        "IPv6": mac(pod_of(live, "near").place.mac) + mac(here) + b"\x86\xdd" + b"forged" * 20,
        "spanning tree": mac("01:80:c2:00:00:00") + mac(here) + b"\x00\x26\x42\x42\x03" + b"forged" * 6,
        "an unknown type": mac(ALL_HOSTS) + mac(here) + b"\x88\xb5" + b"forged" * 20,
    }
    return made


def send_marker(live: EditableCluster, taps: dict[str, Tap], names: tuple[str, ...], token: bytes) -> None:
    """Honest datagrams from p/evil, behind everything that it sent before; returns when they are there."""
    evil = pod_of(live, "evil")
    for name in names:
        source, target = address(live, "evil"), address(live, name)
        taps["evil"].send(frames.udp(source, target, (4000, 81), eth_src=evil.place.mac, data=token))
    for name in names:
        eventually(partial(taps[name].has, token), f"p/{name} gets an honest datagram")


OPEN_PODS = ("near", "far", "third", "half", "far-half")


def test_nothing_forged_reaches_anybody(live: EditableCluster, taps: dict[str, Tap]) -> None:
    """By the tables alone: many of these frames the kernel would drop before the switch."""
    with unfiltered(node_of(live, 1), pod_of(live, "evil").port):
        nothing_forged_arrives(live, taps)


def nothing_forged_arrives(live: EditableCluster, taps: dict[str, Tap]) -> None:
    evil, near = address(live, "evil"), address(live, "near")
    arrived: list[tuple[str, str]] = []
    not_counted: list[str] = []
    for number, (label, frame) in enumerate(forgeries(live).items()):
        before = dropped(live, "evil")
        for _ in range(TIMES):
            taps["evil"].send(frame)
        # An honest one behind them, so that the switch is done with them; only a few at a time fit its buffer.
        honest = b"honest %d." % number
        taps["evil"].send(frames.udp(evil, near, (4000, 81), eth_src=pod_of(live, "evil").place.mac, data=honest))
        eventually(partial(taps["near"].has, honest), f"the honest datagram behind {label}")
        if not counts(live, taps["evil"], frame, before):
            not_counted.append(label)
        arrived += [(label, name) for name, tap in taps.items() if tap.has(frame[14:60]) or tap.has(b"forged")]
    send_marker(live, taps, OPEN_PODS, b"honest in the end")
    assert arrived == []
    assert not [name for name, tap in taps.items() if tap.has(b"forged")]
    assert not_counted == [], "dropped, but not as packets of this port"


def counts(live: EditableCluster, evil: Tap, frame: bytes, before: Counter[str]) -> bool:
    """Whether the megaflows count what p/evil sends as dropped, now or after a few more of these frames.

    In the kernel several packets may miss before their megaflow is there, and a packet that misses counts nowhere.
    """
    for _ in range(10 * TIMES):
        # Megaflows that ended meanwhile do not count against it.
        if (dropped(live, "evil") - before).total() >= TIMES - 1:
            return True
        evil.send(frame)
    return False


def kinds_seen(live: EditableCluster, name: str) -> set[str]:
    """The ethertypes of which frames came from a pod to the switch, by its megaflows."""
    shown = node_of(live, NODE_OF[name]).appctl("dpctl/dump-flows", "--names")
    lines = [line for line in shown.splitlines() if f"in_port({pod_of(live, name).port})" in line]
    return {kind for line in lines for kind in re.findall(r"eth_type\((0x[0-9a-f]+)\)", line)}


def test_other_ethertypes_do_not_get_to_the_switch(live: EditableCluster, taps: dict[str, Tap]) -> None:
    kinds = ("tagged ARP", "RARP", "IPv6", "spanning tree", "an unknown type")
    others = [frame for name, frame in forgeries(live).items() if name in kinds]
    assert len(others) == len(kinds)
    here = node_of(live, 1)
    with unfiltered(here, pod_of(live, "evil").port):
        for frame in others:
            taps["evil"].send(frame)
        eventually(lambda: {"0x8100", "0x8035", "0x86dd", "0x88b5"} <= kinds_seen(live, "evil"), "they come")
    here.appctl("revalidator/purge")
    for frame in others * TIMES:
        taps["evil"].send(frame)
    send_marker(live, taps, OPEN_PODS, b"honest and alone")
    assert kinds_seen(live, "evil") == {"0x0800"}


def test_delivered_frames_have_the_constant_source_mac(live: EditableCluster, taps: dict[str, Tap]) -> None:
    for source in ("near", "far"):
        asked = pod_of(live, source).agent.probe([(str(address(live, "third")), 80, "tcp", "p/third")])
        assert [answer.open for answer in asked] == [True]
    for name in ("near", "far", "third"):
        macs = {frame[6:12] for frame in taps[name].drain() if frame[12:14] == b"\x08\x00"}
        assert macs == {CONSTANT_MAC}, name


@pytest.mark.parametrize("server", ["near", "far"])
def test_large_datagrams_pass_in_fragments_both_ways(live: EditableCluster, server: str) -> None:
    with udp_socket(pod_of(live, "evil").netns) as client:
        client.sendto(b"q" * BIG, (str(address(live, server)), 80))
        answer = client.recv(65535)
    assert answer == b"q" * BIG + f" p/{server}".encode()


@pytest.mark.parametrize("server", ["half", "far-half"])
def test_no_fragment_leaks_to_a_closed_port(live: EditableCluster, taps: dict[str, Tap], server: str) -> None:
    target = str(address(live, server))
    with udp_socket(pod_of(live, "evil").netns) as client:
        client.sendto(b"closed" * (BIG // 6), (target, 80))
        client.sendto(b"opened" * (BIG // 6), (target, 81))
        assert client.recv(65535).endswith(f"opened p/{server}".encode())
    source, here = address(live, "evil"), pod_of(live, "evil").place.mac
    whole = frames.udp_fragments(source, address(live, server), (4001, 81), eth_src=here)
    for fragment in whole[1:]:
        taps["evil"].send(fragment)
    send_marker(live, taps, (server,), b"behind the fragments")
    assert taps[server].has(b"openedopened")
    assert not taps[server].has(b"closed")
    assert not taps[server].has(b"ffffffff"), "later fragments came without their first"


NOBODY = IPv4Address("10.99.99.99")


def arp_answers(tap: Tap, request: bytes, behind: bytes) -> list[bytes]:
    """The ARP frames that come back for a request; `behind` is an honest request about NOBODY, sent after it."""
    tap.forget()
    tap.send(request)
    tap.send(behind)
    answers: list[bytes] = []

    def done() -> bool:
        answers[:] = [frame for frame in tap.drain() if frame[12:14] == b"\x08\x06"]
        return any(frame[28:32] == NOBODY.packed for frame in answers)

    eventually(done, "the answer to the request behind it")
    return [frame for frame in answers if frame[28:32] != NOBODY.packed]


@pytest.mark.parametrize("asker", ["a pod", "its node"])
def test_arp_has_one_answer_and_leaves_address_detection_alone(
    live: EditableCluster, taps: dict[str, Tap], asker: str
) -> None:
    with contextlib.closing(Tap(node_of(live, 1).netns, BRIDGE)) as gateway:
        me, tap = (address(live, "evil"), taps["evil"]) if asker == "a pod" else (node_address(live, 1), gateway)
        here = "0a:58:" + ":".join(f"{byte:02x}" for byte in me.packed)
        behind = frames.arp(me, NOBODY, eth_src=here)
        for asked in (
            address(live, "near"),
            address(live, "shut"),
            address(live, "far"),
            node_address(live, 2),
            IPv4Address("203.0.113.77"),
        ):
            answers = arp_answers(tap, frames.arp(me, asked, eth_src=here), behind)
            assert len(answers) == 1
            body = answers[0][14:42]
            assert body[6:8] == b"\x00\x02"
            assert (body[8:14], body[14:18]) == (CONSTANT_MAC, asked.packed)
            assert (body[18:24], body[24:28]) == (mac(here), me.packed)
            assert (answers[0][:6], answers[0][6:12]) == (mac(here), CONSTANT_MAC)
        for sender, asked in ((me, me), (UNSPECIFIED, me), (UNSPECIFIED, address(live, "near"))):
            assert arp_answers(tap, frames.arp(sender, asked, eth_src=here), behind) == []
    seen = {name for name, tap in taps.items() if any(frame[12:14] == b"\x08\x06" for frame in tap.drain())}
    assert seen <= {"evil"}, "requests are answered by the switch and seen by nobody"


def test_pods_and_nodes_send_no_arp_requests(live: EditableCluster) -> None:
    near, own = pod_of(live, "near"), node_of(live, 1)
    for netns, device in ((near.netns, "eth0"), (own.netns, BRIDGE)):
        assert run(netns, "ip", "neigh", "show", "dev", device).stdout.split() == NEIGHBOUR
    with contextlib.closing(Tap(own.netns, near.port)) as of_pod:
        assert fetch(near.netns, str(address(live, "far"))) == "p/far"
        assert fetch(own.netns, str(address(live, "near"))) == "p/near"
        assert pings(near.netns, str(node_address(live, 1)))
        assert [frame for frame in of_pod.drain() if frame[12:14] == ARP] == []
    for netns, device in ((near.netns, "eth0"), (own.netns, BRIDGE)):
        assert run(netns, "ip", "neigh", "show", "dev", device).stdout.split() == NEIGHBOUR, "and none is added"


def test_neighbours_resolve_again_under_deny_all(live: EditableCluster) -> None:
    shut, near = pod_of(live, "shut"), address(live, "near")
    for one in (shut, pod_of(live, "near")):
        assert run(one.netns, "ip", "neigh", "flush", "all", "nud", "all").returncode == 0
    with Attempt(shut.netns, str(near)) as closed:
        eventually(lambda: NEXT_HOP in run(shut.netns, "ip", "neigh", "show").stdout, "the next hop is known")
        assert fetch(node_of(live, 1).netns, str(address(live, "shut"))) == "p/shut"
        assert closed.unanswered


def test_a_node_reaches_its_own_pods_and_no_other_node_does(live: EditableCluster) -> None:
    shut = str(address(live, "shut"))
    own, other = node_of(live, 1).netns, node_of(live, 2).netns
    assert fetch(own, shut) == "p/shut"
    assert pings(own, shut)
    with Attempt(other, shut) as closed, Echo(other, shut) as asked:
        # What keeps the other node out is the policy, not the way.
        assert fetch(other, str(address(live, "near"))) == "p/near"
        assert pings(other, str(address(live, "near")))
        assert closed.unanswered
        assert asked.unanswered


def test_a_pod_reaches_its_own_node_even_without_egress(live: EditableCluster) -> None:
    with Page(node_of(live, 1).netns, 8080, "node1"), Page(node_of(live, 2).netns, 8080, "node2"):
        own, other = str(node_address(live, 1)), str(node_address(live, 2))
        assert fetch(pod_of(live, "near").netns, own, 8080) == "node1"
        with Attempt(pod_of(live, "shut").netns, other, 8080) as closed:
            assert fetch(pod_of(live, "shut").netns, own, 8080) == "node1"
            assert fetch(pod_of(live, "near").netns, other, 8080) == "node2"
            assert closed.unanswered


@pytest.mark.parametrize("server", ["near", "far"])
def test_a_pod_that_forges_its_gateway_gets_no_further(
    live: EditableCluster, taps: dict[str, Tap], server: str
) -> None:
    """As the pod itself would: with the gateway's address on its own interface."""
    gateway, netns = str(node_address(live, 1)), pod_of(live, "evil").netns
    assert run(netns, "ip", "addr", "add", f"{gateway}/32", "dev", "eth0").returncode == 0
    try:
        with udp_socket(netns, gateway, 4002) as client:
            client.sendto(b"as the gateway", (str(address(live, server)), 81))
        send_marker(live, taps, (server,), b"after the gateway")
    finally:
        run(netns, "ip", "addr", "del", f"{gateway}/32", "dev", "eth0")
    assert not taps[server].has(b"as the gateway")


def test_no_packet_went_to_the_controller(live: EditableCluster) -> None:
    assert live.emulation.state.packet_ins == 0
