"""Conditions and Events: of programmed and invalid policies, refused objects, and tenants."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from romana_ovs.controller.conditions import (
    ObservedState,
    differences,
    nodes_at_limit,
    object_warnings,
    policy_statuses,
    tenant_statuses,
)
from romana_ovs.kube.admission.tenancy import tenant_object_name
from romana_ovs.kube.api.desired import Condition, ConditionStatus
from romana_ovs.kube.decode.objects import ObjectId, Version
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import Problem
from romana_ovs.model.objects import Pod, PodKey
from romana_ovs.model.settings import Settings, TenantSource
from romana_ovs.model.syntax import subdomain_fault
from romana_ovs.registry_types.report import Observed
from tests.support.builders import cluster, pod
from tests.support.confirming_engine import ConfirmingEngine, follow

WEB = ObjectId("RomanaNetworkPolicy", "shop", "web")
PLAIN = ObjectId("NetworkPolicy", "shop", "web")
ONE, TWO = Version("u", 1), Version("u", 2)
BAD = Problem("must be a number", kind="RomanaNetworkPolicy", name="shop/web", field="spec.x")


def conditions(now: ObservedState) -> dict[str, Condition]:
    status = policy_statuses(now)[WEB]
    assert status.version == now.versions[WEB]
    return {condition.type: condition for condition in status.conditions}


def test_only_policies_of_ours_have_a_status() -> None:
    assert policy_statuses(ObservedState({WEB: ONE, PLAIN: ONE, ObjectId("Pod", "shop", "a"): ONE})).keys() == {WEB}


@pytest.mark.parametrize(
    ("programmed", "failing", "truth", "reason"),
    [
        (None, False, ConditionStatus.UNKNOWN, "Starting"),
        (None, True, ConditionStatus.FALSE, "SwitchFailed"),
        ({}, False, ConditionStatus.FALSE, "Pending"),
        ({}, True, ConditionStatus.FALSE, "SwitchFailed"),
        ({WEB: ONE}, False, ConditionStatus.FALSE, "Pending"),
        ({WEB: Version("earlier", 2)}, False, ConditionStatus.FALSE, "Pending"),
        ({WEB: TWO}, False, ConditionStatus.TRUE, "Programmed"),
        ({WEB: TWO}, True, ConditionStatus.TRUE, "Programmed"),
    ],
)
def test_programmed_is_of_the_version_on_every_switch(
    programmed: dict[ObjectId, Version] | None, failing: bool, truth: ConditionStatus, reason: str
) -> None:
    """docs/hazards.md C14."""
    result = conditions(ObservedState({WEB: TWO}, programmed, failing=failing))
    assert (result["Programmed"].status, result["Programmed"].reason) == (truth, reason)
    assert result["Invalid"].status is ConditionStatus.FALSE


def test_an_invalid_edit_has_a_condition_with_the_reason() -> None:
    now = ObservedState({WEB: TWO}, {WEB: TWO}, problems=(BAD,), kept=(WEB,), invalid=(WEB,))
    result = conditions(now)
    assert result["Invalid"] == Condition("Invalid", ConditionStatus.TRUE, "Invalid", "spec.x: must be a number")
    assert (result["Programmed"].status, result["Programmed"].reason) == (ConditionStatus.FALSE, "LastValidKept")
    refused = object_warnings(now)[WEB]
    assert refused.reason == "InvalidEdit"
    assert refused.note == "spec.x: must be a number. The last valid version stays in force."


def test_an_object_never_valid_isolates_and_is_not_programmed() -> None:
    now = ObservedState({WEB: ONE}, {WEB: ONE}, problems=(BAD,), invalid=(WEB,))
    result = conditions(now)
    assert (result["Programmed"].status, result["Programmed"].reason) == (ConditionStatus.FALSE, "Isolating")
    assert "isolated" in object_warnings(now)[WEB].note


def test_a_questionable_object_is_not_called_invalid() -> None:
    now = ObservedState({WEB: ONE}, {WEB: ONE}, problems=(BAD,))
    result = conditions(now)
    assert (result["Programmed"].status, result["Invalid"].status) == (ConditionStatus.TRUE, ConditionStatus.FALSE)
    assert result["Invalid"].message == "spec.x: must be a number"
    assert object_warnings(now)[WEB].reason == "Questionable"


def test_when_the_error_is_cleared_so_are_condition_and_refusal() -> None:
    """docs/hazards.md C14."""
    before = ObservedState({WEB: ONE}, {WEB: ONE}, problems=(BAD,), invalid=(WEB,))
    now = ObservedState({WEB: TWO}, {WEB: TWO})
    assert conditions(now)["Invalid"] == Condition("Invalid", ConditionStatus.FALSE, "Valid")
    assert differences(object_warnings(before), object_warnings(now)) == {WEB: None}
    assert differences(policy_statuses(now), policy_statuses(now)) == {}


def test_any_kind_is_refused_but_only_what_the_api_server_has() -> None:
    problems = tuple(
        Problem("bad", kind=kind, name=name)
        for kind, name in [("Namespace", "shop"), ("NetworkPolicy", "shop/web"), ("Pod", "shop/gone"), ("", "")]
    )
    namespace = ObjectId("Namespace", "", "shop")
    result = object_warnings(ObservedState({namespace: ONE, PLAIN: ONE}, problems=problems, invalid={namespace, PLAIN}))
    assert result.keys() == {namespace, PLAIN}
    assert result[namespace].note == "bad. Until it is valid, it does not count."


def test_many_problems_are_few_in_a_message() -> None:
    many = tuple(Problem(f"bad {number}", kind=WEB.kind, name="shop/web") for number in range(500))
    note = object_warnings(ObservedState({WEB: ONE}, problems=many, invalid={WEB}))[WEB].note
    assert note.startswith("bad 0; bad 1; bad 2; bad 3; bad 4; and 495 more. ")


def world_of(*pods: Pod, **settings: Any) -> tuple[Cluster, ConfirmingEngine]:
    at = cluster(*pods, settings=Settings(tenant_source=TenantSource.NAMESPACE, **settings), nodes=("node1",))
    return at, follow(at)


def test_an_event_never_names_another_tenants_pod() -> None:
    """docs/hazards.md E13."""
    at, engine = world_of(
        pod("secret/vault", address="192.0.2.7"),
        pod("shop/web", address="192.0.2.7"),
        pod("shop/web2", address="192.0.2.8"),
        pod("shop/web3", address="192.0.2.8"),
    )
    versions = {ObjectId("Pod", one.namespace, one.name): Version(one.uid) for one in at.pods.values()}
    result = object_warnings(ObservedState(versions, unallocated=engine.problems))
    assert {key.name: refused.note for key, refused in result.items()} == {
        "web": "address 192.0.2.7 is already that of a pod elsewhere.",
        "web3": "address 192.0.2.8 is already that of pod shop/web2.",
    }
    assert {refused.reason for refused in result.values()} == {"NoAddress"}


def test_arithmetic_in_a_message_is_no_pod() -> None:
    key = ObjectId("Pod", "shop", "web")
    problem = Problem("all of network 10.0.0.0/8 belong to tenants", kind="Pod", name="shop/web")
    assert object_warnings(ObservedState({key: ONE}, unallocated=(problem,)))[key].note == f"{problem.reason}."


def test_a_tenant_has_its_ranges_and_tiers() -> None:
    at, engine = world_of(pod("shop/a", tier="web"), pod("shop/b"), tier_labels=("tier",))
    result = tenant_statuses(engine.usage, {"idle": ("idle", ONE)}, cluster=at, unallocated=engine.problems)
    shop, idle = result[ObjectId("Tenant", "", "shop")], result[ObjectId("Tenant", "", "idle")]
    assert (shop.tenant, shop.pods, shop.version) == ("shop", 2, None)
    assert {(tier.name, tier.pods) for tier in shop.tiers} == {("web", 1), ("default", 1)}
    assert {tier.segment for tier in shop.tiers} == set(engine.registry.segments.values())
    assert shop.ranges and shop.conditions[0].status is ConditionStatus.TRUE
    assert (idle.version, idle.ranges, idle.conditions[0].reason) == (ONE, (), "NoPods")


def test_a_tenant_at_its_limit_has_a_condition_with_its_nodes() -> None:
    at, engine = world_of(pod("shop/a"), pod("bank/b"))
    full = frozenset({"shop"})
    observed = {
        "n2": Observed(tenants_at_limit=full),
        "n1": Observed(tenants_at_limit=full),
        "n3": Observed(sctp_ports=False),
    }
    result = tenant_statuses(engine.usage, {}, cluster=at, at_limit=nodes_at_limit(observed))
    shop, bank = (result[ObjectId("Tenant", "", name)].conditions for name in ("shop", "bank"))
    assert [one.type for one in bank] == ["Ready"]
    assert [one.type for one in shop] == ["Ready", "Limited"]
    assert (shop[1].status, shop[1].reason) == (ConditionStatus.TRUE, "ConnectionLimit")
    assert shop[1].message.startswith("On node n1; on node n2 it has as many connections as it may have")


def test_policies_that_name_sctp_say_what_stays_open() -> None:
    now = ObservedState({WEB: ONE, PLAIN: ONE}, {WEB: ONE})
    assert conditions(now).keys() == {"Programmed", "Invalid"}
    assert object_warnings(now) == {}
    now = replace(now, sctp_open={WEB, PLAIN, ObjectId("NetworkPolicy", "shop", "gone")})
    result = conditions(now)["SCTPPortsOpen"]
    assert (result.status, result.reason) == (ConditionStatus.TRUE, "TrackedByAddresses")
    assert "can open associations to any port of that client" in result.message
    warnings = object_warnings(now)
    assert {key: warning.reason for key, warning in warnings.items()} == {PLAIN: "SCTPPortsOpen"}
    assert warnings[PLAIN].note == result.message
    # What is wrong with it comes first.
    bad = Problem("must be a number", kind="NetworkPolicy", name="shop/web", field="spec.x")
    assert object_warnings(replace(now, problems=(bad,), invalid=(PLAIN,)))[PLAIN].reason == "Invalid"


def test_a_tenant_whose_pods_get_no_address_is_not_ready() -> None:
    """docs/hazards.md E9."""
    at, engine = world_of(
        pod("shop/a"), *(pod(f"late/p{number}") for number in range(40)),
        network=IPv4Network("10.0.0.0/26"), segment_bits=2, host_bits=1, endpoint_bits=3,
    )  # fmt: skip
    assert engine.problems
    result = tenant_statuses(engine.usage, {}, cluster=at, unallocated=engine.problems)
    truths = {key.name: status.conditions[0] for key, status in result.items()}
    lacking = {name for name, condition in truths.items() if condition.status is ConditionStatus.FALSE}
    assert lacking == {at.tenant_of(at.pods[PodKey(problem.name)]) for problem in engine.problems}
    assert all(truths[name].reason == "NoAddress" for name in lacking)


@pytest.mark.parametrize("tenant", ["T1", "a_b", "a..b", "_", "A" * 63])
def test_a_tenant_with_an_impossible_name_has_an_encoded_one(tenant: str) -> None:
    name = tenant_object_name(tenant)
    assert not subdomain_fault(name) and len(name) > 63
    assert name != tenant_object_name(tenant.lower() + "x")
    assert tenant_object_name("t1") == "t1"
