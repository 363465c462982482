"""Every way by which a real API server lets the labels of a pod change: what it does by itself, and what is denied.

The control of each: the same request, where labels of pods name no tenant, changes the label.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator

import pytest

from romana_ovs_emulate.controlplane import ControlPlane
from tests.apiserver.admission_control_plane import (
    DENIED,
    NAMESPACES,
    SECONDS,
    bind,
    grant,
    guarded,
    labelled,
    unscheduled_pod,
    until_denied,
)
from tests.support.api_objects import Object
from tests.support.raw_client import MERGE, Client, Refused
from tests.support.waiting import eventually

STAYS = f"{DENIED}the tenant of a pod never changes: "
POLICY = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"

TRIED = {
    "pods": "create delete deletecollection get list patch update watch",
    "pods/status": "get patch update",
    "pods/ephemeralcontainers": "get patch update",
    "pods/resize": "get patch update",
    "pods/binding": "create",
    "pods/eviction": "create",
    "bindings": "create",
}
"""What takes an object with labels, and with which verbs: all are tried below."""
NOTHING_WRITTEN = {
    "pods/attach": ("create get", "a stream to a container, by way of its node"),
    "pods/exec": ("create get", "a stream to a process that is started in a container"),
    "pods/log": ("get", "what a container printed"),
    "pods/portforward": ("create get", "a stream to a port of a pod, by way of its node"),
    "pods/proxy": ("create delete get patch update", "HTTP to the pod itself, which answers; no object of the API"),
}
"""What changes no object, and why: verbs of such a one are those of HTTP and stand for one and the same connection."""
NAMESPACE_TRIED = {
    "namespaces": "create delete get list patch update watch",
    "namespaces/status": "get patch update",
    "namespaces/finalize": "update",
}


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane with all of our rules, and the controllers that make pods of templates."""
    with guarded(controllers=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def root(plane: ControlPlane) -> Iterator[Client]:
    """The cluster's own super-user. Pods may be made in namespace `both`, of t1 and of t2."""
    with Client.of_kubeconfig(plane.kubeconfig) as client:
        both = {"tenants.romana.io/t1": "allowed", "tenants.romana.io/t2": "allowed"}
        client.create(NAMESPACES, {"metadata": {"name": "both", "labels": both}})
        until_there(client, f"{NAMESPACES}/both/serviceaccounts/default")
        yield client


def until_there(client: Client, path: str) -> Object:
    """The object at `path`, once there is one."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            return client.get(path)
        except Refused:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


# What there is.


def offered(client: Client, kinds: set[str], stem: str) -> dict[str, str]:
    """Every resource of every group that is of these kinds or a part of `stem`, with its verbs."""
    paths = {"": "/api/v1"}
    for group in client.get("/apis")["groups"]:
        for version in group["versions"]:
            paths[f"{version['groupVersion']}/"] = f"/apis/{version['groupVersion']}"
    return {
        prefix + resource["name"]: " ".join(sorted(resource["verbs"]))
        for prefix, path in paths.items()
        for resource in client.get(path)["resources"]
        if resource["kind"] in kinds or f"{resource['name']}/".startswith(f"{stem}/")
    }


def test_every_way_to_a_pod_is_tried_here_or_writes_nothing(root: Client) -> None:
    """One that a later Kubernetes adds fails this: look whether it can change a label, and try it below."""
    known = {**TRIED, **{name: verbs for name, (verbs, _) in NOTHING_WRITTEN.items()}}
    assert offered(root, {"Pod", "Binding"}, "pods") == known


def test_every_way_to_a_namespace_is_tried(root: Client) -> None:
    """They are tried in tests/apiserver/test_admission.py."""
    assert offered(root, {"Namespace"}, "namespaces") == NAMESPACE_TRIED


@pytest.mark.parametrize(
    ("name", "resources"),
    [
        ("tenant-pod-label.romana.io", TRIED),
        ("tenant-namespace-label.romana.io", NAMESPACE_TRIED),
        ("namespaces.romana.io", NAMESPACE_TRIED),
    ],
)
def test_the_rules_are_about_all_that_writes(root: Client, name: str, resources: dict[str, str]) -> None:
    [rule, *_] = root.get(f"{POLICY}/{name}")["spec"]["matchConstraints"]["resourceRules"]
    matched = {
        each
        for each in resources
        if each in rule["resources"] or "/" in each and f"{each.split('/')[0]}/*" in rule["resources"]
    }
    assert matched == resources.keys()
    assert set(rule["operations"]) == {"CREATE", "UPDATE"}


# A label of a pod, by every kind of request.


def put(client: Client, path: str, at: str, name: str, labels: Object) -> None:
    now = client.get(f"{path}/{name}")
    now["metadata"]["labels"].update(labels)
    client.put(f"{path}/{name}{at}", now)


def json_patch(client: Client, path: str, at: str, name: str, labels: Object) -> None:
    steps = [{"op": "add", "path": f"/metadata/labels/{key}", "value": value} for key, value in labels.items()]
    client.request("PATCH", f"{path}/{name}{at}", steps, kind="application/json-patch+json")  # type: ignore[arg-type]


def merge_patch(client: Client, path: str, at: str, name: str, labels: Object) -> None:
    client.request("PATCH", f"{path}/{name}{at}", labelled(labels), kind=MERGE)


def strategic_patch(client: Client, path: str, at: str, name: str, labels: Object) -> None:
    kind = "application/strategic-merge-patch+json"
    client.request("PATCH", f"{path}/{name}{at}", labelled(labels), kind=kind)


def server_side_apply(client: Client, path: str, at: str, name: str, labels: Object) -> None:
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}}
    query = "fieldManager=somebody&force=true"
    client.request("PATCH", f"{path}/{name}{at}?{query}", body, kind="application/apply-patch+yaml")


REQUESTS = (put, json_patch, merge_patch, strategic_patch, server_side_apply)
RELABEL = ("", "/status")
KEEP = ("/ephemeralcontainers", "/resize")
"""Parts of a pod that take no label, whoever sends it, in this version of Kubernetes."""


def outcome(client: Client, path: str, change: Callable[..., None], at: str) -> tuple[str, str]:
    """What becomes of label owner of a new pod when it is changed to t2: what is said, and what it is then."""
    name = f"pod-{secrets.token_hex(4)}"
    client.create(path, unscheduled_pod(name, owner="t1"))
    said = ""
    try:
        change(client, path, at, name, {"owner": "t2"})
    except Refused as refused:
        said = refused.message
    owner = client.get(f"{path}/{name}")["metadata"]["labels"]["owner"]
    client.delete(f"{path}/{name}?gracePeriodSeconds=0")
    return said, owner


@pytest.mark.parametrize("at", [*RELABEL, *KEEP])
@pytest.mark.parametrize("change", REQUESTS)
def test_no_request_gives_a_pod_another_tenant(
    root: Client,
    admin: Client,
    namespace: str,
    change: Callable[..., None],
    at: str,
) -> None:
    said, owner = outcome(root, f"{NAMESPACES}/both/pods", change, at)
    assert owner == "t1"
    free = outcome(admin, f"{NAMESPACES}/{namespace}/pods", change, at)
    if at in RELABEL:
        assert f"{STAYS}label owner is t1" in said
        assert free == ("", "t2"), "the same request does it where nothing forbids it"
    else:
        assert free[1] == "t1"


@pytest.mark.parametrize(
    "words",
    [
        ["label", "--overwrite", "pod/NAME", "owner=t2"],
        ["label", "pod/NAME", "owner-"],
        ["apply", "--server-side", "--force-conflicts", "-f", "-"],
        ["apply", "-f", "-"],
        ["replace", "-f", "-"],
        [
            "patch",
            "pod/NAME",
            "--subresource=status",
            "--type=merge",
            "-p",
            '{"metadata": {"labels": {"owner": "t2"}}}',
        ],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_kubectl_gives_no_pod_another_tenant(plane: ControlPlane, root: Client, words: list[str]) -> None:
    name = f"pod-{secrets.token_hex(4)}"
    root.create(f"{NAMESPACES}/both/pods", unscheduled_pod(name, owner="t1"))
    told = [word.replace("NAME", name) for word in words]
    wanted = unscheduled_pod(name, owner="t2")
    if words[0] == "replace":
        wanted = root.get(f"{NAMESPACES}/both/pods/{name}")
        wanted["metadata"]["labels"]["owner"] = "t2"
    done = plane.try_kubectl("-n", "both", *told, stdin=json.dumps(wanted))
    assert (done.returncode, STAYS in done.stderr) == (1, True), done.stderr
    assert root.get(f"{NAMESPACES}/both/pods/{name}")["metadata"]["labels"] == {"owner": "t1"}


def test_apply_creates_no_pod_of_a_forbidden_tenant(root: Client) -> None:
    body = unscheduled_pod("applied", owner="t2")
    with pytest.raises(Refused, match=f"{DENIED}namespace shop may not hold pods of tenant t2"):
        root.request(
            "PATCH", f"{NAMESPACES}/shop/pods/applied?fieldManager=somebody", body, kind="application/apply-patch+yaml"
        )


def test_a_terminating_pod_keeps_its_tenant_until_finalized(root: Client) -> None:
    path = f"{NAMESPACES}/both/pods"
    ending = unscheduled_pod("ending", owner="t1")
    ending["metadata"]["finalizers"] = ["example.com/wait"]
    root.create(path, ending)
    root.delete(f"{path}/ending?gracePeriodSeconds=0")
    assert root.get(f"{path}/ending")["metadata"]["deletionTimestamp"]
    for at in RELABEL:
        with pytest.raises(Refused, match=f"{STAYS}label owner is t1"):
            merge_patch(root, path, at, "ending", {"owner": "t2"})
    merge_patch(root, path, "", "ending", {"tier": "free"})
    root.patch(f"{path}/ending", {"metadata": {"finalizers": None}})
    with pytest.raises(Refused, match="^404"):
        root.get(f"{path}/ending")


def test_an_eviction_ends_a_pod_and_changes_none(root: Client) -> None:
    path = f"{NAMESPACES}/both/pods"
    root.create(path, unscheduled_pod("evicted", owner="t1"))
    eviction: Object = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}}
    with pytest.raises(Refused, match=f"{STAYS}no Eviction may have label owner"):
        root.create(
            f"{path}/evicted/eviction", {**eviction, "metadata": {"name": "evicted", "labels": {"owner": "t2"}}}
        )
    assert root.get(f"{path}/evicted")["metadata"]["labels"] == {"owner": "t1"}
    root.create(f"{path}/evicted/eviction", eviction)
    with pytest.raises(Refused, match="^404"):
        root.get(f"{path}/evicted")


# Pods of templates.


def test_a_template_creates_no_pods_of_a_forbidden_tenant(root: Client) -> None:
    """Whoever may write Deployments has the controller manager write pods, which may write them anywhere."""
    until_there(root, f"{NAMESPACES}/shop/serviceaccounts/default")
    sets = "/apis/apps/v1/namespaces/shop/replicasets"
    for name, owner in (("theirs", "t2"), ("ours", "t1")):
        labels = {"app": name, "owner": owner}
        template = {"metadata": {"labels": labels}, "spec": unscheduled_pod("x")["spec"]}
        root.create(
            sets,
            {
                "metadata": {"name": name},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
            },
        )
    eventually(
        lambda: root.get(f"{sets}/ours")["status"]["replicas"] == 1,
        "there is a pod of the namespace's own tenant",
        SECONDS,
    )

    def reasons() -> list[str]:
        found = root.get(f"{sets}/theirs").get("status", {}).get("conditions", [])
        return [each["message"] for each in found if each["type"] == "ReplicaFailure"]

    eventually(reasons, "it is told of the other", SECONDS)
    assert "namespace shop may not hold pods of tenant t2" in reasons()[0]
    pods = root.get(f"{NAMESPACES}/shop/pods?labelSelector=app")["items"]
    assert [each["metadata"]["labels"]["owner"] for each in pods] == ["t1"]


# Binding a pod to a node.

PLACES = ("pods/NAME/binding", "bindings")
ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"


def binding(name: str, labels: Object | None = None, node: str = "node1") -> Object:
    return {
        "metadata": {"name": name, "labels": labels or {}, "annotations": {"seen": "yes"}},
        "target": {"kind": "Node", "name": node},
    }


@pytest.fixture
def bound(root: Client) -> Callable[..., Object]:
    """Binds a new pod of t1 in namespace `both`, as `client` asks; the labels of the pod then."""

    def do(client: Client, place: str, labels: Object | None = None, node: str = "node1") -> Object:
        name = f"pod-{secrets.token_hex(4)}"
        path = f"{NAMESPACES}/both"
        root.create(f"{path}/pods", unscheduled_pod(name, owner="t1", tier="web"))
        client.create(f"{path}/{place.replace('NAME', name)}", binding(name, labels, node))
        made = root.get(f"{path}/pods/{name}")
        assert made["spec"]["nodeName"] == node
        return dict(made["metadata"]["labels"])

    return do


@pytest.fixture(scope="module")
def binder(plane: ControlPlane, root: Client) -> Iterator[Client]:
    """Somebody who may bind pods, and write nothing else of them."""
    grant(root, "binders", [{"apiGroups": [""], "resources": ["pods/binding", "bindings"], "verbs": ["create"]}])
    with Client.of_kubeconfig(plane.kubeconfig_for("binder", ["binders"])) as client:
        path = f"{NAMESPACES}/both/bindings?dryRun=All"
        until_denied(lambda: client.create(path, binding("none", {"tier": "db"})))
        yield client


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("owner", ["t2", "t1", ""])
def test_a_binding_names_no_tenant(
    root: Client,
    admin: Client,
    namespace: str,
    bound: Callable[..., Object],
    place: str,
    owner: str,
) -> None:
    """Kubernetes puts its labels into the pod, over those that are there."""
    with pytest.raises(Refused, match=f"{STAYS}no Binding may have label owner"):
        bound(root, place, {"owner": owner})
    path = f"{NAMESPACES}/{namespace}"
    admin.create(f"{path}/pods", unscheduled_pod("free", owner="t1"))
    admin.create(f"{path}/{place.replace('NAME', 'free')}", binding("free", {"owner": owner}))
    assert admin.get(f"{path}/pods/free")["metadata"]["labels"] == {"owner": owner}, "the same request does it"


@pytest.mark.parametrize("place", PLACES)
def test_who_may_only_bind_relabels_nothing(binder: Client, bound: Callable[..., Object], place: str) -> None:
    with pytest.raises(Refused, match=f"{DENIED}the labels of a Binding are put into the pod; setting them needs"):
        bound(binder, place, {"tier": "db"})
    assert bound(binder, place) == {"owner": "t1", "tier": "web"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("resource", "verb"), [("pods", "update"), ("pods", "patch"), ("pods/status", "update"), ("pods/status", "patch")]
)
def test_who_may_relabel_pods_may_do_it_by_a_binding(
    plane: ControlPlane,
    root: Client,
    binder: Client,
    bound: Callable[..., Object],
    place: str,
    resource: str,
    verb: str,
) -> None:
    group = f"{resource}-{verb}-{place.split('/')[0]}".replace("/", "-")
    grant(root, group, [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}])
    with Client.of_kubeconfig(plane.kubeconfig_for(group, ["binders", group])) as scheduler:
        assert bound(scheduler, place, {"tier": "db"}) == {"owner": "t1", "tier": "db"}


def test_the_scheduler_of_the_cluster_binds_as_before(
    plane: ControlPlane,
    root: Client,
    bound: Callable[..., Object],
) -> None:
    bind(root, "schedulers", "system:kube-scheduler")
    with Client.of_kubeconfig(plane.kubeconfig_for("another-scheduler", ["schedulers"])) as scheduler:
        assert bound(scheduler, PLACES[0], {"example.com/rack": "7"})["example.com/rack"] == "7"
        with pytest.raises(Refused, match=f"{STAYS}no Binding may have label owner"):
            bound(scheduler, PLACES[0], {"owner": "t2"})


def test_the_api_server_s_own_labels_of_the_node_s_place_pass(
    root: Client,
    binder: Client,
    bound: Callable[..., Object],
) -> None:
    """It puts them into the Binding before it asks our policies."""
    name = f"node-{secrets.token_hex(4)}"
    root.create("/api/v1/nodes", {"metadata": {"name": name, "labels": {ZONE: "z1", REGION: "r1"}}})
    expected = {"owner": "t1", "tier": "web", ZONE: "z1", REGION: "r1"}
    eventually(
        lambda: bound(binder, PLACES[0], None, name) == expected,
        "the API server knows the node, and adds its place",
        SECONDS,
    )
    root.delete(f"/api/v1/nodes/{name}")


# The rest that names a tenant.


def test_the_status_of_a_policy_takes_no_label(root: Client) -> None:
    path = "/apis/romana.io/v1/namespaces/shop/networkpolicies"
    root.create(
        path,
        {
            "apiVersion": "romana.io/v1",
            "kind": "NetworkPolicy",
            "spec": {"podSelector": {}},
            "metadata": {"name": "mine", "labels": {"owner": "t1"}},
        },
    )
    root.request("PATCH", f"{path}/mine/status", labelled({"owner": "t2"}), kind=MERGE)
    assert root.get(f"{path}/mine")["metadata"]["labels"] == {"owner": "t1"}
