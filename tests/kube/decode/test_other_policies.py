"""Policies of other systems, and IPv6: what is valid, decides about connections, and is not acted on."""

from __future__ import annotations

import pytest

from romana_ovs.kube.decode.other_policies import Effect, OtherPolicy
from romana_ovs.model.errors import Severity
from tests.support.manifests import loaded

OBJECT = "apiVersion: {}/v1\nkind: {}\nmetadata: {{name: x}}\nspec: {}\n"


@pytest.mark.parametrize(
    ("group", "kind", "effect"),
    [
        ("policy.networking.k8s.io", "AdminNetworkPolicy", Effect.BOTH),
        ("policy.networking.k8s.io", "BaselineAdminNetworkPolicy", Effect.BOTH),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy", Effect.BOTH),
        ("projectcalico.org", "NetworkPolicy", Effect.BOTH),
        ("crd.projectcalico.org", "GlobalNetworkPolicy", Effect.BOTH),
        ("crd.projectcalico.org", "StagedGlobalNetworkPolicy", Effect.NONE),
        ("cilium.io", "CiliumNetworkPolicy", Effect.BOTH),
        ("cilium.io", "CiliumClusterwideNetworkPolicy", Effect.BOTH),
        ("crd.antrea.io", "ClusterNetworkPolicy", Effect.BOTH),
        ("crd.antrea.io", "NetworkPolicy", Effect.BOTH),
        ("security.istio.io", "AuthorizationPolicy", Effect.CLOSES),
        ("policy.linkerd.io", "Server", Effect.CLOSES),
        ("network.openshift.io", "EgressNetworkPolicy", Effect.CLOSES),
        ("k8s.ovn.org", "EgressFirewall", Effect.CLOSES),
        ("example.org", "FancyNetworkPolicy", Effect.BOTH),
    ],
)
def test_policies_of_other_systems_are_unsupported(group: str, kind: str, effect: Effect) -> None:
    found = loaded(a=OBJECT.format(group, kind, "{}"))
    (item,) = found.objects
    assert isinstance(item.value, OtherPolicy) and item.value.effect is effect
    (problem,) = found.unsupported
    assert (problem.kind, problem.name, problem.document) == (kind, "x", 1)
    assert problem.severity is (Severity.INFO if effect is Effect.NONE else Severity.ERROR)
    assert effect.value in problem.reason
    assert not found.problems and not found.ignored


def test_a_doubled_key_of_another_policy_is_an_error() -> None:
    found = loaded(a=OBJECT.format("projectcalico.org", "NetworkPolicy", "{order: 1, order: 2}"))
    assert [(problem.field, problem.reason) for problem in found.problems] == [
        ("spec.order", "is given twice, again in line 4")
    ]
    assert len(found.unsupported) == 1


def test_calico_shows_policies_of_kubernetes_again() -> None:
    found = loaded(a=OBJECT.format("projectcalico.org", "NetworkPolicy", "{}").replace("x}", "knp.default.x}"))
    assert [problem.severity for problem in found.unsupported] == [Severity.INFO]


@pytest.mark.parametrize(
    ("group", "kind", "spec", "closes"),
    [
        ("kubeovn.io", "Subnet", "{cidrBlock: 10.16.0.0/16, private: false}", False),
        ("kubeovn.io", "Subnet", "{cidrBlock: 10.16.0.0/16, private: true}", True),
        ("networking.istio.io", "Sidecar", "{egress: []}", False),
        ("networking.istio.io", "Sidecar", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}", True),
        ("projectcalico.org", "IPPool", "{cidr: 10.16.0.0/16}", False),
        ("cilium.io", "CiliumEndpoint", "{}", False),
        ("networking.k8s.io", "Ingress", "{}", False),
        ("gateway.networking.k8s.io", "HTTPRoute", "{}", False),
    ],
)
def test_other_objects_are_ignored(group: str, kind: str, spec: str, closes: bool) -> None:
    found = loaded(a=OBJECT.format(group, kind, spec))
    assert bool(found.unsupported) is closes
    assert bool(found.ignored) is not closes


def test_a_pod_with_ipv6_alone_is_unsupported() -> None:
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {{name: {}}}\nspec: {{containers: [{{name: c}}]}}\nstatus: {}\n"
    found = loaded(
        a=pod.format("six", "{phase: Running, podIP: 'fd00::5', podIPs: [{ip: 'fd00::5'}]}"),
        b=pod.format("both", "{phase: Running, podIP: 'fd00::6', podIPs: [{ip: 'fd00::6'}, {ip: 10.0.2.5}]}"),
        c=pod.format("done", "{phase: Succeeded, podIP: 'fd00::7'}"),
    )
    (problem,) = found.unsupported
    assert (problem.name, problem.field) == ("six", "status.podIP")
    assert found.problems == ()


def test_a_block_of_ipv6_is_unsupported() -> None:
    found = loaded(
        a="apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
        "spec: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}, {ipBlock: {cidr: '::/0'}}]}]}\n"
    )
    (problem,) = found.unsupported
    assert problem.field == "spec.egress[0].to[1].ipBlock.cidr"
    assert "::/0 is IPv6" in problem.reason
