"""The same across VXLAN: revocation, and what survives a node's switch."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from romana_ovs_emulate.fabric import Fabric
from tests.support.live_cluster import LiveCluster, attempts, cuts_both_ways, flowing, live_cluster
from tests.support.manifests import placed_pod
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

PODS = (
    placed_pod("client", "node1")
    + placed_pod("near", "node1")
    + placed_pod("guarded", "node2")
    + placed_pod("far", "node2")
)
OTHERS = placed_pod("stranger", "node1", "b")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Tenants a and b on two nodes that tunnel to each other."""
    folder: Path = tmp_path_factory.mktemp("m")
    with live_cluster(folder, ("node1", "node2"), fabric=Fabric.VXLAN, manifests={"pods": PODS + OTHERS}) as running:
        yield running


@pytest.mark.alone
def test_only_the_removed_policy_cuts_connections(cluster: LiveCluster) -> None:
    cuts_both_ways(cluster)


def test_a_restarted_controller_sends_nothing_and_loses_nothing(cluster: LiveCluster) -> None:
    tasks = (("udp", "a/far", 80), ("connect", "a/far", 80), ("stream", "a/far", 81))
    with flowing(cluster, "a/client", *tasks) as traffic:
        cluster.stop_controller()
        assert cluster.start_controller() == {"node1": 0, "node2": 0}
        traffic.unharmed()


@pytest.mark.alone  # It counts single datagrams, of which a busy machine may lose one.
def test_pods_that_come_and_go_cost_tunnels_no_packet(cluster: LiveCluster) -> None:
    with flowing(cluster, "a/client", ("dense", "a/far", 80)) as traffic:
        for number in range(12):
            cluster.edit(partial(cluster.write, "more", placed_pod(f"more-{number}", "node1")))
        traffic.unharmed()
    cluster.edit(lambda: cluster.remove("more"))


def test_a_killed_switch_stays_closed_until_its_flows_return(cluster: LiveCluster) -> None:
    before = cluster.meaning("node2")
    tasks = (("udp", "a/near", 80), ("stream", "a/far", 81), ("connect", "a/far", 80))
    with (
        flowing(cluster, "a/client", *tasks) as traffic,
        attempts(cluster, "b/stranger", ("udp", "a/far", 80), ("connect", "a/far", 80)) as denied,
    ):
        cluster.kill_switch("node2")
        cluster.await_state(lambda state: not state.nodes["node2"].connected, "its death is noticed")
        cluster.node("node2").start_switch()
        eventually(lambda: cluster.meaning("node2") == before, "every flow is back, for the ports as they are now")
        traffic.flowing()
        assert [task["lost"] for task in traffic.report()[:2]] == [[], []], "established streams go on"
        assert sum(task["good"] for task in denied.report()) == 0
