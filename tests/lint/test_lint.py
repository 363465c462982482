"""Advice about valid manifests: what the corpus (tests/corpus, `advice-*`) has no folder for."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Network

import pytest

from romana_ovs.lint import lint
from romana_ovs.lint.context import LintContext
from romana_ovs.model.errors import Severity
from romana_ovs.model.labels import Requirement
from romana_ovs.model.settings import Isolation, Settings
from romana_ovs.model.syntax import joined
from tests.support.manifests import loaded, pod, policy

ROMANA = "apiVersion: romana.io/v1\nkind: NetworkPolicy\nmetadata: {{name: r}}\nspec: {}\n"


def fields(settings: Settings | None = None, **files: str) -> list[tuple[str, str]]:
    """The field and the severity of each finding."""
    found = loaded(settings, None, **files)
    assert found.problems == ()
    return [(problem.field, problem.severity.value) for problem in lint(found)]


def test_a_folder_without_pods_gets_no_advice() -> None:
    assert fields(p=policy("podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: http}]}]")) == []


def test_finished_pods_are_pods_of_a_policy() -> None:
    done = pod("job", "{app: job}") + "status: {phase: Succeeded}\n"
    assert fields(a=done, b=pod("web", "{app: web}"), p=policy("podSelector: {matchLabels: {app: job}}")) == []


def test_pods_on_the_network_of_their_node_have_no_policy() -> None:
    host = pod("agent", "{app: agent}", "  hostNetwork: true\n")
    found = fields(a=host, b=pod("web", "{app: web}"), p=policy("podSelector: {matchLabels: {app: agent}}"))
    assert found == [("spec.podSelector", "warning")]


def test_romana_policies_get_the_same_advice() -> None:
    spec = "{podSelector: {matchLabels: {app: wbe}}, allowIncoming: [{from: [{pods: {matchLabels: {app: x}}}]}]}"
    found = fields(a=pod("web", "{app: web}"), p=ROMANA.format(spec))
    assert found == [("spec.podSelector", "warning"), ("spec.allowIncoming[0].from[0].pods", "info")]


def test_a_policy_that_allows_everything_alone() -> None:
    allow_all = policy("podSelector: {}\ningress: [{}]", name="allow-all")
    web = pod("web", "{app: web}")
    assert fields(a=web, p=allow_all) == [("spec", "info")]
    assert fields(Settings(isolation=Isolation.TIER), a=web, p=allow_all) == []
    assert fields(a=web, p=allow_all, q=policy("podSelector: {}", name="deny")) == []


def test_default_deny_beside_others_is_no_finding() -> None:
    deny = policy("podSelector: {}", name="deny")
    allow = policy("podSelector: {matchLabels: {app: web}}\ningress: [{ports: [{port: 80}]}]", name="allow")
    assert fields(a=pod("web", "{app: web}"), p=deny, q=allow) == []


def test_dns_pods_need_no_dns() -> None:
    dns = pod("coredns", "{k8s-app: kube-dns}")
    deny = policy("podSelector: {}\npolicyTypes: [Egress]")
    assert fields(a=dns, p=deny) == []
    assert fields(a=dns, b=pod("web", "{app: web}"), p=deny) == [("spec.policyTypes", "info")]


def test_the_api_server_counts_for_controllers() -> None:
    rules = "podSelector: {}\npolicyTypes: [Egress]\negress:\n- ports: [{port: 53, protocol: UDP}, {port: 53}]"
    web = pod("web", "{app: web}")
    assert fields(a=web, p=policy(rules)) == []
    there = policy(rules).replace("name: p\n", "name: p\n  namespace: cert-operator\n")
    assert fields(a=pod("web", "{app: web}", namespace="cert-operator"), p=there) == [("spec.egress", "info")]


def test_the_port_of_a_service_whose_pods_declare_none() -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    web, spec = pod("web", "{app: web}"), "podSelector: {{}}\ningress: [{{ports: [{}]}}]"
    found = fields(a=web, s=service, p=policy(spec.format("{port: 80}")))
    assert found == [("spec.ingress[0].ports[0].port", "warning")]
    assert fields(a=web, s=service, p=policy(spec.format("{port: 80}, {port: 8080}"))) == []


def test_the_isolation_annotation_of_old_kubernetes() -> None:
    annotation = '{"net.beta.kubernetes.io/network-policy": "{}"}'
    namespace = f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, annotations: {annotation}}}\n"
    (field, severity), *others = fields(n=namespace)
    assert (field, severity, others) == ("metadata.annotations.net.beta.kubernetes.io/network-policy", "warning", [])


def test_every_finding_is_a_warning_or_a_note() -> None:
    found = lint(loaded(a=pod("web", "{app: web}"), p=policy("podSelector: {matchLabels: {app: wbe}}")))
    assert [problem.severity for problem in found] == [Severity.WARNING]
    assert (found[0].file, found[0].document, found[0].kind, found[0].name) == ("p.yaml", 1, "NetworkPolicy", "p")


def test_an_absent_namespace_with_pods_elsewhere() -> None:
    web, other = pod("web", "{app: web}", namespace="shop"), pod("db", "{tier: data}")
    found = lint(loaded(a=web, b=other, p=policy("podSelector: {matchLabels: {app: web}}")))
    assert [problem.field for problem in found] == ["spec.podSelector"]
    assert found[0].reason.endswith("metadata.namespace is absent, and such pods are in shop; write namespace: shop?")


def test_pods_that_operators_make_may_be_meant() -> None:
    operated = "apiVersion: monitoring.coreos.com/v1\nkind: Prometheus\nmetadata: {name: k8s}\nspec: {replicas: 2}\n"
    spec = "podSelector: {matchLabels: {app: prometheus}}\ningress: [{ports: [{port: web}, {port: 9090}]}]"
    web = pod("web", "{app: web}")
    assert fields(a=web, o=operated, p=policy(spec)) == [("spec.podSelector", "info")]
    assert fields(a=web, p=policy(spec)) == [("spec.podSelector", "warning")]


def test_port_names_of_pods_that_are_not_here() -> None:
    dns = "podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]}]"
    assert fields(a=pod("web", "{app: web}"), p=policy(dns)) == []
    absent = "podSelector: {}\ningress: [{ports: [{port: metrics}]}]"
    assert fields(a=pod("web", "{app: web}"), p=policy(absent)) == [("spec.ingress[0].ports[0].port", "warning")]


def test_peers_on_the_network_of_their_node() -> None:
    host = pod("agent", "{app: agent}", "  hostNetwork: true\n")
    spec = "podSelector: {matchLabels: {app: web}}\ningress: [{from: [{podSelector: {matchLabels: {app: agent}}}]}]"
    found = lint(loaded(a=host, b=pod("web", "{app: web}"), p=policy(spec)))
    assert [problem.severity for problem in found] == [Severity.WARNING]
    assert found[0].reason.endswith("allow the addresses of the nodes by ipBlock")


def test_labels_that_no_pod_has_may_be_of_other_pods() -> None:
    found = fields(a=pod("web", "{app: web}"), p=policy("podSelector: {matchLabels: {quarantine: 'true'}}"))
    assert found == [("spec.podSelector", "info")]


@pytest.mark.parametrize(
    ("ports", "severities"),
    [
        ("{protocol: TCP}", []),
        ("{protocol: TCP, port: 1, endPort: 1000}", []),
        ("{protocol: TCP, port: 53}", ["warning"]),
        ("{protocol: TCP, port: 53, endPort: 53}", ["warning"]),
        ("{protocol: TCP, port: dns-tcp}", ["warning"]),
        ("{protocol: TCP, port: 53}, {protocol: UDP}", []),
        ("{protocol: TCP}, {protocol: UDP, port: 1, endPort: 60}", []),
    ],
)
def test_only_ports_of_dns_alone_are_about_dns(ports: str, severities: list[str]) -> None:
    spec = f"podSelector: {{}}\npolicyTypes: [Egress]\negress: [{{ports: [{ports}]}}]"
    found = [one for one in lint(loaded(a=pod("web", "{app: web}"), p=policy(spec))) if "allows DNS" in one.reason]
    assert [one.severity.value for one in found] == severities


@pytest.mark.parametrize(
    ("direction", "network", "severity"),
    [
        ("ingress", "172.30.0.0/16", "info"),
        ("egress", "172.30.0.0/16", "warning"),
        ("egress", "172.16.0.0/12", "info"),
    ],
)
def test_blocks_with_addresses_of_services(direction: str, network: str, severity: str) -> None:
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {clusterIP: 172.30.0.9, selector: {app: web}, ports: [{port: 80}]}\n"
    )
    side, kind = ("from", "Ingress") if direction == "ingress" else ("to", "Egress")
    spec = f"podSelector: {{}}\npolicyTypes: [{kind}]\n{direction}: [{{{side}: [{{ipBlock: {{cidr: {network}}}}}]}}]"
    settings = Settings(network=IPv4Network("172.16.0.0/13"))
    found = fields(settings, a=pod("web", "{app: web}"), s=service, p=policy(spec))
    assert (f"spec.{direction}[0].{side}[0].ipBlock.cidr", severity) in found


@pytest.mark.parametrize(
    ("namespaces", "hint"),
    [(("shop",), "shop"), (("kube-system", "shop"), "shop"), (("bank", "shop"), ""), (("kube-system",), "")],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_namespace_is_suggested_without_doubt(namespaces: tuple[str, ...], hint: str, elsewhere: bool) -> None:
    pods = {name.replace("-", ""): pod("web", "{app: web}", namespace=name) for name in namespaces}
    here = {"here": pod("db", "{tier: data}")} if elsewhere else {}
    found = lint(loaded(None, None, **pods, **here, p=policy("podSelector: {matchLabels: {app: web}}")))
    assert [one.severity for one in found] == [Severity.WARNING]
    assert "absent" in found[0].reason
    assert found[0].reason.endswith(f"; write namespace: {hint}?" if hint else joined(namespaces))


def test_a_namespace_selector_is_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "podSelector: {}\ningress: [{from: [{namespaceSelector: {matchExpressions: [{key: x, operator: Exists}]}}]}]"
    names = [f"ns{number}" for number in range(10)]
    files = {name: pod("web", "{app: web}", namespace=name) for name in names}
    files |= {f"p{name}": policy(spec).replace("name: p\n", f"name: p\n  namespace: {name}\n") for name in names}
    snapshot, calls = loaded(None, None, **files), []
    matches = Requirement.matches

    def counted(requirement: Requirement, labels: Mapping[str, str]) -> bool:
        calls.append(requirement.key)
        return matches(requirement, labels)

    monkeypatch.setattr(Requirement, "matches", counted)
    context = LintContext.of(snapshot)
    peers = [peer for one in context.policies for rule in one.rules() for peer in rule.peers]
    assert [context.peer_namespaces(context.policies[0].policy, peer) for peer in peers] == [()] * len(names)
    assert calls.count("x") == len(names)


def test_namespace_selectors_match_by_every_requirement() -> None:
    namespaces = "---\n".join(
        f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {labels}}}\n"
        for name, labels in (("b", "{team: x}"), ("a", "{team: z, old: q}"), ("c", "{team: x, old: q}"))
    )
    old = "{key: old, operator: DoesNotExist}"
    for requirements, names in (
        ("{key: team, operator: In, values: [x, z]}", ("a", "b", "c")),
        (f"{old}, {{key: team, operator: In, values: [z, x, w]}}", ("b",)),
        ("{key: kubernetes.io/metadata.name, operator: In, values: [c, d]}", ("c",)),
        ("{key: team, operator: NotIn, values: [x]}", ("a", "default")),
    ):
        spec = (
            f"podSelector: {{}}\ningress: [{{from: [{{namespaceSelector: {{matchExpressions: [{requirements}]}}}}]}}]"
        )
        context = LintContext.of(loaded(n=namespaces, a=pod("web", "{app: web}"), p=policy(spec)))
        (rule,) = context.policies[0].rules()
        assert context.peer_namespaces(context.policies[0].policy, rule.peers[0]) == names
