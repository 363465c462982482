"""From messages of an API server through ClusterCache to the statuses written back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from romana_ovs.controller.conditions import ObservedState, object_warnings, policy_statuses
from romana_ovs.kube.api.desired import ConditionStatus
from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import NODES, PODS, POLICIES, ROMANA_POLICIES
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.model.settings import Settings, TenantSource
from tests.support.observed_objects import deleted, full_listing, listed_cache, observe, observed, observed_pod

WEB = ObjectId("RomanaNetworkPolicy", "shop", "web")
GOOD: dict[str, Any] = {"podSelector": {}, "allowIncoming": []}
BAD: dict[str, Any] = {"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 99999}]}]}


def observed_policy(version: int, spec: dict[str, Any], *, generation: int, uid: str = "u") -> Update:
    return replace(observed(ROMANA_POLICIES, "web", version, uid=uid, spec=spec), generation=generation)


def test_versions_change_only_with_an_edit() -> None:
    store, _ = listed_cache(romana=[observed_policy(1, GOOD, generation=1)])
    before = store.versions
    assert before[WEB] == Version("u", 1)
    store.apply(observe(PODS, observed_pod("a")))
    with_pod = store.versions
    assert with_pod is not before and with_pod[ObjectId("Pod", "shop", "a")].uid == "u"
    # A status that somebody writes: a new resourceVersion, and nothing else.
    assert store.apply(observe(ROMANA_POLICIES, observed_policy(2, GOOD, generation=1))) is None
    assert store.versions is with_pod
    # An edit that means the same is no other cluster, but has to be observed.
    assert store.apply(observe(ROMANA_POLICIES, observed_policy(3, GOOD, generation=2))) is None
    assert store.versions[WEB] == Version("u", 2) and before[WEB] == Version("u", 1)
    store.apply(observe(ROMANA_POLICIES, deleted(observed_policy(4, GOOD, generation=2), 4)))
    assert WEB not in store.versions


def test_an_invalid_edit_is_refused_until_it_is_corrected() -> None:
    store, _ = listed_cache(romana=[observed_policy(1, GOOD, generation=1)])
    assert store.invalid == frozenset()
    loaded = store.apply(observe(ROMANA_POLICIES, observed_policy(2, BAD, generation=2)))
    assert loaded is not None and store.invalid == {WEB} == set(loaded.kept)
    now = ObservedState(store.versions, {WEB: Version("u", 1)}, loaded.problems, loaded.kept, store.invalid)
    programmed, invalid = policy_statuses(now)[WEB].conditions
    assert (programmed.reason, invalid.status) == ("LastValidKept", ConditionStatus.TRUE)
    assert "spec.allowIncoming[0].toPorts[0].port" in invalid.message
    assert object_warnings(now)[WEB].version == Version("u", 2)
    loaded = store.apply(observe(ROMANA_POLICIES, observed_policy(3, GOOD, generation=3)))
    assert loaded is not None and store.invalid == frozenset()
    now = ObservedState(store.versions, store.versions, loaded.problems, loaded.kept, store.invalid)
    assert object_warnings(now) == {}
    assert policy_statuses(now)[WEB].conditions[0].status is ConditionStatus.TRUE
    loaded = store.apply(observe(ROMANA_POLICIES, observed_policy(4, BAD, generation=1, uid="another")))
    assert loaded is not None and store.invalid == {WEB} and not loaded.kept
    now = ObservedState(store.versions, store.versions, loaded.problems, loaded.kept, store.invalid)
    assert policy_statuses(now)[WEB].conditions[0].reason == "Isolating"


def test_refused_objects_of_each_kind_are_known_by_their_problem() -> None:
    bad = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}
    store, loaded = listed_cache(
        policies=[observed(POLICIES, "p", spec=bad)],
        romana=[observed_policy(1, BAD, generation=1)],
        pods=[observed_pod("lost", node="nowhere")],
        nodes=[observed(NODES, "n")],
    )
    now = ObservedState(store.versions, {}, loaded.problems, loaded.kept, store.invalid)
    assert {str(key): each.reason for key, each in object_warnings(now).items()} == {
        "NetworkPolicy shop/p": "Invalid",
        "RomanaNetworkPolicy shop/web": "Invalid",
        "Pod shop/lost": "Questionable",
    }


def test_a_pod_of_a_forbidden_tenant_has_an_explanation() -> None:
    settings = Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner")
    store = ClusterCache(settings)
    loaded = store.apply(*full_listing(pods=[observed_pod("web", labels={"owner": "t1"})]))
    assert loaded is not None
    [refused] = object_warnings(ObservedState(store.versions, problems=loaded.problems, invalid=store.invalid)).values()
    assert refused.note == (
        'metadata.labels: label "owner" names tenant "t1", but namespace shop has no label '
        "tenants.romana.io/t1=allowed. Until it is valid, no other pod reaches it, and it reaches none."
    )
