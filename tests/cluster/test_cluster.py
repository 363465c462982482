"""A cluster of real kubelets and containerd, whose network is romana-ovs."""

from __future__ import annotations

import json
import signal
from ipaddress import IPv4Address

import pytest

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.config import settings_in
from romana_ovs_emulate.cluster import cluster as module
from romana_ovs_emulate.cluster import runtime
from romana_ovs_emulate.patience import patience
from tests.support import api_objects
from tests.support.known import known
from tests.support.real_cluster import RUNNING_SECONDS, RealCluster, idle_pod, web_pod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of real kubelets")]
BURST = 20
GARBAGE_SECONDS = patience(90.0)
"""The kubelet removes what is left of deleted pods once a minute."""


def test_nodes_are_ready_with_their_addresses(real_cluster: RealCluster) -> None:
    listed = json.loads(real_cluster.cluster.plane.kubectl("get", "nodes", "-o", "json"))["items"]
    reported = {
        node["metadata"]["name"]: {
            address["address"] for address in node["status"]["addresses"] if address["type"] == "InternalIP"
        }
        for node in listed
    }
    assert reported == {node.name: {str(node.address)} for node in real_cluster.nodes}
    for node in listed:
        conditions = {one["type"]: one["status"] for one in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"


def test_pods_get_addresses_of_their_tenant_and_node(real_cluster: RealCluster, space: str) -> None:
    nodes = [node.name for node in real_cluster.nodes]
    real_cluster.create(*(web_pod(space, f"web-{name}-{n}", name) for name in nodes for n in range(2)))
    pods = real_cluster.await_running(space, 4)
    addresses = {name: IPv4Address(pod["status"]["podIP"]) for name, pod in pods.items()}
    plan = AddressPlan.of(settings_in(real_cluster.cluster.plane.folder / module.SETTINGS_FILE))
    assert len(set(addresses.values())) == 4
    parts = {name: known(plan.split(address)) for name, address in addresses.items()}
    assert len({part.segment for part in parts.values()}) == 1, "one tenant, one tier"
    for name in nodes:
        assert len({part.host for pod, part in parts.items() if pod.startswith(f"web-{name}-")}) == 1
    for client in pods:
        for address in addresses.values():
            assert real_cluster.connects(space, client, str(address))


def test_a_policy_admits_and_denies_across_nodes(real_cluster: RealCluster, space: str) -> None:
    first, second = (node.name for node in real_cluster.nodes)
    clients = ("friend", "stranger")
    real_cluster.create(web_pod(space, "web", second), *(idle_pod(space, name, first) for name in clients))
    address = real_cluster.await_running(space, 3)["web"]["status"]["podIP"]
    assert all(real_cluster.connects(space, client, address) for client in clients)
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "friend"}}}], "ports": [{"port": 80}]}],
    }
    real_cluster.create(api_objects.policy(f"{space}/only-friends", spec))
    eventually(lambda: not real_cluster.connects(space, "stranger", address), "the policy is in force")
    assert real_cluster.connects(space, "friend", address)
    real_cluster.cluster.plane.kubectl("delete", "networkpolicy", "only-friends", "-n", space)
    eventually(lambda: real_cluster.connects(space, "stranger", address), "the policy is gone")


def test_deleted_pods_leave_nothing(real_cluster: RealCluster) -> None:
    nodes = real_cluster.nodes
    space = "leaves-nothing"
    real_cluster.create_namespace(space)
    real_cluster.create(web_pod(space, "web", nodes[1].name), idle_pod(space, "client", nodes[0].name))
    pods = real_cluster.await_running(space, 2)
    address = pods["web"]["status"]["podIP"]
    assert real_cluster.connects(space, "client", address)
    assert real_cluster.connections(nodes[1], address)
    kinds = {"devices", "ports", "namespaces", "containers", "cached results"}
    assert set(real_cluster.traces(nodes[1], space)) == kinds
    real_cluster.delete_namespace(space)
    for node in nodes:
        eventually(
            lambda node=node: not real_cluster.traces(node, space),  # type: ignore[misc]
            f"nothing is left on {node.name}: {real_cluster.traces(node, space)}",
            GARBAGE_SECONDS,
        )
        assert not real_cluster.connections(node, address)


def test_twenty_pods_start_at_once(real_cluster: RealCluster, space: str) -> None:
    names = [node.name for node in real_cluster.nodes]
    real_cluster.create(*(idle_pod(space, f"pod-{n}", names[n % len(names)]) for n in range(BURST)))
    pods = real_cluster.await_running(space, BURST)
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == BURST


def test_a_killed_attach_agent_delays_pods_only(real_cluster: RealCluster, space: str) -> None:
    node = real_cluster.nodes[0]
    real_cluster.create(*(idle_pod(space, f"pod-{n}", node.name) for n in range(4)))
    eventually(lambda: real_cluster.traces(node, space).get("ports"), "an ADD is under way")
    real_cluster.kill_process(node, "romana-ovs attach")
    pods = real_cluster.await_running(space, 4)
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == 4
    eventually(
        lambda: len(real_cluster.traces(node, space)["ports"]) == 4, "a port for each pod, no more", RUNNING_SECONDS
    )


def test_a_killed_containerd_delays_pods_only(real_cluster: RealCluster, space: str) -> None:
    node = real_cluster.nodes[0]
    real_cluster.create(*(idle_pod(space, f"pod-{n}", node.name) for n in range(4)))
    eventually(lambda: real_cluster.traces(node, space).get("ports"), "an ADD is under way")
    node.kill_program(runtime.PROGRAM, signal.SIGKILL)
    runtime.start_process(node)
    pods = real_cluster.await_running(space, 4)
    assert len({pod["status"]["podIP"] for pod in pods.values()}) == 4
    eventually(
        lambda: len(real_cluster.traces(node, space)["ports"]) == 4, "a port for each pod, no more", RUNNING_SECONDS
    )
