"""Ends of a node's switch and of its power, while pods run."""

from __future__ import annotations

import json

import pytest

from tests.support.real_cluster import RUNNING_SECONDS, RealCluster, idle_pod, web_pod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of real kubelets")]


def test_pods_connect_again_after_the_switch_was_killed(real_cluster: RealCluster, space: str) -> None:
    first, second = (node.name for node in real_cluster.nodes)
    real_cluster.create(web_pod(space, "web", second), idle_pod(space, "client", first))
    address = real_cluster.await_running(space, 2)["web"]["status"]["podIP"]
    assert real_cluster.connects(space, "client", address)
    real_cluster.cluster.restart_switch(second)
    eventually(lambda: real_cluster.connects(space, "client", address), "they connect", RUNNING_SECONDS)


def test_a_power_cut_keeps_the_addresses_of_pods(real_cluster: RealCluster, space: str) -> None:
    first, second = (node.name for node in real_cluster.nodes)
    real_cluster.create(web_pod(space, "web", second), idle_pod(space, "client", first))
    before = real_cluster.await_running(space, 2)["web"]["status"]
    cluster = real_cluster.cluster
    cluster.cut_power(second)
    assert not real_cluster.connects(space, "client", before["podIP"])
    cluster.boot(second)
    eventually(lambda: _restarts(real_cluster, space) == 1, "the kubelet runs the pod again", RUNNING_SECONDS)
    after = real_cluster.await_running(space, 2)["web"]["status"]
    assert after["podIP"] == before["podIP"]
    eventually(lambda: real_cluster.connects(space, "client", before["podIP"]), "they connect", RUNNING_SECONDS)
    assert len(real_cluster.traces(cluster.nodes[second], space)["ports"]) == 1


def _restarts(real_cluster: RealCluster, space: str) -> int:
    pod = json.loads(real_cluster.cluster.plane.kubectl("get", "pod", "web", "-n", space, "-o", "json"))
    return sum(container["restartCount"] for container in pod["status"]["containerStatuses"])
