"""networking.k8s.io/v1 policies: every form, nil told from empty, defaults, and what stands in for broken ones."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from romana_ovs.model.labels import EVERYTHING, Operator, Requirement, Selector
from romana_ovs.model.objects import (
    Direction,
    IpBlock,
    KubernetesPolicy,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
)
from tests.support.manifests import item, policy

INGRESS, EGRESS = Direction.INGRESS, Direction.EGRESS


def valid(spec: str) -> KubernetesPolicy:
    found = item(policy(spec))
    assert found.problems == ()
    assert isinstance(found.value, KubernetesPolicy)
    return found.value


def fallback(spec: str) -> KubernetesPolicy:
    found = item(policy(spec))
    assert found.value is None
    assert isinstance(found.fallback, KubernetesPolicy)
    assert (found.fallback.ingress, found.fallback.egress) == ((), ())
    return found.fallback


def test_the_example_of_the_kubernetes_documentation() -> None:
    """https://kubernetes.io/docs/concepts/services-networking/network-policies/, its first manifest's facts."""
    found = valid(
        """
        podSelector: {matchLabels: {role: db}}
        policyTypes: [Ingress, Egress]
        ingress:
        - from:
          - ipBlock: {cidr: 172.17.0.0/16, except: [172.17.1.0/24]}
          - namespaceSelector: {matchLabels: {project: myproject}}
          - podSelector: {matchLabels: {role: frontend}}
          ports: [{protocol: TCP, port: 6379}]
        egress:
        - to: [{ipBlock: {cidr: 10.0.0.0/24}}]
          ports: [{protocol: TCP, port: 5978}]
        """
    )
    assert found.selector == Selector.of({"role": "db"})
    assert found.directions == {INGRESS, EGRESS}
    block = IpBlock(IPv4Network("172.17.0.0/16"), (IPv4Network("172.17.1.0/24"),))
    assert found.ingress == (
        PolicyRule(
            peers=(
                PolicyPeer(ip_block=block),
                PolicyPeer(namespaces=Selector.of({"project": "myproject"})),
                PolicyPeer(pods=Selector.of({"role": "frontend"})),
            ),
            ports=(PolicyPort(Protocol.TCP, 6379),),
        ),
    )
    assert found.egress[0].ports == (PolicyPort(Protocol.TCP, 5978),)


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("podSelector: {}", {INGRESS}),
        ("podSelector: {}\npolicyTypes: []", {INGRESS}),
        ("podSelector: {}\negress: []", {INGRESS}),
        ("podSelector: {}\negress: [{}]", {INGRESS, EGRESS}),
        ("podSelector: {}\npolicyTypes: [Egress]\ningress: [{}]", {EGRESS}),
        ("podSelector: {}\npolicyTypes: [Ingress]\negress: [{}]", {INGRESS}),
        ("podSelector: {}\npolicyTypes: [Ingress, Egress]", {INGRESS, EGRESS}),
    ],
)
def test_directions_have_defaults(spec: str, directions: set[Direction]) -> None:
    assert valid(spec).directions == directions


def test_nil_is_not_empty() -> None:
    assert valid("podSelector:").selector == EVERYTHING
    assert valid("podSelector: {}").selector == EVERYTHING
    assert valid("podSelector: {}\ningress: []").ingress == ()
    assert valid("podSelector: {}\ningress:").ingress == ()
    assert valid("podSelector: {}\ningress: [{}]").ingress == (PolicyRule(),)
    assert valid("podSelector: {}\ningress: [{from: [], ports: []}]").ingress == (PolicyRule(),)
    (rule,) = valid(
        """
        podSelector: {}
        ingress:
        - from:
          - podSelector: {}
          - namespaceSelector: {}
          - podSelector: {}
            namespaceSelector:
          - podSelector:
            namespaceSelector: {}
        """
    ).ingress
    own, everywhere = PolicyPeer(pods=EVERYTHING), PolicyPeer(namespaces=EVERYTHING)
    assert rule.peers == (own, everywhere, own, everywhere)


def test_an_empty_peer_is_a_problem_and_matches_nothing() -> None:
    found = item(policy("podSelector: {}\ningress: [{from: [{}, {podSelector: {}}]}]"))
    assert isinstance(found.value, KubernetesPolicy)
    assert found.value.ingress == (PolicyRule(peers=(PolicyPeer(), PolicyPeer(pods=EVERYTHING))),)
    assert [problem.field for problem in found.problems] == ["spec.ingress[0].from[0]"]


def test_ports() -> None:
    (rule,) = valid(
        """
        podSelector: {}
        ingress:
        - ports: [{port: 80}, {protocol: UDP}, {}, {port: http, protocol: SCTP}, {port: 1, endPort: 65535}]
        """
    ).ingress
    assert rule.ports == (
        PolicyPort(Protocol.TCP, 80),
        PolicyPort(Protocol.UDP),
        PolicyPort(Protocol.TCP),
        PolicyPort(Protocol.SCTP, "http"),
        PolicyPort(Protocol.TCP, 1, 65535),
    )


def test_host_bits_of_blocks_are_masked_and_ipv6_matches_nothing() -> None:
    (rule,) = valid(
        """
        podSelector: {}
        ingress:
        - from:
          - ipBlock: {cidr: 10.1.2.3/8, except: [10.1.2.3/16]}
          - ipBlock: {cidr: "2001:db8::/32", except: ["2001:db8:1::/48"]}
        """
    ).ingress
    assert rule.peers == (
        PolicyPeer(ip_block=IpBlock(IPv4Network("10.0.0.0/8"), (IPv4Network("10.1.0.0/16"),))),
        PolicyPeer(),
    )


def test_expressions() -> None:
    found = valid(
        """
        podSelector:
          matchLabels: {b: x, a: "y"}
          matchExpressions:
          - {key: c, operator: In, values: [u, v]}
          - {key: d, operator: NotIn, values: [w]}
          - {key: e.example/f, operator: Exists}
          - {key: g, operator: DoesNotExist, values: []}
        """
    ).selector
    assert found.requirements == (
        Requirement("a", Operator.IN, frozenset({"y"})),
        Requirement("b", Operator.IN, frozenset({"x"})),
        Requirement("c", Operator.IN, frozenset({"u", "v"})),
        Requirement("d", Operator.NOT_IN, frozenset({"w"})),
        Requirement("e.example/f", Operator.EXISTS),
        Requirement("g", Operator.DOES_NOT_EXIST),
    )
    assert found.matches({"a": "y", "b": "x", "c": "u", "e.example/f": ""})


BAD_RULE = "ingress: [{ports: [{port: 99999}]}]"


@pytest.mark.parametrize(
    ("spec", "selector", "directions"),
    [
        (f"podSelector: {{matchLabels: {{a: b}}}}\n{BAD_RULE}", Selector.of({"a": "b"}), {INGRESS}),
        (
            f"podSelector: {{matchLabels: {{a: b}}}}\npolicyTypes: [Egress]\n{BAD_RULE}",
            Selector.of({"a": "b"}),
            {EGRESS},
        ),
        (f"podSelector: {{matchLabels: {{a: b c}}}}\n{BAD_RULE}", EVERYTHING, {INGRESS}),
        ("podSelector: {matchLabels: {a: b}}\npolicyTypes: [Inwards]", Selector.of({"a": "b"}), {INGRESS, EGRESS}),
        ("podSelector: {matchLabels: {a: b}}\negress: all", Selector.of({"a": "b"}), {INGRESS, EGRESS}),
        ("podSelecter: {matchLabels: {a: b}}", EVERYTHING, {INGRESS, EGRESS}),
        ("podSelector: {matchLabels: {a: b}}\negres: []", Selector.of({"a": "b"}), {INGRESS, EGRESS}),
        ("podSelector: {matchLabels: {a: b}}\npodSelector: {matchLabels: {a: c}}", EVERYTHING, {INGRESS}),
    ],
)
def test_what_stands_in_for_a_broken_policy(spec: str, selector: Selector, directions: set[Direction]) -> None:
    found = fallback(spec)
    assert found.selector == selector
    assert found.directions == directions


def test_a_policy_without_a_name_isolates_under_a_unique_one() -> None:
    found = item(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: x}\nspec: {podSelector: {}}"
    )
    assert found.id is None
    assert found.fallback is not None
    assert (found.fallback.namespace, "#" in found.fallback.name) == ("x", True)
