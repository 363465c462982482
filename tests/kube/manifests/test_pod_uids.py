"""UIDs of a folder's pods: one that is deleted and made anew is another, an edited or moved one is not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from tests.support.manifests import content, pod, workload

A, B = PodKey("default/a"), PodKey("default/b")


def numbered() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"made-{next(numbers)}"


def store(known: dict[PodKey, str] | None = None) -> ManifestStore:
    return ManifestStore(Settings(), pod_uids=PodUids(known or {}, numbered()))


def uids(found: ManifestStore, **files: str) -> dict[str, str]:
    cluster = found.apply(content(**files)).cluster
    return {key.partition("/")[2]: one.uid for key, one in cluster.pods.items()}


def test_a_pod_that_was_missing_and_is_there_again_is_another() -> None:
    one = store()
    assert uids(one, a=pod("a"), b=pod("b")) == {"a": "made-1", "b": "made-2"}
    assert uids(one, b=pod("b")) == {"b": "made-2"}
    assert uids(one, a=pod("a"), b=pod("b")) == {"a": "made-3", "b": "made-2"}


def test_a_pod_keeps_its_uid_when_edited_or_moved() -> None:
    one = store()
    first = uids(one, a=pod("a"))
    assert uids(one, a=pod("a", "{x: y}")) == first
    assert uids(one, z=pod("a", more="  nodeName: node1\n")) == first


def test_what_cannot_be_read_is_not_missing() -> None:
    one = store()
    first = uids(one, a=pod("a"))
    assert uids(one, a="]") == first
    assert uids(one, a=pod("a", "[]")) == first
    assert uids(one, a=pod("a")) == first


def test_a_uid_in_a_manifest_is_the_pods_uid() -> None:
    one = store()
    assert uids(one, a=pod("a", uid="one"), b=pod("b")) == {"a": "one", "b": "made-1"}
    assert uids(one, a=pod("a", uid="two"), b=pod("b")) == {"a": "two", "b": "made-1"}
    assert uids(one, a=pod("a"), b=pod("b")) == {"a": "two", "b": "made-1"}, "an edit that drops it says nothing new"


def test_scaling_a_workload_down_and_up_makes_new_pods() -> None:
    one = store()
    assert uids(one, a=workload("ReplicaSet", "w", "  replicas: 2\n")) == {"w-0": "made-1", "w-1": "made-2"}
    assert uids(one, a=workload("ReplicaSet", "w", "  replicas: 1\n")) == {"w-0": "made-1"}
    assert uids(one, a=workload("ReplicaSet", "w", "  replicas: 2\n")) == {"w-0": "made-1", "w-1": "made-3"}


def test_what_was_saved_goes_on() -> None:
    one = store({A: "saved", B: ""})
    assert uids(one, a=pod("a"), b=pod("b")) == {"a": "saved", "b": "made-1"}
    gone = store({A: "saved"})
    assert uids(gone, b=pod("b")) == {"b": "made-1"}
    assert uids(gone, a=pod("a")) == {"a": "made-2"}


def test_unchanged_pods_are_the_very_same_objects() -> None:
    one = store()
    before = one.apply(content(a=pod("a"), b=pod("b"))).cluster
    assert one.apply(content(a=pod("a"), b=pod("b"))).cluster is before
    after = one.apply(content(a=pod("a"))).cluster
    assert after.pods[A] is before.pods[A]


def test_made_up_uids_are_never_the_same() -> None:
    cluster = ManifestStore(Settings(), pod_uids=PodUids({})).apply(content(a=pod("a"), b=pod("b"))).cluster
    assert len({one.uid for one in cluster.pods.values()} - {""}) == 2
    assert {one.uid for one in ManifestStore(Settings()).apply(content(a=pod("a"))).cluster.pods.values()} == {""}
