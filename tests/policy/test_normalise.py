"""The normal form by example (docs/hazards.md A7, A8, A10, A11, A13 to A16)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.cluster import Cluster
from romana_ovs.model.labels import EVERYTHING, Labels, Selector
from romana_ovs.model.objects import (
    Direction,
    IpBlock,
    KubernetesPolicy,
    Namespace,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Settings, TenantSource
from romana_ovs.policy.normalise import merged_ports, normalise, remaining
from romana_ovs.policy.rules import NamedPort, NormalPolicy, NormalRule, PortRange, Scope

INGRESS, EGRESS, BOTH = ({Direction.INGRESS}, {Direction.EGRESS}, set(Direction))
WEB, STAGE = Selector.of({"app": "web"}), Selector.of({"stage": "x"})
NET = IPv4Network
TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP


def kubernetes(
    *rules: PolicyRule, directions: set[Direction] = INGRESS, egress: tuple[PolicyRule, ...] = ()
) -> NormalPolicy:
    return normalise(KubernetesPolicy("ns", "p", WEB, frozenset(directions), rules, egress), Cluster())


def only_rule(*peers: PolicyPeer, ports: tuple[PolicyPort, ...] = ()) -> NormalRule:
    (rule,) = kubernetes(PolicyRule(peers, ports)).rules
    return rule


def test_a_policy_selects_in_its_own_namespace() -> None:
    policy = kubernetes()
    assert policy.subject == Scope(namespace="ns", pods=WEB)
    assert (policy.directions, policy.rules) == (frozenset({Direction.INGRESS}), ())


@pytest.mark.parametrize(
    ("peer", "scopes"),
    [
        (PolicyPeer(pods=WEB), (Scope(namespace="ns", pods=WEB),)),
        (PolicyPeer(pods=EVERYTHING), (Scope(namespace="ns"),)),
        (PolicyPeer(namespaces=EVERYTHING), (Scope(),)),
        (PolicyPeer(namespaces=STAGE), (Scope(namespaces=STAGE),)),
        (PolicyPeer(pods=WEB, namespaces=STAGE), (Scope(namespaces=STAGE, pods=WEB),)),
        (PolicyPeer(), ()),
        (PolicyPeer(pods=WEB, ip_block=IpBlock(NET("10.0.0.0/8"))), ()),
    ],
)
def test_absent_and_empty_selectors_are_two_things(peer: PolicyPeer, scopes: tuple[Scope, ...]) -> None:
    rule = only_rule(peer)
    assert (rule.scopes, rule.any_peer, rule.cidrs) == (scopes, False, ())


def test_peers_are_alternatives_and_none_is_everybody() -> None:
    both = only_rule(PolicyPeer(pods=WEB), PolicyPeer(namespaces=STAGE), PolicyPeer(pods=WEB))
    assert both.scopes == (Scope(namespace="ns", pods=WEB), Scope(namespaces=STAGE))
    assert only_rule() == NormalRule(Direction.INGRESS, 0, any_peer=True)


def test_exceptions_are_taken_from_their_own_block_only() -> None:
    holed = PolicyPeer(ip_block=IpBlock(NET("10.1.0.0/24"), (NET("10.1.0.0/25"), NET("10.1.0.128/26"))))
    other = PolicyPeer(ip_block=IpBlock(NET("10.1.0.5/32")))
    assert only_rule(holed).cidrs == (NET("10.1.0.192/26"),)
    assert only_rule(holed, other).cidrs == (NET("10.1.0.5/32"), NET("10.1.0.192/26"))


def test_a_block_of_exceptions_only_admits_nobody() -> None:
    rule = only_rule(PolicyPeer(ip_block=IpBlock(NET("10.1.0.0/24"), (NET("10.0.0.0/8"),))))
    assert (rule.cidrs, rule.any_peer, rule.scopes) == ((), False, ())


networks = st.builds(
    lambda offset, length: NET((int(IPv4Address("10.0.0.0")) + offset, length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)


@given(networks, st.lists(networks, max_size=4))
def test_remaining_networks_are_exact(cidr: IPv4Network, excepts: list[IPv4Network]) -> None:
    found = remaining(IpBlock(cidr, tuple(excepts)))
    for address in NET("10.0.0.0/24"):
        wanted = address in cidr and not any(address in hole for hole in excepts)
        assert sum(address in network for network in found) == wanted


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ((), None),
        ((PolicyPort(),), (PortRange(TCP, 0, 65535),)),
        ((PolicyPort(UDP),), (PortRange(UDP, 0, 65535),)),
        ((PolicyPort(port=80),), (PortRange(TCP, 80, 80),)),
        ((PolicyPort(SCTP, 81),), (PortRange(SCTP, 81, 81),)),
        ((PolicyPort(port=80, end=90),), (PortRange(TCP, 80, 90),)),
        ((PolicyPort(port=90, end=80),), ()),
        ((PolicyPort(end=80),), ()),
        ((PolicyPort(port="http", end=80),), ()),
        ((PolicyPort(port="http"), PolicyPort(port=80)), (PortRange(TCP, 80, 80), NamedPort(TCP, "http"))),
        (
            (PolicyPort(port=81), PolicyPort(port=80), PolicyPort(UDP, 80)),
            (PortRange(TCP, 80, 81), PortRange(UDP, 80, 80)),
        ),
    ],
)
def test_ports(ports: tuple[PolicyPort, ...], expected: tuple[PortRange | NamedPort, ...] | None) -> None:
    assert only_rule(ports=ports).ports == expected


@given(
    st.lists(
        st.builds(
            lambda p, low, size: PortRange(p, low, low + size),
            st.sampled_from(Protocol),
            st.integers(0, 30),
            st.integers(0, 9),
        )
    )
)
def test_merged_ports_are_the_same_ports_apart_from_each_other(ports: list[PortRange]) -> None:
    def covered(ranges: list[PortRange]) -> set[tuple[Protocol, int]]:
        return {(each.protocol, port) for each in ranges for port in range(each.low, each.high + 1)}

    merged = list(merged_ports(ports))
    assert covered(merged) == covered(ports)
    for one, two in zip(merged, merged[1:], strict=False):
        assert one.protocol is not two.protocol or one.high + 1 < two.low


@pytest.mark.parametrize(
    ("directions", "rules"), [(INGRESS, ["Ingress"]), (EGRESS, ["Egress"]), (BOTH, ["Ingress", "Egress"])]
)
def test_policy_types_decide_which_rules_count(directions: set[Direction], rules: list[str]) -> None:
    policy = kubernetes(PolicyRule(), egress=(PolicyRule(),), directions=directions)
    assert [rule.direction.value for rule in policy.rules] == rules
    assert policy.directions == directions


def romana(settings: Settings, **labels: str) -> NormalPolicy:
    policy = RomanaPolicy("ns", "p", Labels(labels), WEB, (RomanaRule((STAGE,)), RomanaRule(ports=(PolicyPort(),))))
    cluster = Cluster(settings=settings).with_object(Namespace("ns", Labels({"team": "t2"})))
    return normalise(policy, cluster)


@pytest.mark.parametrize(
    ("settings", "tenant", "source"),
    [
        (Settings(), "ns", Scope(namespace="ns", pods=STAGE, tenant="ns")),
        (
            Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="team"),
            "t2",
            Scope(namespaces=Selector.of({"team": "t2"}), pods=STAGE, tenant="t2"),
        ),
        (Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner"), "t1", Scope(pods=STAGE, tenant="t1")),
    ],
)
def test_romana_policies_speak_for_one_tenant(settings: Settings, tenant: str, source: Scope) -> None:
    policy = romana(settings, owner="t1")
    assert policy.subject == Scope(namespace="ns", pods=WEB, tenant=tenant)
    assert policy.directions == {Direction.INGRESS}
    assert policy.rules == (
        NormalRule(Direction.INGRESS, 0, scopes=(source,)),
        NormalRule(Direction.INGRESS, 1, any_peer=True, ports=(PortRange(TCP, 0, 65535),)),
    )


def test_a_romana_policy_without_tenant_selects_every_tenant() -> None:
    policy = romana(Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner"))
    assert policy.subject == Scope(namespace="ns", pods=WEB)
    assert (policy.directions, policy.rules) == (frozenset({Direction.INGRESS}), ())
