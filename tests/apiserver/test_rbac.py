"""What each of our service accounts may do on a cluster is all of this, and nothing more (docs/hazards.md E12).

That a node asks for its own pods only is in tests/apiserver/test_split.py: RBAC cannot say it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from tests.support.api_objects import Object
from tests.support.raw_client import Client

ACCOUNTS = ("romana-node", "romana-registry", "romana-controller")
AUTHORIZATION = "/apis/authorization.k8s.io/v1"

NOBODY = """get secrets | list secrets | get configmaps | create pods | patch pods | update pods | delete pods
patch pods/status | update pods/status | create pods/exec | create pods/portforward | create pods/eviction
update nodes | patch nodes | patch nodes/status | get nodes/proxy
update namespaces | patch namespaces | delete namespaces | update namespaces/finalize
create serviceaccounts/token | impersonate users | escalate clusterroles.rbac.authorization.k8s.io
create networkpolicies.networking.k8s.io | update networkpolicies.networking.k8s.io
create networkpolicies.romana.io | update networkpolicies.romana.io | delete networkpolicies.romana.io
patch networkpolicies.romana.io | patch networkpolicies.networking.k8s.io | patch pods/ephemeralcontainers
update tenants.romana.io | delete tenants.romana.io | assign tenants.romana.io | delete allocations.romana.io
get leases.coordination.k8s.io kube-scheduler | update leases.coordination.k8s.io kube-scheduler
update customresourcedefinitions.apiextensions.k8s.io
update validatingadmissionpolicies.admissionregistration.k8s.io"""
NOT_THE_NODE = """create tenants.romana.io | patch tenants.romana.io/status | create allocations.romana.io
update allocations.romana.io cluster | create classsets.romana.io | update classsets.romana.io
patch networkpolicies.romana.io/status | delete nodereports.romana.io | update leases.coordination.k8s.io romana-ovs
create events | create events.events.k8s.io"""
NOT_THE_REGISTRY = "create nodereports.romana.io | patch nodereports.romana.io/status"


@pytest.fixture(scope="module", params=ACCOUNTS)
def account(request: pytest.FixtureRequest, control_plane: ControlPlane) -> Iterator[tuple[str, Client]]:
    """(name, what it asks) of a service account, with a token as its pod has it."""
    path = control_plane.kubeconfig_for_service_account("kube-system", request.param)
    with Client.of_kubeconfig(path) as client:
        yield request.param, client


def test_the_rules_are_these(
    account: tuple[str, Client],
    control_plane: ControlPlane,
    admin: Client,
    namespace: str,
    golden: Callable[[str, str], None],
) -> None:
    """A snapshot, less what every service account may do; a change of it wants to be looked at."""
    name, client = account
    admin.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "any"}})
    with Client.of_kubeconfig(control_plane.kubeconfig_for_service_account(namespace, "any")) as anybody:
        rules = _rules(client) - _rules(anybody)
    assert rules
    golden(f"rbac/{name}.txt", "".join(f"{rule}\n" for rule in sorted(rules)))


def test_what_would_be_too_much_is_denied(account: tuple[str, Client]) -> None:
    """docs/hazards.md C15: who may write nothing in a namespace but statuses and Events leaves no finalizer there."""
    name, client = account
    asked = NOBODY
    if name == "romana-node":
        asked += f"\n{NOT_THE_NODE}"
    if name == "romana-registry":
        asked += f"\n{NOT_THE_REGISTRY}"
    wishes = [wish.strip() for line in asked.splitlines() for wish in line.split("|")]
    assert [wish for wish in wishes if _may(client, wish)] == []


def test_tenants_write_policies_and_see_no_tenants(control_plane: ControlPlane, admin: Client, namespace: str) -> None:
    """docs/hazards.md E13: what has everybody's addresses is for nobody who only has rights in a namespace."""
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"
    admin.create(
        roles,
        {
            "metadata": {"name": "edit"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "romana-policy-editor"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "dev"}],
        },
    )
    with Client.of_kubeconfig(control_plane.kubeconfig_for("dev")) as dev:
        for verb in ("create", "update", "delete", "watch"):
            assert _may(dev, f"{verb} networkpolicies.romana.io", namespace)
        assert not _may(dev, "get networkpolicies.romana.io", "default")
        for wish in ("get tenants.romana.io", "list nodereports.romana.io", "patch networkpolicies.romana.io/status"):
            assert not _may(dev, wish, namespace)


@pytest.mark.parametrize("role", ["view", "edit", "admin"])
def test_namespace_roles_give_people_policies_alone(admin: Client, role: str) -> None:
    """docs/hazards.md E13: what of ours Kubernetes adds to the roles that it has for people (aggregation)."""
    selector = f"labelSelector=rbac.authorization.k8s.io%2Faggregate-to-{role}%3Dtrue"
    found = admin.get(f"/apis/rbac.authorization.k8s.io/v1/clusterroles?{selector}")["items"]
    rules = [rule for one in found for rule in one.get("rules") or () if {"romana.io", "*"} & {*rule["apiGroups"]}]
    assert rules and {resource for rule in rules for resource in rule["resources"]} == {"networkpolicies"}


def _rules(client: Client, namespace: str = "kube-system") -> set[str]:
    """Each thing that may be done in a namespace or anywhere, as one line."""
    review = client.create(f"{AUTHORIZATION}/selfsubjectrulesreviews", {"spec": {"namespace": namespace}})
    assert not review["status"]["incomplete"]
    return {
        " ".join(filter(None, (verb, f"{resource}.{group}".rstrip("."), *_names(rule))))
        for rule in review["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def _names(rule: Object) -> list[str]:
    return sorted(rule.get("resourceNames", []))


def _may(client: Client, wish: str, namespace: str = "kube-system") -> bool:
    """Whether it may do such a thing, written as in `patch pods/status` or `update leases.coordination.k8s.io name`."""
    verb, what, *name = wish.split()
    full, _, subresource = what.partition("/")
    resource, _, group = full.partition(".")
    attributes = {
        "verb": verb,
        "resource": resource,
        "group": group,
        "subresource": subresource,
        "namespace": namespace,
        "name": "".join(name),
    }
    review = client.create(f"{AUTHORIZATION}/selfsubjectaccessreviews", {"spec": {"resourceAttributes": attributes}})
    return bool(review["status"]["allowed"])
