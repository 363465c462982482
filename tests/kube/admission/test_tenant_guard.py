"""What counts of pods and policies in namespaces that may, or may not, hold their tenants; and when that changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from romana_ovs.kube.admission.tenant_guard import TenantGuard
from romana_ovs.kube.api.messages import ObjectsObserved, Update
from romana_ovs.kube.api.resources import NAMESPACES, ROMANA_POLICIES, Resource
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.objects import KubeObject, ObjectId
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import NO_TENANT
from romana_ovs.model.labels import EVERYTHING, Labels
from romana_ovs.model.objects import KubernetesPolicy, Node, Pod, PodKey, PolicyKey, RomanaPolicy, RomanaRule
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from tests.support.manifests import BY_OWNER
from tests.support.observed_objects import applied, listed_cache, observe, observed, observed_pod

ALLOWED = Labels({"tenants.romana.io/t1": "allowed"})
OTHER = Labels({"tenants.romana.io/t2": "allowed"})
NONE = Labels({})
T1 = Labels({"owner": "t1"})
WEB = Pod("shop", "web", T1, node="n")
OPEN = RomanaPolicy("shop", "p", T1, EVERYTHING, (RomanaRule(),))
SOURCES = [
    Settings(tenant_source=TenantSource.NAMESPACE),
    Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="o"),
]


def without_tenant(pod: Pod) -> Pod:
    return replace(pod, labels=Labels({**pod.labels, "owner": ""}))


def counted(
    bound: TenantGuard, given: KubeObject | None, labels: Labels, before: KubeObject | None = None
) -> KubeObject | None:
    return bound.replace(before, given, labels)[1]


def test_what_its_namespace_may_hold_counts_as_it_stands() -> None:
    bound = TenantGuard(BY_OWNER)
    for given in (WEB, OPEN, KubernetesPolicy("shop", "k", EVERYTHING, frozenset()), Node("n")):
        assert counted(bound, given, ALLOWED) is given
    assert bound.problems == () and bound.violations == frozenset()


def test_a_pod_of_a_forbidden_tenant_has_none_and_a_problem() -> None:
    bound = TenantGuard(BY_OWNER)
    assert counted(bound, WEB, OTHER) == without_tenant(WEB)
    assert bound.violations == {ObjectId("Pod", "shop", "web")}
    assert [str(problem) for problem in bound.problems] == [
        'Pod shop/web: metadata.labels: label "owner" names tenant "t1", but namespace shop has no label '
        "tenants.romana.io/t1=allowed"
    ]


def test_a_policy_for_another_tenant_isolates() -> None:
    bound = TenantGuard(BY_OWNER)
    found = counted(bound, OPEN, OTHER)
    assert isinstance(found, KubernetesPolicy)
    assert (found.selector, found.ingress) == (EVERYTHING, ())
    assert bound.violations == {ObjectId("RomanaNetworkPolicy", "shop", "p")}


def test_without_isolation_a_pod_with_a_refused_tenant_is_absent() -> None:
    bound = TenantGuard(replace(BY_OWNER, isolation=Isolation.NONE))
    assert counted(bound, WEB, NONE) is None
    assert [problem.name for problem in bound.problems] == ["shop/web"]
    assert list(bound.relabel("shop", ALLOWED)) == [(None, WEB)]
    assert bound.problems == ()


def test_what_went_before_is_what_counted_not_what_was_given() -> None:
    bound = TenantGuard(BY_OWNER)
    counted(bound, WEB, NONE)
    edited = replace(WEB, node="m")
    assert bound.replace(WEB, edited, NONE) == (without_tenant(WEB), without_tenant(edited))
    assert bound.replace(edited, None, NONE) == (without_tenant(edited), None)
    assert bound.problems == () and list(bound.relabel("shop", ALLOWED)) == []


def test_a_relabelled_pod_takes_its_fault_along() -> None:
    bound = TenantGuard(BY_OWNER)
    counted(bound, WEB, OTHER)
    mended = replace(WEB, labels=Labels({"owner": "t2"}))
    assert bound.replace(WEB, mended, OTHER) == (without_tenant(WEB), mended)
    assert bound.problems == ()


def test_a_namespace_that_is_relabelled_back_and_forth() -> None:
    bound = TenantGuard(BY_OWNER)
    isolating = counted(bound, OPEN, NONE)
    counted(bound, WEB, NONE)
    elsewhere = replace(WEB, namespace="other")
    counted(bound, elsewhere, NONE)
    forth = [(isolating, OPEN), (without_tenant(WEB), WEB)]
    assert list(bound.relabel("shop", ALLOWED)) == forth
    assert bound.violations == {ObjectId("Pod", "other", "web")}
    assert list(bound.relabel("shop", ALLOWED)) == [], "nothing is other than it was"
    assert list(bound.relabel("shop", OTHER)) == [(new, old) for old, new in forth]
    assert len(bound.problems) == 3


@pytest.mark.parametrize("settings", SOURCES)
def test_with_other_sources_of_tenants_everything_passes(settings: Settings) -> None:
    bound = TenantGuard(settings)
    assert bound.replace(OPEN, WEB, NONE) == (OPEN, WEB)
    assert list(bound.relabel("shop", ALLOWED)) == [] and bound.problems == ()


# The same by way of what an API server tells.

POD, POLICY = PodKey("shop/web"), PolicyKey("RomanaNetworkPolicy", "shop", "p")


def observed_namespace(labels: Labels) -> Update:
    return observed(NAMESPACES, "shop", labels=dict(labels))


def observed_policy(labels: Labels, *, version: int = 1, uid: str = "u") -> Update:
    spec = {"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 80}]}]}
    return observed(ROMANA_POLICIES, "p", version, uid=uid, labels=dict(labels), spec=spec, settings=BY_OWNER)


def started(settings: Settings, *namespaces: Update) -> tuple[ClusterCache, ClusterSnapshot]:
    """A cache with a pod and a policy of tenant t1."""
    web = observed_pod("web", labels=dict(T1), phase="Pending", settings=BY_OWNER)
    return listed_cache(settings, pods=[web], romana=[observed_policy(T1)], namespaces=list(namespaces))


def after(store: ClusterCache, resource: Resource, one: Update) -> ClusterSnapshot:
    return applied(store, observe(resource, one))


def test_namespace_labels_decide_which_tenants_pods_count() -> None:
    """docs/hazards.md E1 and E5."""
    store, loaded = started(BY_OWNER)
    pod, policy = loaded.cluster.pods[POD], loaded.cluster.policies
    assert loaded.cluster.tenant_of(pod) == NO_TENANT
    assert POLICY not in policy and len(policy) == 1
    assert len(loaded.problems) == 2 and loaded.kept == ()
    assert store.invalid == {ObjectId("Pod", "shop", "web"), ObjectId("RomanaNetworkPolicy", "shop", "p")}
    now = after(store, NAMESPACES, observed_namespace(ALLOWED))
    assert now.cluster.tenant_of(now.cluster.pods[POD]) == "t1"
    assert list(now.cluster.policies) == [POLICY]
    assert now.problems == () and store.invalid == frozenset()
    back = after(store, NAMESPACES, replace(observed_namespace(NONE), version="2"))
    assert dict(back.cluster.pods) == dict(loaded.cluster.pods)
    assert dict(back.cluster.policies) == dict(loaded.cluster.policies)
    assert back.problems == loaded.problems
    again = after(store, NAMESPACES, replace(observed_namespace(ALLOWED), version="3"))
    gone = after(store, NAMESPACES, replace(observed_namespace(ALLOWED), exists=False, value=None, version="4"))
    assert again.problems == () and gone.problems == loaded.problems


def test_without_isolation_a_pod_follows_the_namespace_label() -> None:
    store, loaded = started(replace(BY_OWNER, isolation=Isolation.NONE), observed_namespace(ALLOWED))
    assert list(loaded.cluster.pods) == [POD]
    assert not after(store, NAMESPACES, observed_namespace(NONE)).cluster.pods
    assert list(after(store, NAMESPACES, observed_namespace(ALLOWED)).cluster.pods) == [POD]


@pytest.mark.parametrize("settings", SOURCES)
def test_other_sources_of_tenants_ask_no_label(settings: Settings) -> None:
    _, loaded = started(settings)
    assert list(loaded.cluster.pods) == [POD] and list(loaded.cluster.policies) == [POLICY]
    assert loaded.problems == ()


# A policy that named no tenant is stood in for by one that names none either: another kind, of another key.


def test_a_policy_with_a_corrected_tenant_leaves_no_fallback() -> None:
    store, _ = started(BY_OWNER, observed_namespace(ALLOWED))
    gone = after(store, ROMANA_POLICIES, replace(observed_policy(T1, version=2), exists=False, value=None))
    assert not gone.cluster.policies
    nameless = after(store, ROMANA_POLICIES, observed_policy(NONE, version=3))
    assert [key.kind for key in nameless.cluster.policies] == ["NetworkPolicy"], "what isolates in its place"
    assert list(after(store, ROMANA_POLICIES, observed_policy(T1, version=4)).cluster.policies) == [POLICY]
    assert not after(
        store, ROMANA_POLICIES, replace(observed_policy(T1, version=5), exists=False, value=None)
    ).cluster.policies


def test_relabelling_a_namespace_restores_no_replaced_policy() -> None:
    store, loaded = started(BY_OWNER, observed_namespace(ALLOWED))
    assert list(loaded.cluster.policies) == [POLICY]
    other = after(store, ROMANA_POLICIES, observed_policy(NONE, version=2, uid="another")).cluster.policies
    assert POLICY not in other and len(other) == 1
    store.apply(ObjectsObserved(str(NAMESPACES), (replace(observed_namespace(NONE), version="3"),)))
    again = after(store, NAMESPACES, replace(observed_namespace(ALLOWED), version="4"))
    assert dict(again.cluster.policies) == dict(other)


def test_an_empty_namespace_is_no_longer_tracked() -> None:
    bound = TenantGuard(BY_OWNER)
    for number in range(100):
        one = replace(WEB, namespace=f"ci-{number}")
        counted(bound, one, NONE)
        assert bound.replace(one, None, NONE) == (without_tenant(one), None)
    assert not bound._objects
