"""What changes on one node cost the others, counted in the flow-mods of real switches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from romana_ovs.pipeline.cookies import Feature, cookie
from romana_ovs.policy.view import Origin
from tests.support.live_cluster import LiveCluster, Traffic, attempts, live_cluster
from tests.support.manifests import ingress_policy, placed_pod
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

NODES = ("node1", "node2", "node3")
PODS = (
    placed_pod("web", "node1", tier="front")
    + placed_pod("db", "node2", ports="web=80/tcp", tier="back")
    + placed_pod("front", "node3", tier="front")
    + placed_pod("dns", "node2", "kube-system")
    + placed_pod("other", "node2", "b")
)
POLICIES = (
    ingress_policy("db", "app: db", "{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}")
    + ingress_policy("named", "app: db", "{from: [{podSelector: {matchLabels: {rank: '1'}}}], ports: [{port: web}]}")
    + ingress_policy(
        "dns",
        "app: dns",
        "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}]}",
        namespace="kube-system",
    )
)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Three nodes in a line; pods of node2 are what policies select."""
    with live_cluster(tmp_path_factory.mktemp("m"), NODES, manifests={"pods": PODS, "policies": POLICIES}) as running:
        yield running


NAMED_PORT = placed_pod("guest", "node1", ports="web=81/tcp")
ON_HOST = {"phase": "Running", "podIP": "192.0.2.1"}
HOST = placed_pod("guest", "node1", app="web", spec={"hostNetwork": True}, status=ON_HOST)
FINISHED = placed_pod("guest", "node1", app="web", status={"phase": "Succeeded"})
GUESTS = {
    "no labels but those that others have": placed_pod("guest", "node1", app="web"),
    "labels that nobody asks about": placed_pod("guest", "node1", app="web", note="x", owner="y"),
    "another class that is known": placed_pod("guest", "node1", app="front"),
    "another tier that is known": placed_pod("guest", "node1", app="web", tier="front"),
    "the tier of the others": placed_pod("guest", "node1", app="db", tier="back"),
    "a named port": NAMED_PORT,
    "on the third node": placed_pod("guest", "node3", app="web"),
    "a pod of the node's own network": HOST,
    "a pod that has finished": FINISHED,
}


def test_pods_of_one_node_add_no_flows_to_others(cluster: LiveCluster) -> None:
    # Whatever class and tier the guest may bring is known by a pod that was there once.
    for tier in ("front", "back", "default"):
        cluster.edit(partial(cluster.write, "guest", placed_pod("guest", "node1", tier=tier)))
        cluster.edit(partial(cluster.write, "guest", placed_pod("guest", "node1", app="web", tier=tier)))
    cluster.edit(lambda: cluster.write("guest", placed_pod("guest", "node1", app="web")))
    cluster.edit(lambda: cluster.write("guest", placed_pod("guest", "node1")))
    cluster.edit(lambda: cluster.remove("guest"))
    before, begun = cluster.flows("node2"), time.monotonic()
    for name, manifest in GUESTS.items():
        home = "node3" if "node3" in manifest else "node1"
        for change in (lambda text=manifest: cluster.write("guest", text), lambda: cluster.remove("guest")):
            sent = cluster.edit(change)
            assert {node: count for node, count in sent.items() if node != home and count} == {}, name
            if manifest in (HOST, FINISHED):
                assert set(sent.values()) == {0}, name
            else:
                assert sent[home] > 0, name
    # Relabelled, then moved, without going in between.
    cluster.edit(lambda: cluster.write("guest", placed_pod("guest", "node1", app="web")))
    for step in ({"app": "front"}, {"app": "web", "note": "z"}, {"app": "web", "tier": "back"}):
        sent = cluster.edit(partial(cluster.write, "guest", placed_pod("guest", "node1", **step)))
        assert (sent["node2"], sent["node3"]) == (0, 0), step
    sent = cluster.edit(lambda: cluster.write("guest", placed_pod("guest", "node3", app="web", tier="back")))
    assert sent["node2"] == 0
    assert min(sent["node1"], sent["node3"]) > 0
    cluster.edit(lambda: cluster.remove("guest"))
    after, past = cluster.flows("node2"), time.monotonic() - begun
    assert after.keys() == before.keys()
    assert all(after[text].age >= before[text].age + 0.5 * past for text in before), "the switch itself says the same"


def test_a_new_class_sends_the_rows_of_the_rule_that_names_it(cluster: LiveCluster) -> None:
    before = cluster.flows("node2")
    sent = cluster.edit(lambda: cluster.write("newcomer", placed_pod("newcomer", "node1", tier="front", rank="1")))
    after = cluster.flows("node2")
    come = after.keys() - before.keys()
    assert sent["node3"] == 0
    assert before.keys() - after.keys() == set(), "no row is replaced"
    assert sent["node2"] == len(come) > 0
    number = cookie(Feature.POLICY, Origin("NetworkPolicy", "a", "named", "ingress[0]"))
    assert {text.partition(",")[0] for text in come} == {f"cookie={number:#x}"}
    sent = cluster.edit(lambda: cluster.remove("newcomer"))
    assert (sent["node2"], sent["node3"]) == (0, 0), "its class stays known"


NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {trusted: "%s"}}
"""
TRUSTED = "{from: [{namespaceSelector: {matchLabels: {trusted: 'yes'}}}], ports: [{port: 81}]}"
TRUST = ingress_policy("trust", "app: dns", TRUSTED, namespace="kube-system")


def test_relabelled_pods_and_namespaces_get_new_verdicts_at_once(cluster: LiveCluster) -> None:
    cluster.edit(lambda: cluster.write("trust", TRUST))
    cluster.edit(lambda: cluster.write("guest", placed_pod("guest", "node1", app="web")))
    place = cluster.pod("a/guest").place
    labels = [lambda app=app: cluster.write("guest", placed_pod("guest", "node1", app=app)) for app in ("none", "web")]
    spaces = [lambda word=word: cluster.write("space", NAMESPACE % word) for word in ("yes", "no")]
    with attempts(cluster, "a/guest", ("connect", "a/db", 80), ("connect", "kube-system/dns", 81)) as guest:
        eventually(lambda: guest.report()[0]["good"] > 5, "allowed by its label")
        for task, change, counted in (
            (0, labels[0], "lost"),
            (1, spaces[0], "good"),
            (1, spaces[1], "lost"),
            (0, labels[1], "good"),
        ):
            cluster.edit(change)
            decided(guest, task, counted)
    assert cluster.pod("a/guest").place == place, "it is the same pod as before"
    for name in ("guest", "space", "trust"):
        cluster.edit(partial(cluster.remove, name))


def decided(traffic: Traffic, task: int, counted: str) -> None:
    """Checks that from now on all connections of a task are `good`, or all are `lost`, those under way excepted."""
    other = "lost" if counted == "good" else "good"
    traffic.decided()
    before = {word: amount(traffic, task, word) for word in ("good", "lost")}
    eventually(lambda: amount(traffic, task, counted) > before[counted] + 5, f"connections are {counted}")
    assert amount(traffic, task, other) == before[other]


def amount(traffic: Traffic, task: int, word: str) -> int:
    """How many connections of a task were `good` or `lost` so far."""
    value = traffic.report()[task][word]
    return value if isinstance(value, int) else len(value)
