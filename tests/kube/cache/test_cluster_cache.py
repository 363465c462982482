"""The cluster as an API server tells it."""

from __future__ import annotations

import gc
import json
import time
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from romana_ovs.kube.api.messages import ListCompleted, ListStarted, ObjectsObserved, Update
from romana_ovs.kube.api.object_decoder import decoder, object_meta
from romana_ovs.kube.api.resources import CLUSTER, NAMESPACES, NODES, PODS, POLICIES, TENANTS
from romana_ovs.kube.cache.cluster_cache import ClusterCache
from romana_ovs.kube.cache.raw_cache import RawCache
from romana_ovs.model.labels import EVERYTHING, Labels
from romana_ovs.model.objects import NAME_LABEL, Direction, KubernetesPolicy, Namespace, PodKey, PolicyKey
from romana_ovs.model.settings import Settings
from tests.support.observed_objects import (
    applied,
    deleted,
    full_listing,
    listed_cache,
    listing,
    observe,
    observed,
    observed_pod,
)

GOOD: dict[str, Any] = {"podSelector": {}, "ingress": [{}]}
OTHER: dict[str, Any] = {"podSelector": {}, "ingress": []}
BAD: dict[str, Any] = {"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]}]}
P = PolicyKey("NetworkPolicy", "shop", "p")


def test_there_is_no_cluster_before_every_resource_is_listed() -> None:
    """docs/hazards.md C7: so nothing is deleted before."""
    store = ClusterCache(Settings())
    messages = full_listing(pods=[observed_pod("a")])
    for number, message in enumerate(messages[:-1]):
        assert store.apply(message) is None, number
        assert not store.synced and store.missing
    loaded = applied(store, messages[-1])
    assert store.synced and store.missing == ()
    assert list(loaded.cluster.pods) == ["shop/a"]


def test_an_empty_cluster_is_one_too() -> None:
    _, loaded = listed_cache(nodes=[])
    assert not loaded.cluster.pods and not loaded.cluster.nodes


def test_what_does_not_change_stays_the_same_object() -> None:
    pods = [observed_pod("a", ip="10.0.0.1"), observed_pod("b", ip="10.0.0.2")]
    store, before = listed_cache(pods=pods, policies=[observed(POLICIES, "p", spec=GOOD)])
    now = applied(store, observe(PODS, observed_pod("b", 2, ip="10.0.0.2", labels={"x": "y"})))
    old, new = before.cluster, now.cluster
    assert new.pods is not old.pods and new.pods[PodKey("shop/a")] is old.pods[PodKey("shop/a")]
    assert (new.policies, new.nodes, new.namespaces) == (old.policies, old.nodes, old.namespaces)
    assert new.policies is old.policies and new.nodes is old.nodes and new.namespaces is old.namespaces
    assert old.pods[PodKey("shop/b")].labels == Labels()


def test_nothing_new_is_no_news() -> None:
    """docs/hazards.md C5 and C14: listings of what is known, and versions that say the same, cause no computation."""
    policies = [observed(POLICIES, "p", spec=GOOD), observed(POLICIES, "q", spec=BAD)]
    store, _ = listed_cache(pods=[observed_pod("a")], policies=policies)
    assert (
        store.apply(
            observe(PODS, observed_pod("a", 7)), observe(POLICIES, replace(policies[0], version="8"), policies[1])
        )
        is None
    )
    assert store.apply(*listing(PODS, observed_pod("a", 7))) is None
    assert store.apply(observe(PODS, observed_pod("b", 8), deleted(observed_pod("b"), 9))) is None
    assert store.apply(observe(PODS, deleted(observed_pod("never"), 9))) is None
    assert store.apply("something else", observe(TENANTS, observed(TENANTS, "t"))) is None


def test_a_pod_that_goes_leaves() -> None:
    store, _ = listed_cache(pods=[observed_pod("a"), observed_pod("b")])
    assert list(applied(store, observe(PODS, deleted(observed_pod("a"), 3))).cluster.pods) == ["shop/b"]


def test_what_a_later_listing_lacks_is_gone_when_it_is_complete() -> None:
    store, _ = listed_cache(pods=[observed_pod("a"), observed_pod("b"), observed_pod("c")])
    assert store.apply(ListStarted("pods"), observe(PODS, observed_pod("c", 9))) is None
    assert store.apply(ObjectsObserved("pods", kept=(observed_pod("a").id,))) is None
    assert sorted(applied(store, ListCompleted("pods")).cluster.pods) == ["shop/a", "shop/c"]


def test_a_listing_that_breaks_off_deletes_nothing() -> None:
    store, _ = listed_cache(pods=[observed_pod("a"), observed_pod("b")])
    assert store.apply(ListStarted("pods"), observe(PODS, observed_pod("b"))) is None
    assert store.apply(*listing(PODS, observed_pod("a"), observed_pod("b"))) is None


def test_an_older_version_after_a_newer_one_is_ignored() -> None:
    store, _ = listed_cache(pods=[observed_pod("a", 10, labels={"v": "new"})])
    assert store.apply(observe(PODS, observed_pod("a", 9, labels={"v": "old"}))) is None
    assert store.apply(observe(PODS, deleted(observed_pod("a"), 9))) is None
    now = applied(store, observe(PODS, observed_pod("a", 100, labels={"v": "newer"})))
    assert now.cluster.pods[PodKey("shop/a")].labels["v"] == "newer"


def test_a_listing_counts_even_when_its_versions_are_older() -> None:
    store, _ = listed_cache(pods=[observed_pod("a", 10, labels={"v": "new"})])
    now = applied(store, *listing(PODS, observed_pod("a", 3, labels={"v": "restored"})))
    assert now.cluster.pods[PodKey("shop/a")].labels["v"] == "restored"


def test_an_invalid_edit_keeps_the_last_valid_version() -> None:
    store, before = listed_cache(policies=[observed(POLICIES, "p", spec=GOOD)])
    now = applied(store, observe(POLICIES, observed(POLICIES, "p", 2, spec=BAD)))
    assert now.cluster is before.cluster
    assert [str(key) for key in now.kept] == ["NetworkPolicy shop/p"]
    [problem] = map(str, now.problems)
    assert problem.startswith("NetworkPolicy shop/p: spec.ingress[0].from[0].ipBlock.cidr: ")
    assert store.apply(*listing(POLICIES, observed(POLICIES, "p", 3, spec=BAD))) is None
    mended = applied(store, observe(POLICIES, observed(POLICIES, "p", 4, spec=OTHER)))
    assert (mended.kept, mended.problems) == ((), ())
    assert mended.cluster.policies[P] != before.cluster.policies[P]


def test_a_policy_that_was_never_valid_isolates_until_it_is() -> None:
    store, loaded = listed_cache(policies=[observed(POLICIES, "p", spec=BAD)])
    found = loaded.cluster.policies[P]
    assert isinstance(found, KubernetesPolicy) and found.ingress == () and found.selector == EVERYTHING
    assert found.directions == frozenset({Direction.INGRESS})
    assert len(loaded.problems) == 1 and loaded.kept == ()
    mended = applied(store, observe(POLICIES, observed(POLICIES, "p", 2, spec=GOOD)))
    assert mended.problems == () and mended.cluster.policies[P] != found
    assert dict(applied(store, observe(POLICIES, deleted(observed(POLICIES, "p"), 3))).cluster.policies) == {}


def test_the_valid_version_of_a_replaced_object_is_not_kept() -> None:
    store, before = listed_cache(policies=[observed(POLICIES, "p", spec=GOOD)])
    now = applied(store, observe(POLICIES, observed(POLICIES, "p", 2, uid="other", spec=BAD)))
    found = now.cluster.policies[P]
    assert isinstance(found, KubernetesPolicy) and found.ingress == () and now.kept == ()


def test_a_pod_of_the_same_name_with_another_uid_is_another_pod() -> None:
    """docs/hazards.md C6."""
    store, before = listed_cache(pods=[observed_pod("a", ip="10.0.0.1", uid="one")])
    now = applied(store, observe(PODS, observed_pod("a", 2, ip="10.0.0.1", uid="two")))
    assert [one.uid for one in now.cluster.pods.values()] == ["two"]
    assert before.cluster.pods[PodKey("shop/a")].uid == "one"


@pytest.mark.parametrize(
    ("one", "networked"),
    [
        (observed_pod("a", phase="Pending"), True),
        (observed_pod("a", phase="Running"), True),
        (observed_pod("a", ip="10.0.0.1"), True),
        (observed_pod("a", phase="Pending", node=""), False),
        (observed(PODS, "a", spec={"containers": [{"name": "c"}]}), False),
        (observed_pod("a", phase="Succeeded", ip="10.0.0.1"), False),
        (observed_pod("a", phase="Failed"), False),
        (observed_pod("a", host=True, ip="172.16.0.1"), False),
        (observed_pod("a", host=True), False),
    ],
)
def test_which_pods_are_of_our_network(one: Update, networked: bool) -> None:
    _, loaded = listed_cache(pods=[one])
    [found] = loaded.cluster.pods.values()
    assert found.networked is networked
    assert not (found.networked and not found.node)


def test_a_pod_may_report_our_address_and_lose_it_again() -> None:
    store, loaded = listed_cache(pods=[observed_pod("a", phase="Pending")])
    key = PodKey("shop/a")
    assert loaded.cluster.pods[key].address is None
    now = applied(store, observe(PODS, observed_pod("a", 2, ip="10.0.0.1")))
    assert now.cluster.pods[key].address == IPv4Address("10.0.0.1")
    assert applied(store, observe(PODS, observed_pod("a", 3))).cluster.pods[key].address is None


def test_a_namespace_exists_while_objects_are_in_it() -> None:
    bare = Namespace("shop", Labels({NAME_LABEL: "shop"}))
    store, loaded = listed_cache(pods=[observed_pod("a"), observed_pod("b")])
    assert dict(loaded.cluster.namespaces) == {"shop": bare}
    declared = observed(NAMESPACES, "shop", labels={"team": "x"})
    now = applied(store, observe(NAMESPACES, declared))
    assert now.cluster.namespaces["shop"].labels["team"] == "x"
    assert applied(store, observe(NAMESPACES, deleted(declared, 2))).cluster.namespaces["shop"] == bare
    assert store.apply(observe(PODS, deleted(observed_pod("a"), 3))) is not None
    assert dict(applied(store, observe(PODS, deleted(observed_pod("b"), 3))).cluster.namespaces) == {}


def test_a_node_that_does_not_exist_is_a_problem() -> None:
    store, loaded = listed_cache(
        pods=[observed_pod("a", node="far"), observed_pod("b", node="far", phase="Failed"), observed_pod("c")]
    )
    assert [str(problem) for problem in loaded.problems] == ["Pod shop/a: spec.nodeName: there is no node far"]
    far = observed(NODES, "far")
    assert applied(store, observe(NODES, far)).problems == ()
    assert len(applied(store, observe(NODES, deleted(far, 2))).problems) == 1
    assert applied(store, observe(PODS, deleted(observed_pod("a"), 2))).problems == ()


def test_an_invalid_object_that_is_no_policy_is_absent() -> None:
    broken = observed(PODS, "a", spec={"nodeName": "n", "containers": [{"ports": [{"containerPort": 0}]}]})
    store, loaded = listed_cache(pods=[broken])
    assert not loaded.cluster.pods and len(loaded.problems) == 1
    assert applied(store, observe(PODS, deleted(broken, 2))).problems == ()


def test_unknown_fields_of_metadata_are_no_problem() -> None:
    value = {"metadata": {"name": "p", "namespace": "shop", "brandNew": 1}, "spec": GOOD}
    head = object_meta(value, POLICIES)
    assert head is not None
    assert decoder(POLICIES, Settings())(value, head).problems == ()


def test_an_unknown_field_of_a_policy_does_not_widen_it() -> None:
    """docs/hazards.md C13; every other place for one is in tests/kube/decode/test_newer.py."""
    spec = {"podSelector": {}, "ingress": [{"onlyOnSundays": True}]}
    _, loaded = listed_cache(policies=[observed(POLICIES, "p", spec=spec)])
    found = loaded.cluster.policies[P]
    assert isinstance(found, KubernetesPolicy) and found.ingress == () and len(loaded.problems) == 1


@pytest.mark.alone
def test_one_change_among_many_pods_is_quick() -> None:
    store, _ = listed_cache(pods=[observed_pod(f"p{number}", ip="10.0.0.1") for number in range(10_000)])
    edits = [
        observe(PODS, observed_pod("p77", 2 + number, ip="10.0.0.1", labels={"v": str(number)})) for number in range(50)
    ]
    seconds = []
    for edit in edits:
        begin = time.thread_time()
        assert store.apply(edit) is not None
        seconds.append(time.thread_time() - begin)
    assert sorted(seconds)[len(seconds) // 2] < 0.002


def test_objects_that_are_not_decoded() -> None:
    name = str(TENANTS)
    objects = RawCache([name])
    one, two = observed(TENANTS, "a", spec={"tenant": "A"}), observed(TENANTS, "b")
    assert (objects.apply(ListStarted(name), observe(TENANTS, one, two)), objects.synced) == (frozenset({name}), False)
    assert (objects.apply(ListCompleted(name)), objects.synced) == (frozenset({name}), True)
    before = objects.of(name)
    assert dict(before) == {"a": one, "b": two}
    assert objects.of(name) is before
    assert objects.apply(observe(PODS, observed_pod("x")), observe(TENANTS, deleted(two, 5))) == {name}
    assert dict(objects.of(name)) == {"a": one} and objects.of(name)["a"] is one
    assert objects.apply(*listing(CLUSTER[0])) == frozenset()
    assert json.dumps(one.raw)


def test_many_policies_cost_as_much_as_they_are_many() -> None:
    """Whoever may write policies must not hold up who listens to switches, at every start and relisting."""
    one = observed(POLICIES, "p", spec=GOOD)

    def seconds(count: int) -> float:
        store = ClusterCache(Settings())
        told = tuple(replace(one, id=one.id._replace(name=f"p{number}")) for number in range(count))
        gc.collect()
        gc.disable()  # What it costs depends on all that other tests have left in this process.
        try:
            began = time.process_time()
            store.apply(*listing(POLICIES, *told))
            assert len(store.policies) == count and store.policies is store.policies
            return time.process_time() - began
        finally:
            gc.enable()

    assert seconds(8000) < 60 * min(seconds(500) for _ in range(3)), "sixteen times as many"
