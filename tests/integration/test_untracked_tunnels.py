"""Tunnel packets on the kernel's datapath are no connections of the host, and `node check` of such a node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from romana_ovs_emulate.fabric import Fabric
from romana_ovs_emulate.nodes import Node
from tests.support.datapath import on_system
from tests.support.live_cluster import LiveCluster, flowing, live_cluster
from tests.support.manifests import placed_pod

pytestmark = [pytest.mark.root, on_system]

PODS = placed_pod("client", "node1") + placed_pod("far", "node2")
HOST_ZONE = "zone=0"


@pytest.fixture(scope="module", params=[Fabric.VXLAN, Fabric.GENEVE], ids=lambda fabric: fabric.value)
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """One tenant on two nodes that tunnel to each other."""
    folder: Path = tmp_path_factory.mktemp("m")
    with live_cluster(folder, ("node1", "node2"), fabric=request.param, manifests={"pods": PODS}) as running:
        yield running


def node_check(node: Node) -> dict[str, list[dict[str, str]]]:
    """The JSON of `node check`, run on an emulated node."""
    done = node.execute([sys.executable, "-m", "romana_ovs", "node", "check", "--json", "--ovsdb", node.ovsdb])
    document: dict[str, list[dict[str, str]]] = json.loads(done.stdout)
    return document


def test_tunnels_take_no_entry_of_the_host(cluster: LiveCluster) -> None:
    node = cluster.emulation.nodes["node1"]
    with flowing(cluster, "a/client", ("connect", "a/far", 80)) as traffic:
        traffic.unharmed()
    assert node.appctl("dpctl/dump-conntrack").count("tcp,") > 0
    assert node.appctl("dpctl/dump-conntrack", HOST_ZONE) == ""
    node.execute(["nft", "delete", "table", "inet", "romana-ovs-tunnels"])
    with flowing(cluster, "a/client", ("connect", "a/far", 80)) as traffic:
        traffic.unharmed()
    assert node.appctl("dpctl/dump-conntrack", HOST_ZONE).count("udp,") > 0


def test_a_check_of_an_emulated_node(cluster: LiveCluster) -> None:
    report = node_check(cluster.emulation.nodes["node2"])
    passed = {"bridge", "controller", "datapath-features", "kernel-modules", "mtu", "tunnel-port", "tunnel-tracking"}
    assert passed <= set(map(str, report["passed"]))
    assert {"fragments", "unanswered-connections"} <= {each["check"] for each in report["findings"]}
    assert report["left_out"] == []
