"""A cluster of two real nodes for all tests of this folder, and a namespace for each."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from romana_ovs_emulate.cluster.cluster import Cluster, ClusterOptions
from tests.support.real_cluster import RealCluster, skip_without_requirements


@pytest.fixture(scope="session")
def real_cluster() -> Iterator[RealCluster]:
    """The cluster, started with the first test that asks."""
    skip_without_requirements()
    with Cluster(ClusterOptions(), print) as cluster:
        yield RealCluster(cluster)


@pytest.fixture
def space(real_cluster: RealCluster) -> Iterator[str]:
    """A new namespace; with everything in it, it is gone after the test."""
    name = f"test-{secrets.token_hex(4)}"
    real_cluster.create_namespace(name)
    yield name
    real_cluster.delete_namespace(name)
