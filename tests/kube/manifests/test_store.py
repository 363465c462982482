"""Which version of an object counts, and the cluster around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.errors import InputError
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import NAME_LABEL, KubernetesPolicy, Node, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from tests.support.manifests import content, join, loaded, pod, policy, workload

GOOD = policy("podSelector: {matchLabels: {a: b}}\ningress: [{}]")
BAD = policy("podSelector: {matchLabels: {a: b}}\ningress: [{ports: [{port: 0}]}]")
KEY = PolicyKey("NetworkPolicy", "default", "p")
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"


def test_an_invalid_edit_keeps_the_last_valid_version() -> None:
    store = ManifestStore(Settings())
    before = store.apply(content(a=GOOD))
    after = store.apply(content(a=BAD))
    assert after.cluster is before.cluster
    assert [str(key) for key in after.kept] == ["NetworkPolicy default/p"]
    assert len(after.problems) == 1
    again = store.apply(content(a=BAD))
    assert again.cluster is before.cluster
    mended = store.apply(content(a=GOOD))
    assert (mended.cluster, mended.kept, mended.problems) == (before.cluster, (), ())


def test_a_policy_that_was_never_valid_isolates_until_it_is() -> None:
    store = ManifestStore(Settings())
    found = store.apply(content(a=BAD)).cluster.policies[KEY]
    assert isinstance(found, KubernetesPolicy)
    assert (found.selector, found.ingress) == (Selector.of({"a": "b"}), ())
    mended = store.apply(content(a=GOOD)).cluster.policies[KEY]
    assert isinstance(mended, KubernetesPolicy)
    assert len(mended.ingress) == 1


def test_an_unreadable_file_keeps_all_that_it_held() -> None:
    store = ManifestStore(Settings())
    before = store.apply(content(a=join(GOOD, pod("x")), b=pod("y")))
    after = store.apply(content(a=GOOD + "\n\t- [", b=pod("y")))
    assert after.cluster is before.cluster
    assert {key.name for key in after.kept} == {"p", "x"}
    gone = store.apply(content(b=pod("y")))
    assert [one.name for one in gone.cluster.pods.values()] == ["y"]
    assert not gone.cluster.policies


def test_an_edit_that_hides_which_object_it_is_keeps_the_object() -> None:
    store = ManifestStore(Settings())
    before = store.apply(content(a=join(GOOD, pod("x"))))
    for hidden in (GOOD.replace("name: p", "name: Upper"), GOOD.replace("kind: ", "kinds: "), "words\n"):
        after = store.apply(content(a=join(hidden, pod("x"))))
        assert after.cluster is before.cluster, hidden
        assert [key.name for key in after.kept] == ["p"]


def test_an_object_that_is_gone_is_gone() -> None:
    store = ManifestStore(Settings())
    store.apply(content(a=GOOD, b=pod("x")))
    after = store.apply(content(b=pod("x")))
    assert (not after.cluster.policies, after.kept) == (True, ())


def test_of_a_duplicate_object_the_earlier_file_counts() -> None:
    first = loaded(a=pod("x", "{v: one}"), b=join(pod("y"), pod("x", "{v: two}")))
    assert first.cluster.pods[PodKey("default/x")].labels == Labels({"v": "one"})
    (problem,) = first.problems
    assert (problem.file, problem.document, problem.name) == ("b.yaml", 2, "x")
    assert "a.yaml, document 1" in problem.reason
    store = ManifestStore(Settings())
    store.apply(content(b=pod("x", "{v: two}")))
    later = store.apply(content(a=pod("x", "{v: one}"), b=pod("x", "{v: two}")))
    assert later.cluster.pods[PodKey("default/x")].labels == Labels({"v": "two"})


def test_an_object_may_move_to_another_file() -> None:
    store = ManifestStore(Settings())
    before = store.apply(content(a=join(GOOD, pod("x"))))
    after = store.apply(content(a=pod("x"), c=GOOD))
    assert after.cluster is before.cluster
    assert after.problems == ()


def test_what_has_not_changed_is_the_same_value() -> None:
    store = ManifestStore(Settings())
    first = store.apply(content(a=join(GOOD, pod("x")), b=workload("Deployment", "w", "  replicas: 3\n")))
    second = store.apply(content(a=join(GOOD, pod("x", "{a: b}")), b=workload("Deployment", "w", "  replicas: 4\n")))
    assert second.cluster.policies is first.cluster.policies
    assert second.cluster.nodes is first.cluster.nodes
    assert second.cluster.namespaces is first.cluster.namespaces
    for name in ("w-0", "w-1", "w-2"):
        assert second.cluster.pods[PodKey(f"default/{name}")] is first.cluster.pods[PodKey(f"default/{name}")]
    assert second.cluster.pods[PodKey("default/x")] is not first.cluster.pods[PodKey("default/x")]


def test_namespaces_that_only_something_names_exist() -> None:
    declared = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {team: a}}\n"
    romana = (
        "apiVersion: romana.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: z}\nspec: {podSelector: {}}\n"
    )
    found = loaded(a=join(declared, pod("a", namespace="x"), pod("b", namespace="y"), romana)).cluster.namespaces
    assert {name: dict(one.labels) for name, one in found.items()} == {
        "x": {"team": "a", NAME_LABEL: "x"},
        "y": {NAME_LABEL: "y"},
        "z": {NAME_LABEL: "z"},
    }


def placed(store: ManifestStore, *names: str, nodes: int | None = None) -> dict[str, str]:
    found = store.apply(content(a=join(*(pod(name) for name in names))), nodes=nodes).cluster
    return {pod.name: pod.node for pod in found.pods.values()}


def test_pods_are_placed_round_robin_in_sorted_order() -> None:
    assert placed(ManifestStore(Settings()), "d", "b", "a", "c") == {
        "a": "node1",
        "b": "node2",
        "c": "node1",
        "d": "node2",
    }
    assert placed(ManifestStore(Settings()), "a", "b", "c", nodes=3) == {"a": "node1", "b": "node2", "c": "node3"}


def test_a_pod_that_was_placed_keeps_its_node() -> None:
    store = ManifestStore(Settings())
    placed(store, "b", "d")
    assert placed(store, "a", "b", "c", "d") == {"a": "node1", "b": "node1", "c": "node2", "d": "node2"}
    assert placed(store, "d", "e") == {"d": "node2", "e": "node1"}


def test_a_pod_moves_only_when_its_node_is_gone() -> None:
    store = ManifestStore(Settings())
    store.apply(content(a=pod("a"), n=NODE))
    assert placed(store, "a") == {"a": "node1"}


def test_only_what_lacks_a_node_is_placed() -> None:
    text = join(
        pod("bound", more="  nodeName: n1\n"),
        pod("waiting") + "status: {phase: Pending}\n",
        pod("over") + "status: {phase: Succeeded}\n",
        pod("host", more="  hostNetwork: true\n"),
        NODE,
    )
    found = loaded(a=text).cluster.pods.values()
    assert {pod.name: pod.node for pod in found} == {"bound": "n1", "waiting": "", "over": "", "host": "n1"}


def test_a_pod_on_an_unknown_node_is_a_problem_and_stays() -> None:
    found = loaded(a=join(pod("x", more="  nodeName: gone\n"), NODE))
    assert found.cluster.pods[PodKey("default/x")].node == "gone"
    assert [(one.field, one.reason) for one in found.problems] == [("spec.nodeName", "there is no node gone")]


def test_declared_nodes_are_the_nodes() -> None:
    assert dict(loaded(a=NODE).cluster.nodes) == {"n1": Node("n1")}
    assert list(loaded(a=pod("x")).cluster.nodes) == ["node1", "node2"]
    store = ManifestStore(Settings(), default_nodes=3)
    assert list(store.apply(content(a=pod("x"))).cluster.nodes) == ["node1", "node2", "node3"]
    before = store.apply(content(a=pod("x")))
    with pytest.raises(InputError, match="Node objects"):
        store.apply(content(a=NODE), nodes=2)
    assert store.apply(content(a=pod("x"))).cluster is before.cluster


def test_a_pod_never_valid_is_absent() -> None:
    found = loaded(a=join(pod("x", "{a: '-'}"), pod("y")))
    assert [one.name for one in found.cluster.pods.values()] == ["y"]


def test_places_name_where_each_pod_stands() -> None:
    found = loaded(a=join(pod("x"), workload("Deployment", "w")))
    assert [(place.kind, place.name, place.document) for _, place in sorted(found.locations.items())] == [
        ("Deployment", "w", 2),
        ("Pod", "x", 1),
    ]


EDITS = st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=1, max_size=6)


@given(EDITS)
def test_placement_never_moves_and_stays_even(edits: list[list[str]]) -> None:
    store, before = ManifestStore(Settings()), dict[str, str]()
    for names in edits:
        now = placed(store, *names)
        assert sorted(now) == sorted(names)
        assert all(before[name] == node for name, node in now.items() if name in before)
        before = now
    assert set(before.values()) <= {"node1", "node2"}
    fresh = list(placed(ManifestStore(Settings()), *edits[-1]).values())
    assert fresh == [f"node{1 + index % 2}" for index in range(len(fresh))]


@given(st.lists(st.sampled_from([GOOD, BAD, "words\n", "\t[", "", pod("x")]), min_size=1, max_size=6))
def test_once_valid_a_policy_is_only_lost_by_being_removed(edits: list[str]) -> None:
    store, valid = ManifestStore(Settings()), False
    for text in edits:
        found = store.apply(content(a=text)).cluster.policies.get(KEY)
        removed = text in ("", pod("x"))
        valid = not removed and (valid or text == GOOD)
        if valid:
            assert isinstance(found, KubernetesPolicy) and len(found.ingress) == 1
        elif text == BAD:
            assert isinstance(found, KubernetesPolicy) and found.ingress == () and found.selector != EVERYTHING
        else:
            assert found is None


def test_an_unbound_pod_is_placed_on_the_node_of_its_port() -> None:
    store = ManifestStore(Settings())
    bound = pod("c", more="  nodeName: node2\n")
    text = content(a=join(pod("a"), pod("b"), bound))
    first = store.apply(text).cluster
    assert {key: each.node for key, each in first.pods.items()} == {
        "default/a": "node1", "default/b": "node2", "default/c": "node2",
    }  # fmt: skip
    seen = {PodKey("default/b"): "node1", PodKey("default/c"): "node1", PodKey("default/a"): "nowhere"}
    moved = store.apply(text, node_by_port=seen).cluster
    assert {key: each.node for key, each in moved.pods.items()} == {
        "default/a": "node1", "default/b": "node1", "default/c": "node2",
    }  # fmt: skip
    assert moved.pods[PodKey("default/a")] is first.pods[PodKey("default/a")]
    assert store.apply(text).cluster is moved
    assert store.apply(text, node_by_port=seen).cluster is moved
