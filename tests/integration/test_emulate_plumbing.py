"""Nodes, links, tunnels, pods and probes on real Open vSwitch, with a hand-made learning rule for forwarding."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from romana_ovs.model.bridge import INGRESS_HOOK
from romana_ovs.model.errors import SetupError
from romana_ovs.model.objects import PodKey
from romana_ovs.switch import bpf, ethertypes
from romana_ovs_emulate import failures, runs
from romana_ovs_emulate import nodes as nodes_module
from romana_ovs_emulate.agent_client import Zygote
from romana_ovs_emulate.fabric import Fabric, join
from romana_ovs_emulate.nodes import BRIDGE, UNDERLAY_BRIDGE, Node, start_node
from romana_ovs_emulate.pods import PodPlacement, Pods
from romana_ovs_emulate.system import NETNS_FOLDER, in_netns, ip_batch
from tests.support import still_sending
from tests.support.datapath import datapath_type, on_netdev

pytestmark = pytest.mark.root
TO_MAC_OF_ADDRESS = "set_field:0a:58:00:00:00:00->eth_dst,move:ip_dst[]->eth_dst[0..31]"


@pytest.fixture
def run() -> Iterator[runs.Run]:
    one = runs.start_run()
    yield one
    one.close()
    assert not list(NETNS_FOLDER.glob(f"{runs.NETNS_PREFIX}{one.id}-*"))
    assert not one.folder.exists()


@pytest.fixture
def nodes(run: runs.Run) -> dict[str, Node]:
    socket = run.folder / "controller.sock"
    return {
        name: start_node(run, name, controller=socket, datapath=datapath_type()) for name in ("node1", "node2", "node3")
    }


@contextmanager
def running_pods(run: runs.Run, nodes: dict[str, Node], mtu: int = 1500) -> Iterator[Pods]:
    """Pods without any yet; all processes of the run end with it."""
    zygote = Zygote(run)
    try:
        yield Pods(run, nodes, zygote, mtu=mtu)
    finally:
        run.close()
        zygote.close()


def place(number: int, node: str) -> PodPlacement:
    return PodPlacement(PodKey(f"x/p{number}"), node, f"10.1.0.{number}", f"0a:58:0a:01:00:{number:02x}")


@pytest.mark.parametrize("fabric", [Fabric.LINK, Fabric.VXLAN])
def test_pods_on_joined_nodes_reach_each_other_and_nobody_lies(
    run: runs.Run, nodes: dict[str, Node], fabric: Fabric
) -> None:
    join(run, list(nodes.values()), fabric)
    ports = ["80/tcp", "81/udp", "82/sctp"]
    with running_pods(run, nodes, mtu=fabric.mtu) as pods:
        pods.serve(ports)
        pods.reconcile([place(1, "node1"), place(2, "node2"), place(3, "node3")])
        closed = probe(pods, ports)
        assert {answer.open for answer in closed.values()} == {False}, "a secure bridge without flows forwards nothing"
        for node in nodes.values():
            load_switching(node, fabric, list(nodes.values()))
        opened = probe(pods, ports)
        wrong = {key: answer.detail for key, answer in opened.items() if not answer.open}
        if fabric is Fabric.LINK:
            assert wrong == {}
        else:
            assert {key for key in wrong if {key[0], key[1]} == {"x/p1", "x/p2"}} == set()
        lied = pods.running[PodKey("x/p1")].agent.probe([("10.1.0.2", 80, "tcp", "x/another")])[0]
        assert not lied.open
        assert lied.name == "x/p2"
        pods.reconcile([place(1, "node1"), place(3, "node3")])
        assert set(pods.running) == {"x/p1", "x/p3"}


def test_streams_push_both_ways_and_stop_when_the_path_closes(run: runs.Run, nodes: dict[str, Node]) -> None:
    join(run, list(nodes.values()), Fabric.LINK)
    with running_pods(run, nodes) as pods:
        pods.serve(["80/tcp", "81/udp"])
        pods.reconcile([place(1, "node1"), place(2, "node2")])
        for node in nodes.values():
            load_switching(node, Fabric.LINK, [])
        client, server = (pods.running[PodKey(key)].agent for key in ("x/p1", "x/p2"))
        client.stream("10.1.0.2", 80, "tcp")
        client.stream("10.1.0.2", 81, "udp", push=False)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and not all(
            len(agent.streams()) == 2 and max(one["received"] for one in agent.streams()) > 100
            for agent in (client, server)
        ):
            time.sleep(0.05)
        nodes["node2"].ofctl("del-flows")
        cut = time.monotonic()
        still_sending.goes_on([(nodes["node2"], pods.running[PodKey("x/p2")])])
        for agent in (client, server):
            assert len(agent.streams()) == 2
            assert all(one["last"] < cut + 0.2 for one in agent.streams())
        assert all(one["last"] > cut - 0.5 for one in client.streams()), "the UDP server pushes to a silent client"


def test_a_pod_that_cannot_be_started_keeps_no_other_from_it(
    run: runs.Run, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes no multicast address; whatever is made of such a pod goes."""
    good = [place(1, "node1"), place(2, "node2"), place(3, "node1")]
    bad = PodPlacement(PodKey("x/bad"), "node1", "224.0.0.1", "0a:58:e0:00:00:01")
    with running_pods(run, nodes) as pods:
        pods.reconcile([good[0], bad, good[1]])
        assert {pod.place for pod in pods.running.values()} == set(good[:2])
        assert list(pods.failed) == [bad.pod]
        assert pods.failed[bad.pod].startswith("pod x/bad cannot be started: `ip -n")
        pods.reconcile([*good, bad])
        assert {pod.place for pod in pods.running.values()} == set(good)
        assert not list(NETNS_FOLDER.glob(f"{runs.NETNS_PREFIX}{run.id}-x.bad*"))
        assert "bad" not in nodes["node1"].vsctl("list-ports", BRIDGE)
        # Another place is tried at once, the same one after a while.
        mended = replace(bad, address="10.1.0.9")
        pods.reconcile([*good, mended])
        assert pods.running[bad.pod].place == mended and not pods.failed
        pods.reconcile([*good, bad])
        assert bad.pod in pods.failed and bad.pod not in pods.running
        monkeypatch.setattr(failures, "RETRY_SECONDS", 0.0)
        tried = Mock(side_effect=SetupError("again"))
        monkeypatch.setattr(pods, "_create", tried)
        pods.reconcile([*good, bad])
        assert tried.call_count == 1 and pods.failed[bad.pod].endswith("again")
        pods.reconcile(good)
        assert not pods.failed


def test_a_port_says_whose_it_is_by_uid_whatever_that_is(run: runs.Run, nodes: dict[str, Node]) -> None:
    odd = 'a b,c="d\\'
    with running_pods(run, nodes) as pods:
        pods.reconcile([replace(place(1, "node1"), uid="one"), replace(place(2, "node1"), uid=odd), place(3, "node1")])
        assert not pods.failed
        before = pods.running
        uids = [
            nodes["node1"]
            .vsctl("--if-exists", "get", "interface", before[PodKey(f"x/p{number}")].port, "external_ids:iface-id-ver")
            .strip()
            for number in (1, 2, 3)
        ]
        assert [json.loads(uid) if uid else "" for uid in uids[1:]] == [odd, ""] and uids[0].strip('"') == "one"
        # Another UID is another pod, though all else is the same.
        pods.reconcile([replace(place(1, "node1"), uid="two"), replace(place(2, "node1"), uid=odd), place(3, "node1")])
        after = pods.running
        assert [after[key].agent.pid != before[key].agent.pid for key in before] == [True, False, False]
        assert after[PodKey("x/p1")].port != before[PodKey("x/p1")].port


def test_ports_of_pods_are_filtered_and_no_others(run: runs.Run, nodes: dict[str, Node]) -> None:
    join(run, list(nodes.values()), Fabric.LINK)
    with running_pods(run, nodes) as pods:
        pods.reconcile([place(1, "node1"), place(2, "node1"), place(3, "node2")])
        pods.reconcile([place(1, "node1"), place(2, "node1"), place(3, "node2"), place(4, "node1")])
        assert pods.unfiltered == ""
        for node in nodes.values():
            names = [link["ifname"] for link in json.loads(node.execute(["ip", "-j", "link", "show"]).stdout)]
            hooks = in_netns(node.netns, functools.partial(ethertypes.filter_hooks, names))
            found = {name for name in names if hooks[name] == {INGRESS_HOOK[node.datapath]}}
            assert found == {name for name in names if hooks[name]}
            assert found == {pod.port for pod in pods.running.values() if pod.place.node == node.name}


def test_pods_run_where_ports_cannot_be_filtered(
    run: runs.Run, nodes: dict[str, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf, "LIBRARY", "libbpf.so.none")
    places = [place(1, "node1"), place(2, "node2")]
    with running_pods(run, nodes) as pods:
        pods.reconcile(places)
        assert {pod.place for pod in pods.running.values()} == set(places) and not pods.failed
        said = pods.unfiltered
        assert said.startswith("frames of every ethertype reach the switches: ") and "libbpf.so.none" in said
        monkeypatch.setattr(bpf, "LIBRARY", "libbpf.so.other")
        pods.reconcile([*places, place(3, "node1")])
        assert len(pods.running) == 3 and pods.unfiltered == said


def test_a_bridge_has_no_hidden_or_default_flows(nodes: dict[str, Node]) -> None:
    node = nodes["node1"]
    assert "actions" not in node.ofctl("dump-flows")
    assert node.appctl("bridge/dump-flows", "--offload-stats", BRIDGE).count("NORMAL") == 0
    assert node.vsctl("get", "controller", BRIDGE, "connection_mode").strip() == "out-of-band"


@on_netdev
def test_a_route_waits_until_the_switch_knows_an_address(run: runs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start_node(run, "node1", controller=run.folder / "controller.sock", datapath=datapath_type())
    node.vsctl("add-br", UNDERLAY_BRIDGE, "--", "set", "bridge", UNDERLAY_BRIDGE, "datapath_type=netdev")
    with monkeypatch.context() as patch:
        patch.setattr(nodes_module, "ADDRESS_SECONDS", 0.2)
        with pytest.raises(SetupError, match="Error while inserting route"):
            node.route_underlay()
    line = f"addr add 172.31.0.1/16 dev {UNDERLAY_BRIDGE}"
    late = threading.Timer(0.5, ip_batch, args=([line],), kwargs={"netns": node.netns})
    late.start()
    try:
        node.route_underlay()
    finally:
        late.join()
    assert f"172.31.0.0/16 dev {UNDERLAY_BRIDGE}" in node.appctl("ovs/route/show")


def test_a_killed_switch_comes_back_with_its_ports(run: runs.Run, nodes: dict[str, Node]) -> None:
    node = nodes["node1"]
    join(run, list(nodes.values()), Fabric.LINK)
    pid = node.switch_pid()
    os.kill(pid, 9)
    while not ended(pid):
        time.sleep(0.01)
    node.start_switch()
    assert node.switch_pid() != pid
    assert "to-node2" in node.ofctl("show")


CHILD = """
import sys, time
from pathlib import Path
from romana_ovs.model.bridge import DatapathType
from romana_ovs_emulate import runs
from romana_ovs_emulate.agent_client import Zygote
from romana_ovs_emulate.nodes import start_node
from romana_ovs_emulate.pods import Pods, PodPlacement
run = runs.start_run(Path(sys.argv[2]))
node = start_node(run, "node1", controller=run.folder / "c", datapath=DatapathType(sys.argv[3]))
zygote = Zygote(run) if sys.argv[1] == "zygote" else None
if zygote:
    pods = Pods(run, {"node1": node}, zygote, mtu=1500)
    pods.reconcile([PodPlacement("x/a", "node1", "10.0.0.1", "0a:58:0a:00:00:01")])
print(run.folder, node.switch_pid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["zygote", "clean"])
def test_a_killed_run_is_removed_and_live_runs_are_not(run: runs.Run, how: str) -> None:
    mine = start_node(run, "node1", controller=run.folder / "controller.sock", datapath=datapath_type())
    registers = tempfile.mkdtemp(prefix="rmn-")
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, how, registers, datapath_type().value], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    folder, pid = child.stdout.readline().split()
    child.kill()
    child.wait()
    child.stdout.close()
    if how == "clean":
        removed = runs.clean(Path(registers))
        assert [one.run for one in removed] == [Path(folder).name]
        assert removed[0].processes == 2
    deadline = time.monotonic() + 10
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert ended(int(pid))
    assert not list(NETNS_FOLDER.glob(f"{runs.NETNS_PREFIX}{Path(folder).name}-*"))
    shutil.rmtree(registers)
    assert "node1" in mine.vsctl("get", "bridge", BRIDGE, "external_ids:romana-node")


def ended(pid: int) -> bool:
    """Whether a process runs no more (init may not have collected it yet)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def probe(pods: Pods, ports: list[str]) -> dict[tuple[str, str, str], Any]:
    running = pods.running
    begun = []
    for key, pod in running.items():
        others = [(other, port) for other in running if other != key for port in ports]
        targets = [
            (running[other].place.address, int(port.split("/")[0]), port.split("/")[1], other) for other, port in others
        ]
        begun.append((key, others, pod.agent, pod.agent.start_probe(targets)))
    return {
        (key, other, port): answer
        for key, others, agent, number in begun
        for (other, port), answer in zip(others, agent.finish_probe(number), strict=True)
    }


def load_switching(node: Node, fabric: Fabric, others: list[Node]) -> None:
    """Switch by learning on links; over the tunnel, send node1 and node2 to each other.

    Pods send everything to one next hop, so the MAC is made from the address first.
    """
    node.ofctl("add-flow", f"priority=1,ip,actions={TO_MAC_OF_ADDRESS},NORMAL")
    if fabric is Fabric.LINK:
        return
    tunnel = node.vsctl("get", "interface", "tunnel", "ofport").strip()
    remote = {"node1": "172.31.0.2", "node2": "172.31.0.1", "node3": "172.31.0.1"}[node.name]
    node.ofctl("add-flow", f"priority=2,in_port={tunnel},actions=NORMAL")
    node.ofctl("add-flow", f"priority=1,ip,actions=set_field:{remote}->tun_dst,{TO_MAC_OF_ADDRESS},NORMAL")
