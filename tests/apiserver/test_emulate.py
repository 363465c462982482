"""`romana-ovs emulate --kubeconfig` and `demo --kubernetes` as a user runs them, with kubectl beside."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.integration.test_emulate import Talk
from tests.support.live_cluster import eventually

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = "60s"
"""How long kubectl waits for what is to become true."""
CLUSTER_RANGE = IPv4Network("10.0.0.0/8")
FRONTEND, BACKEND = "default/nginx-frontend", "default/nginx-backend"
PATH = {"from": FRONTEND, "to": BACKEND, "port": "80/tcp"}
POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}
spec: {{nodeName: {node}, containers: [{{name: c, image: i, ports: [{{containerPort: 80}}]}}]}}
"""
SHOP = "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}" + "".join(
    POD.format(name=name, node=node) for name, node in (("web", "node1"), ("db", "node2"), ("spy", "node2"))
)
POLICY = """
apiVersion: romana.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  allowIncoming: [{from: [{pods: {matchLabels: {app: web}}}], toPorts: [{port: 80}]}]
"""


@pytest.fixture(scope="module")
def plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane whose numbers no other test goes by; it is there where the shared one is."""
    with ControlPlane(binaries=binaries.find()) as own:
        own.apply(manifests_folder())
        yield own


@pytest.fixture
def shop(plane: ControlPlane) -> Iterator[ControlPlane]:
    """The plane with the pods of SHOP."""
    plane.kubectl("apply", "-f", "-", stdin=SHOP)
    yield plane
    plane.kubectl("delete", "rnp,pods", "--all", "--namespace=shop", "--grace-period=0", "--force")


@pytest.fixture
def start(plane: ControlPlane) -> Iterator[Callable[..., Talk]]:
    talks: list[Talk] = []

    def begin(*options: str) -> Talk:
        argv = [sys.executable, "-m", "romana_ovs", "emulate", "--kubeconfig", str(plane.kubeconfig), *options]
        pipe = subprocess.PIPE
        talk = Talk(subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=ROOT))
        talks.append(talk)
        talk.until("help lists", 90)
        return talk

    yield begin
    for talk in talks:
        talk.process.terminate()
        talk.process.wait(30)
        for thread in talk.threads:
            thread.join()
        for stream in (talk.process.stdin, talk.process.stdout, talk.process.stderr):
            if stream is not None:
                stream.close()


def addresses(plane: ControlPlane) -> dict[str, str]:
    """Where each pod of the shop runs, once all do."""
    plane.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--namespace=shop", f"--timeout={PATIENCE}"
    )
    pods = json.loads(plane.kubectl("get", "pods", "--namespace=shop", "-o", "json"))["items"]
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}


def await_programmed(plane: ControlPlane) -> None:
    plane.kubectl("wait", "--for=condition=Programmed", "rnp/only-web", "--namespace=shop", f"--timeout={PATIENCE}")


def test_pods_run_policies_act_and_nodes_are_gone_in_the_end(shop: ControlPlane, start: Callable[..., Talk]) -> None:
    talk = start("--nodes", "2")
    given = addresses(shop)
    assert len({IPv4Address(one) for one in given.values()}) == 3
    assert all(IPv4Address(one) in CLUSTER_RANGE for one in given.values())
    shop.kubectl("wait", "--for=condition=Ready", "node/node1", "node/node2", f"--timeout={PATIENCE}")
    talk.ask("spy curl db")
    talk.until("shop/db")
    shop.kubectl("apply", "-f", "-", stdin=POLICY)
    talk.until("closed: shop/spy -> shop/db 80/tcp")
    talk.ask("spy curl db")
    talk.until("curl: db (")
    talk.ask("web curl db")
    talk.until("shop/db")
    talk.ask("matrix 80/tcp,81/tcp")
    talk.until("exactly what the reference evaluation expects")
    await_programmed(shop)
    for state in ("create", "jsonpath={.status.pods}=3"):
        shop.kubectl("wait", f"--for={state}", "tenant/shop", f"--timeout={PATIENCE}")
    shop.kubectl("delete", "pod", "db", "--namespace=shop", f"--timeout={PATIENCE}")
    assert addresses(shop).keys() == {"web", "spy"}
    shop.kubectl("apply", "-f", "-", stdin=POD.format(name="db", node="node2"))
    assert addresses(shop)["db"] not in given.values(), "a freed address is not given again at once"
    talk.ask("web curl db")
    talk.until("shop/db")
    assert talk.end() == 0
    assert shop.kubectl("get", "nodes", "-o", "name") == ""
    assert shop.kubectl("get", "pods", "--namespace=shop", "-o", "name").split() == ["pod/db", "pod/spy", "pod/web"]


def test_a_replaced_pod_is_another_pod(shop: ControlPlane, start: Callable[..., Talk]) -> None:
    talk = start("--nodes", "2")
    given, uid = addresses(shop), uid_of(shop, "db")
    shop.kubectl("replace", "--force", "-f", "-", stdin=POD.format(name="db", node="node2"))
    assert addresses(shop)["db"] not in given.values() and uid_of(shop, "db") != uid
    talk.ask("web curl db")
    talk.until("shop/db")
    for wrong, why in (
        ("224.0.0.1", "224.0.0.1 is a multicast address"),
        ("0.0.0.0", "0.0.0.0 is the unspecified address"),
        ("10.0.0.1", "address 10.0.0.1 is that of node node1 on its own bridge"),
    ):
        status = {"status": {"podIP": wrong, "podIPs": [{"ip": wrong}]}}
        shop.kubectl(
            "patch",
            "pod",
            "web",
            "--namespace=shop",
            "--subresource=status",
            "--type=merge",
            f"--patch={json.dumps(status)}",
        )
        eventually(lambda why=why: why in told_of(shop, "web"), "an Event says why")  # type: ignore[misc]
        # It keeps what it has, and everybody else goes on.
        talk.ask("web curl db")
        talk.until("shop/db")
        talk.ask("spy curl web")
        talk.until("shop/web")
    shop.kubectl("apply", "-f", "-", stdin=POD.format(name="late", node="node1"))
    talk.ask("pods")
    shop.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Running", "pod/late", "--namespace=shop", f"--timeout={PATIENCE}"
    )
    assert talk.end() == 0


def uid_of(plane: ControlPlane, name: str) -> str:
    return plane.kubectl("get", "pod", name, "--namespace=shop", "-o", "jsonpath={.metadata.uid}")


def told_of(plane: ControlPlane, name: str) -> str:
    """The notes of the Events on a pod."""
    found = json.loads(plane.kubectl("get", "events.events.k8s.io", "--namespace=shop", "-o", "json"))["items"]
    return "\n".join(one.get("note", "") for one in found if one["regarding"]["name"] == name)


def test_what_a_killed_run_left_is_taken_over(shop: ControlPlane, start: Callable[..., Talk]) -> None:
    shop.kubectl("apply", "-f", "-", stdin=POLICY)
    first = start("--nodes", "2")
    given = addresses(shop)
    await_programmed(shop)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(30)
    assert shop.kubectl("get", "nodes", "-o", "name").split() == ["node/node1", "node/node2"]
    second = start("--nodes", "2")
    assert addresses(shop) == given
    second.ask("web curl db")
    second.until("shop/db")
    second.ask("matrix 80/tcp")
    second.until("exactly what the reference evaluation expects")
    await_programmed(shop)
    assert second.end() == 0
    assert shop.kubectl("get", "nodes", "-o", "name") == ""


def test_a_node_of_somebody_else_is_not_taken(plane: ControlPlane) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node2", "labels": {"real": "yes"}}}
    plane.kubectl("apply", "-f", "-", stdin=json.dumps(node))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "romana_ovs", "emulate", "--kubeconfig", str(plane.kubeconfig)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            cwd=ROOT,
        )
        assert (
            done.returncode == 2 and "the cluster has a node node2 already, which is not an emulated one" in done.stderr
        )
        assert plane.kubectl("get", "nodes", "-o", "name").split() == ["node/node2"]
    finally:
        plane.kubectl("delete", "node", "node2")


def test_the_demonstration_on_an_api_server(control_plane: ControlPlane) -> None:
    """The same steps as on a folder, which tests/integration/test_demo.py tells in full."""
    done = subprocess.run(
        [sys.executable, "-m", "romana_ovs", "demo", "--kubernetes", "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    steps = {step["name"][0]: step for step in result["steps"]}
    assert list(steps) == ["a", "b", "c", "d"] and result["faults"] == []
    pods = steps["a"]["matrix"]["pods"]
    replicas = [pod for pod in pods if "nginx-default" in pod]
    assert (len(pods), len(replicas)) == (5, 3)
    inside = sorted([one, two] for one in replicas for two in replicas if one != two)
    for letter, step in steps.items():
        for port, pairs in step["matrix"]["allowed"].items():
            opened = [[FRONTEND, BACKEND]] if (letter, port) == ("c", "80/tcp") else []
            assert pairs == sorted(inside + opened), (letter, port)
    assert (steps["c"]["opened"], steps["c"]["closed"]) == ([PATH], [])
    assert (steps["d"]["opened"], steps["d"]["closed"]) == ([], [PATH])
    figures = result["figures"]
    assert figures["packets_to_controller"] == 0
    assert max(figures["cut_milliseconds"].values()) < 1000
