"""A namespace that is deleted: it needs no controller of ours for that, and what isolates its pods goes after them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from romana_ovs.model.objects import PodKey, PolicyKey
from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.apiserver.followed_source import pods_path, policies_path, source
from tests.support.api_objects import Object, policy, romana_policy
from tests.support.control_plane import needed_binaries
from tests.support.raw_client import Client, Refused

SECONDS = 60.0
SHOP = "/api/v1/namespaces/shop"
GRACE = 4
"""Seconds. No kubelet ends the pod here, so it stays for as long as we like; it is looked for after half of these."""
KEYS = {PolicyKey(kind, "shop", "deny") for kind in ("NetworkPolicy", "RomanaNetworkPolicy")}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    """A control plane with the controllers that delete namespaces, and none of ours."""
    needed_binaries()
    found = binaries.find()
    if found is None or not (found.folder / "kube-controller-manager").exists() and not os.environ.get("CI"):
        pytest.skip("needs kube-controller-manager, which envtest leaves out")
    with ControlPlane(controllers=True) as plane:
        plane.apply(manifests_folder())
        yield plane


def awaited(check: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def ending(admin: Client) -> Object | None:
    """The pod, once the namespace controller has been through all that there is, and waits for it."""
    [found] = admin.get(pods_path("shop"))["items"]
    looked = admin.get(SHOP)["status"].get("conditions")
    return found if looked and "deletionTimestamp" in found["metadata"] else None


def test_policies_outlive_terminating_pods_of_their_namespace(plane: ControlPlane) -> None:
    """docs/hazards.md A29 and C15: a slow pod, in a namespace that is deleted while no controller of ours runs.

    That pods go first is the server's doing (Kubernetes 1.33 and later): docs/kubernetes.md says what that means.
    """
    with Client.of_kubeconfig(plane.kubeconfig) as admin:
        admin.create("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        awaited(lambda: admin.get(f"{SHOP}/serviceaccounts")["items"], "pods can be made")
        admin.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
        admin.create(
            pods_path("shop"),
            {
                "metadata": {"name": "web"},
                "spec": {
                    "nodeName": "n1",
                    "terminationGracePeriodSeconds": GRACE,
                    "automountServiceAccountToken": False,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "c", "image": "x"}],
                },
            },
        )
        admin.patch(f"{pods_path('shop')}/web/status", {"status": {"phase": "Running"}})
        admin.create(policies_path("shop"), policy("deny", {"podSelector": {}}))
        ours = admin.create(policies_path("shop", "romana.io"), romana_policy("deny", {"podSelector": {}}))
        # As after a registry that has told how it fares: nothing of what it writes is to hold the object back.
        admin.patch(
            f"{policies_path('shop', 'romana.io')}/deny/status",
            {"status": {"observedGeneration": ours["metadata"]["generation"]}},
        )
        admin.delete(SHOP)
        awaited(lambda: ending(admin), "it waits for the pod")
        # A controller that starts now still knows what isolates the pod.
        with source(plane.kubeconfig) as followed:
            found = followed.until(lambda loaded: True).cluster
            assert found.pods[PodKey("shop/web")].networked and found.policies.keys() == KEYS
        # What a kubelet does when the pod has ended; then all the rest goes, and waits for nobody.
        admin.delete(f"{pods_path('shop')}/web?gracePeriodSeconds=0")
        awaited(lambda: _gone(admin), "the namespace is gone")


def _gone(admin: Client) -> bool:
    try:
        admin.get(SHOP)
    except Refused as refused:
        return refused.status == 404
    return False
