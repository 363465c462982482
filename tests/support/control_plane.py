"""Fixtures on a real control plane: one for the session, a namespace of its own for each test.

They are imported by tests/conftest.py, so that every folder of tests shares the one control plane.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.raw_client import Client

NAMESPACES = "/api/v1/namespaces"


def needed_binaries() -> binaries.Binaries:
    """The programs of a control plane; skips the test where there are none, which in CI is a failure."""
    found = binaries.find()
    if found is None:
        reason = (
            binaries.unavailable_reason() or "needs Kubernetes built: run `python -m romana_ovs_emulate.binaries` once"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A control plane with everything of etc/kubernetes, started with the first test that asks.

    Tests that end the API server, or fill it, start a ControlPlane of their own.
    """
    with ControlPlane(binaries=needed_binaries()) as plane:
        plane.apply(manifests_folder())
        yield plane


@pytest.fixture(scope="session")
def admin(control_plane: ControlPlane) -> Iterator[Client]:
    """Who may do everything."""
    with Client.of_kubeconfig(control_plane.kubeconfig) as client:
        yield client


@pytest.fixture
def namespace(admin: Client) -> Iterator[str]:
    """A new namespace; with everything in it, it is gone after the test."""
    name = f"test-{secrets.token_hex(4)}"
    admin.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    remove_namespace(admin, name)


def remove_namespace(admin: Client, name: str) -> None:
    """Do what the controller manager would: empty a namespace that is deleted, then let it go."""
    admin.delete(f"{NAMESPACES}/{name}")
    for group in ("/api/v1", "/apis/networking.k8s.io/v1", "/apis/romana.io/v1", "/apis/apps/v1"):
        for resource in admin.get(group)["resources"]:
            if resource["namespaced"] and "deletecollection" in resource["verbs"]:
                admin.delete(f"{group}/namespaces/{name}/{resource['name']}?gracePeriodSeconds=0")
    admin.put(
        f"{NAMESPACES}/{name}/finalize",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name},
            "spec": {"finalizers": []},
        },
    )
