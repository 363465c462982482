"""Classes by example: requirements by namespace, and class numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.identity import CLASS_MASK, identity
from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    Direction,
    KubernetesPolicy,
    PodKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.class_record import ClassEntry, ClassRecord
from romana_ovs.policy.classes import ClassAllocator
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.requirements import requirements_by_namespace
from romana_ovs.policy.view import LabelRequirement

WEB, DB = Selector.of({"app": "web"}), Selector.of({"app": "db"})
IS_WEB, IS_DB = LabelRequirement("app", frozenset({"web"})), LabelRequirement("app", frozenset({"db"}))
HAS_APP = LabelRequirement("app")
NAMES = {name: Labels({NAME_LABEL: name, "stage": stage}) for name, stage in (("a", "x"), ("b", "x"), ("c", "y"))}
INGRESS, EGRESS = frozenset({Direction.INGRESS}), frozenset({Direction.EGRESS})


def asked(
    policy: KubernetesPolicy | RomanaPolicy, settings: Settings | None = None
) -> dict[str, frozenset[LabelRequirement]]:
    normal = normalise(policy, Cluster(settings=settings or Settings()))
    return {
        name: requirements
        for name, requirements in requirements_by_namespace([normal], NAMES, settings=settings).items()
        if requirements
    }


def test_ingress_has_requirements_for_peers_only() -> None:
    rule = PolicyRule((PolicyPeer(pods=DB),))
    assert asked(KubernetesPolicy("a", "p", WEB, INGRESS, (rule,))) == {"a": {IS_DB}}


def test_deferred_egress_has_requirements_for_the_selected_pods() -> None:
    by_label, to_all = PolicyRule((PolicyPeer(pods=DB),)), PolicyRule(ports=(PolicyPort(port=80),))
    by_name = PolicyRule(ports=(PolicyPort(port="http"),))
    assert asked(KubernetesPolicy("a", "p", WEB, EGRESS, (), (by_label,))) == {"a": {IS_WEB}}
    assert asked(KubernetesPolicy("a", "p", WEB, EGRESS, (), (by_name,))) == {"a": {IS_WEB}}
    assert asked(KubernetesPolicy("a", "p", WEB, EGRESS, (), (to_all,))) == {}


def test_rules_outside_policy_types_have_no_requirements() -> None:
    rule = PolicyRule((PolicyPeer(pods=DB),))
    assert asked(KubernetesPolicy("a", "p", WEB, EGRESS, (rule,), ())) == {}


def test_namespace_selectors_require_in_each_selected_namespace() -> None:
    rule = PolicyRule((PolicyPeer(pods=DB, namespaces=Selector.of({"stage": "x"})),))
    policy = KubernetesPolicy("c", "p", EVERYTHING, INGRESS, (rule,))
    assert asked(policy) == {"a": {IS_DB}, "b": {IS_DB}}


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        (Settings(), {"a"}),
        (Settings(isolation=Isolation.NONE), {"a", "b", "c"}),
        (Settings(shared_tenants=frozenset({"a"})), {"a", "b", "c"}),
        (Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="stage"), {"a", "b"}),
        (Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner"), {"a", "b", "c"}),
    ],
)
def test_separated_tenants_have_no_requirements_for_each_other(settings: Settings, places: set[str]) -> None:
    rule = PolicyRule((PolicyPeer(pods=DB, namespaces=EVERYTHING),))
    assert asked(KubernetesPolicy("a", "p", EVERYTHING, INGRESS, (rule,)), settings).keys() == places


def test_romana_policies_have_requirements_for_their_own_tenant() -> None:
    policy = RomanaPolicy("a", "p", Labels(), EVERYTHING, (RomanaRule((WEB,)),))
    assert asked(policy) == {"a": {IS_WEB}}
    by_stage = Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="stage")
    normal = normalise(policy, Cluster(settings=by_stage))
    assert not any(requirements_by_namespace([normal], NAMES).values()), "an unlabelled namespace has no tenant"


def test_a_negated_requirement_is_the_same_requirement() -> None:
    def policy(operator: Operator, *values: str) -> dict[str, frozenset[LabelRequirement]]:
        selector = Selector((Requirement("app", operator, frozenset(values)),))
        return asked(KubernetesPolicy("a", "p", WEB, INGRESS, (PolicyRule((PolicyPeer(pods=selector),)),)))

    assert policy(Operator.NOT_IN, "web") == policy(Operator.IN, "web") == {"a": {IS_WEB}}
    assert policy(Operator.DOES_NOT_EXIST) == policy(Operator.EXISTS) == {"a": {HAS_APP}}


def put(allocator: ClassAllocator, name: str, app: str = "", *, segment: int = 1) -> int:
    labels = Labels({"app": app, "name": name} if app else {"name": name})
    return allocator.assign(PodKey(f"a/{name}"), segment=segment, namespace="a", labels=labels)


def test_labels_without_requirement_make_no_classes() -> None:
    allocator = ClassAllocator()
    assert [put(allocator, "one", "web"), put(allocator, "two", "db"), put(allocator, "three")] == [identity(1, 1)] * 3


def test_a_new_requirement_splits_only_mixed_classes() -> None:
    allocator = ClassAllocator()
    for name, app in (("one", "web"), ("two", "db"), ("three", "")):
        put(allocator, name, app)
    assert allocator.set_requirements({"a": frozenset({IS_WEB})}) == {"a/one"}
    assert allocator.identity_of(PodKey("a/one")) == identity(1, 2)
    assert allocator.set_requirements({"a": frozenset({IS_WEB, HAS_APP})}) == {"a/two"}
    assert allocator.set_requirements({"a": frozenset({IS_WEB, HAS_APP, LabelRequirement("name")})}) == frozenset(), (
        "all agree"
    )
    assert {number: info.matches[HAS_APP] for number, info in allocator.classes.items()} == {
        identity(1, 1): False,
        identity(1, 2): True,
        identity(1, 3): True,
    }


def test_a_dropped_requirement_moves_no_pod() -> None:
    allocator = ClassAllocator()
    requirement = {"a": frozenset({IS_WEB})}
    allocator.set_requirements(requirement)
    numbers = [put(allocator, "one", "web"), put(allocator, "two", "db")]
    assert allocator.set_requirements({}) == frozenset()
    assert put(allocator, "three", "web") == numbers[0], "the lowest number fits now"
    assert put(allocator, "four", "db") == numbers[0]
    assert allocator.set_requirements(requirement) == {"a/one", "a/three"}, "four says no, so those who say yes leave"
    assert allocator.identity_of(PodKey("a/one")) == allocator.identity_of(PodKey("a/three"))
    assert allocator.identity_of(PodKey("a/two")) == numbers[1]


def test_a_released_class_number_is_reused_last() -> None:
    allocator = ClassAllocator()
    assert put(allocator, "one") == identity(1, 1)
    allocator.forget(PodKey("a/one"))
    assert allocator.classes == {}
    assert put(allocator, "one") == identity(1, 2)
    again = ClassAllocator.of(replace(allocator.record, next={1: CLASS_MASK}))
    assert put(again, "one") == identity(1, 2), "the restored class"
    again.set_requirements({"a": frozenset({IS_WEB})})
    assert put(again, "two", "web") == identity(1, CLASS_MASK)
    assert put(again, "three", "web", segment=2) == identity(2, 1), "every segment counts for itself"
    again.set_requirements({"a": frozenset({IS_WEB, IS_DB})})
    assert put(again, "four", "db") == identity(1, 1), "wrapped around"
    again.set_requirements({"a": frozenset({IS_WEB, IS_DB, HAS_APP})})
    assert put(again, "five", "other") == identity(1, 3), "2 is in use"


def test_a_segment_without_free_numbers_keeps_its_classes() -> None:
    entries = tuple(
        ClassEntry(identity(1, class_number), "b", frozenset(), frozenset()) for class_number in range(1, 65536)
    )
    allocator = ClassAllocator.of(ClassRecord({}, {}, entries, {}))
    with pytest.raises(AddressError, match="segment 1 has all of its 65535 classes in use"):
        put(allocator, "one")
    allocator.drop_unclaimed()
    assert put(allocator, "one") == identity(1, 1)


def test_unknown_pods_have_no_identity_and_may_be_forgotten() -> None:
    allocator = ClassAllocator()
    allocator.forget(PodKey("a/nobody"))
    with pytest.raises(KeyError):
        allocator.identity_of(PodKey("a/nobody"))


def test_restored_classes_stay_hidden_until_a_pod_claims_them() -> None:
    allocator = ClassAllocator()
    allocator.set_requirements({"a": frozenset({IS_WEB})})
    numbers = [put(allocator, "one", "web"), put(allocator, "two", "db")]
    again = ClassAllocator.of(allocator.record)
    assert put(again, "two", "db") == numbers[1]
    assert set(again.classes) == {numbers[1]}
    assert len(again.record.classes) == 2, "the other may still be claimed"
    again.drop_unclaimed()
    assert len(again.record.classes) == 1


def test_the_first_pod_decides_a_match_after_a_restart() -> None:
    allocator = ClassAllocator()
    number = put(allocator, "one", "web")
    again = ClassAllocator.of(allocator.record)
    assert again.set_requirements({"a": frozenset({IS_WEB})}) == frozenset()
    assert put(again, "one", "web") == number
    assert again.classes[number].matches == {IS_WEB: True}
    assert put(again, "two", "db") == number + 1


def test_pods_not_in_their_lowest_class_are_saved() -> None:
    allocator = ClassAllocator()
    allocator.set_requirements({"a": frozenset({IS_WEB})})
    one, two = put(allocator, "one", "web"), put(allocator, "two", "db")
    allocator.set_requirements({})
    assert allocator.record.overrides == {"a/two": two}
    again = ClassAllocator.of(allocator.record)
    assert [put(again, "two", "db"), put(again, "one", "web")] == [two, one]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"classes": {}}, "classes.classes"),
        ({"next": {"x": 1}}, "classes.next.x"),
        ({"next": {"1": 0}}, "classes.next.1"),
        ({"asked": {"a": [["app"]]}}, r"classes.asked.a\[0\]"),
        ({"asked": {"a": [["app", [1]]]}}, r"classes.asked.a\[0\]"),
        ({"pins": {"a/p": 65536}}, "classes.pins.a/p: 0x10000 is not the identity of a class"),
        ({"pins": {"a/p": "1"}}, "classes.pins.a/p"),
        ({"pins": None}, "classes.pins"),
        ({"classes": [{"identity": True, "namespace": "a", "yes": [], "no": []}]}, r"classes.classes\[0\].identity"),
        ({"classes": [{"identity": 65537, "namespace": 1, "yes": [], "no": []}]}, r"classes.classes\[0\].namespace"),
        (
            {"classes": [{"identity": 65537, "namespace": "a", "yes": [["app", None]], "no": [["app", None]]}]},
            "in yes and no",
        ),
        (
            {"classes": [{"identity": 65537, "namespace": "a", "yes": [], "no": []}] * 2},
            r"classes\[1\].identity: 0x10001 is given to two classes",
        ),
    ],
)
def test_an_invalid_file_is_refused_by_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        ClassRecord.from_json({"asked": {}, "next": {}, "classes": [], "pins": {}, **change})
