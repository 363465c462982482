"""Pods, namespaces, nodes, lists and what is none of ours."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.model.labels import Labels
from romana_ovs.model.objects import NAME_LABEL, ContainerPort, Namespace, Node, Pod, Protocol
from romana_ovs.model.services import Service, ServiceCIDR
from tests.support.api_objects import as_yaml
from tests.support.manifests import file, item, loaded, pod


def test_a_pod() -> None:
    found = item(
        """
        apiVersion: v1
        kind: Pod
        metadata: {name: a, namespace: x, uid: u-1, labels: {app: web, empty: }}
        spec:
          nodeName: n1
          initContainers:
          - {name: setup, ports: [{containerPort: 1}]}
          - {name: sidecar, restartPolicy: Always, ports: [{containerPort: 9, name: metrics}]}
          containers:
          - name: c
            ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]
          - name: d
            ports: [{containerPort: 81, name: http}]
        """
    )
    assert found.problems == ()
    assert found.value == Pod(
        namespace="x",
        name="a",
        labels=Labels({"app": "web", "empty": ""}),
        node="n1",
        uid="u-1",
        ports=(
            ContainerPort(80, Protocol.TCP, "http"),
            ContainerPort(53, Protocol.UDP),
            ContainerPort(81, Protocol.TCP, "http"),
            ContainerPort(9, Protocol.TCP, "metrics"),
        ),
    )


@pytest.mark.parametrize(
    ("status", "address", "networked"),
    [
        ("{}", None, True),
        ("{phase: Running, podIP: 10.1.2.3}", "10.1.2.3", True),
        ("{phase: Running, podIP: 'fd00::1', podIPs: [{ip: 'fd00::1'}, {ip: 10.1.2.3}]}", "10.1.2.3", True),
        ("{phase: Running, podIP: 'fd00::1'}", None, False),
        ("{phase: Pending}", None, False),
        ("{phase: Succeeded, podIP: 10.1.2.3}", "10.1.2.3", False),
        ("{phase: Failed}", None, False),
    ],
)
def test_status_decides_where_there_is_one(status: str, address: str | None, networked: bool) -> None:
    found = item(pod("a") + f"status: {status}\n").value
    assert isinstance(found, Pod)
    assert found.address == (IPv4Address(address) if address else None)
    assert found.networked is networked


def test_host_network() -> None:
    found = item(pod("a", more="  hostNetwork: true\n")).value
    assert isinstance(found, Pod)
    assert found.host_network and not found.networked


def test_every_namespace_has_the_label_of_its_own_name() -> None:
    found = item(
        "{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {a: b, kubernetes.io/metadata.name: 'y'}}}"
    )
    assert found.value == Namespace("x", Labels({"a": "b", NAME_LABEL: "x"}))


def test_a_node_has_its_internal_address_first() -> None:
    found = item(
        """
        apiVersion: v1
        kind: Node
        metadata: {name: n1, labels: {zone: a}}
        status:
          addresses:
          - {type: Hostname, address: n1}
          - {type: ExternalIP, address: 192.0.2.1}
          - {type: InternalIP, address: 10.0.0.1}
          - {type: InternalIP, address: "fd00::1"}
        """
    )
    assert found.value == Node("n1", Labels({"zone": "a"}), (IPv4Address("10.0.0.1"), IPv4Address("192.0.2.1")))


def test_a_service_cidr_has_its_ranges_of_ipv4() -> None:
    found = item(
        "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: kubernetes},"
        " spec: {cidrs: [10.96.0.0/12, 'fd00:96::/112']}}"
    )
    assert found.value == ServiceCIDR("kubernetes", (IPv4Network("10.96.0.0/12"),))


def test_lists_of_any_kind() -> None:
    found = loaded(
        a="""
        apiVersion: v1
        kind: List
        items:
        - {apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c}]}}
        - apiVersion: v1
          kind: PodList
          metadata: {resourceVersion: "7"}
          items:
          - {metadata: {name: b}, spec: {containers: [{name: c}]}}
        - {apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{metadata: {name: p}, spec: {}}]}
        - {apiVersion: v1, kind: List, items: }
        """
    )
    assert found.problems == ()
    assert list(found.cluster.pods) == ["default/a", "default/b"]
    assert [key.name for key in found.cluster.policies] == ["p"]


@pytest.mark.parametrize(
    ("kind", "version"), [("Service", "v1"), ("Endpoints", "v1"), ("EndpointSlice", "discovery.k8s.io/v1")]
)
@pytest.mark.parametrize(
    ("metadata", "field", "reason"),
    [
        ("{name: 123}", "metadata.name", "must be a string, not a number"),
        ("[a]", "metadata", "must be an object, not a list"),
        ("{}", "metadata.name", "is required"),
    ],
)
def test_services_have_names(kind: str, version: str, metadata: str, field: str, reason: str) -> None:
    found = loaded(a=f"apiVersion: {version}\nkind: {kind}\nmetadata: {metadata}\naddressType: IPv4\n")
    problem = found.problems[0]
    assert (problem.field, found.ignored) == (field, ())
    assert problem.reason.startswith(reason)


def test_a_service_may_have_a_generated_name() -> None:
    found = loaded(a="apiVersion: v1\nkind: Service\nmetadata: {generateName: web-}\nspec: {ports: [{port: 80}]}\n")
    (one,) = found.objects
    assert isinstance(one.value, Service) and one.value.name.startswith("web-")
    assert (found.problems, [note.field for note in found.notes]) == ((), ["metadata.generateName"])


def test_other_kinds_are_named_once() -> None:
    found = loaded(
        a="apiVersion: v1\nkind: Secret\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
        b="apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n---\napiVersion: romana.io/v1\nkind: Tenant\n---\n",
    )
    assert found.ignored == ("Secret", "Tenant.romana.io")
    assert found.problems == ()
    assert not found.cluster.policies


def test_json_and_yaml_mean_the_same() -> None:
    text = '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c"}]}}'
    assert file(text, "a.json").objects[0].value == file(text, "a.yaml").objects[0].value
    two = file(text + "\n" + text.replace('"a"', '"b"'), "a.json")
    assert [one.location.document for one in two.objects] == [1, 2]


@pytest.mark.parametrize("port", ["9" * 5000, "99999", "80", "\u0663\u0663", "http_alt", "a" * 16])
def test_a_target_port_in_quotes_is_a_name(port: str) -> None:
    service = as_yaml(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"ports": [{"port": 80, "targetPort": port}]},
        }
    )
    (problem,) = file(service).problems
    assert problem.field == "spec.ports[0].targetPort" and "port name" in problem.reason
    assert len(problem.reason) < 200


@pytest.mark.parametrize(("port", "target"), [("http", "http"), (8080, 8080), ("", 80), (0, 80), (None, 80)])
def test_a_target_port_is_a_number_or_a_name(port: object, target: object) -> None:
    spec = {"ports": [{"port": 80, "targetPort": port}]}
    found = item(as_yaml({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})).value
    assert isinstance(found, Service) and [one.target for one in found.ports] == [target]
