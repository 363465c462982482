"""What attacks are made with: a raw socket in every pod, frames sent, and the proof that nothing came of them.

That nothing arrives cannot be awaited. So behind the frames of an attack goes a packet that is allowed, over the same
way, and its arrival is awaited: ports, cables and switches hand on in order what they take. Open vSwitch takes frames
in batches (of 32) and may hand on a batch flow by flow, so a second such packet follows when the first has arrived:
whatever was sent before the first was in no later batch than the first, which is done when the second is taken. It
goes to a pod on the victim's node (the ally); last, the victim's friend sends it a packet that it must hear.

On the kernel's datapath a frame without a megaflow waits for ovs-vswitchd (an upcall), and frames behind it, which have
one, overtake it. There the upcalls are awaited, too, before the two last packets (`upcalls_done`).
"""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from romana_ovs.model.bridge import DatapathType
from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import Node
from romana_ovs_emulate.patience import patience
from tests.attacks import craft
from tests.attacks.craft import End
from tests.attacks.frameset import Aim
from tests.attacks.ground import LISTEN, SEND, Duel
from tests.support.datapath import datapath_type
from tests.support.frames import mac
from tests.support.live_cluster import LiveCluster
from tests.support.netns_sockets import Tap, udp_socket, unfiltered
from tests.support.waiting import eventually

BATCH = 24
"""Frames between two awaited packets: few enough for every socket's buffer on the way."""
AWAIT_SECONDS = patience(12.0)
AGAIN_SECONDS = 1.0
"""After so long a packet that is awaited is sent again: a busy machine may lose one."""
MARK = b"sentinel-"
ASKED = 1 << 20
"""So many addresses are asked for by ARP in turn, so that each answer is told from the one before."""
UPCALLS = 5
"""A frame is so many upcalls on one node at most: one for each pass through conntrack."""
GENERIC_NETLINK = "16"
"""The protocol of the sockets by which the kernel's datapath hands packets to ovs-vswitchd (netlink(7))."""
SHOWN_BYTES = 70
"""Of a frame that should not have arrived, in the report."""


class NotHeldError(AssertionError):
    """An attack came through. Everything else that a test raises says that the test itself went wrong."""


class Scene:
    """A cluster with a raw socket in every pod, which hears all that comes to the pod; close it in the end."""

    def __init__(self, cluster: LiveCluster, fabric: Fabric) -> None:
        self.cluster = cluster
        self.fabric = fabric
        self._numbers = itertools.count(1)
        self._hops: dict[IPv4Address, str] = {}
        self._taps: dict[str, Tap] = {}
        self._netns: dict[str, str] = {}
        self._listeners = contextlib.ExitStack()
        self.join()

    def join(self) -> None:
        """Open sockets in pods that are new or were made again."""
        for key, pod in self.cluster.emulation.pods.items():
            if self._netns.get(key) != pod.netns:
                if key in self._taps:
                    self._taps[key].close()
                self._netns[key] = pod.netns
                self._taps[key] = Tap(pod.netns)
                self._listeners.enter_context(udp_socket(pod.netns, "0.0.0.0", LISTEN))

    def close(self) -> None:
        """Close every socket."""
        self._listeners.close()
        for tap in self._taps.values():
            tap.close()

    def end(self, key: str) -> End:
        """A pod as an end of packets."""
        place = self.cluster.pod(key).place
        address = IPv4Address(place.address)
        return End(key, address, place.mac, self._hop(address))

    def node(self, name: str) -> End:
        """A node's own address and MAC on its bridge."""
        address = self.cluster.emulation.node_addresses[name]
        return End(name, address, "0a:58:" + text_of(address.packed), self._hop(address))

    def put(self, key: str, frames: Iterable[bytes]) -> None:
        """Send frames from a pod, as they are, and wait for nothing."""
        for frame in frames:
            self._taps[key].send(frame)

    def tap(self, key: str) -> Tap:
        """The raw socket of a pod."""
        return self._taps[key]

    def unfiltered(self, key: str) -> contextlib.AbstractContextManager[None]:
        """While what a pod sends comes to its switch whatever its ethertype is."""
        pod = self.cluster.pod(key)
        return unfiltered(self.cluster.node(pod.place.node), pod.port)

    def reach(self, source: str, target: str) -> None:
        """Returns when an allowed packet of pod `source` has arrived at pod `target`; fails the test if none does."""
        token = MARK + b"%06d" % next(self._numbers)
        frame = craft.udp(self.end(source), self.end(target), (SEND, LISTEN), token)
        if not self._sent_until(source, frame, target, token):
            pytest.fail(f"the control never arrived: {source} -> {target}, which is allowed")

    def taken_in(self, source: str) -> None:
        """Returns when a pod's switch has handled all that the pod sent: it answers an ARP request, the last of it.

        Unlike `reach` this asks nothing of the connection table.
        """
        first = int(self.cluster.emulation.plan.addresses.network.network_address)
        self._ask(source, IPv4Address(first + next(self._numbers) % ASKED))

    def _hop(self, address: IPv4Address) -> str:
        """The MAC that packets to an address are sent to, as pods learn it by ARP."""
        if address not in self._hops:
            asking = next(key for key, pod in self.cluster.emulation.pods.items() if pod.place.address != str(address))
            self._hops[address] = self._ask(asking, address)
        return self._hops[address]

    def _ask(self, source: str, address: IPv4Address) -> str:
        """The MAC that the switch answers when a pod asks by ARP for an address; fails the test if it does not."""
        place = self.cluster.pod(source).place
        own = IPv4Address(place.address)
        request = craft.arp(End(source, own, place.mac), 1, (place.mac, own), ("00:00:00:00:00:00", address))
        answer = address.packed + mac(place.mac) + own.packed
        if not self._sent_until(source, request, source, answer):
            pytest.fail(f"the switch answers no ARP request of {source} for {address}")
        frame = next(frame for frame in self._taps[source].drain() if frame[28:42] == answer)
        return text_of(frame[22:28])

    def _sent_until(self, source: str, frame: bytes, target: str, token: bytes) -> bool:
        """Whether a frame with `token` comes to `target` in time, while `source` sends `frame`, again if need be."""
        limit = time.monotonic() + AWAIT_SECONDS
        while time.monotonic() < limit:
            self.put(source, [frame])
            again = time.monotonic() + AGAIN_SECONDS
            while time.monotonic() < again:
                if self._taps[target].has(token):
                    return True
                time.sleep(0.001)
        return False

    def through(self, source: str, ally: str, frames: Iterable[bytes]) -> None:
        """Send frames from a pod; returns when the switches are done with them. `ally`: see above."""
        rest = iter(frames)
        while batch := list(itertools.islice(rest, BATCH)):
            self.put(source, batch)
            self.reach(source, ally)
        self.upcalls_done(source, ally)
        self.reach(source, ally)
        self.reach(source, ally)

    def upcalls_done(self, *sources: str) -> None:
        """Return when ovs-vswitchd has handled what waits for it on the nodes of these pods.

        Each turn is one more upcall of theirs, behind the others, and begins when none waits in any queue.
        """
        if datapath_type() is DatapathType.NETDEV:
            return
        for _ in range(UPCALLS):
            for source in sources:
                node = self.cluster.node(self.cluster.pod(source).place.node)
                eventually(partial(_nothing_waits, node), "no upcall waits")
                self.taken_in(source)

    def attack(self, duel: Duel, frames: Iterable[bytes]) -> None:
        """Send an attack's frames; returns when all was handled that they can have brought about.

        The victim hears its friend before and after, so that its silence means something.
        """
        self.reach(duel.friend, duel.victim)
        self.forget()
        self.through(duel.attacker, duel.ally, frames)
        self.reach(duel.friend, duel.victim)
        self.reach(duel.friend, duel.victim)

    def forget(self) -> None:
        """Look at what arrives from now on."""
        for tap in self._taps.values():
            tap.forget()

    def heard(self, key: str) -> list[bytes]:
        """The frames that arrived at a pod since, but for the controls."""
        return [frame for frame in self._taps[key].drain() if MARK not in frame]

    def in_force(self) -> None:
        """Returns when every switch's datapath does as its tables say now, and what was under way has arrived."""
        for node in self.cluster.emulation.nodes.values():
            node.appctl("revalidator/wait")

    def nobody_heard(
        self, duel: Duel, *, but: Callable[[bytes], bool] = lambda _: False, busy: frozenset[str] = frozenset()
    ) -> None:
        """Raises NotHeldError if any frame arrived at any pod but the two ends of the control; `but` are admitted.

        Pods that are `busy` with connections of their own are not looked at.
        """
        for key in self._taps.keys() - {duel.attacker, duel.ally} - busy:
            arrived = [frame for frame in self.heard(key) if not but(frame)]
            if arrived:
                raise NotHeldError(f"{key} heard {_shown(arrived)}")

    def hears_nothing_of(self, key: str, source: End) -> None:
        """Raises NotHeldError if a pod heard any IPv4 packet with this source address since."""
        arrived = [frame for frame in self.heard(key) if is_of(frame, source)]
        if arrived:
            raise NotHeldError(f"{key} heard of {source.name} {_shown(arrived)}")

    def passes(self, duel: Duel, frames: Iterable[bytes]) -> None:
        """The control: what is allowed still. Fails the test unless as many packets of the attacker arrive."""
        made = list(frames)
        self.attack(duel, made)
        arrived = [frame for frame in self.heard(duel.victim) if is_of(frame, self.end(duel.attacker))]
        assert len(arrived) >= len(made), f"{duel.victim} hears {len(arrived)} of {len(made)} packets that are allowed"

    def wire_mac(self, source: str, target: str) -> str:
        """The source MAC that frames from one node's pod to another node's have between the nodes."""
        node = self.cluster.node(self.cluster.pod(target).place.node)
        other = self.cluster.pod(source).place.node
        uplink, start = (f"to-{other}", 0) if self.fabric is Fabric.LINK else ("eth0", 50)
        with contextlib.closing(Tap(node.netns, uplink)) as tap:
            self.reach(source, target)
            frame = next(frame for frame in tap.drain() if MARK in frame)
        return text_of(frame[start + 6 : start + 12])

    def megaflows(self, node: str) -> int:
        """How many megaflows a node's datapath has now."""
        return sum(map(int, re.findall(r"flows: (\d+)", self.cluster.node(node).appctl("dpctl/show"))))


def _nothing_waits(node: Node) -> bool:
    """Whether the datapath of a node has handed over all packets that are upcalls to ovs-vswitchd."""
    lines = Path(f"/proc/{node.switch_pid()}/net/netlink").read_text().splitlines()
    columns = [line.split() for line in lines[1:]]
    return all(column[4] == "0" for column in columns if column[1] == GENERIC_NETLINK)


def text_of(data: bytes) -> str:
    """Bytes as a MAC address is written, or a part of one."""
    return ":".join(f"{byte:02x}" for byte in data)


def is_of(frame: bytes, source: End) -> bool:
    """Whether a frame is an IPv4 packet with this source address."""
    return frame[12:14] == b"\x08\x00" and frame[26:30] == source.address.packed


def _shown(arrived: list[bytes]) -> str:
    """Frames in a few words."""
    return f"{len(arrived)} frames, the first of {len(arrived[0])} bytes: {arrived[0][:SHOWN_BYTES].hex()}"


@contextlib.contextmanager
def scene_of(cluster: LiveCluster, fabric: Fabric) -> Iterator[Scene]:
    """The scene of a cluster, closed in the end."""
    scene = Scene(cluster, fabric)
    try:
        yield scene
    finally:
        scene.close()


def aim_of(scene: Scene, duel: Duel) -> Aim:
    """The ends of a duel as frames name them."""
    nodes = sorted(("node1", "node2"), key=lambda name: name != scene.cluster.pod(duel.attacker).place.node)
    others = tuple(scene.end(key) for key in sorted(scene.cluster.emulation.pods) if key != duel.attacker)
    attacker, ally, victim, friend = map(scene.end, (duel.attacker, duel.ally, duel.victim, duel.friend))
    return Aim(
        attacker, ally, victim, friend, others, tuple(map(scene.node, nodes)), scene.wire_mac("blue/pal1", "blue/v2")
    )
