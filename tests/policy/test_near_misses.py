"""Rules that nearly admit a dropped connection."""

from __future__ import annotations

from romana_ovs.model.connection import Connection, ConnectionEnd, PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.policy.evaluate import Reference
from romana_ovs.policy.near_misses import near_misses
from tests.support.manifests import loaded, pod, policy

ROMANA = (
    "apiVersion: romana.io/v1\nkind: NetworkPolicy\nmetadata: {name: r}\n"
    "spec:\n  podSelector: {matchLabels: {app: db}}\n"
    "  allowIncoming: [{from: [{pods: {matchLabels: {app: wbe}}}], toPorts: [{port: 80}]}]\n"
)


def misses(port: str, settings: Settings | None = None, **files: str) -> list[tuple[str, str]]:
    """The rules and reasons about a connection from pod web to pod db of namespace default."""
    pods = {"db": pod("db", "{app: db, tier: data}"), "web": pod("web", "{app: web}")}
    cluster = loaded(settings, None, **pods, **files).cluster
    source, destination = (ConnectionEnd(pod=PodKey(f"default/{name}")) for name in ("web", "db"))
    connection = Connection(source, destination, PortRef.parse(port))
    reference = Reference.of(cluster, {})
    found = near_misses(reference, connection, reference.decide(connection))
    return [(miss.rule.rule, miss.reason) for miss in found]


def test_what_is_allowed_has_no_near_misses() -> None:
    assert misses("80", p=policy("podSelector: {}\ningress: [{ports: [{port: 80}]}]")) == []


def test_another_port() -> None:
    ports = "{port: 80}, {port: 8000, endPort: 8010}, {protocol: UDP}, {port: sql}"
    found = misses("81", p=policy(f"podSelector: {{}}\ningress: [{{ports: [{ports}]}}]"))
    reason = (
        "the other end matches, but its ports are 80/tcp, 8000-8010/tcp, all of udp and sql/tcp (no port of default/db)"
    )
    assert found == [("ingress[0]", reason)]


def test_other_labels_of_a_romana_policy() -> None:
    assert misses("80", r=ROMANA) == [
        ("allowIncoming[0]", "the port matches, but from[0]: of default/web app=wbe is required and app is web")
    ]


def test_another_subject_counts_when_one_label_differs() -> None:
    deny, rule = policy("podSelector: {}", name="deny"), "ingress: [{ports: [{port: 80}]}]"
    one = policy(f"podSelector: {{matchLabels: {{app: d, tier: data}}}}\n{rule}", name="one")
    two = policy(f"podSelector: {{matchLabels: {{app: d, tier: x}}}}\n{rule}", name="two")
    ((_, reason),) = misses("80", p=deny, q=one, r=two)
    assert reason == "it matches, but its policy does not select default/db: app=d is required and app is db"


def test_another_subject_where_the_isolation_level_decides() -> None:
    tiers = Settings(isolation=Isolation.TIER)
    meant = policy("podSelector: {matchLabels: {app: d}}\ningress: [{ports: [{port: 80}]}]")
    assert [rule for rule, _ in misses("80", tiers, p=meant)] == ["ingress[0]"]


def test_rules_between_tenants() -> None:
    spec = "podSelector: {matchLabels: {app: db}}\ningress: [{from: [{namespaceSelector: {}}]}]"
    cluster = loaded(a=pod("db", "{app: db}"), b=pod("web", "{app: web}", namespace="shop"), p=policy(spec)).cluster
    ends = (ConnectionEnd(pod=PodKey("shop/web")), ConnectionEnd(pod=PodKey("default/db")))
    connection = Connection(*ends, PortRef.parse("80"))
    reference = Reference.of(cluster, {})
    (miss,) = near_misses(reference, connection, reference.decide(connection))
    assert miss.reason == "it matches, but no policy opens a path between tenants"
