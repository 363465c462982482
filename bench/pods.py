"""Starts pods with real network stacks on nodes with full tables, to measure the cost of the tables."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bench.allocation import ROOT, into_tier, large_cluster
from bench.nodes import TUNNEL_PORT, facts_of
from bench.switch import datapath_type
from romana_ovs.engine import Engine
from romana_ovs.model.bridge import POD_ID, DatapathType
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import ContainerPort, Pod, PodKey, PolicyPort, Protocol
from romana_ovs.pipeline.compile import CompileCache, Program, compile_node
from romana_ovs.pipeline.listing import loadable
from romana_ovs.pipeline.registers import NEXT_HOP_MAC
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.resolve_cache import ResolveCache
from romana_ovs.switch.ethertypes import filter_ports, unfilter_ports
from romana_ovs_emulate.controller import controller_socket
from romana_ovs_emulate.fabric import TUNNEL_PORT as FABRIC_PORT
from romana_ovs_emulate.fabric import Fabric, join, underlay_address
from romana_ovs_emulate.nodes import BRIDGE, Node, start_node
from romana_ovs_emulate.runs import Run, start_run
from romana_ovs_emulate.system import in_netns, inside, ip_batch, run

TENANT = "tenant000"
PORT = 80
IDLE_MS = 60_000
"""How long a megaflow stays without packets while they are counted."""
OFPORT_TRIES, OFPORT_SECONDS = 100, 0.1
"""How often, and after how many seconds each, to look whether a port has got its number."""


@dataclass(frozen=True, slots=True)
class Place:
    """A pod: its node, its network namespace, its address and MAC, its port on the bridge."""

    node: Node
    netns: str
    address: str
    mac: str
    ofport: int

    @property
    def port(self) -> str:
        """The network device of its port, in the node's namespace."""
        return f"b{self.ofport}"


Tables = tuple[str, ...]
"""The flows of each node, in the form of ovs-ofctl."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Nodes with tables for a large cluster, and some of their pods for real: clients (tier 0) and servers (tier 1).

    The clients are on the first node and the servers on the last, which are one and the same without a `fabric`.
    """

    nodes: tuple[Node, ...]
    clients: tuple[Place, ...]
    servers: tuple[Place, ...]
    tables: Tables
    flows: int
    fabric: Fabric | None = None

    @property
    def node(self) -> Node:
        """The clients' node."""
        return self.nodes[0]

    def program(self, tables: Tables) -> None:
        """Replace all flows of each node in one bundle, and start with no megaflow and no connection."""
        for node, flows in zip(self.nodes, tables, strict=True):
            argv = ["ovs-ofctl", "-O", "OpenFlow15", "--bundle", "replace-flows", node.management, "-"]
            run(argv, env=node.environment, stdin=flows)
        _introduce((*self.clients, *self.servers), next_hop=tables == self.tables)
        self.forget()

    def filter_ports(self, *, filtered: bool) -> None:
        """Attach the filter of ethertypes to the pods' ports, as they have it in production, or remove it."""
        for node in self.nodes:
            ports = [place.port for place in (*self.clients, *self.servers) if place.node is node]
            if filtered:
                in_netns(node.netns, partial(filter_ports, ports, node.datapath))
            else:
                in_netns(node.netns, partial(unfilter_ports, ports))

    def forget(self) -> None:
        """Drop every megaflow and every connection."""
        for node in self.nodes:
            node.appctl("revalidator/purge")
            node.appctl("dpctl/flush-conntrack")

    def megaflows(self, node: Node | None = None) -> list[str]:
        """The flows for IP of a node's datapath at the moment; by default of the clients' node."""
        dumped = (node or self.node).appctl("dpctl/dump-flows", "-m", "--names").splitlines()
        return [line for line in dumped if "eth_type(0x0800)" in line]


def cluster_with(pods: int, clients: int, servers: int, *, nodes: int = 1) -> Cluster:
    """`large_cluster` with clients on its first node and servers on the last of its first `nodes`.

    They are of one tier pair; UDP/80 is admitted as TCP/80 is. Nodes have their underlay addresses of the emulator.
    """
    base = large_cluster(pods)
    names = sorted(base.nodes)
    for index, name in enumerate(names):
        base = base.with_object(replace(base.nodes[name], addresses=(underlay_address(index),)))
    homes = {"client": names[0], "server": names[nodes - 1]}
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
                    node=homes[name],
                    ports=(ContainerPort(PORT), ContainerPort(PORT, Protocol.UDP)),
                    uid=f"{name}{index}",
                )
            )
    return cluster


@contextmanager
def bench(pods: int, clients: int, servers: int, fabric: Fabric | None = None) -> Iterator[Bench]:
    """A Bench over a cluster of `pods` pods; with a `fabric`, a tunnel, on two nodes that it joins."""
    compiled = CompiledNodes(cluster_with(pods, clients, servers, nodes=2 if fabric else 1), 2 if fabric else 1)
    programs = compiled.programs()
    this_run = start_run()
    try:
        started = [
            start_node(this_run, name, controller=controller_socket(this_run), datapath=datapath_type())
            for name in compiled.names
        ]
        if fabric:
            _join(this_run, started, fabric)
        by_kind = {"client": (started[0], clients), "server": (started[-1], servers)}
        places = {
            kind: tuple(_place(this_run, compiled, here, f"{kind}{index}") for index in range(count))
            for kind, (here, count) in by_kind.items()
        }
        for here in started:
            _plug(here, [each for kind in places.values() for each in kind if each.node is here], fabric)
        tables = tuple(loadable(program.flows.values()) for program in programs)
        flows = len(programs[0].flows)
        yield Bench(tuple(started), places["client"], places["server"], tables, flows, fabric)
    finally:
        this_run.close()


class CompiledNodes:
    """The first nodes of a cluster, compiled as their controllers do it."""

    def __init__(self, cluster: Cluster, count: int) -> None:
        self.engine = Engine(cluster.settings)
        self.engine.step(cluster)
        self.names = sorted(cluster.nodes)[:count]
        self.facts = {name: facts_of(cluster, name) for name in self.names}

    def programs(self) -> list[Program]:
        """The tables of each."""
        programs = []
        for facts in self.facts.values():
            view = self.engine.agents.view(facts, self.facts)
            assert view is not None
            programs.append(compile_node(view, resolve(view, ResolveCache()), CompileCache()))
        return programs


def _join(this_run: Run, nodes: Sequence[Node], fabric: Fabric) -> None:
    """Join nodes by tunnel ports with the number that the tables have."""
    join(this_run, nodes, fabric)
    for node in nodes:
        node.vsctl("set", "interface", FABRIC_PORT, f"ofport_request={TUNNEL_PORT}")
        for _ in range(OFPORT_TRIES):
            if node.vsctl("get", "interface", FABRIC_PORT, "ofport").strip() == str(TUNNEL_PORT):
                break
            time.sleep(OFPORT_SECONDS)
        else:
            raise SystemExit("the tunnel port did not get its number")


def _place(this_run: Run, compiled: CompiledNodes, node: Node, name: str) -> Place:
    key = PodKey(f"{TENANT}/{name}")
    address, mac = compiled.engine.agents.address_of(key), compiled.engine.agents.mac_of(key)
    return Place(node, this_run.netns(name), str(address), str(mac), compiled.facts[node.name].pod_ports[key].ofport)


def _plug(here: Node, places: Sequence[Place], fabric: Fabric | None) -> None:
    """Namespaces, cables and ports; neighbours are told with the tables, so that no ARP is in what is measured."""
    words: list[str] = []
    mtu = fabric.mtu if fabric else Fabric.LINK.mtu
    for place in places:
        port = place.port
        ip_batch([f"netns add {place.netns}"])
        ip_batch(
            [f"link add {port} netns {here.netns} type veth peer name eth0 address {place.mac} netns {place.netns}"]
        )
        ip_batch([f"link set {port} addrgenmode none mtu {mtu} up"], netns=here.netns)
        if here.datapath is DatapathType.NETDEV:  # It fills in no checksums.
            subprocess.run(inside(place.netns, ["ethtool", "-K", "eth0", "tx", "off"]), check=True, capture_output=True)
        lines = ["link set lo up", f"link set eth0 addrgenmode none mtu {mtu} up"]
        lines += [f"addr add {place.address}/32 dev eth0", "route add default dev eth0 scope link"]
        ip_batch(lines, netns=place.netns)
        words += ["--", "add-port", BRIDGE, port, "--", "set", "interface", port, f"ofport_request={place.ofport}"]
        words += [f"external_ids:{POD_ID}={place.netns}/x"]
    here.vsctl(*words)
    here.vsctl("set", "Open_vSwitch", ".", f"other_config:max-idle={IDLE_MS}")
    here.ofctl("set-frags", "nx-match")


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
