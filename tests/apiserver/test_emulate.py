"""`romana-ovs emulate --kubeconfig` and `demo --kubernetes` as a user runs them, with kubectl beside."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from romana_ovs_emulate import binaries
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.api_objects import as_yaml, namespace, node
from tests.support.command import Prompt, prompts, run_command
from tests.support.manifests import placed_pod
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = "60s"
"""How long kubectl waits for what is to become true."""
CLUSTER_RANGE = IPv4Network("10.0.0.0/8")
FRONTEND, BACKEND = "default/nginx-frontend", "default/nginx-backend"
PATH = {"from": FRONTEND, "to": BACKEND, "port": "80/tcp"}
SHOP = (
    as_yaml(namespace("shop"))
    + placed_pod("web", "node1", "shop")
    + placed_pod("db", "node2", "shop")
    + placed_pod("spy", "node2", "shop")
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
def start(plane: ControlPlane) -> Iterator[Callable[..., Prompt]]:
    with prompts(seconds=90) as start:
        yield partial(start, "--kubeconfig", str(plane.kubeconfig))


def addresses(plane: ControlPlane) -> dict[str, str]:
    """Where each pod of the shop runs, once all do."""
    plane.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Running", "pods", "--all", "--namespace=shop", f"--timeout={PATIENCE}"
    )
    pods = json.loads(plane.kubectl("get", "pods", "--namespace=shop", "-o", "json"))["items"]
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}


def await_programmed(plane: ControlPlane) -> None:
    plane.kubectl("wait", "--for=condition=Programmed", "rnp/only-web", "--namespace=shop", f"--timeout={PATIENCE}")


def test_pods_run_policies_act_and_nodes_are_gone_in_the_end(shop: ControlPlane, start: Callable[..., Prompt]) -> None:
    prompt = start("--nodes", "2")
    given = addresses(shop)
    assert len({IPv4Address(one) for one in given.values()}) == 3
    assert all(IPv4Address(one) in CLUSTER_RANGE for one in given.values())
    shop.kubectl("wait", "--for=condition=Ready", "node/node1", "node/node2", f"--timeout={PATIENCE}")
    prompt.ask("spy curl db")
    prompt.until("shop/db")
    shop.kubectl("apply", "-f", "-", stdin=POLICY)
    prompt.until("closed: shop/spy -> shop/db 80/tcp")
    prompt.ask("spy curl db")
    prompt.until("curl: db (")
    prompt.ask("web curl db")
    prompt.until("shop/db")
    prompt.ask("matrix 80/tcp,81/tcp")
    prompt.until("exactly what the reference evaluation expects")
    await_programmed(shop)
    for state in ("create", "jsonpath={.status.pods}=3"):
        shop.kubectl("wait", f"--for={state}", "tenant/shop", f"--timeout={PATIENCE}")
    shop.kubectl("delete", "pod", "db", "--namespace=shop", f"--timeout={PATIENCE}")
    assert addresses(shop).keys() == {"web", "spy"}
    shop.kubectl("apply", "-f", "-", stdin=placed_pod("db", "node2", "shop"))
    assert addresses(shop)["db"] not in given.values(), "a freed address is not given again at once"
    prompt.ask("web curl db")
    prompt.until("shop/db")
    assert prompt.end() == 0
    assert shop.kubectl("get", "nodes", "-o", "name") == ""
    assert shop.kubectl("get", "pods", "--namespace=shop", "-o", "name").split() == ["pod/db", "pod/spy", "pod/web"]


def test_a_replaced_pod_is_another_pod(shop: ControlPlane, start: Callable[..., Prompt]) -> None:
    prompt = start("--nodes", "2")
    given, uid = addresses(shop), uid_of(shop, "db")
    shop.kubectl("replace", "--force", "-f", "-", stdin=placed_pod("db", "node2", "shop"))
    assert addresses(shop)["db"] not in given.values() and uid_of(shop, "db") != uid
    prompt.ask("web curl db")
    prompt.until("shop/db")
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
        prompt.ask("web curl db")
        prompt.until("shop/db")
        prompt.ask("spy curl web")
        prompt.until("shop/web")
    shop.kubectl("apply", "-f", "-", stdin=placed_pod("late", "node1", "shop"))
    prompt.ask("pods")
    shop.kubectl(
        "wait", "--for=jsonpath={.status.phase}=Running", "pod/late", "--namespace=shop", f"--timeout={PATIENCE}"
    )
    assert prompt.end() == 0


def uid_of(plane: ControlPlane, name: str) -> str:
    return plane.kubectl("get", "pod", name, "--namespace=shop", "-o", "jsonpath={.metadata.uid}")


def told_of(plane: ControlPlane, name: str) -> str:
    """The notes of the Events on a pod."""
    found = json.loads(plane.kubectl("get", "events.events.k8s.io", "--namespace=shop", "-o", "json"))["items"]
    return "\n".join(one.get("note", "") for one in found if one["regarding"]["name"] == name)


def test_what_a_killed_run_left_is_taken_over(shop: ControlPlane, start: Callable[..., Prompt]) -> None:
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
    plane.kubectl("apply", "-f", "-", stdin=as_yaml(node("node2", real="yes")))
    try:
        done = run_command("emulate", "--kubeconfig", str(plane.kubeconfig), seconds=90)
        assert (
            done.returncode == 2 and "the cluster has a node node2 already, which is not an emulated one" in done.stderr
        )
        assert plane.kubectl("get", "nodes", "-o", "name").split() == ["node/node2"]
    finally:
        plane.kubectl("delete", "node", "node2")


def test_the_demonstration_on_an_api_server(control_plane: ControlPlane) -> None:
    """The same steps as on a folder, which tests/integration/test_demo.py tells in full."""
    done = run_command("demo", "--kubernetes", "--json", seconds=180)
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
