"""A rolling restart of romana-ovs, as in an upgrade: no packet is lost, and no pod that starts meanwhile fails."""

from __future__ import annotations

import re
import time

import pytest

from romana_ovs_emulate.cluster.installation import NAMESPACE, WORKLOADS, await_rollout
from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.known import known
from tests.support.real_cluster import RealCluster, idle_pod, web_pod

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of real kubelets")]
MAX_PODS = 20
SECONDS_BETWEEN_PODS = 1.0
PING = 'ping -i 0.05 -w 300 "$0" > /tmp/pings 2>&1 < /dev/null & echo $! > /tmp/pid'
END = "kill -INT $(cat /tmp/pid); sleep 1; cat /tmp/pings"


def is_rolled_out(plane: ControlPlane) -> bool:
    """Whether all processes of nodes are new ones, and ready."""
    shown = plane.kubectl("rollout", "status", "daemonset/romana-node", f"--namespace={NAMESPACE}", "--watch=false")
    return "successfully rolled out" in shown


def test_a_rolling_restart_loses_no_packet(real_cluster: RealCluster, space: str) -> None:
    first, second = (node.name for node in real_cluster.nodes)
    plane = real_cluster.cluster.plane
    real_cluster.create(web_pod(space, "web", second), idle_pod(space, "client", first))
    address = real_cluster.await_running(space, 2)["web"]["status"]["podIP"]
    assert real_cluster.execute(space, "client", "sh", "-c", PING, address) == "exit 0\n"
    plane.kubectl("rollout", "restart", *WORKLOADS, f"--namespace={NAMESPACE}")
    pods = 0
    while not is_rolled_out(plane):
        if pods < MAX_PODS:
            real_cluster.create(idle_pod(space, f"pod-{pods}", (first, second)[pods % 2]))
            pods += 1
        assert real_cluster.connects(space, "client", address)
        time.sleep(SECONDS_BETWEEN_PODS)
    await_rollout(plane)
    assert pods >= 2
    real_cluster.await_running(space, 2 + pods)
    pings = known(
        re.search(
            r"(\d+) packets transmitted, (\d+) packets received", real_cluster.execute(space, "client", "sh", "-c", END)
        )
    )
    assert int(pings[1]) > 20 and pings[1] == pings[2], pings[0]
    # Such an error would delay a pod by some 13 s: kubelet waits so long before it tries again.
    assert "FailedCreatePodSandBox" not in plane.kubectl("get", "events", "-n", space)
