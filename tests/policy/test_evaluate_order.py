"""The order of decision, sentence by sentence, and what the decision says of itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from romana_ovs.model.connection import PortRef
from romana_ovs.model.errors import InputError
from romana_ovs.model.labels import Selector
from romana_ovs.model.objects import RomanaRule
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy.evaluate import RuleRef, allowed, decide
from tests.support.builders import (
    ANY,
    EGRESS,
    INGRESS,
    block,
    cluster,
    namespace,
    passes,
    plain_cluster,
    pod,
    pod_label,
    pods,
    policy,
    policy_ports,
    reached,
    romana,
    rule,
    verdict,
)
from tests.support.hypothesis_profiles import examples
from tests.support.strategies import addresses_of, clusters, packets

OUTSIDE = "203.0.113.1"
TENANTS = Settings(isolation=Isolation.TENANT)
TIERS = Settings(isolation=Isolation.TIER)
DENY_ALL = policy("a/deny", directions=[INGRESS, EGRESS])


# 3. Node to its own pods, and a pod to itself: allow.


def test_a_node_and_its_own_pods_always_reach_each_other() -> None:
    found = cluster(pod("a/x", node="node1"), DENY_ALL, settings=TENANTS)
    assert passes(found, "node1", "a/x", "80/tcp")
    assert passes(found, "a/x", "node1", "icmp")
    assert verdict(found, "node1", "a/x").rules == (RuleRef("Node", "", "node1"),)


def test_another_node_is_an_outside_address() -> None:
    found = cluster(pod("a/x", node="node1"), DENY_ALL, settings=TENANTS)
    assert not passes(found, "node2", "a/x")
    assert not passes(found, "a/x", "node2")
    assert passes(found.without(DENY_ALL), "node2", "a/x")
    by_block = policy("a/node", ingress=[rule(block("172.16.0.2/32"))])
    assert passes(plain_cluster(pod("a/x"), by_block), "node2", "a/x")
    assert not passes(plain_cluster(pod("a/x"), by_block), OUTSIDE, "a/x")


def test_a_pod_that_is_not_bound_has_no_own_node() -> None:
    found = plain_cluster(pod("a/x", node=""), DENY_ALL)
    assert not passes(found, OUTSIDE, "a/x")


def test_between_ends_that_are_no_pods_nothing_here_decides() -> None:
    assert passes(plain_cluster(pod("a/x"), DENY_ALL), OUTSIDE, "node1")


# 5. Different tenants: drop, unless the isolation level is none, or the destination's tenant is shared.


@pytest.mark.parametrize(
    ("level", "expected"), [(Isolation.TIER, False), (Isolation.TENANT, False), (Isolation.NONE, True)]
)
def test_tenants_are_separate_unless_isolation_is_none(level: Isolation, expected: bool) -> None:
    found = cluster(pod("a/x"), pod("b/x"), settings=Settings(isolation=level))
    assert passes(found, "a/x", "b/x") is expected


def test_no_policy_of_a_tenant_opens_a_path_between_tenants() -> None:
    everyone = policy("a/all", ingress=[rule()], egress=[rule()])
    by_address = policy("a/any", ingress=[rule(block("0.0.0.0/0"))])
    found = cluster(pod("a/x"), pod("b/x"), everyone, by_address, settings=TENANTS)
    assert not passes(found, "b/x", "a/x")
    assert not passes(found, "a/x", "b/x")
    assert verdict(found, "b/x", "a/x").rules == (RuleRef("Tenant", "", "a"),)
    assert passes(found, OUTSIDE, "a/x")


def test_shared_tenants_are_destinations_but_no_sources() -> None:
    found = cluster(pod("kube-system/dns", tier="dns"), pod("a/x", tier="front"), settings=TENANTS)
    for level in (TENANTS, TIERS):
        again = cluster(*found.pods.values(), settings=level)
        assert passes(again, "a/x", "kube-system/dns", "53/udp")
        assert not passes(again, "kube-system/dns", "a/x")
    closed = found.with_object(policy("kube-system/dns", ingress=[rule(ports="53/udp")]))
    assert reached(closed, "a/x", "kube-system/dns", "53/udp", "53/tcp") == "53/udp"
    assert not passes(found.with_object(DENY_ALL), "a/x", "kube-system/dns", "53/udp")


def test_a_shared_tenants_other_tiers_may_connect_to_it_too() -> None:
    settings = Settings(isolation=Isolation.TIER, shared_tenants=frozenset({"a"}))
    found = cluster(pod("a/x", tier="1"), pod("a/y", tier="2"), pod("b/x"), pod("b/y", tier="2"), settings=settings)
    assert passes(found, "a/x", "a/y")
    assert passes(found, "b/x", "a/y")
    assert not passes(found, "b/x", "b/y")


def test_a_pod_without_a_tenant_talks_with_its_own_node_only() -> None:
    found = cluster(
        pod("a/lost", node="node1"), pod("a/lost2"), pod("a/x", owner="t1"), pod("a/dns", owner="shared"),
        settings=Settings(Isolation.TIER, TenantSource.POD_LABEL, "owner", frozenset({"shared"})),
    )  # fmt: skip
    for other in ("a/lost2", "a/x", "a/dns", OUTSIDE, "node2"):
        assert not passes(found, "a/lost", other)
        assert not passes(found, other, "a/lost")
    assert passes(found, "a/lost", "node1")
    assert passes(found, "node1", "a/lost")
    assert passes(found, "a/lost", "a/lost")
    opened = found.with_object(policy("a/all", ingress=[rule()], egress=[rule()]))
    assert not passes(opened, OUTSIDE, "a/lost")


def test_without_isolation_a_pod_needs_no_tenant() -> None:
    found = cluster(pod("a/lost"), pod("b/x", owner="t1"), settings=pod_label(isolation=Isolation.NONE))
    assert passes(found, "a/lost", "b/x")
    assert passes(found, "b/x", "a/lost")
    assert passes(found, "a/lost", OUTSIDE)


def test_tenants_from_namespace_labels() -> None:
    settings = Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="team")
    found = cluster(
        pod("a/x", team="blue"), pod("b/x"), pod("c/x"), pod("d/x"),
        namespace("a", team="red"), namespace("b", team="red"), namespace("c", team="blue"), settings=settings,
    )  # fmt: skip
    assert passes(found, "a/x", "b/x")
    assert not passes(found, "a/x", "c/x")
    assert not passes(found, "a/x", "d/x")
    assert not passes(found, "d/x", OUTSIDE)


def test_a_kubernetes_policy_selects_pods_of_every_tenant() -> None:
    found = cluster(
        pod("a/x", owner="t1"), pod("a/y", owner="t1"), pod("a/z", owner="t2"), pod("a/u", owner="t2"),
        policy("a/in", ingress=[rule(pods())]), settings=pod_label(isolation=Isolation.TENANT),
    )  # fmt: skip
    assert passes(found, "a/x", "a/y")
    assert passes(found, "a/u", "a/z")
    assert not passes(found, "a/x", "a/z")
    assert not passes(found, OUTSIDE, "a/z")


# 6. Network policies, and Romana's own.


def test_a_direction_in_which_no_policy_selects_is_open() -> None:
    incoming = cluster(pod("a/x"), pod("a/y"), policy("a/in"), settings=TENANTS)
    assert passes(incoming, "a/x", OUTSIDE)
    assert not passes(incoming, OUTSIDE, "a/x")
    outgoing = cluster(pod("a/x"), policy("a/out", directions=[EGRESS]), settings=TENANTS)
    assert not passes(outgoing, "a/x", OUTSIDE)
    assert passes(outgoing, OUTSIDE, "a/x")


def test_policies_select_in_their_own_namespace_only() -> None:
    found = plain_cluster(pod("a/x"), pod("b/x"), policy("b/deny"))
    assert passes(found, "b/x", "a/x")
    assert not passes(found, "a/x", "b/x")


FRONT = RomanaRule((Selector.of({"tier": "front"}),), policy_ports("80/tcp"))
TEAM = (
    pod("a/front", owner="t1", tier="front"), pod("b/front", owner="t1", tier="front"),
    pod("a/back", owner="t1", tier="back"), pod("a/other", owner="t2", tier="front"),
    pod("a/other-back", owner="t2", tier="back"), pod("b/back", owner="t1", tier="back"),
)  # fmt: skip
BACK = Selector.of({"tier": "back"})


def test_a_romana_policy_speaks_for_its_tenant_in_its_namespace() -> None:
    found = cluster(*TEAM, romana("a/p", BACK, FRONT, owner="t1"), settings=pod_label())
    assert reached(found, "a/front", "a/back", "80/tcp", "81/tcp", "80/udp", "icmp") == "80/tcp"
    assert passes(found, "b/front", "a/back"), "pods of the same tenant in any namespace"
    assert not passes(found, "a/front", "b/back"), "it selects in its own namespace only"
    assert not passes(found, "a/other", "a/back")
    assert not passes(found, OUTSIDE, "a/back")
    assert passes(found, OUTSIDE, "a/other-back"), "another tenant's pods are not selected"
    assert verdict(found, "a/front", "a/back").rules == (RuleRef("RomanaNetworkPolicy", "a", "p", "allowIncoming[0]"),)


def test_a_romana_policy_is_its_tenants_without_isolation_too() -> None:
    found = cluster(*TEAM, romana("a/p", BACK, FRONT, owner="t1"), settings=pod_label(isolation=Isolation.NONE))
    assert passes(found, "b/front", "a/back")
    assert not passes(found, "a/other", "a/back")
    assert passes(found, "a/other", "a/other-back", "81/tcp")


def test_a_romana_policy_does_not_isolate_egress() -> None:
    found = cluster(*TEAM, romana("a/p", BACK, owner="t1"), settings=pod_label())
    assert not passes(found, "a/front", "a/back")
    assert passes(found, "a/back", OUTSIDE)


@pytest.mark.parametrize(
    ("given_rule", "expected"),
    [
        (RomanaRule(), "a/front b/front 203.0.113.1"),
        (RomanaRule((ANY,)), "a/front b/front"),
        (RomanaRule((Selector.of({"tier": "nobody"}), Selector.of({"tier": "front"}))), "a/front b/front"),
        (RomanaRule((Selector.of({"tier": "nobody"}),)), ""),
    ],
)
def test_absent_from_is_any_source(given_rule: RomanaRule, expected: str) -> None:
    found = cluster(*TEAM, romana("a/p", BACK, given_rule, owner="t1"), settings=pod_label())
    sources = ("a/front", "b/front", "a/other", OUTSIDE)
    assert " ".join(each for each in sources if passes(found, each, "a/back", "icmp")) == expected


def test_a_romana_policy_without_tenant_admits_nothing() -> None:
    found = cluster(*TEAM, romana("a/p", BACK, RomanaRule(), tenant="t1"), settings=pod_label())
    for source in ("a/front", OUTSIDE, "a/other"):
        assert not passes(found, source, "a/back")
        assert not passes(found, source, "a/other-back")
    assert passes(found, "node1", "a/back")
    assert passes(found, OUTSIDE, "b/back")


def test_a_romana_policys_tenant_is_otherwise_its_namespaces() -> None:
    found = cluster(pod("a/x", tier="front"), pod("a/y", tier="back"), romana("a/p", BACK, FRONT), settings=TIERS)
    assert reached(found, "a/x", "a/y", "80/tcp", "81/tcp") == "80/tcp"


def test_both_kinds_of_policy_unite() -> None:
    found = cluster(
        *TEAM, romana("a/p", BACK, FRONT, owner="t1"), policy("a/k", BACK, ingress=[rule(ports="81/tcp")]),
        settings=pod_label(),
    )  # fmt: skip
    assert reached(found, "a/front", "a/back", "80/tcp", "81/tcp", "82/tcp") == "80/tcp 81/tcp"
    assert reached(found, OUTSIDE, "a/back", "80/tcp", "81/tcp") == "81/tcp"


# 7. The isolation level, for ingress from other pods.


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        (Isolation.TIER, ["a/same"]),
        (Isolation.TENANT, ["a/same", "a/tier"]),
        (Isolation.NONE, ["a/same", "a/tier", "b/x"]),
    ],
)
def test_the_isolation_level_where_no_policy_selects(level: Isolation, expected: list[str]) -> None:
    found = cluster(
        pod("a/x", tier="1"), pod("a/same", tier="1"), pod("a/tier", tier="2"), pod("b/x", tier="1"),
        settings=Settings(isolation=level),
    )  # fmt: skip
    assert [each for each in ("a/same", "a/tier", "b/x") if passes(found, each, "a/x")] == expected
    assert passes(found, OUTSIDE, "a/x"), "outside addresses have no tenant"
    assert passes(found, "a/x", OUTSIDE)
    assert verdict(found, "a/same", "a/x").rules == (RuleRef("Isolation", "", level.value),)


def test_a_policy_replaces_the_isolation_level() -> None:
    found = cluster(pod("a/x", tier="1"), pod("a/y", tier="2"), policy("a/in", ingress=[rule(pods())]), settings=TIERS)
    assert passes(found, "a/x", "a/y")
    out = policy("a/out", egress=[rule()], directions=[EGRESS])
    egress_only = cluster(pod("a/x", tier="1"), pod("a/y", tier="2"), out, settings=TIERS)
    assert not passes(egress_only, "a/x", "a/y")


# What a decision says.


def test_reasons_are_sentences_that_name_the_rule() -> None:
    found = plain_cluster(
        pod("a/x"), pod("a/y", app="y"), policy("a/p", Selector.of({"app": "y"}), ingress=[rule(ports="80/tcp")])
    )
    assert verdict(found, "a/x", "a/y").reason == (
        "a/x -> a/y 80/tcp is allowed: ingress[0] of NetworkPolicy a/p lets it in."
    )
    assert verdict(found, "a/x", "a/y", "81/tcp").reason == (
        "a/x -> a/y 81/tcp is dropped: NetworkPolicy a/p selects a/y for ingress and has no rule that admits it."
    )
    assert verdict(found, "a/x", "a/y", "81/tcp").rules == (RuleRef("NetworkPolicy", "a", "p"),)


def test_a_denial_by_both_sides_names_both() -> None:
    out, into = policy("a/out", directions=[EGRESS]), policy("a/in", directions=[INGRESS])
    found = plain_cluster(pod("a/x"), pod("a/y"), out, into)
    assert [ref.name for ref in verdict(found, "a/x", "a/y").rules] == ["out", "in"]


def test_every_rule_that_admits_is_named() -> None:
    found = plain_cluster(
        pod("a/x"), pod("a/y"), policy("a/p", ingress=[rule(pods()), rule(ports="81/tcp"), rule()]), policy("a/q")
    )
    assert [ref.rule for ref in verdict(found, "a/x", "a/y").rules] == ["ingress[0]", "ingress[2]"]


def test_an_unknown_pod_is_an_input_error() -> None:
    with pytest.raises(InputError, match="there is no pod a/nobody"):
        verdict(plain_cluster(pod("a/x")), "a/nobody", "a/x")


@pytest.mark.parametrize("text", ["80/tcp", "1/udp", "65535/sctp", "icmp", "proto 47"])
def test_ports_read_back_as_written(text: str) -> None:
    assert str(PortRef.parse(text)) == text


def test_a_port_without_protocol_is_tcp() -> None:
    assert str(PortRef.parse("80")) == "80/tcp"


@pytest.mark.parametrize(
    "text", ["", "0/tcp", "65536/tcp", "80/", "80/icmp", "http/tcp", "tcp/80", "-1/udp", "proto 6", "٣/tcp"]
)
def test_an_invalid_port_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a port"):
        PortRef.parse(text)


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_reason_and_answer_agree(data: st.DataObject) -> None:
    found = data.draw(clusters())
    known = addresses_of(found)
    for connection in data.draw(st.lists(packets(found), min_size=3, max_size=6)):
        decision = decide(found, known, connection)
        assert decision.allowed is allowed(found, known, connection)
        assert decision.reason.startswith(f"{connection} is {'allowed' if decision.allowed else 'dropped'}: ")
        assert decision.reason.endswith(".")
