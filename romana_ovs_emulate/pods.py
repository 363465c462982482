"""Starts and ends emulated pods: network namespace, veth pair, address, agent, bridge port."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import count

from romana_ovs.model.bridge import POD_ID, POD_UID, DatapathType
from romana_ovs.model.errors import SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.ethertypes import NotFiltered, filter_ports
from romana_ovs_emulate.agent_client import AgentClient, Zygote
from romana_ovs_emulate.failures import Failures
from romana_ovs_emulate.next_hop import next_hop_commands
from romana_ovs_emulate.nodes import BRIDGE, VSCTL_SECONDS, Node
from romana_ovs_emulate.runs import Run
from romana_ovs_emulate.system import in_netns, ip_batch

INTERFACE = "eth0"
EVERYWHERE = IPv4Network("0.0.0.0/0")
HUNG_SECONDS = VSCTL_SECONDS / 2
"""A start that fails only after this time, in seconds, has hung, as when a switch is down: no further attempts."""
PORT_NAME_LENGTH = 15
"""The longest interface name that Linux takes (IFNAMSIZ less the final zero)."""


@dataclass(frozen=True, slots=True)
class PodPlacement:
    """Where the controller places a pod: the name of its node, the pod's IPv4 address, MAC and UID (may be empty)."""

    pod: PodKey
    node: str
    address: str
    mac: str
    uid: str = ""


@dataclass(frozen=True, slots=True)
class RunningPod:
    """A pod that runs: its placement, network namespace, bridge port and agent."""

    place: PodPlacement
    netns: str
    port: str
    agent: AgentClient


class Pods:
    """All running pods of one emulation. Not thread-safe."""

    def __init__(self, run: Run, nodes: Mapping[str, Node], zygote: Zygote, *, mtu: int) -> None:
        self._run = run
        self._nodes = nodes
        self._zygote = zygote
        self._mtu = mtu
        self._numbers = count(1)
        self._running: dict[PodKey, RunningPod] = {}
        self._served: tuple[str, ...] = ()
        self._failures = Failures()
        self._unfiltered = ""

    @property
    def running(self) -> Mapping[PodKey, RunningPod]:
        """The pods that run now."""
        return dict(self._running)

    @property
    def failed(self) -> Mapping[PodKey, str]:
        """The pods that could not be started, and why. They are tried again after a while."""
        return {PodKey(str(key)): reason for key, reason in self._failures.reasons.items()}

    @property
    def unfiltered(self) -> str:
        """Why ports of pods accept frames of every ethertype, empty when they do not."""
        return self._unfiltered

    def serve(self, ports: Sequence[str]) -> None:
        """Make all pods, also later ones, serve only these ports (`80/tcp`). Raises SetupError after trying all."""
        if tuple(ports) == self._served:
            return
        self._served = tuple(ports)
        errors = []
        for pod in self._running.values():
            try:
                pod.agent.serve(ports)
            except SetupError as error:
                errors.append(str(error))
        if errors:
            raise SetupError("; ".join(errors))

    def reconcile(self, places: Iterable[PodPlacement]) -> bool:
        """Run exactly these pods: start new ones, end others; returns whether anything changed.

        A pod whose UID, node, address or MAC changed is another pod of the same name. One that cannot be started is
        among the `failed`; the others start nevertheless.
        """
        wanted = {place.pod: place for place in places}
        gone = [pod for key, pod in self._running.items() if wanted.get(key) != pod.place]
        self._stop(gone)
        for key in self.failed.keys() - wanted.keys():
            self._failures.clear(key)
        new = [place for key, place in wanted.items() if key not in self._running and self._failures.due(key, place)]
        retried = [place for place in new if place.pod in self.failed]
        self._start([place for place in new if place not in retried])
        for place in retried:
            self._start([place])
        return bool(gone or new)

    def _stop(self, pods: Sequence[RunningPod]) -> None:
        """End pods. Ports that cannot be removed stay: without the pod's namespace they lead nowhere."""
        for node, group in _by_node(pods, self._nodes):
            with suppress(SetupError):
                node.vsctl(*_one_transaction(["--if-exists", "del-port", BRIDGE, pod.port] for pod in group))
        for pod in pods:
            pod.agent.close()
            del self._running[pod.place.pod]
        _delete_netns([pod.netns for pod in pods])

    def _start(self, places: Sequence[PodPlacement]) -> None:
        """Start pods together or, when that fails, one by one."""
        if not places:
            return
        began = time.monotonic()
        try:
            self._start_together(places)
        except SetupError as error:
            if len(places) > 1 and time.monotonic() - began < HUNG_SECONDS:
                for place in places:
                    self._start([place])
                return
            for place in places:
                self._failures.record(place.pod, place, f"pod {place.pod} cannot be started: {error}")

    def _start_together(self, places: Sequence[PodPlacement]) -> None:
        """Start pods. Raises SetupError, and removes all of them, when one cannot be started."""
        names = [
            (place, f"{self._run.netns(place.pod)}-{number}", _port_name(place.pod, number))
            for place, number in zip(places, self._numbers, strict=False)
        ]
        started: list[RunningPod] = []
        try:
            self._create(names, started)
        except SetupError:
            self._running.update({pod.place.pod: pod for pod in started})
            self._stop(started)
            _delete_netns([netns for _, netns, _ in names])
            raise
        self._running.update({pod.place.pod: pod for pod in started})
        for place in places:
            self._failures.clear(place.pod)

    def _create(self, names: Sequence[tuple[PodPlacement, str, str]], started: list[RunningPod]) -> None:
        """Create namespaces, veth pairs and agents of pods, append these to `started`, and at last add their ports."""
        self._run.ip_batch(
            line
            for place, netns, port in names
            for line in (
                f"netns add {netns}",
                f"link add {port} netns {self._nodes[place.node].netns} type veth"
                f" peer name {INTERFACE} address {place.mac} netns {netns}",
            )
        )
        with ThreadPoolExecutor(max_workers=4) as pool:
            list(pool.map(lambda name: ip_batch(_netns_commands(name[0], self._mtu), netns=name[1]), names))
        for place, netns, port in names:
            on_kernel = self._nodes[place.node].datapath is DatapathType.SYSTEM
            agent = self._zygote.fork(place.pod, netns, offloads_checksums=on_kernel)
            started.append(RunningPod(place, netns, port, agent))
            agent.serve(self._served)
        for node, group in _by_node(started, self._nodes):
            ip_batch((f"link set {pod.port} addrgenmode none mtu {self._mtu} up" for pod in group), netns=node.netns)
            self._filter(node, [pod.port for pod in group])
            node.vsctl(*_one_transaction(_add_port_command(pod) for pod in group))

    def _filter(self, node: Node, ports: Sequence[str]) -> None:
        """Drop frames other than IPv4 and ARP before the switch, where the kernel supports that.

        The tables drop them too.
        """
        try:
            in_netns(node.netns, lambda: filter_ports(ports, node.datapath))
        except NotFiltered as error:
            self._unfiltered = self._unfiltered or f"frames of every ethertype reach the switches: {error}"


def _netns_commands(place: PodPlacement, mtu: int) -> list[str]:
    """The `ip` commands inside a pod's namespace. Everything is routed by one next hop, as for pods of Calico."""
    return [
        "link set lo up",
        f"link set {INTERFACE} addrgenmode none mtu {mtu} up",
        f"addr add {place.address}/32 dev {INTERFACE}",
        *next_hop_commands(INTERFACE, EVERYWHERE, IPv4Address(place.address)),
    ]


def _delete_netns(namespaces: Sequence[str]) -> None:
    """Remove those of the network namespaces that exist."""
    try:
        ip_batch(f"netns del {netns}" for netns in namespaces)
    except SetupError:
        for netns in namespaces:
            with suppress(SetupError):
                ip_batch([f"netns del {netns}"])


def _add_port_command(pod: RunningPod) -> list[str]:
    command = [
        "add-port",
        BRIDGE,
        pod.port,
        "--",
        "set",
        "interface",
        pod.port,
        f"external_ids:{POD_ID}={pod.place.pod}",
    ]
    # Quoted: a UID is any text, and ovs-vsctl would parse some texts as several keys.
    return [*command, f"external_ids:{POD_UID}={json.dumps(pod.place.uid)}"] if pod.place.uid else command


def _one_transaction(commands: Iterable[list[str]]) -> list[str]:
    """`ovs-vsctl` commands as one transaction."""
    return [word for command in commands for word in ("--", *command)]


def _port_name(pod: PodKey, number: int) -> str:
    """An interface name with as much of the pod's name as fits."""
    suffix = f"-{number}"
    stem = re.sub("[^a-z0-9-]", "-", pod.partition("/")[2])[: PORT_NAME_LENGTH - len(suffix)]
    return stem + suffix


def _by_node(pods: Sequence[RunningPod], nodes: Mapping[str, Node]) -> Iterable[tuple[Node, list[RunningPod]]]:
    for name in sorted({pod.place.node for pod in pods}):
        yield nodes[name], [pod for pod in pods if pod.place.node == name]
