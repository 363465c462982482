"""NodePermissions by example: groups, peers compressed to segments and tenants, ports, tenancy.

See docs/hazards.md A6, A12, A14, B19.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from romana_ovs.model.cluster import Cluster, SegmentKey
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, identity, whole_segments
from romana_ovs.model.labels import EVERYTHING, Labels, Operator, Requirement, Selector
from romana_ovs.model.objects import (
    NAME_LABEL,
    ContainerPort,
    IpBlock,
    PodKey,
    PolicyPeer,
    PolicyPort,
    PolicyRule,
    Protocol,
    RomanaPolicy,
    RomanaRule,
)
from romana_ovs.model.settings import Isolation, Settings, TenantSource
from romana_ovs.policy import groups
from romana_ovs.policy.normalise import normalise
from romana_ovs.policy.peers import EVERY_POD
from romana_ovs.policy.resolve import resolve
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import (
    Allow,
    ClassInfo,
    ClientGroup,
    Origin,
    ServerGroup,
    TenantAllow,
)
from tests.policy.node_views import IN, OUT, WEB, client, from_pods, local_pod, normal_policy, server, view

TCP, UDP = Protocol.TCP, Protocol.UDP


def peers_of(
    rule: PolicyRule, *, of: str = "a/x", settings: Settings | None = None
) -> AbstractSet[IdentityMatch] | None:
    """The identities that an ingress rule means for a server; the empty set when it means nobody."""
    namespace = of.partition("/")[0]
    found = normal_policy(f"{namespace}/p", rule, settings=settings)
    permissions = resolve(view(local_pod(of), policies=(found,), settings=settings))
    allows = server(permissions, of).ingress
    return allows[0].identities if allows else frozenset()


def test_a_label_selector_matches_classes_of_the_tenant() -> None:
    assert peers_of(from_pods(WEB)) == {IdentityMatch(identity(number, 2)) for number in (16, 17, 18)}


def test_a_whole_tenant_is_its_runs() -> None:
    assert peers_of(from_pods()) == {whole_segments(16, 4)}
    assert peers_of(from_pods(namespaces=EVERYTHING)) == {whole_segments(16, 4)}
    assert peers_of(from_pods(namespaces=Selector.of({NAME_LABEL: "a"}))) == {whole_segments(16, 4)}


def test_a_tier_is_its_segment_whatever_classes_there_are() -> None:
    assert peers_of(from_pods(Selector.of({"tier": "front"}))) == {whole_segments(16, 1)}
    not_back = Selector((Requirement("tier", Operator.NOT_IN, frozenset({"back"})),))
    # The default tier may hold pods that say `tier: default` or nothing: only their classes tell.
    assert peers_of(from_pods(not_back)) == {whole_segments(16, 1)}
    both = Selector((*Selector.of({"tier": "front"}).requirements, *WEB.requirements))
    assert peers_of(from_pods(both)) == {IdentityMatch(identity(16, 2))}


def test_several_tier_labels_are_known_one_by_one() -> None:
    settings = Settings(tier_labels=("tier", "app"))
    numbers = {SegmentKey("a", "front/-"): 16, SegmentKey("a", "front/web"): 17, SegmentKey("a", "-/web"): 18}

    def found(pods: Selector) -> frozenset[IdentityMatch] | None:
        rule = normal_policy("a/p", from_pods(pods))
        resolved = resolve(view(local_pod("a/x"), policies=(rule,), settings=settings, segments=numbers))
        return server(resolved, "a/x").ingress[0].identities

    assert found(Selector.of({"tier": "front"})) == frozenset({whole_segments(16, 1), whole_segments(17, 1)})
    # Segment 16 has no app or an empty one: that it is not `web` is for its classes to say.
    assert found(WEB) == frozenset({whole_segments(17, 1), whole_segments(18, 1), IdentityMatch(identity(16, 2))})


def test_the_tenant_decides_requirements_on_the_tenants_label() -> None:
    settings = Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner", isolation=Isolation.NONE)
    owned = from_pods(Selector.of({"owner": "b"}), EVERYTHING)
    assert peers_of(owned, settings=settings) == {whole_segments(32, 1)}
    assert peers_of(from_pods(Selector.of({"owner": "b"})), settings=settings) == frozenset(), "no pod of b is in a"


def test_a_scope_of_one_tenant_names_that_tenant_only() -> None:
    settings = Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner", isolation=Isolation.NONE)
    owned = Cluster(settings=settings)
    found = normalise(RomanaPolicy("a", "p", Labels({"owner": "a"}), EVERYTHING, (RomanaRule((WEB,)),)), owned)
    permissions = resolve(view(local_pod("a/x"), policies=(found,), settings=settings))
    expected = frozenset(IdentityMatch(identity(number, 2)) for number in (16, 17, 18))
    assert server(permissions, "a/x").ingress[0].identities == expected


def test_classes_distinguish_namespaces_of_one_tenant() -> None:
    settings = Settings(tenant_source=TenantSource.NAMESPACE_LABEL, tenant_key="team")
    namespaces = {name: Labels({"team": "a", "stage": stage}) for name, stage in (("a", "x"), ("a2", "y"))}
    classes = {identity(16, 1): ClassInfo("a", {}), identity(16, 2): ClassInfo("a2", {})}

    def found(selector: Selector) -> frozenset[IdentityMatch] | None:
        rule = normal_policy("a/p", from_pods(namespaces=selector))
        made = view(local_pod("a/x"), policies=(rule,), settings=settings, namespaces=namespaces, classes=classes)
        return server(resolve(made), "a/x").ingress[0].identities

    assert found(Selector.of({"stage": "x"})) == frozenset({IdentityMatch(identity(16, 1))})
    assert found(Selector.of({"team": "a"})) == frozenset({whole_segments(16, 4)})


@pytest.mark.parametrize(
    ("of", "settings"), [("a/x", Settings(isolation=Isolation.NONE)), ("kube-system/x", Settings())]
)
def test_where_tenants_do_not_separate_every_pod_is_one_match(of: str, settings: Settings) -> None:
    assert peers_of(from_pods(namespaces=EVERYTHING), of=of, settings=settings) == {EVERY_POD}
    assert not EVERY_POD.covers(NOT_A_POD.value)
    other = from_pods(namespaces=Selector.of({NAME_LABEL: "b"}))
    assert peers_of(other, of=of, settings=settings) == {whole_segments(32, 1)}


def test_isolation_leaves_other_tenants_out_of_peers() -> None:
    assert peers_of(from_pods(WEB, Selector.of({NAME_LABEL: "b"}))) == frozenset()


def test_an_unknown_match_of_a_class_does_not_match() -> None:
    absent = Selector((Requirement("app", Operator.DOES_NOT_EXIST),))
    assert peers_of(from_pods(absent)) == frozenset()


def test_a_rule_without_matches_isolates() -> None:
    found = resolve(view(local_pod("a/x"), policies=(normal_policy("a/p", PolicyRule((PolicyPeer(),))),)))
    assert server(found, "a/x").ingress == ()


def test_named_ports_are_those_of_the_server_and_of_the_protocol() -> None:
    ports = (ContainerPort(8080, TCP, "http"), ContainerPort(9090, TCP, "http"), ContainerPort(53, UDP, "http"))
    rule = PolicyRule(ports=(PolicyPort(port="http"), PolicyPort(port=80)))
    found = resolve(view(local_pod("a/x", ports=ports), local_pod("a/y"), policies=(normal_policy("a/p", rule),)))
    assert server(found, "a/x").ingress[0].ports == tuple(PortRange(TCP, port, port) for port in (80, 8080, 9090))
    assert server(found, "a/y").ingress[0].ports == (PortRange(TCP, 80, 80),)
    nobody = resolve(
        view(local_pod("a/x"), policies=(normal_policy("a/p", PolicyRule(ports=(PolicyPort(port="http"),))),))
    )
    assert server(nobody, "a/x").ingress == ()


@pytest.mark.parametrize(
    ("settings", "of", "expected"),
    [
        (Settings(isolation=Isolation.TIER), "a/x", frozenset({whole_segments(16, 1), NOT_A_POD})),
        (Settings(isolation=Isolation.TIER), "kube-system/x", None),
        (Settings(), "a/x", None),
        (Settings(isolation=Isolation.NONE), "a/x", None),
    ],
)
def test_the_isolation_level_is_a_permission(settings: Settings, of: str, expected: frozenset[Any] | None) -> None:
    found = server(resolve(view(local_pod(of, tier="front"), settings=settings)), of)
    level = Origin("Isolation", name=settings.isolation.value)
    assert found == ServerGroup(found.number, (Allow(level, expected),), ())


def test_the_clients_node_decides_what_it_can_alone() -> None:
    block = PolicyRule((PolicyPeer(ip_block=IpBlock(IPv4Network("10.0.0.0/8"))),), (PolicyPort(port=80),))
    found = resolve(
        view(local_pod("a/x"), policies=(normal_policy("a/p", egress=(block,), directions=frozenset({OUT})),))
    )
    group = client(found, "a/x")
    origin = Origin("NetworkPolicy", "a", "p", "egress[0]")
    expected = Allow(origin, frozenset(), (IPv4Network("10.0.0.0/8"),), (PortRange(TCP, 80, 80),))
    assert (group.local_egress, group.deferred) == ((expected,), False)
    assert server(found, "a/x").deferred_egress == ()


def test_named_ports_of_a_block_are_decided_where_the_address_is() -> None:
    block = PolicyRule(
        (PolicyPeer(ip_block=IpBlock(IPv4Network("10.1.0.0/24"))),), (PolicyPort(port=80), PolicyPort(port="http"))
    )
    out = normal_policy("a/p", egress=(block,), directions=frozenset({OUT}), on=WEB)
    http = (ContainerPort(8080, TCP, "http"),)
    inside, outside = (
        local_pod("a/in", ports=http),
        replace(local_pod("a/out", ports=http), address=IPv4Address("10.1.1.1")),
    )
    found = resolve(view(inside, outside, local_pod("a/client", app="web"), policies=(out,)))
    assert client(found, "a/client").deferred
    assert client(found, "a/client").local_egress[0].ports == (PortRange(TCP, 80, 80),)
    (allow,) = server(found, "a/in").deferred_egress
    assert allow.ports == (PortRange(TCP, 8080, 8080),)
    assert allow.identities == frozenset(IdentityMatch(identity(number, 2)) for number in (16, 17, 18))
    assert server(found, "a/out").deferred_egress == ()


def test_deferred_egress_admits_the_selected_pods_at_the_servers() -> None:
    rule = PolicyRule((PolicyPeer(pods=WEB),))
    out = normal_policy("a/p", egress=(rule,), directions=frozenset({OUT}))
    found = resolve(view(local_pod("a/x", app="web"), local_pod("a/y", app="db"), policies=(out,)))
    assert server(found, "a/x").deferred_egress == (
        Allow(Origin("NetworkPolicy", "a", "p", "egress[0]"), frozenset({whole_segments(16, 4)})),
    )
    assert server(found, "a/y").deferred_egress == ()
    assert client(found, "a/x") == ClientGroup(client(found, "a/x").number, (), True)


def test_deny_all_egress_is_a_group_that_admits_nothing() -> None:
    found = resolve(view(local_pod("a/x"), policies=(normal_policy("a/p", directions=frozenset({OUT})),)))
    group = client(found, "a/x")
    assert (group.local_egress, group.deferred) == ((), False)
    assert group.number > 0


def test_pods_with_equal_permissions_share_a_group() -> None:
    rule = normal_policy("a/p", from_pods(WEB))
    found = resolve(view(local_pod("a/x", app="web"), local_pod("a/y", app="db"), policies=(rule,)))
    assert found.members[PodKey("a/x")] == found.members[PodKey("a/y")]
    assert len(found.servers) == 1
    more = resolve(view(local_pod("a/x"), local_pod("b/z"), policies=(rule, normal_policy("b/q"))))
    assert more.members[PodKey("a/x")] == found.members[PodKey("a/x")]
    assert found.servers[0].number == 1471509493, "a stable hash: the same in every process and release"


def test_groups_whose_numbers_would_meet_get_two(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = b"\1" * 16, b"\2" * 16
    monkeypatch.setattr(groups, "_number", lambda digest: len(digest) + sum(digest[16:]))
    assert groups.numbers({second: second, first: first}) == {first: 16, second: 21}
    assert groups.numbers({second: second}) == {second: 16}
    assert groups.numbers({second: first, first: first}) == {first: 16, second: 21}, "even if one name is of two"


def test_tenants_meet_themselves_and_everybody_meets_shared_ones() -> None:
    two_runs = {"a": (whole_segments(16, 1), whole_segments(64, 1)), "kube-system": (whole_segments(48, 1),)}
    found = resolve(view(local_pod("a/x"), local_pod("kube-system/dns"), tenants=two_runs))
    one, two = two_runs["a"]
    own, shared = Origin("Tenant", name="a"), Origin("Tenant", name="kube-system")
    assert found.tenancy == (
        *(TenantAllow(server, client, own) for server in (one, two) for client in (one, two)),
        TenantAllow(whole_segments(48, 1), None, shared),
    )
    assert resolve(view(local_pod("a/x"), settings=Settings(isolation=Isolation.NONE))).tenancy is None


def test_pods_without_a_tenant_are_tenantless() -> None:
    settings = Settings(tenant_source=TenantSource.POD_LABEL, tenant_key="owner")
    lonely = replace(local_pod("a/x"), segment=SegmentKey("", "default"))
    runs = {"": (whole_segments(80, 1),)}
    anyone = normal_policy("a/p", PolicyRule(), egress=(PolicyRule(),), directions=frozenset({IN, OUT}))
    found = resolve(view(lonely, settings=settings, tenants=runs, policies=(anyone,)))
    assert (found.tenantless, found.tenancy) == (runs[""], ())
    assert (server(found, "a/x").ingress, client(found, "a/x").local_egress) == ((), ())
    free = resolve(view(lonely, settings=replace(settings, isolation=Isolation.NONE), tenants=runs))
    assert free.tenantless == ()
    assert server(free, "a/x").ingress == (Allow(Origin("Isolation", name="none")),)


def test_two_policies_that_allow_the_same_stay_two_reasons() -> None:
    found = resolve(
        view(local_pod("a/x"), policies=(normal_policy("a/p", from_pods(WEB)), normal_policy("a/q", from_pods(WEB))))
    )
    assert [str(allow.origin) for allow in server(found, "a/x").ingress] == [
        "NetworkPolicy a/p ingress[0]",
        "NetworkPolicy a/q ingress[0]",
    ]
