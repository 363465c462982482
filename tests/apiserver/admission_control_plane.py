"""A control plane with all of our admission policies in force, and the objects that tests of them write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.api_objects import Object, pod
from tests.support.control_plane import needed_binaries
from tests.support.raw_client import Client, Refused

NAMESPACES = "/api/v1/namespaces"
ROMANA = "/apis/romana.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FILES = ("crd-networkpolicies.yaml", "crd-tenants.yaml", "rbac.yaml", "admission.yaml", "optional")
STAND_INS = {"allocations": "Allocation", "classsets": "ClassSet", "nodereports": "NodeReport"}
"""What only the rules matter of here."""
SECONDS = 30.0
DENIED = "denied request: "


@contextmanager
def guarded(*, controllers: bool = False) -> Iterator[ControlPlane]:
    """A control plane of its own with all of our rules, those for both kinds of labels too, once they are in force.

    Namespace `shop` may hold pods of tenant t1 and is labelled for it; group `broad` may write whatever there is.
    """
    binaries = needed_binaries()
    with (
        ControlPlane(binaries=binaries, controllers=controllers) as plane,
        Client.of_kubeconfig(plane.kubeconfig) as admin,
    ):
        for plural, kind in STAND_INS.items():
            admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(plural, kind))
        plane.apply(*(manifests_folder() / name for name in FILES))
        plane.kubectl("wait", "--for=condition=Established", "crd", "--all")
        namespace = {
            "metadata": {
                "name": "shop",
                "labels": {"tenants.romana.io/t1": "allowed", "tenants.romana.io/t3": "no", "owner": "t1"},
            }
        }
        admin.create(NAMESPACES, namespace)
        grant(
            admin,
            "broad",
            [
                {
                    "apiGroups": ["", "romana.io"],
                    "resources": ["*"],
                    "verbs": ["get", "list", "create", "update", "patch", "delete"],
                }
            ],
        )
        with Client.of_kubeconfig(plane.kubeconfig_for("probe", ["broad"])) as probe:
            for attempt in _refused(admin, probe):
                until_denied(attempt)
        yield plane


def _refused(admin: Client, probe: Client) -> tuple[Callable[[], Object], ...]:
    """What each of the policies refuses."""
    shop = f"{NAMESPACES}/shop"
    binding = {"metadata": {"name": "none", "labels": {"owner": "t9"}}, "target": {"name": "none"}}
    return (
        lambda: admin.create(f"{shop}/pods?dryRun=All", unscheduled_pod("probe", owner="t9")),
        lambda: admin.create(f"{shop}/bindings?dryRun=All", binding),
        lambda: probe.patch(f"{shop}?dryRun=All", labelled({"tenants.romana.io/t9": "allowed"})),
        lambda: probe.patch(f"{shop}?dryRun=All", labelled({"owner": "t9"})),
        lambda: probe.create(f"{ROMANA}/allocations?dryRun=All", named("Allocation", "probe")),
        lambda: probe.create(f"{ROMANA}/nodereports?dryRun=All", named("NodeReport", "probe")),
    )


def definition(plural: str, kind: str) -> Object:
    """A CustomResourceDefinition of our group that takes any fields."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
        "subresources": {"status": {}},
    }
    return {
        "metadata": {"name": f"{plural}.romana.io"},
        "spec": {
            "group": "romana.io",
            "scope": "Cluster",
            "versions": [version],
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
        },
    }


def unscheduled_pod(name: str, **labels: Any) -> Object:
    """A Pod with these labels, left alone by the cluster's own scheduler."""
    return pod(name, spec={"schedulerName": "nobody"}, **labels)


def named(kind: str, name: str, **fields: object) -> Object:
    """An object of our group without namespace."""
    return {"apiVersion": "romana.io/v1", "kind": kind, "metadata": {"name": name}, **fields}


def labelled(labels: Object) -> Object:
    """A merge patch that sets labels; None takes one away."""
    return {"metadata": {"labels": labels}}


def grant(admin: Client, group: str, rules: list[Object]) -> None:
    """Give a group of users a ClusterRole of its name, with these rules."""
    admin.create(f"{RBAC}/clusterroles", {"metadata": {"name": group}, "rules": rules})
    bind(admin, group, group)


def bind(admin: Client, group: str, role: str) -> None:
    """Give a group of users a ClusterRole."""
    api = "rbac.authorization.k8s.io"
    admin.create(
        f"{RBAC}/clusterrolebindings",
        {
            "metadata": {"name": f"{group}-{role}"},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": api, "kind": "Group", "name": group}],
        },
    )


def until_denied(attempt: Callable[[], Object]) -> None:
    """Wait for the API server to follow what was just written, a policy or the labels of a namespace.

    It judges by copies that it watches, and has no other word for when they are new.
    """
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            attempt()
        except Refused as refused:
            if "ValidatingAdmissionPolicy" in refused.message:
                return
        time.sleep(0.05)
    pytest.fail("the policy is not in force")


def until_taken(attempt: Callable[[], Object]) -> None:
    """Wait for the API server to take what it refused, once it follows what was just written."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            attempt()
            return
        except Refused:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)
