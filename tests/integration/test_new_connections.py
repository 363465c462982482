"""One pod cannot fill the table of connections that all pods of its node share (docs/hazards.md B16)."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from romana_ovs.model.settings import Settings
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.pipeline.meters import BURST_SECONDS
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.simulator.packet import Addresses, tcp, udp
from romana_ovs_emulate.system import inside, run
from tests.integration.dummy_interfaces import LOCAL, DummyOvs, wanted
from tests.integration.wire import frame
from tests.support.live_cluster import LiveCluster, flowing, live_cluster, sink
from tests.support.manifests import placed_pod
from tests.support.simulated_network import UPLINK_PORT, SimNetwork, SimPod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.skipif(not wanted(), reason="needs root and Open vSwitch")]

RATE = 2
BURST = RATE * BURST_SECONDS
LAB = SimNetwork.of(SimPod("one", 1, 1), SimPod("two", 1, 2), SimPod("near", 1, 3), SimPod("far", 2, 4))


@pytest.fixture
def ovs() -> Iterator[DummyOvs]:
    """Node 1 of the lab as the controller would program it, meters and all, in a switch whose time stands still."""
    view = replace(LAB.view(1), settings=Settings(new_connections=RATE))
    program = compile_node(view, LAB.permissions(1))
    with DummyOvs((1, 2, 3, UPLINK_PORT, LOCAL)) as running:
        for meter in program.meters.values():
            running.ofctl("add-meter", "br0", meter.text())
        running.program("\n".join(flow.text(TABLE_IDS) for flow in program.flows.values()))
        running.appctl("time/stop")
        yield running


def _passing(ovs: DummyOvs, source: str, target: str, ports: range) -> list[int]:
    """Of UDP packets from one pod to another, each from another port, the source ports of those that left."""
    ends = LAB.ends(source, target)
    return [port for port in ports if ovs.send(LAB.pods[source].port, frame(udp(ends, port, 53)))]


def _entries(ovs: DummyOvs) -> int:
    return ovs.appctl("dpctl/dump-conntrack").count("zone=")


def test_a_meter_limits_new_connections_of_its_pod_only(ovs: DummyOvs) -> None:
    first = range(1000, 1000 + 2 * BURST)
    assert _passing(ovs, "one", "far", first) == list(first)[:BURST]
    assert _entries(ovs) == BURST
    assert _passing(ovs, "two", "far", range(1000, 1000 + BURST)) == list(range(1000, 1000 + BURST))
    ovs.appctl("time/warp", "1000")
    assert _passing(ovs, "one", "far", range(2000, 2010)) == [2000, 2001]
    ovs.appctl("time/warp", "3000")
    assert _passing(ovs, "one", "far", range(3000, 3010)) == list(range(3000, 3000 + 3 * RATE))


def test_what_exists_and_what_stays_on_the_node_goes_on(ovs: DummyOvs) -> None:
    far = LAB.ends("one", "far")
    opening = tcp(far, 4000, 80)
    back = replace(opening.reply(), eth_src=0x0A06 << 32 | LAB.pods["far"].identity)
    assert ovs.send(1, frame(opening))
    assert ovs.send(UPLINK_PORT, frame(back))
    assert _passing(ovs, "one", "far", range(1000, 1000 + 2 * BURST))[-1] == 1000 + BURST - 2
    assert not ovs.send(1, frame(tcp(far, 4001, 80)))
    for _ in range(2 * BURST):
        assert ovs.send(1, frame(opening.with_flags(0x10)))
        # Nobody has answered this one: it is +new with every packet, and has its entry all the same.
        assert ovs.send(1, frame(udp(far, 1000, 53)))
    many = range(5000, 5000 + 2 * BURST)
    assert _passing(ovs, "one", "near", many) == list(many)
    assert _passing(ovs, "one", "near", range(5000, 5001)) == [5000]
    probe = udp(Addresses.of(far.nw_src, "203.0.113.9"), 1, 53)
    assert not ovs.send(1, frame(probe))


# The same with real packets, a controller, and two tenants on one node.

LIMIT = 50
FLOOD = """
import socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
for port in range(1024, 1024 + count):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", (address, port))
    if port % 10 == 0:
        time.sleep(0.001)
"""
"""Datagrams to so many ports, each of which is a connection of its own; at a pace that no queue of the switch's is full
by, in which others' packets would be lost too: at most 10,000 a second, which is 200 times the limit."""
MANY = 5000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Tenants a and b have each a pod on either node; every pod may open LIMIT connections a second."""
    conf = tmp_path_factory.mktemp("c") / "romana.conf"
    conf.write_text(f"[romana]\nnew_connections = {LIMIT}\n")
    pods = (
        placed_pod("flood", "node1")
        + placed_pod("far", "node2")
        + placed_pod("calm", "node1", "b")
        + placed_pod("host", "node2", "b")
    )
    with live_cluster(
        tmp_path_factory.mktemp("m"), ("node1", "node2"), manifests={"pods": pods}, settings=(conf,)
    ) as running:
        yield running


def _zone_entries(cluster: LiveCluster, address: str) -> int:
    """How many connections node1 knows that were opened by `address`."""
    shown = cluster.node("node1").appctl("dpctl/dump-conntrack")
    return len(re.findall(rf"orig=\(src={re.escape(address)},", shown))


@pytest.mark.alone
def test_a_pod_that_floods_fills_nothing_and_nobody_else_notices(cluster: LiveCluster) -> None:
    flood, far = cluster.pod("a/flood"), cluster.pod("a/far")
    script = Path(cluster.folder.parent / "flood.py")
    script.write_text(FLOOD)
    calm = (("udp", "b/host", 80), ("stream", "b/host", 81))
    with (
        flowing(cluster, "b/calm", *calm) as bystander,
        flowing(cluster, "a/flood", ("udp", "a/far", 80), ("stream", "a/far", 81)) as own,
        sink(cluster, "a/far", 1024) as heard,
    ):
        began = time.monotonic()
        run(inside(flood.netns, [sys.executable, str(script), far.place.address, str(MANY)]))
        entries, seconds = _zone_entries(cluster, flood.place.address), time.monotonic() - began
        # Some are those of its own traffic.
        assert entries <= LIMIT * BURST_SECONDS + LIMIT * seconds + 4, f"{entries} entries after {seconds} s"
        assert entries >= LIMIT * BURST_SECONDS - 4
        eventually(lambda: heard.report()[0]["good"] == 1, "the first of them arrives")
        with flowing(cluster, "b/calm", ("connect", "b/host", 80)) as opening:
            opening.unharmed()
        bystander.unharmed()
        own.unharmed()
    dropped = re.findall(r"0: packet_count:(\d+)", cluster.node("node1").ofctl("meter-stats"))
    # Not all of MANY come as far as the meter: the switch's queue is short.
    assert sum(map(int, dropped)) > 2 * LIMIT * BURST_SECONDS
