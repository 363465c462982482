"""Who may write what decides about tenants, tried on a real API server: what is allowed, and what is denied.

On a control plane of its own, where labels of pods and of namespaces name tenants.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.apiserver.admission_control_plane import (
    DENIED,
    NAMESPACES,
    ROMANA,
    bind,
    guarded,
    labelled,
    named,
    unscheduled_pod,
    until_denied,
    until_taken,
)
from tests.support.api_objects import Object, romana_policy
from tests.support.raw_client import Client, Refused

PODS = f"{NAMESPACES}/shop/pods"
POLICIES = f"{ROMANA}/namespaces/shop/networkpolicies"
EVERY_POD: Object = {"podSelector": {}}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with all of our rules, those for both kinds of labels too, once they are in force."""
    with guarded() as plane:
        yield plane


@pytest.fixture(scope="module")
def root(plane: ControlPlane) -> Iterator[Client]:
    """The cluster's own super-user."""
    with Client.of_kubeconfig(plane.kubeconfig) as client:
        yield client


@pytest.fixture(scope="module")
def dev(plane: ControlPlane, root: Client) -> Iterator[Client]:
    """Somebody who may write whatever there is of our group and of the core, but is not who should."""
    with Client.of_kubeconfig(plane.kubeconfig_for("dev", ["broad"])) as client:
        yield client


# tenant_source = pod-label:owner


def test_a_pod_is_of_a_tenant_that_its_namespace_may_hold(root: Client) -> None:
    root.create(PODS, unscheduled_pod("ours", owner="t1"))
    root.create(PODS, unscheduled_pod("nobody-s"))
    root.create(PODS, unscheduled_pod("empty", owner=""))
    for tenant in ("t2", "t3"):
        with pytest.raises(Refused, match=f"{DENIED}namespace shop may not hold pods of tenant {tenant}: it has no"):
            root.create(PODS, unscheduled_pod("theirs", owner=tenant))


@pytest.mark.parametrize("place", ["", "/status"])
@pytest.mark.parametrize(
    ("before", "after", "was"),
    [("t1", "t2", "t1"), ("t1", None, "t1"), ("t1", "", "t1"), (None, "t1", "absent"), (None, "t2", "absent")],
)
def test_a_pod_stays_with_its_tenant(
    root: Client,
    place: str,
    before: str | None,
    after: str | None,
    was: str,
) -> None:
    """docs/hazards.md E1 and E2."""
    name = f"stays-{secrets.token_hex(4)}"
    root.create(PODS, unscheduled_pod(name, **({"owner": before} if before else {})))
    with pytest.raises(Refused, match=f"{DENIED}the tenant of a pod never changes: label owner is {was}"):
        root.patch(f"{PODS}/{name}{place}", labelled({"owner": after}))
    root.patch(f"{PODS}/{name}{place}", labelled({"tier": "web"}))


def test_a_policy_speaks_for_a_tenant_of_its_namespace(root: Client) -> None:
    root.create(POLICIES, romana_policy("ours", EVERY_POD, owner="t1"))
    attempts: list[Callable[[], object]] = [
        lambda: root.create(POLICIES, romana_policy("theirs", EVERY_POD, owner="t2")),
        lambda: root.patch(f"{POLICIES}/ours", labelled({"owner": "t2"})),
    ]
    for attempt in attempts:
        with pytest.raises(Refused, match=f"{DENIED}namespace shop may not hold pods of tenant t2"):
            attempt()


def test_a_pod_whose_namespace_lost_consent_can_be_updated(root: Client) -> None:
    root.create(NAMESPACES, {"metadata": {"name": "closing", "labels": {"tenants.romana.io/t1": "allowed"}}})
    pods = f"{NAMESPACES}/closing/pods"
    root.create(pods, unscheduled_pod("old", owner="t1"))
    root.patch(f"{NAMESPACES}/closing", labelled({"tenants.romana.io/t1": None}))
    until_denied(lambda: root.create(f"{pods}?dryRun=All", unscheduled_pod("probe", owner="t1")))
    with pytest.raises(Refused, match="namespace closing may not hold"):
        root.create(pods, unscheduled_pod("new", owner="t1"))
    root.patch(f"{pods}/old/status", {"status": {"phase": "Failed"}})
    root.delete(f"{pods}/old?gracePeriodSeconds=0")


def test_without_its_parameter_the_rule_denies_everything(plane: ControlPlane, root: Client) -> None:
    """docs/hazards.md E5: it fails closed."""
    root.delete(f"{NAMESPACES}/kube-system/configmaps/romana-tenant-pod-label")
    try:
        until_denied(lambda: root.create(f"{PODS}?dryRun=All", unscheduled_pod("probe", owner="t1")))
    finally:
        plane.apply(manifests_folder() / "optional" / "tenant-pod-label.yaml")
        until_taken(lambda: root.create(f"{PODS}?dryRun=All", unscheduled_pod("probe", owner="t1")))


# Which namespace may hold whose pods, and (tenant_source = namespace-label:owner) whose a namespace is.

OF_TENANTS = "changing them needs the verb assign on tenants.romana.io"
OF_OWNER = "label owner says whose a namespace is; changing it needs the verb assign on tenants.romana.io"


@pytest.mark.parametrize("place", ["", "/status", "/finalize"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tenants.romana.io/t2": "allowed"}, OF_TENANTS),
        ({"tenants.romana.io/t3": "allowed"}, OF_TENANTS),
        ({"tenants.romana.io/t1": None}, OF_TENANTS),
        ({"owner": "t2"}, OF_OWNER),
        ({"owner": None}, OF_OWNER),
    ],
)
def test_namespace_editors_do_not_choose_tenants(
    root: Client,
    dev: Client,
    place: str,
    change: Object,
    reason: str,
) -> None:
    """docs/hazards.md E1."""
    now = root.get(f"{NAMESPACES}/shop")
    labels = {key: value for key, value in {**now["metadata"]["labels"], **change}.items() if value is not None}
    with pytest.raises(Refused, match=f"{DENIED}.*{reason}"):
        dev.put(f"{NAMESPACES}/shop{place}", {**now, "metadata": {**now["metadata"], "labels": labels}})
    assert root.get(f"{NAMESPACES}/shop")["metadata"]["labels"] == now["metadata"]["labels"]


@pytest.mark.parametrize(
    ("labels", "reason"), [({"tenants.romana.io/t1": "allowed"}, OF_TENANTS), ({"owner": "t1"}, OF_OWNER)]
)
def test_nor_by_making_one(dev: Client, labels: Object, reason: str) -> None:
    with pytest.raises(Refused, match=f"{DENIED}.*{reason}"):
        dev.create(NAMESPACES, {"metadata": {"name": "fresh", "labels": labels}})


def test_all_else_of_a_namespace_is_free(dev: Client) -> None:
    dev.create(NAMESPACES, {"metadata": {"name": "free", "labels": {"team": "a"}}})
    dev.patch(f"{NAMESPACES}/free", labelled({"team": "b", "other": "c"}))
    dev.patch(f"{NAMESPACES}/shop", labelled({"team": "b"}))
    dev.delete(f"{NAMESPACES}/free")


def test_who_assigns_tenants_may(plane: ControlPlane, root: Client) -> None:
    bind(root, "assigners", "romana-tenant-assigner")
    root.create(NAMESPACES, {"metadata": {"name": "given"}})
    with Client.of_kubeconfig(plane.kubeconfig_for("lee", ["assigners"])) as lee:
        labels: Object = {"tenants.romana.io/t1": "allowed", "owner": "t1"}
        assert lee.patch(f"{NAMESPACES}/given", labelled(labels))["metadata"]["labels"].items() >= labels.items()
        lee.patch(f"{NAMESPACES}/given", labelled(dict.fromkeys(labels)))


# What the registry alone writes, and each node.


@pytest.fixture(scope="module")
def accounts(plane: ControlPlane, root: Client) -> Iterator[Callable[[str], Client]]:
    """The requests of a service account, `romana-node@node1` being the one of that node's pod."""
    made: dict[str, Client] = {}
    for node in ("node1", "node2"):
        root.create("/api/v1/nodes", {"metadata": {"name": node}})

    def account(name: str) -> Client:
        if name not in made:
            user, _, node = name.partition("@")
            path: Path = plane.kubeconfig_for_service_account("kube-system", user, node=node)
            made[name] = Client.of_kubeconfig(path)
        return made[name]

    yield account
    for client in made.values():
        client.close()


REGISTRY = "only the registry of romana-ovs writes this, not dev"


@pytest.mark.parametrize("name", ["romana-registry", "romana-controller"])
def test_the_registry_writes_numbers_and_statuses(
    root: Client,
    dev: Client,
    accounts: Callable[[str], Client],
    name: str,
) -> None:
    registry = accounts(name)
    registry.create(f"{ROMANA}/tenants", named("Tenant", f"of-{name}", spec={"tenant": f"of-{name}"}))
    root.create(POLICIES, romana_policy(f"of-{name}", EVERY_POD))
    attempts: list[Callable[[Client], object]] = [
        lambda who: who.create(f"{ROMANA}/allocations", named("Allocation", "cluster")),
        lambda who: who.patch(f"{ROMANA}/allocations/cluster", {"spec": {"a": 1}}),
        lambda who: who.create(f"{ROMANA}/classsets", named("ClassSet", "shop")),
        lambda who: who.patch(f"{ROMANA}/classsets/shop", {"spec": {"a": 1}}),
        lambda who: who.patch(f"{ROMANA}/tenants/of-{name}/status", {"status": {"pods": 1}}),
        lambda who: who.patch(f"{POLICIES}/of-{name}/status", {"status": {"observedGeneration": 1}}),
        lambda who: who.delete(f"{ROMANA}/classsets/shop"),
    ]
    for attempt in attempts:
        with pytest.raises(Refused, match=REGISTRY):
            attempt(dev)
        attempt(registry)
    with pytest.raises(Refused, match=REGISTRY):
        dev.delete(f"{ROMANA}/allocations/cluster")
    root.delete(f"{ROMANA}/allocations/cluster")


def test_each_node_writes_its_own_report(root: Client, dev: Client, accounts: Callable[[str], Client]) -> None:
    reports, first, second = f"{ROMANA}/nodereports", accounts("romana-node@node1"), accounts("romana-node@node2")
    first.create(reports, named("NodeReport", "node1"))
    first.patch(f"{reports}/node1", {"spec": {"a": 1}})
    first.patch(f"{reports}/node1/status", {"status": {"a": 1}})
    with pytest.raises(Refused, match="only romana-ovs on node node2 writes this report, not .* on node node1"):
        first.create(reports, named("NodeReport", "node2"))
    for place in ("", "/status"):
        with pytest.raises(Refused, match="only romana-ovs on node node1 writes this report, not .* on node node2"):
            second.patch(f"{reports}/node1{place}", {"status": {"a": 2}})
    with pytest.raises(Refused, match="only romana-ovs on node node1 writes this report, not dev"):
        dev.patch(f"{reports}/node1/status", {"status": {"a": 2}})
    with pytest.raises(Refused, match="not system:serviceaccount:kube-system:romana-node$"):
        accounts("romana-node").patch(f"{reports}/node1", {"spec": {"a": 2}})
    with pytest.raises(Refused, match="only romana-ovs on node node1 writes"):
        dev.delete(f"{reports}/node1")
    accounts("romana-registry").delete(f"{reports}/node1")


def test_both_parts_in_one_process_report_for_every_node(accounts: Callable[[str], Client]) -> None:
    controller = accounts("romana-controller")
    controller.create(f"{ROMANA}/nodereports", named("NodeReport", "node2"))
    controller.patch(f"{ROMANA}/nodereports/node2/status", {"status": {"a": 1}})
    controller.delete(f"{ROMANA}/nodereports/node2")
