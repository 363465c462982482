"""Services of a real cluster: real kube-proxies on the hosts, and policy about the pods behind them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest

from tests.support import api_objects
from tests.support.api_objects import Object
from tests.support.real_cluster import RealCluster, idle_pod, web_pod
from tests.support.waiting import eventually

pytestmark = [pytest.mark.root, pytest.mark.apiserver, pytest.mark.slow("starts a cluster of real kubelets")]
API_SERVER_PORT = 443
"""Of the Service `kubernetes`."""


@pytest.fixture
def other_space(real_cluster: RealCluster) -> Iterator[str]:
    """Another namespace, and so another tenant."""
    name = f"test-{secrets.token_hex(4)}"
    real_cluster.create_namespace(name)
    yield name
    real_cluster.delete_namespace(name)


def service(space: str, app: str) -> Object:
    """A Service of the pods with this label, port 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "namespace": space},
        "spec": {"selector": {"app": app}, "ports": [{"port": 80}]},
    }


def cluster_address(real_cluster: RealCluster, space: str, name: str) -> str:
    """The cluster address of a Service."""
    listed = json.loads(real_cluster.cluster.plane.kubectl("get", "service", name, "-n", space, "-o", "json"))
    return str(listed["spec"]["clusterIP"])


def reaches(real_cluster: RealCluster, space: str, client: str, address: str, port: int) -> bool:
    """Whether a pod opens a TCP connection."""
    command = f"timeout 3 nc -w 2 {address} {port} </dev/null"
    return real_cluster.execute(space, client, "sh", "-c", command).splitlines()[-1] == "exit 0"


def test_services_keep_the_client_and_its_tenant(real_cluster: RealCluster, space: str, other_space: str) -> None:
    """docs/hazards.md A26, A27, A28: by a Service, policy is about the same two pods as without it."""
    first, second = (node.name for node in real_cluster.nodes)
    clients = ("friend", "stranger", "far-friend")
    real_cluster.create(
        service(space, "web"),
        web_pod(space, "web", second),
        idle_pod(space, "friend", first, role="friend"),
        idle_pod(space, "far-friend", second, role="friend"),
        idle_pod(space, "stranger", first),
        idle_pod(other_space, "tenant", first),
    )
    real_cluster.await_running(space, 4)
    real_cluster.await_running(other_space, 1)
    address = cluster_address(real_cluster, space, "web")
    for client in (*clients, "web"):
        eventually(lambda: real_cluster.connects(space, client, address), f"{client} reaches the Service")  # noqa: B023
    assert not real_cluster.connects(other_space, "tenant", address), "tenants are separate"
    friends = {"podSelector": {"matchLabels": {"role": "friend"}}}
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{"from": [friends], "ports": [{"port": 80}]}],
    }
    real_cluster.create(api_objects.policy(f"{space}/only-friends", spec))
    eventually(lambda: not real_cluster.connects(space, "stranger", address), "the policy is in force")
    assert real_cluster.connects(space, "friend", address) and real_cluster.connects(space, "far-friend", address)
    assert not real_cluster.connects(space, "web", address), "by its Service a pod is an outsider to itself"


def test_egress_to_the_api_server_by_its_service(real_cluster: RealCluster, space: str) -> None:
    """The API server is no pod: egress policies decide by its own address and port, not by the Service's."""
    first = real_cluster.nodes[0].name
    real_cluster.create(idle_pod(space, "client", first), web_pod(space, "web", first), service(space, "web"))
    real_cluster.await_running(space, 2)
    api_server = cluster_address(real_cluster, "default", "kubernetes")
    web = cluster_address(real_cluster, space, "web")
    assert reaches(real_cluster, space, "client", api_server, API_SERVER_PORT)
    eventually(lambda: real_cluster.connects(space, "client", web), "the Service is there")

    def closed() -> bool:
        return not reaches(real_cluster, space, "client", api_server, API_SERVER_PORT)

    selected = {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"]}
    real_cluster.create(api_objects.policy(f"{space}/nothing", selected))
    eventually(closed, "deny-all holds")
    assert not real_cluster.connects(space, "client", web)
    plane = real_cluster.cluster.plane
    slices = json.loads(plane.kubectl("get", "endpointslice", "kubernetes", "-n", "default", "-o", "json"))
    [end] = slices["endpoints"][0]["addresses"]
    rule = {"to": [{"ipBlock": {"cidr": f"{end}/32"}}], "ports": [{"port": slices["ports"][0]["port"]}]}
    real_cluster.create(api_objects.policy(f"{space}/api-server", {**selected, "egress": [rule]}))
    eventually(lambda: not closed(), "what is allowed at the API server's own address passes")
    assert not real_cluster.connects(space, "client", web)
