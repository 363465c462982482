"""Pods as the kubelet of an emulated node makes them: namespace, cable, address, servers, bridge port."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from romana_ovs.emulate.agents import Agent, Zygote
from romana_ovs.emulate.nodes import BRIDGE, Node
from romana_ovs.emulate.runs import Run
from romana_ovs.emulate.system import ip_batch
from romana_ovs.model.bridge import POD_ID
from romana_ovs.model.objects import PodKey

INTERFACE = "eth0"
PORT_NAME_LENGTH = 15
"""The longest interface name that Linux takes (IFNAMSIZ less the final zero)."""


@dataclass(frozen=True, slots=True)
class PodPlace:
    """What the controller says of a pod: its node's name, IPv4 address, MAC."""

    pod: PodKey
    node: str
    address: str
    mac: str


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that runs here: where, in which namespace, behind which bridge port, and its process."""

    place: PodPlace
    netns: str
    port: str
    agent: Agent


class Pods:
    """All running pods of one emulation. Not for use by several threads at once."""

    def __init__(self, run: Run, nodes: Mapping[str, Node], zygote: Zygote, *, mtu: int) -> None:
        self._run = run
        self._nodes = nodes
        self._zygote = zygote
        self._mtu = mtu
        self._numbers = count(1)
        self._running: dict[PodKey, RunningPod] = {}
        self._served: tuple[str, ...] = ()

    @property
    def running(self) -> Mapping[PodKey, RunningPod]:
        """The pods that run now."""
        return dict(self._running)

    def serve(self, ports: Sequence[str]) -> None:
        """Have every pod, those to come too, serve exactly `ports` (`80/tcp`). Raises SetupError."""
        if tuple(ports) != self._served:
            self._served = tuple(ports)
            for pod in self._running.values():
                pod.agent.serve(ports)

    def follow(self, places: Iterable[PodPlace]) -> bool:
        """Run exactly these pods: new ones start, others end; whether anything changed. Raises SetupError.

        A pod whose node, address or MAC changed is another pod of the same name.
        """
        wanted = {place.pod: place for place in places}
        gone = [pod for key, pod in self._running.items() if wanted.get(key) != pod.place]
        self._stop(gone)
        new = [place for key, place in wanted.items() if key not in self._running]
        self._start(new)
        return bool(gone or new)

    def _stop(self, pods: Sequence[RunningPod]) -> None:
        for node, group in _by_node(pods, self._nodes):
            node.vsctl(*_joined(["--if-exists", "del-port", BRIDGE, pod.port] for pod in group))
        for pod in pods:
            pod.agent.close()
            del self._running[pod.place.pod]
        ip_batch(f"netns del {pod.netns}" for pod in pods)

    def _start(self, places: Sequence[PodPlace]) -> None:
        names = [(place, f"{self._run.netns(place.pod)}-{number}", _port_name(place.pod, number))
                 for place, number in zip(places, self._numbers, strict=False)]
        self._run.make(line for place, netns, port in names for line in (
            f"netns add {netns}",
            f"link add {port} netns {self._nodes[place.node].netns} type veth"
            f" peer name {INTERFACE} address {place.mac} netns {netns}",
        ))
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda name: ip_batch(_inside_lines(name[0], self._mtu), netns=name[1]), names))
        started = []
        for place, netns, port in names:
            agent = self._zygote.fork(place.pod, netns)
            agent.serve(self._served)
            started.append(RunningPod(place, netns, port, agent))
        for node, group in _by_node(started, self._nodes):
            ip_batch((f"link set {pod.port} addrgenmode none mtu {self._mtu} up" for pod in group), netns=node.netns)
            node.vsctl(*_joined(_port_words(pod) for pod in group))
        self._running.update({pod.place.pod: pod for pod in started})


def _inside_lines(place: PodPlace, mtu: int) -> list[str]:
    """The `ip` commands inside a pod's namespace. Every address is on-link: the switch answers all ARP."""
    return [
        "link set lo up",
        f"link set {INTERFACE} addrgenmode none mtu {mtu} up",
        f"addr add {place.address}/32 dev {INTERFACE}",
        f"route add default dev {INTERFACE} scope link src {place.address}",
    ]


def _port_words(pod: RunningPod) -> list[str]:
    return ["add-port", BRIDGE, pod.port, "--", "set", "interface", pod.port, f"external_ids:{POD_ID}={pod.place.pod}"]


def _joined(commands: Iterable[list[str]]) -> list[str]:
    """`ovs-vsctl` commands as one transaction."""
    return [word for command in commands for word in ("--", *command)]


def _port_name(pod: PodKey, number: int) -> str:
    """An interface name that shows the pod's own name as far as it fits."""
    suffix = f"-{number}"
    stem = re.sub("[^a-z0-9-]", "-", pod.partition("/")[2])[:PORT_NAME_LENGTH - len(suffix)]
    return stem + suffix


def _by_node(pods: Sequence[RunningPod], nodes: Mapping[str, Node]) -> Iterable[tuple[Node, list[RunningPod]]]:
    for name in sorted({pod.place.node for pod in pods}):
        yield nodes[name], [pod for pod in pods if pod.place.node == name]
