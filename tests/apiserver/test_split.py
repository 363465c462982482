"""The registry and the nodes as processes of their own, over a real API server and real bridges."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from bench.echo import EchoProbe
from romana_ovs.kube.api.election import Timing
from romana_ovs.pipeline.compile import compile_node
from romana_ovs.policy.resolve import resolve
from romana_ovs.sync.diff import flow_diff
from romana_ovs_emulate.controlplane import ControlPlane
from romana_ovs_emulate.kube import manifests_folder
from tests.support.control_plane import needed_binaries
from tests.support.live_cluster import Traffic
from tests.support.split_checks import consistent, flowing, leads, numbers, only_from, published
from tests.support.split_cluster import SplitCluster, SplitController, split_cluster

pytestmark = pytest.mark.root
NODES = ("n1", "n2", "n3")
MANY = 2000
"""Pods that are listed at once."""
LONGEST_ECHO = 1000.0
"""Milliseconds that an OpenFlow echo may take on a loaded machine; a switch gives up after several seconds."""
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "None"},
    ],
}
"""What API servers write down: all that our service accounts ask."""


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module")
def own(audit: Path) -> Iterator[ControlPlane]:
    """A control plane that is ours to end."""
    (audit / "policy").write_text(json.dumps(AUDIT))
    options = [f"--audit-policy-file={audit}/policy", f"--audit-log-path={audit}/log", "--audit-log-mode=blocking"]
    with ControlPlane(binaries=needed_binaries(), options=options) as plane:
        plane.apply(manifests_folder())
        yield plane


@pytest.fixture(scope="module")
def running(own: ControlPlane) -> Iterator[SplitCluster]:
    with split_cluster(own, NODES) as cluster:
        yield cluster


@pytest.fixture
def cluster(running: SplitCluster) -> Iterator[SplitCluster]:
    """The cluster, with every controller running; every pod and policy is gone again after the test."""
    yield running
    running.heal()
    running.clear()


@pytest.fixture
def ns(cluster: SplitCluster) -> str:
    return cluster.namespace(f"t-{secrets.token_hex(3)}")


def test_a_node_asks_for_little_and_gets_all_it_needs(cluster: SplitCluster, ns: str, audit: Path) -> None:
    """docs/hazards.md E12: its own pods only."""
    other = cluster.namespace(f"{ns}-b")
    pods = [cluster.pod(ns, f"p{number}", node) for number, node in enumerate((*NODES, *NODES))]
    pods += [cluster.pod(other, "stranger", "n2")]
    cluster.policy(ns, "one", only_from("p0", "p1", 80))
    egress = {
        "policyTypes": ["Egress"],
        "podSelector": {"matchLabels": {"app": "p3"}},
        "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "p5"}}}]}],
    }
    cluster.policy(ns, "two", egress)
    cluster.settled(*pods)
    assert cluster.verdicts(*pods) == []
    _equal_to_one_controller(cluster)
    asked = [json.loads(line) for line in (audit / "log").read_text().splitlines()]
    # 429: a definition that has just been made is not served at once.
    assert {one["responseStatus"]["code"] for one in asked} <= {200, 201, 404, 409, 429}
    selected = set()
    for one in asked:
        if one["objectRef"]["resource"] == "pods" and one["user"]["username"].endswith(":romana-node"):
            [node] = one["user"]["extra"]["authentication.kubernetes.io/node-name"]
            assert parse_qs(urlsplit(one["requestURI"]).query)["fieldSelector"] == [f"spec.nodeName={node}"]
            selected.add((node, one["verb"]))
    assert selected == {(node, verb) for node in NODES for verb in ("list", "watch")}


def _equal_to_one_controller(cluster: SplitCluster) -> None:
    """Every bridge has what one process for the whole cluster would give it, of the same numbers."""
    engine, facts = cluster.merged_engine(), cluster.facts()
    for node in NODES:
        view = engine.view(facts[node], facts)
        wanted = compile_node(view, resolve(view)).flows
        difference = flow_diff(wanted, cluster.has(node))
        assert (difference.add, difference.modify, difference.delete) == ((), (), ()), node
        assert len(wanted) > 50


def test_a_new_question_interrupts_nothing_between_processes(cluster: SplitCluster, ns: str) -> None:
    client, server, other = (cluster.pod(ns, name, node) for name, node in zip("cso", NODES, strict=True))
    cluster.settled(client, server, other)
    task = {"kind": "udp", "address": cluster.address(server), "port": 80}
    traffic = Traffic(cluster.pods.running[client], [task])
    try:
        traffic.flowing()
        for number, label in enumerate(("c", "o", "c")):
            cluster.policy(
                ns,
                "p",
                {
                    **only_from("c", "s"),
                    "ingress": [
                        {"from": [{"podSelector": {"matchLabels": {"app": "c"}}}]},
                        {
                            "from": [
                                {
                                    "podSelector": {
                                        "matchExpressions": [
                                            {"key": f"new-{number}", "operator": "DoesNotExist"},
                                            {"key": "app", "operator": "In", "values": [label]},
                                        ]
                                    }
                                }
                            ]
                        },
                    ],
                },
            )
            cluster.settled()
            assert cluster.verdicts(client, server, other) == []
        traffic.unharmed()
    finally:
        traffic.close()


@pytest.mark.alone  # It counts single datagrams, of which a busy machine may lose one.
def test_without_the_registry_nodes_go_on_with_what_is_known(cluster: SplitCluster, ns: str) -> None:
    client, server = cluster.pod(ns, "c", "n1"), cluster.pod(ns, "s", "n2")
    cluster.policy(ns, "p", only_from("c", "s"))
    cluster.settled(client, server)
    cluster.controllers["registry"].stop(signal.SIGKILL)
    with flowing(cluster, client, server) as traffic:
        more = [cluster.pod(ns, f"{app}-more", "n3", app=app) for app in "cs"]
        cluster.policy(ns, "q", only_from("c", "c", 81))
        cluster.settled(*more)
        assert cluster.verdicts(client, server, *more) == []
        cluster.delete_pod(more[0])
        cluster.settled()
        newcomer = cluster.pod(cluster.namespace(f"{ns}-new"), "late", "n2")
        said = f"Pod {newcomer}: tenant '{ns}-new', tier 'default' has no range yet: it waits for the registry"
        cluster.until(lambda: said in cluster.controllers["n2"].state["problems"], "it says so")
        assert newcomer not in cluster.pods.running
        cluster.start("registry")
        cluster.settled(newcomer)
        assert cluster.controllers["n2"].state["problems"] == []
        assert cluster.verdicts(client, server, more[1], newcomer) == []
        traffic.unharmed()


@pytest.mark.alone  # It counts single datagrams, of which a busy machine may lose one.
def test_without_the_api_server_everything_stays(cluster: SplitCluster, ns: str, own: ControlPlane) -> None:
    client, server, other = (cluster.pod(ns, name, node) for name, node in zip("cso", NODES, strict=True))
    cluster.policy(ns, "p", only_from("c", "s"))
    cluster.settled(client, server, other)
    flows = {node: cluster.flows(node) for node in NODES}
    begun = time.monotonic()
    with flowing(cluster, client, server) as traffic:
        own.kill_api_server()
        try:
            for name, controller in cluster.controllers.items():
                cluster.until(partial(_tells_of, controller, own.url), f"{name} says so")
            for name in ("n1", "registry"):
                cluster.controllers[name].stop()
            said = len(cluster.controllers["n1"].log)
            cluster.start("n1", "registry")
            cluster.until(cluster.controllers["n1"].is_connected, "the bridge is back")
            cluster.until(lambda: _mentions(cluster.controllers["n1"].state, own.url), "it says so again")
            assert {node: cluster.flows(node) for node in NODES} == flows
            lines = [line for line in cluster.controllers["n1"].log[said:].splitlines() if own.url in line]
            assert lines and len(set(lines)) == len(lines)
        finally:
            own.start_api_server()
        more = cluster.pod(ns, "more", "n1")
        cluster.settled(more)
        assert cluster.verdicts(client, server, other, more) == []
        for name, controller in cluster.controllers.items():
            cluster.until(partial(_tells_nothing_of, controller, own.url), f"{name} says no more of it")
        traffic.unharmed()
    cluster.delete_pod(more)
    cluster.settled()
    assert {node: cluster.flows(node) for node in NODES} == flows
    assert cluster.youngest("n3") > time.monotonic() - begun


def _mentions(state: dict[str, Any], words: str) -> bool:
    return any(words in problem for problem in state.get("problems", ()))


def test_a_policy_is_programmed_when_every_node_says_so(cluster: SplitCluster, ns: str) -> None:
    """docs/hazards.md C14."""
    cluster.pod(ns, "a", "n1")
    spec = {"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 80}]}]}
    path = cluster.policy(ns, "p", spec, "romana.io")
    cluster.settled()
    cluster.until(lambda: cluster.conditions(path).get("Programmed") == ("True", "Programmed"), "it is programmed")
    cluster.controllers["n3"].stop()
    cluster.policy(ns, "p", {**spec, "allowIncoming": [{"toPorts": [{"port": 81}]}]}, "romana.io")

    def others_have_it() -> bool:
        digests = {node: cluster.report(node)["policiesDigest"] for node in NODES}
        return bool(digests["n1"] == digests["n2"] != digests["n3"])

    cluster.until(others_have_it, "the others have it")
    cluster.until(lambda: cluster.conditions(path)["Programmed"] == ("False", "Pending"), "it is pending")
    cluster.settled(but=["n3"])
    assert cluster.conditions(path)["Programmed"] == ("False", "Pending")
    cluster.start("n3")
    cluster.until(lambda: cluster.conditions(path)["Programmed"] == ("True", "Programmed"), "it is programmed")
    status = cluster.admin.get(path)
    assert status["status"]["observedGeneration"] == status["metadata"]["generation"] == 2


def test_a_restart_sends_nothing_and_changes_no_number(cluster: SplitCluster, ns: str) -> None:
    """docs/hazards.md C5: what is listed anew and is as it was sends no flow-mod."""
    pods = [cluster.pod(ns, f"p{number}", node) for number, node in enumerate((*NODES, *NODES))]
    cluster.policy(ns, "p", only_from("p0", "p1", 80))
    cluster.settled(*pods)
    given, flows = numbers(cluster), {node: cluster.flows(node) for node in NODES}
    begun = time.monotonic()
    for controller, number in zip(cluster.controllers.values(), (signal.SIGKILL, signal.SIGTERM) * 2, strict=True):
        controller.stop(number)
    cluster.start(*cluster.controllers)
    cluster.settled(*pods)
    with cluster.all_in_one() as whole:
        cluster.settled(*pods)
        whole.stop()
        whole.start()
        cluster.settled(*pods)
        assert cluster.verdicts(*pods) == []
    cluster.settled(*pods)
    assert numbers(cluster) == given
    assert {node: cluster.flows(node) for node in NODES} == flows
    past = time.monotonic() - begun
    assert min(cluster.youngest(node) for node in NODES) > past


def test_a_node_that_lost_its_state_opens_nothing(cluster: SplitCluster, ns: str) -> None:
    pods = [cluster.pod(ns, name, node) for name, node in zip("cso", NODES, strict=True)]
    cluster.policy(ns, "p", only_from("c", "s"))
    cluster.settled(*pods)
    addresses, given = [cluster.address(key) for key in pods], numbers(cluster)
    denied = Traffic(cluster.pods.running[pods[2]], [{"kind": "udp", "address": addresses[1], "port": 80}])
    try:
        for node in ("n2", "n3"):
            cluster.controllers[node].stop(signal.SIGKILL)
            for path in cluster.controllers[node].folder.glob("state*"):
                path.unlink()
        cluster.start("n2", "n3")
        cluster.settled(*pods)
        assert cluster.verdicts(*pods) == []
        assert [cluster.address(key) for key in pods] == addresses
        assert [task["good"] for task in denied.report()] == [0]
    finally:
        denied.close()
    foreign = numbers(cluster)["foreignAddresses"]
    assert {one["node"]: one["granted"] for one in foreign} == {"n2": [addresses[1]], "n3": [addresses[2]]}
    assert {**numbers(cluster), "foreignAddresses": given.get("foreignAddresses", [])} == {
        **given,
        "foreignAddresses": given.get("foreignAddresses", []),
    }
    more = [cluster.pod(ns, f"more-{number}", "n2") for number in range(3)]
    cluster.settled(*more)
    assert not {cluster.address(key) for key in more} & {*addresses}
    assert cluster.verdicts(*pods, *more) == []


def test_a_pod_of_the_same_name_inherits_nothing(cluster: SplitCluster, ns: str) -> None:
    """docs/hazards.md C6: its address, its connections."""
    client, server = cluster.pod(ns, "c", "n1"), cluster.pod(ns, "s", "n2")
    cluster.policy(ns, "p", {**only_from("nobody", "c"), "podSelector": {}})
    cluster.policy(ns, "q", only_from("c", "s"))
    cluster.settled(client, server)
    cluster.pods.running[client].agent.stream(cluster.address(server), 80, "udp")
    heard = cluster.pods.running[client].agent
    cluster.until(lambda: [one["received"] > 100 for one in heard.streams()] == [True], "the server pushes")
    address = cluster.address(client)
    # What it still sends while its flows go may make an entry behind the flush: the datapath's own flows go last.
    heard.close_streams()
    assert address in cluster.nodes["n1"].appctl("dpctl/dump-conntrack")
    old = cluster.loaded().cluster.pods[client].uid
    cluster.delete_pod(client)
    cluster.pod(ns, "c", "n1")
    cluster.settled(client)
    assert cluster.loaded().cluster.pods[client].uid != old
    assert cluster.pods.running[client].agent.streams() == []
    tracked = re.findall(r"src=([0-9.]+)", cluster.nodes["n1"].appctl("dpctl/dump-conntrack"))
    assert address == cluster.address(client) or address not in tracked
    assert cluster.verdicts(client, server) == []


def test_of_two_registries_one_leads_and_nothing_is_given_twice(
    cluster: SplitCluster, ns: str, own: ControlPlane
) -> None:
    """docs/hazards.md C12."""
    first, account = (
        cluster.controllers["registry"],
        own.kubeconfig_for_service_account("kube-system", "romana-registry"),
    )
    with published(cluster) as allocations, SplitController("second", account, ["--registry"]) as second:
        cluster.controllers["second"] = second
        try:
            second.start()
            cluster.until(lambda: leads(first), "the first leads")
            before, begun = cluster.pod(ns, "before", "n1"), time.monotonic()
            cluster.settled(before)
            begun = time.monotonic()
            first.stop()
            cluster.until(lambda: leads(second), "the other one leads")
            assert time.monotonic() - begun < Timing().renew_deadline, "it was given, and not waited for"
            cluster.start("registry")
            assert second.process is not None
            stopped = [second.process.pid, second.child()]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            newcomers = [cluster.pod(cluster.namespace(f"{ns}-{node}"), "new", node) for node in NODES]
            cluster.settled(*newcomers)
            assert leads(first)
            writer = cluster.allocation()["writer"]
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            later = [cluster.pod(cluster.namespace(f"{ns}-{node}-b"), "new", node) for node in NODES]
            cluster.settled(*later)
            cluster.until(lambda: not leads(second), "it knows")
            history = allocations()
        finally:
            del cluster.controllers["second"]
    assert cluster.verdicts(before, *newcomers, *later) == []
    assert leads(first) and {one["writer"] for one in history if one["epoch"] == history[-1]["epoch"]} == {writer}
    consistent(history)


def test_what_means_nothing_is_said_and_loses_nothing(cluster: SplitCluster, ns: str) -> None:
    """What schemas let through: an edit without meaning, and a policy of a mebibyte that takes too many flows.

    docs/hazards.md E5, E10 and C14.
    """
    other = cluster.namespace(f"{ns}-b")
    pods = [cluster.pod(name, app, node) for name in (ns, other) for app, node in (("a", "n1"), ("b", "n2"))]
    path = cluster.policy(ns, "p", {"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 80}]}]}, "romana.io")
    cluster.settled(*pods)
    flows = {node: cluster.flows(node) for node in NODES}
    rules = [
        {
            "toPorts": [{"port": rule * 64 + number + 1} for number in range(64)],
            "from": [{"pods": {"matchLabels": {"x": f"{rule}-{number}"}}} for number in range(64)],
        }
        for rule in range(64)
    ]
    cluster.policy(ns, "p", {"podSelector": {}, "allowIncoming": rules}, "romana.io")
    cluster.until(lambda: cluster.conditions(path)["Invalid"] == ("True", "Invalid"), "it is told")
    assert cluster.conditions(path)["Programmed"] == ("False", "LastValidKept")
    cluster.until(lambda: "InvalidEdit" in cluster.events(ns), "there is an Event")
    assert {node: cluster.flows(node) for node in NODES} == flows
    where = f"RomanaNetworkPolicy {ns}/p: spec.allowIncoming: its peers and ports take about"
    for name, controller in cluster.controllers.items():
        cluster.until(partial(_has_logged, controller, f"refused: {where}"), f"{name} says so")
    blocks = [{"ipBlock": {"cidr": f"10.{number >> 8}.{number & 255}.0/24"}} for number in range(22_000)]
    cluster.policy(other, "huge", {"podSelector": {}, "ingress": [{"from": blocks}]})
    cluster.until(lambda: "Invalid" in cluster.events(other), "there is an Event")
    cluster.settled(*pods)
    # It was never valid: what it selects is isolated, and everything else is as it was.
    near, near_peer, far, far_peer = pods
    assert not cluster.opens(far, far_peer, "80/tcp")
    assert cluster.opens(near, near_peer, "80/tcp")
    assert not cluster.opens(near, near_peer, "81/tcp")
    cluster.admin.delete(f"/apis/networking.k8s.io/v1/namespaces/{other}/networkpolicies/huge")
    cluster.settled(*pods)
    assert {node: cluster.flows(node) for node in NODES} == flows
    cluster.policy(ns, "p", {"podSelector": {}, "allowIncoming": [{"toPorts": [{"port": 81}]}]}, "romana.io")
    cluster.settled(*pods)
    assert cluster.verdicts(*pods) == []
    cluster.until(lambda: cluster.conditions(path)["Programmed"] == ("True", "Programmed"), "it is told")


@pytest.mark.alone
def test_kubernetes_never_keeps_a_switch_waiting(cluster: SplitCluster, ns: str) -> None:
    """Its process stands still; then a registry beside it lists some thousand pods (docs/hazards.md D10).

    What one process for all answers while it lists 10,000 is measured by `make bench`.
    """
    node, registry = cluster.controllers["n1"], cluster.controllers["registry"]
    with EchoProbe(Path(node.openflow)) as echo:
        pid = node.child()
        os.kill(pid, signal.SIGSTOP)
        try:
            cluster.until(lambda: len(echo.delays) > 200, "echoes are answered meanwhile")
        finally:
            os.kill(pid, signal.SIGCONT)
        pod = cluster.pod(ns, "a", "n1")
        cluster.settled(pod)
    assert echo.longest < LONGEST_ECHO
    registry.stop()
    path = f"/api/v1/namespaces/{ns}/pods"
    spec = {
        "nodeName": "elsewhere",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "x"}],
    }
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda number: cluster.admin.create(
                    path, {"metadata": {"name": f"far-{number}", "labels": {"app": f"a{number % 50}"}}, "spec": spec}
                ),
                range(MANY),
            )
        )
    try:
        with EchoProbe(Path(node.openflow)) as echo:
            registry.start()
            cluster.until(lambda: leads(registry) and len(echo.delays) > 200, "the registry has listed all")
            revision = cluster.allocation()["revision"]
            late = cluster.pod(cluster.namespace(f"{ns}-late"), "a", "n2")
            cluster.until(lambda: cluster.allocation()["revision"] > revision, "it works")
        assert echo.longest < LONGEST_ECHO
    finally:
        cluster.admin.delete(f"{path}?gracePeriodSeconds=0")
    cluster.settled(late)


def _tells_of(controller: SplitController, text: str) -> bool:
    return _mentions(controller.state, text)


def _tells_nothing_of(controller: SplitController, text: str) -> bool:
    return not _mentions(controller.state, text)


def _has_logged(controller: SplitController, text: str) -> bool:
    return text in controller.log
