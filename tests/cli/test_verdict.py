"""`romana-ovs verdict DIR --from --to --port` as one runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from romana_ovs.cli.addresses import AddressMap
from romana_ovs.cli.common import load
from romana_ovs.cli.main import main
from romana_ovs.model.objects import PodKey

MANIFESTS = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: c, image: i}]}
status: {phase: Running, podIP: 192.168.7.9}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: c, image: i, ports: [{containerPort: 5432, name: sql}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: b, labels: {app: web}}
spec: {nodeName: n2, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: a}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 172.16.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 203.0.113.0/24}}]
    ports: [{port: sql}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tenants on two nodes, a host-network pod, and a policy about a/db."""
    (tmp_path / "all.yaml").write_text(MANIFESTS)
    return tmp_path


def words(folder: Path, source: str, destination: str, port: str) -> list[str]:
    """The command line."""
    return ["verdict", str(folder), "--from", source, "--to", destination, "--port", port]


@pytest.mark.parametrize(
    ("source", "destination", "port", "code"),
    [
        ("a/web", "a/db", "5432/tcp", 0),
        ("a/web", "a/db", "5432", 0),
        ("a/web", "a/db", "5432/udp", 1),
        ("a/web", "a/db", "icmp", 1),
        ("a/db", "a/web", "icmp", 0),
        ("a/web", "b/web", "80/tcp", 1),
        ("192.168.7.9", "a/db", "5432/tcp", 0),
        ("203.0.113.7", "a/db", "5432/tcp", 0),
        ("198.51.100.1", "a/db", "5432/tcp", 1),
        ("a/db", "198.51.100.1", "443/tcp", 0),
        ("172.16.0.1", "a/db", "80/tcp", 0),
        ("a/agent", "a/db", "80/tcp", 0),
        ("a/agent", "b/web", "80/tcp", 0),
    ],
)
def test_exit_code_and_one_sentence(
    folder: Path, source: str, destination: str, port: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, source, destination, port)) == code
    sentence, *misses = capsys.readouterr().out.splitlines()
    assert not misses or code
    assert f" is {'dropped' if code else 'allowed'}: " in sentence
    assert sentence.endswith(".")


def test_a_pods_address_means_that_pod(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(words(folder, "192.168.7.9", "a/db", "5432"))
    by_address = capsys.readouterr().out
    main(words(folder, "a/web", "a/db", "5432"))
    assert capsys.readouterr().out == by_address


def test_an_address_of_the_plan_means_the_pod_that_got_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = str(_known(folder).pods[PodKey("a/db")])
    assert main(words(folder, "b/web", address, "5432")) == 1
    assert capsys.readouterr().out.startswith("b/web -> a/db 5432/tcp is dropped: tenants b and a are separate")


def test_a_nodes_address_of_the_plan_means_the_node(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (gateway,) = [str(address) for address, node in _known(folder).gateways.items() if node == "n1"]
    assert main(words(folder, gateway, "a/db", "80/tcp")) == 0
    assert main(words(folder, gateway, "b/web", "80/tcp")) == 0
    assert "node n1 and the pods that run on it always reach each other" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "destination", "port", "expected"),
    [
        (
            "a/web", "a/db", "5432/tcp",
            {
                "allowed": True,
                "reason": "a/web -> a/db 5432/tcp is allowed: ingress[0] of NetworkPolicy a/db lets it in.",
                "rules": [{"kind": "NetworkPolicy", "namespace": "a", "name": "db", "rule": "ingress[0]"}],
            },
        ),
        (
            "b/web", "a/db", "5432/tcp",
            {
                "allowed": False,
                "reason": "b/web -> a/db 5432/tcp is dropped: tenants b and a are separate.",
                "rules": [{"kind": "Tenant", "namespace": "", "name": "a", "rule": ""}],
            },
        ),
        (
            "a/db", "a/web", "80/tcp",
            {
                "allowed": True,
                "reason": "a/db -> a/web 80/tcp is allowed: no policy selects a/web for ingress and isolation level "
                "tenant lets pods of tenant a connect.",
                "rules": [{"kind": "Isolation", "namespace": "", "name": "tenant", "rule": ""}],
            },
        ),
    ],
)  # fmt: skip
def test_json(
    folder: Path, source: str, destination: str, port: str, expected: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([*words(folder, source, destination, port), "--json"])
    assert json.loads(capsys.readouterr().out) == expected
    assert code == (0 if expected["allowed"] else 1)


@pytest.mark.parametrize(
    ("source", "destination", "port", "message"),
    [
        ("a/wbe", "a/db", "80", "--from: there is no pod a/wbe; did you mean a/web"),
        ("a/web", "c/db", "80", "--to: there is no pod c/db; did you mean a/db"),
        ("a/web", "zz/qqqqqqq", "80", "--to: there is no pod zz/qqqqqqq"),
        (
            "web",
            "a/db",
            "80",
            "'web' is neither a pod (namespace/name) nor an IPv4 address; did you mean a/web or b/web?",
        ),
        ("a/web", "10.0.0.256", "80", "--to: '10.0.0.256' is neither"),
        ("a/web", "a/", "80", "--to: 'a/' is neither"),
        ("a/web", "a/db", "http/tcp", "--port: 'http/tcp' is not a port"),
    ],
)
def test_invalid_arguments_are_named(
    folder: Path, source: str, destination: str, port: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(folder, source, destination, port)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_all_three_options_are_required(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verdict", str(folder), "--from", "a/web"]) == 2
    assert "--to" in capsys.readouterr().err


def _known(folder: Path) -> AddressMap:
    return AddressMap.of(load(folder).cluster, None)


SHARED = """
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: a}
spec: {selector: {app: db}, externalIPs: [203.0.113.80], ports: [{port: 80, targetPort: sql}]}
---
apiVersion: v1
kind: Service
metadata: {name: tls, namespace: a}
spec: {selector: {app: web}, externalIPs: [203.0.113.80], ports: [{port: 443}]}
"""


def test_services_of_one_address_differ_by_their_port(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "services.yaml").write_text(SHARED)
    for port, service in (("80", "plain"), ("443", "tls"), ("444", "plain")):
        main([*words(folder, "a/web", "203.0.113.80", port), "--json"])
        assert json.loads(capsys.readouterr().out)["service"]["name"] == service


SERVICE = """
apiVersion: v1
kind: Pod
metadata: {name: new, namespace: a, labels: {app: new}}
spec: {containers: [{name: c, image: i}]}
status: {phase: Pending}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: a, labels: {app: new}}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: a}
spec: {selector: {app: new}, clusterIP: 10.96.0.9, ports: [{port: 80}]}
"""


@pytest.mark.parametrize(
    ("destination", "names"),
    [
        ("pod/a/new", ["a/new"]),
        ("svc/a/front", ["a/new", "a/host"]),
        ("10.96.0.9", ["a/new", "a/host"]),
        ("a/db", []),
    ],
)
def test_left_out_pods_of_each_kind_of_end(
    folder: Path, capsys: pytest.CaptureFixture[str], destination: str, names: list[str]
) -> None:
    (folder / "service.yaml").write_text(SERVICE)
    main([*words(folder, "pod/a/web", destination, "80"), "--json"])
    left_out = json.loads(capsys.readouterr().out).get("left_out", [])
    assert sorted(row["name"] for row in left_out) == sorted(names)
