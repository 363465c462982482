"""Whatever stands in a manifest, decoding it yields problems and never raises."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.kube.decode.decoder import decode
from romana_ovs.kube.decode.objects import Document
from romana_ovs.kube.manifests.folder import FileContent, FolderContent
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.lint import lint
from romana_ovs.model.settings import Settings
from tests.kube.decode.valid_manifests import MANIFESTS, put, spots
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
def test_damage_is_a_problem_and_never_raises(values: list[object], settings: Settings) -> None:
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
    found = ManifestStore(settings).apply(FolderContent("f", (FileContent("a.yaml", items),)))
    for note in (*found.notes, *found.problems, *lint(found)):
        assert str(note).isprintable() and str(note).isascii()
    cluster = found.cluster
    assert all(pod.key == key for key, pod in cluster.pods.items())
    assert all(policy.key == key for key, policy in cluster.policies.items())
    assert all(pod.namespace in cluster.namespaces for pod in cluster.pods.values())


@given(JSON_VALUES)
def test_any_document_at_all(value: object) -> None:
    found = decode(Document(1, value), "a.yaml", Settings())
    assert found.objects or found.ignored or value is None
