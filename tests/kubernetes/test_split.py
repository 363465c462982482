"""The registry and the nodes as processes of their own, over a real API server and real bridges."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from romana_ovs.emulate import binaries
from romana_ovs.emulate.controlplane import ControlPlane
from romana_ovs.emulate.kube import manifests_folder
from tests.kubernetes.split import Cluster, split_cluster

pytestmark = pytest.mark.root
NODES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def own(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane that is ours to end; `control_plane` says whether there can be one."""
    with ControlPlane(binaries=binaries.find()) as plane:
        plane.apply(manifests_folder())
        yield plane


@pytest.fixture(scope="module")
def running(own: ControlPlane) -> Iterator[Cluster]:
    with split_cluster(own, NODES) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """The cluster, with every controller running and every pod gone again after the test."""
    yield running
    running.heal()
    for key in running.loaded().cluster.pods:
        running.delete_pod(key)
    running.settled()


@pytest.fixture
def ns(cluster: Cluster) -> str:
    return cluster.namespace(f"t-{secrets.token_hex(3)}")


def test_pods_of_several_nodes_and_policies(cluster: Cluster, ns: str) -> None:
    pods = [cluster.pod(ns, f"p{number}", node) for number, node in enumerate((*NODES, *NODES))]
    cluster.settled(*pods)
    assert cluster.verdicts(*pods) == []
