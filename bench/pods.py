"""Starts pods with real network stacks on a node with full tables, to measure the cost of the tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bench.allocation import ROOT, into_tier, large_cluster
from bench.flows import Node as CompiledNode
from bench.switch import node
from romana_ovs.model.bridge import POD_ID, DatapathType
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, Pod, PodKey, PolicyPort, Protocol
from romana_ovs.pipeline.listing import loadable
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.switch.ethertypes import filter_ports, unfilter_ports
from romana_ovs_emulate.nodes import BRIDGE, Node
from romana_ovs_emulate.system import in_netns, inside, ip_batch, run

TENANT = "tenant000"
PORT = 80
IDLE_MS = 60_000
"""How long a megaflow stays without packets while they are counted."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pod: its network namespace, its address and MAC, its port on the bridge."""

    netns: str
    address: str
    mac: str
    ofport: int

    @property
    def port(self) -> str:
        """The network device of its port, in the node's namespace."""
        return f"b{self.ofport}"


@dataclass(frozen=True, slots=True)
class Bench:
    """A node with tables for a large cluster, and some of its pods for real: clients (tier 0) and servers (tier 1)."""

    node: Node
    clients: tuple[Place, ...]
    servers: tuple[Place, ...]
    tables: str
    flows: int

    def program(self, flows: str) -> None:
        """Replace all flows in one bundle, and start with no megaflow and no connection."""
        argv = ["ovs-ofctl", "-O", "OpenFlow15", "--bundle", "replace-flows", self.node.management, "-"]
        run(argv, env=self.node.environment, stdin=flows)
        _introduce((*self.clients, *self.servers), next_hop=flows == self.tables)
        self.forget()

    def filter_ports(self, *, filtered: bool) -> None:
        """Attach the filter of ethertypes to the pods' ports, as they have it in production, or remove it."""
        ports = [place.port for place in (*self.clients, *self.servers)]
        if filtered:
            in_netns(self.node.netns, lambda: filter_ports(ports, self.node.datapath))
        else:
            in_netns(self.node.netns, lambda: unfilter_ports(ports))

    def forget(self) -> None:
        """Drop every megaflow and every connection."""
        self.node.appctl("revalidator/purge")
        self.node.appctl("dpctl/flush-conntrack")

    def megaflows(self) -> list[str]:
        """The datapath's flows for IP at the moment."""
        dumped = self.node.appctl("dpctl/dump-flows", "-m", "--names").splitlines()
        return [line for line in dumped if "eth_type(0x0800)" in line]


def cluster_with(pods: int, clients: int, servers: int) -> Cluster:
    """`large_cluster` with clients and servers of one tier pair on its first node; UDP/80 is admitted as TCP/80 is."""
    base = large_cluster(pods)
    home = min(base.nodes)
    policy = into_tier(TENANT, 1)
    (rule,) = policy.ingress
    both = replace(rule, ports=(*rule.ports, PolicyPort(Protocol.UDP, PORT)))
    cluster = base.with_object(replace(policy, ingress=(both,)))
    for name, count, tier in (("client", clients, 0), ("server", servers, 1)):
        for index in range(count):
            cluster = cluster.with_object(
                Pod(
                    namespace=TENANT,
                    name=f"{name}{index}",
                    labels=Labels({"tier": f"tier{tier}", "app": "bench"}),
                    node=home,
                    ports=(ContainerPort(PORT), ContainerPort(PORT, Protocol.UDP)),
                    uid=f"{name}{index}",
                )
            )
    return cluster


@contextmanager
def bench(pods: int, clients: int, servers: int) -> Iterator[Bench]:
    """A Bench over a cluster of `pods` pods."""
    compiled = CompiledNode(cluster_with(pods, clients, servers))
    program = compiled.program()
    with node(compiled.name) as (this_run, here):
        places: dict[str, list[Place]] = {"client": [], "server": []}
        for kind, count in (("client", clients), ("server", servers)):
            for index in range(count):
                key = f"{TENANT}/{kind}{index}"
                address, mac = (
                    compiled.engine.agents.address_of(PodKey(key)),
                    compiled.engine.agents.mac_of(PodKey(key)),
                )
                ofport = compiled.facts.pod_ports[key].ofport  # type: ignore[index]
                places[kind].append(Place(this_run.netns(f"{kind}{index}"), str(address), str(mac), ofport))
        everyone = [*places["client"], *places["server"]]
        _plug(here, everyone)
        here.vsctl("set", "Open_vSwitch", ".", f"other_config:max-idle={IDLE_MS}")
        here.ofctl("set-frags", "nx-match")
        tables = loadable(program.flows.values())
        yield Bench(here, tuple(places["client"]), tuple(places["server"]), tables, len(program.flows))


def _plug(here: Node, places: Sequence[Place]) -> None:
    """Namespaces, cables and ports; neighbours are told with the tables, so that no ARP is in what is measured."""
    words: list[str] = []
    for place in places:
        port = place.port
        ip_batch([f"netns add {place.netns}"])
        ip_batch(
            [f"link add {port} netns {here.netns} type veth peer name eth0 address {place.mac} netns {place.netns}"]
        )
        ip_batch([f"link set {port} addrgenmode none up"], netns=here.netns)
        if here.datapath is DatapathType.NETDEV:  # It fills in no checksums.
            subprocess.run(inside(place.netns, ["ethtool", "-K", "eth0", "tx", "off"]), check=True, capture_output=True)
        lines = ["link set lo up", "link set eth0 addrgenmode none up", f"addr add {place.address}/32 dev eth0"]
        lines += ["route add default dev eth0 scope link"]
        ip_batch(lines, netns=place.netns)
        words += ["--", "add-port", BRIDGE, port, "--", "set", "interface", port, f"ofport_request={place.ofport}"]
        words += [f"external_ids:{POD_ID}={place.netns}/x"]
    here.vsctl(*words)


def _introduce(places: Sequence[Place], *, next_hop: bool) -> None:
    """Tell each pod the others' MACs: that of all next hops, or their own, by which a NORMAL flow finds them."""
    for place in places:
        macs = {other.address: f"{NEXT_HOP_MAC:012x}" if next_hop else other.mac.replace(":", "") for other in places}
        del macs[place.address]
        ip_batch(
            [
                f"neigh replace {address} lladdr {bytes.fromhex(mac).hex(':')} dev eth0 nud permanent"
                for address, mac in macs.items()
            ],
            netns=place.netns,
        )


@contextmanager
def serving(places: Sequence[Place], command: str = "serve") -> Iterator[None]:
    """A server on port 80 in every one of `places`: what `bench.peer` does for `command`."""
    started = []
    try:
        for place in places:
            argv = inside(place.netns, [sys.executable, "-m", "bench.peer", command, place.address, str(PORT)])
            process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            started.append(process)
        for process in started:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise SystemExit("a server did not start")
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def ask(place: Place, *words: str) -> dict[str, Any]:
    """What `bench.peer` says when it runs in a pod with these words."""
    argv = inside(place.netns, [sys.executable, "-m", "bench.peer", *words])
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise SystemExit(f"bench.peer {' '.join(words)}: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
