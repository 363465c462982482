"""Whether two manifests of one object say the same."""

from __future__ import annotations

import pytest

from romana_ovs.kube.manifests.compare import first_difference
from romana_ovs.kube.manifests.parse import parse_text
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings
from tests.support.manifests import content, pod

PLAIN = "kind: Pod\nmetadata: {name: a, labels: {app: b}}\nspec: {containers: [{name: c}, {name: d}]}\n"


def difference(one: str, other: str) -> str | None:
    """The first difference of two texts of YAML, the same from both sides as far as there is one."""
    left, right = (parse_text(text).documents[0].value for text in (one, other))
    assert isinstance(left, dict) and isinstance(right, dict)
    assert (first_difference(left, right) is None) is (first_difference(right, left) is None)
    return first_difference(left, right)


@pytest.mark.parametrize(
    "other",
    [
        PLAIN,
        '{"spec": {"containers": [{"name": "c"}, {"name": "d"}]}, "kind": "Pod", "status": {},\n'
        ' "metadata": {"labels": {"app": "b"}, "name": "a", "namespace": "default", "annotations": null}}',
        PLAIN.replace("name: a,", "name: a, uid: x, resourceVersion: '1', generation: 2, creationTimestamp: z,"),
        PLAIN + "status: {phase: Running}\n",
        PLAIN.replace("name: a,", "name: a, annotations: {kubectl.kubernetes.io/last-applied-configuration: x},"),
    ],
)
def test_what_says_the_same(other: str) -> None:
    assert difference(PLAIN, other) is None


@pytest.mark.parametrize(
    ("one", "other", "field"),
    [
        (PLAIN, PLAIN.replace("app: b", "app: c"), "metadata.labels.app"),
        (PLAIN, PLAIN.replace("app: b", "app: b, x: y"), "metadata.labels.x"),
        (PLAIN, PLAIN.replace("name: d", "name: e"), "spec.containers[1].name"),
        (PLAIN, PLAIN.replace(", {name: d}", ""), "spec.containers"),
        (PLAIN, PLAIN.replace("name: a,", "name: a, annotations: {x: z},"), "metadata.annotations.x"),
        (PLAIN + "status: {podIP: 10.0.0.1}\n", PLAIN + "status: {podIP: 10.0.0.2}\n", "status.podIP"),
        (PLAIN.replace("name: a,", "name: a, uid: x,"), PLAIN.replace("name: a,", "name: a, uid: z,"), "metadata.uid"),
        ("kind: Pod\nspec: {a: 1}\n", "kind: Pod\nspec: {a: true}\n", "spec.a"),
    ],
)
def test_what_differs(one: str, other: str, field: str) -> None:
    assert difference(one, other) == field


def test_the_manifest_with_a_status_counts() -> None:
    served = pod("x") + "status: {phase: Running, podIP: 10.1.0.7}\n"
    loaded = ManifestStore(Settings()).apply(content(a=pod("x"), b=served, c=pod("x")))
    assert loaded.problems == ()
    assert str(loaded.cluster.pods[PodKey("default/x")].address) == "10.1.0.7"
