"""Only a namespace that says so holds pods, and policies, of a tenant that labels name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from romana_ovs.kube.admission.tenancy import admit_pod, admit_policy, tenant_object_name
from romana_ovs.model.cluster import NO_TENANT, Cluster
from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import (
    Direction,
    KubernetesPolicy,
    Pod,
    Protocol,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.model.syntax import subdomain_fault
from romana_ovs.policy.evaluate import Reference
from tests.support import strategies
from tests.support.builders import pod
from tests.support.manifests import BY_OWNER

OURS = {"tenants.romana.io/t1": "allowed", "tenants.romana.io/t2": "no", "tenants.romana.io/t3": ""}


def web_pod(**labels: Any) -> Pod:
    return pod("shop/web", address="10.0.0.1", app="web", **labels)


@pytest.mark.parametrize("labels", [{}, {"owner": ""}, {"owner": "t1"}])
def test_a_pod_of_no_tenant_or_of_an_allowed_one_stays_as_it_is(labels: dict[str, str]) -> None:
    one = web_pod(**labels)
    found, reason = admit_pod(one, OURS, BY_OWNER)
    assert found is one
    assert reason == ""


@pytest.mark.parametrize("tenant", ["t2", "t3", "t4"])
def test_a_pod_of_another_tenant_has_none(tenant: str) -> None:
    """docs/hazards.md E1: without admission too."""
    found, reason = admit_pod(web_pod(owner=tenant), OURS, BY_OWNER)
    assert reason == (
        f'label "owner" names tenant "{tenant}", but namespace shop has no label tenants.romana.io/{tenant}=allowed'
    )
    assert found is not None
    assert Cluster(settings=BY_OWNER).tenant_of(found) == NO_TENANT
    assert found.labels["app"] == "web"
    assert admit_pod(found, OURS, BY_OWNER) == (found, "")


def test_a_policy_for_another_tenant_isolates_and_allows_nothing() -> None:
    policy = RomanaPolicy("shop", "p", Labels({"owner": "t2"}), Selector.of({"app": "web"}), (RomanaRule(),))
    found, reason = admit_policy(policy, OURS, BY_OWNER)
    assert 'names tenant "t2"' in reason
    assert found == KubernetesPolicy("shop", "romana.io/p", Selector.of({"app": "web"}), frozenset({Direction.INGRESS}))


def test_policies_that_may_stand_there_stay_as_they_are() -> None:
    ours = RomanaPolicy("shop", "p", Labels({"owner": "t1"}), EVERYTHING, (RomanaRule(),))
    kubernetes = KubernetesPolicy("shop", "p", EVERYTHING, frozenset(Direction))
    for policy in (ours, kubernetes):
        found, reason = admit_policy(policy, OURS, BY_OWNER)
        assert found is policy
        assert reason == ""


@pytest.mark.parametrize("source", [TenantSource.NAMESPACE, TenantSource.NAMESPACE_LABEL])
def test_other_tenant_sources_need_no_namespace_label(source: TenantSource) -> None:
    settings = Settings(tenant_source=source, tenant_key="owner")
    one, policy = web_pod(owner="t2"), RomanaPolicy("shop", "p", Labels({"owner": "t2"}), EVERYTHING)
    assert admit_pod(one, {}, settings) == (one, "")
    assert admit_policy(policy, {}, settings) == (policy, "")


@given(strategies.labels(), st.sampled_from(["", "t1", "t2"]), st.sampled_from([{}, OURS]), st.sampled_from(Isolation))
def test_a_bound_pod_is_in_a_tenant_of_its_namespace_or_in_none(
    some: Labels,
    tenant: str,
    namespace: dict[str, str],
    isolation: Isolation,
) -> None:
    settings = Settings(isolation=isolation, tenant_source=TenantSource.POD_LABEL, tenant_key="owner")
    found, reason = admit_pod(Pod("shop", "web", Labels({**some, "owner": tenant})), namespace, settings)
    if found is None:
        assert reason
        assert isolation is Isolation.NONE
        return
    now = Cluster(settings=settings).tenant_of(found)
    assert now in {NO_TENANT, *(["t1"] if namespace else [])}, "only the one value allows"
    assert bool(reason) == (now != tenant)


@given(strategies.clusters(), st.data())
def test_a_pod_with_a_refused_tenant_is_isolated(
    cluster: Cluster,
    data: st.DataObject,
) -> None:
    """docs/hazards.md E1 and E5."""
    settings = replace(cluster.settings, tenant_source=TenantSource.POD_LABEL, tenant_key="owner")
    pods = [each for each in cluster.pods.values() if each.networked and each.labels.get("owner")]
    assume(pods)
    impostor = data.draw(st.sampled_from(pods))
    found, reason = admit_pod(impostor, {}, settings)
    assert reason
    now = replace(cluster, settings=settings).without(impostor)
    if found is None:
        assert settings.isolation is Isolation.NONE
        return
    now = now.with_object(found)
    meaning = Reference.of(now, strategies.addresses_of(now))
    for other in now.pods.values():
        if other.networked and other.key != impostor.key:
            ends = ConnectionEnd(pod=impostor.key), ConnectionEnd(pod=other.key)
            for source, destination in (ends, ends[::-1]):
                assert not meaning.allowed(Connection(source, destination, PortRef(Protocol.TCP, 80)))


@pytest.mark.parametrize("tenant", ["t1", "kube-system", "a.b", "0"])
def test_a_tenant_s_object_has_its_name(tenant: str) -> None:
    assert tenant_object_name(tenant) == tenant


@given(st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_every_tenant_s_object_can_have_its_name(tenant: str) -> None:
    assert subdomain_fault(tenant_object_name(tenant)) == ""


def test_tenants_that_look_alike_have_objects_of_their_own() -> None:
    tenants = ["t-1", "T-1", "T_1", "t_1", "T.1", "t__1", "t.-1"]
    assert len({tenant_object_name(tenant) for tenant in tenants}) == len(tenants)
