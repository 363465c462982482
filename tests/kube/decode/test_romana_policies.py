"""Romana's policies in both forms."""

from __future__ import annotations

import pytest

from romana_ovs.kube.decode.selectors import NOTHING
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import Direction, KubernetesPolicy, PolicyPort, Protocol, RomanaPolicy, RomanaRule
from romana_ovs.model.settings import Settings
from tests.support.manifests import BY_OWNER, item

HEAD = "apiVersion: romana.io/{}\nkind: NetworkPolicy\nmetadata: {{name: p, labels: {}}}\n"
FRONTEND_80 = RomanaRule((Selector.of({"tier": "frontend"}),), (PolicyPort(Protocol.TCP, 80),))
DEMO_RULES = "[{toPorts: [{port: 80, protocol: TCP}], from: [{pods: {tier: frontend}}]}]"
TODAY_RULES = "[{toPorts: [{port: 80}], from: [{pods: {matchLabels: {tier: frontend}}}]}]"
OWNED = "{owner: t1}"


def valid(text: str, settings: Settings = BY_OWNER) -> RomanaPolicy:
    found = item(text, settings)
    assert found.problems == ()
    assert isinstance(found.value, RomanaPolicy)
    return found.value


@pytest.mark.parametrize(
    "text",
    [
        HEAD.format("demo/v1", "[{owner: t1}]")
        + f"spec: {{podSelector: {{tier: backend}}}}\nallowIncoming: {DEMO_RULES}",
        HEAD.format("demo/v1", OWNED) + f"spec: {{podSelector: {{tier: backend}}, allowIncoming: {DEMO_RULES}}}",
        HEAD.format("demo/v1", OWNED)
        + "spec: {podSelector: [{tier: backend}], allowIncoming: "
        + "[{toPorts: {port: 80}, from: [{pods: [{tier: frontend}]}]}]}",
        HEAD.format("v1", OWNED)
        + f"spec: {{podSelector: {{matchLabels: {{tier: backend}}}}, allowIncoming: {TODAY_RULES}}}",
    ],
)
def test_the_policy_of_the_demonstration_in_every_form(text: str) -> None:
    backend = Selector.of({"tier": "backend"})
    assert valid(text) == RomanaPolicy("default", "p", Labels({"owner": "t1"}), backend, (FRONTEND_80,))


@pytest.mark.parametrize("rules", ["", ", allowIncoming: []", ", allowIncoming: null"])
def test_no_rules_allow_nothing(rules: str) -> None:
    assert valid(HEAD.format("v1", OWNED) + f"spec: {{podSelector: {{}}{rules}}}").rules == ()


def test_absent_parts_of_a_rule() -> None:
    found = valid(
        HEAD.format("v1", OWNED)
        + "spec:\n  podSelector: {}\n"
        + "  allowIncoming: [{}, {toPorts: [{}]}, {toPorts: [{protocol: UDP}]}, {from: [{pods: {}}]}]"
    )
    assert found.selector == EVERYTHING
    assert found.rules == (
        RomanaRule(),
        RomanaRule(ports=(PolicyPort(Protocol.TCP),)),
        RomanaRule(ports=(PolicyPort(Protocol.UDP),)),
        RomanaRule(sources=(EVERYTHING,)),
    )


def test_a_source_that_names_no_pods_matches_nothing() -> None:
    found = item(HEAD.format("v1", OWNED) + "spec: {podSelector: {}, allowIncoming: [{from: [{}]}]}", BY_OWNER)
    assert isinstance(found.value, RomanaPolicy)
    assert found.value.rules == (RomanaRule(sources=(NOTHING,)),)
    assert not NOTHING.matches({}) and not NOTHING.matches({"romana.io/nothing": ""})
    assert len(found.problems) == 1


def test_a_tenant_label_counts_only_with_tenant_source_pod_label() -> None:
    text = HEAD.format("v1", "{}") + "spec: {podSelector: {matchLabels: {a: b}}, allowIncoming: [{}]}"
    assert valid(text, Settings()).rules == (RomanaRule(),)
    found = item(text, BY_OWNER)
    assert found.value is None
    ingress = frozenset({Direction.INGRESS})
    assert found.fallback == KubernetesPolicy("default", "romana.io/p", Selector.of({"a": "b"}), ingress)


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ("{podSelector: {matchLabels: {a: b}}, allowIncoming: [{toPorts: [{port: 0}]}]}", Selector.of({"a": "b"})),
        ("{podSelector: {a: b}, allowIncoming: [{}]}", EVERYTHING),
        ("{allowIncoming: [{}]}", EVERYTHING),
        ("nothing", EVERYTHING),
    ],
)
def test_what_stands_in_for_a_broken_policy(spec: str, selector: Selector) -> None:
    found = item(HEAD.format("v1", OWNED) + f"spec: {spec}", BY_OWNER)
    assert found.value is None
    assert found.fallback == RomanaPolicy("default", "p", Labels({"owner": "t1"}), selector)
