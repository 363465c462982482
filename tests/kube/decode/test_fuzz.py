"""Whatever stands in a manifest, decoding it yields problems and never raises."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import Document
from romana_ovs.kube.manifests.folder import FileContent, FolderContent
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.settings import Settings
from tests.support.manifests import BY_OWNER

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Ingress", "TCP", "default", "10.0.0.0/8", "fd00::/8", "NotIn", "Always", "\x1b[31m\n", "Pod"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)

METADATA = {
    "name": "a",
    "namespace": "x",
    "labels": {"owner": "t1"},
    "uid": "u",
    "ownerReferences": [{"kind": "ReplicaSet", "name": "r"}],
}
SELECTOR = {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]}
POD_SPEC = {
    "nodeName": "node1",
    "hostNetwork": False,
    "containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}],
    "initContainers": [{"restartPolicy": "Always", "ports": [{"containerPort": 81}]}],
}
PORTS = [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "http"}]
PEERS = [
    {"podSelector": SELECTOR, "namespaceSelector": SELECTOR},
    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
]
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}

MANIFESTS: list[dict[str, object]] = [
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": METADATA,
        "spec": POD_SPEC,
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    },
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"a": "b"}}},
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n"},
        "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": METADATA,
        "spec": {
            "podSelector": SELECTOR,
            "policyTypes": ["Ingress"],
            "ingress": [{"from": PEERS, "ports": PORTS}],
            "egress": [{"to": PEERS, "ports": PORTS}],
        },
    },
    {
        "apiVersion": "romana.io/v1",
        "kind": "NetworkPolicy",
        "metadata": METADATA,
        "spec": {"podSelector": SELECTOR, "allowIncoming": [{"toPorts": [{"port": 80}], "from": [{"pods": SELECTOR}]}]},
    },
    {
        "apiVersion": "romana.io/demo/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "a", "labels": [{"owner": "t1"}]},
        "spec": {"podSelector": {"a": "b"}},
        "allowIncoming": [{"toPorts": [{"port": 80}], "from": [{"pods": {"a": "b"}}]}],
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": METADATA,
        "spec": {"replicas": 2, "selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": METADATA,
        "spec": {"selector": SELECTOR, "template": TEMPLATE},
    },
    {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": METADATA,
        "spec": {"replicas": 2, "selector": {"a": "b"}, "template": TEMPLATE},
    },
    {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": METADATA,
        "spec": {"parallelism": 2, "completions": 3, "suspend": False, "template": TEMPLATE},
        "status": {"conditions": [{"type": "Complete", "status": "False"}]},
    },
    {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": METADATA, "spec": POD_SPEC}]},
]


def spots(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The paths to every value inside `value`, itself included."""
    inner: list[tuple[object, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(spot for key, entry in inner for spot in spots(entry, (*path, key)))]


def put(value: object, path: tuple[object, ...], new: object) -> object:
    """`value` with `new` at `path`."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]  # type: ignore[index]
    inner[path[-1]] = new  # type: ignore[index]
    return changed


@st.composite
def damaged(draw: st.DrawFn) -> object:
    """A manifest with up to three fields replaced by something arbitrary."""
    value: object = draw(st.sampled_from(MANIFESTS))
    for _ in range(draw(st.integers(1, 3))):
        value = put(value, draw(st.sampled_from(spots(value))), draw(JSON_VALUES))
    return value


def test_the_manifests_themselves_are_valid() -> None:
    for manifest in MANIFESTS:
        (found,) = decode(Document(1, manifest), "a.yaml", Settings()).objects
        allowed = {"does not match the labels of spec.template"}
        reasons = {problem.reason for problem in found.problems}
        assert reasons <= allowed
        assert found.value is not None


@given(st.lists(damaged(), min_size=1, max_size=3), st.sampled_from([Settings(), BY_OWNER]))
def test_damage_is_told_and_never_raised(values: list[object], settings: Settings) -> None:
    """docs/hazards.md E10 and E11: nothing crashes, and every message is one plain line."""
    decoded = [decode(Document(number, value), "a.yaml", settings) for number, value in enumerate(values, 1)]
    for one in decoded:
        for item in one.objects:
            if item.value is None:
                assert item.problems
            if item.id is not None and item.id.kind.endswith("NetworkPolicy"):
                assert item.value is not None or item.fallback is not None
        for problem in one.problems:
            assert str(problem).isprintable() and str(problem).isascii()
    items = tuple(item for one in decoded for item in one.objects)
    cluster = ManifestStore(settings).apply(FolderContent("f", (FileContent("a.yaml", items),))).cluster
    assert all(pod.key == key for key, pod in cluster.pods.items())
    assert all(policy.key == key for key, policy in cluster.policies.items())
    assert all(pod.namespace in cluster.namespaces for pod in cluster.pods.values())


@given(JSON_VALUES)
def test_any_document_at_all(value: object) -> None:
    found = decode(Document(1, value), "a.yaml", Settings())
    assert found.objects or found.ignored or value is None
