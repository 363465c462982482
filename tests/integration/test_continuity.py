"""What goes on while controllers, switches, policies and ports come and go: real packets over two linked nodes."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from functools import partial

import pytest

from romana_ovs.model.connection import PortRef
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.cookies import Feature, cookie
from romana_ovs.policy.view import Origin
from romana_ovs_emulate.cluster_source import ManifestFolder
from romana_ovs_emulate.nodes import bridge_commands
from romana_ovs_emulate.probe import measure
from tests.support.datapath import datapath_type
from tests.support.live_cluster import (
    PORTS,
    LiveCluster,
    attempts,
    cuts_both_ways,
    flowing,
    live_cluster,
    sink,
    watched,
)
from tests.support.manifests import ingress_policy, placed_pod
from tests.support.waiting import eventually

pytestmark = pytest.mark.root

PODS = (
    placed_pod("client", "node1")
    + placed_pod("near", "node1")
    + placed_pod("far", "node2")
    + placed_pod("guarded", "node2")
    + placed_pod("stranger", "node1", "b")
    + placed_pod("host", "node2", "b")
)
GUARD = ingress_policy("guard", "app: guarded", "{from: [{podSelector: {matchLabels: {app: near}}}]}")
ALLOWED = (
    ("udp", "a/far", 80),
    ("udp", "a/near", 80),
    ("connect", "a/far", 80),
    ("stream", "a/far", 81),
    ("stream", "a/near", 81),
)
DENIED = (
    ("udp", "a/far", 80),
    ("udp", "a/near", 80),
    ("udp", "a/guarded", 81),
    ("connect", "a/far", 80),
    ("connect", "a/near", 80),
)
SINK = 9


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """Tenants a and b on two linked nodes; in a, `guarded` accepts `near` alone."""
    with live_cluster(
        tmp_path_factory.mktemp("m"), ("node1", "node2"), manifests={"pods": PODS, "guard": GUARD}
    ) as running:
        yield running


def test_the_bridge_is_secure_and_hides_nothing(cluster: LiveCluster) -> None:
    for name, node in cluster.emulation.nodes.items():
        assert node.vsctl("get", "bridge", "br-int", "fail_mode").strip() == "secure"
        assert node.vsctl("get", "controller", "br-int", "connection_mode").strip() == "out-of-band"
        shown = cluster.hidden_flows(name)
        assert "priority=180" not in shown
        assert "NORMAL" not in shown
        assert shown.count("actions=") >= len(cluster.flows(name)) > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_controller_sends_nothing_and_loses_nothing(cluster: LiveCluster, number: signal.Signals) -> None:
    with flowing(cluster, "a/client", *ALLOWED) as traffic:
        before, begun = {name: cluster.flows(name) for name in ("node1", "node2")}, time.monotonic()
        cluster.stop_controller(number)
        traffic.flowing()
        sent = cluster.start_controller()
        assert sent == {"node1": 0, "node2": 0}
        for name, old in before.items():
            new, past = cluster.flows(name), time.monotonic() - begun
            assert new.keys() == old.keys()
            assert all(new[text].age >= old[text].age + 0.5 * past for text in old), "no flow was added anew"
            assert all(new[text].packets >= old[text].packets for text in old)
        traffic.unharmed()


def test_without_a_controller_packets_flow_and_edits_wait(cluster: LiveCluster) -> None:
    cluster.edit(
        lambda: cluster.write("more", placed_pod("leaving", "node2") + ingress_policy("open", "app: near", "{}"))
    )
    cluster.edit(lambda: cluster.write("shut", ingress_policy("shut", "app: leaving")))
    leaving = cluster.pod("a/leaving").place.address
    with (
        flowing(cluster, "a/client", *ALLOWED) as traffic,
        attempts(cluster, "b/stranger", *DENIED) as denied,
        attempts(cluster, "a/client", ("connect", "a/leaving", 80), ("udp", "a/guarded", 80)) as refused,
    ):
        cluster.stop_controller(signal.SIGKILL)
        cluster.write("more", ingress_policy("open", "app: near", "{}"))
        cluster.remove("shut")
        cluster.remove("guard")
        traffic.flowing()
        assert sum(task["good"] for task in (*denied.report(), *refused.report())) == 0
        assert any(leaving in text for text in cluster.flows("node2")), "nobody is there to remove it"
        sent = cluster.start_controller()
        assert sent["node2"] > 0
        assert "a/leaving" not in cluster.emulation.pods
        assert not any(leaving in text for name in ("node1", "node2") for text in cluster.flows(name))
        eventually(lambda: refused.report()[1]["good"], "the removed policy guards no more")
        traffic.unharmed()
        assert sum(task["good"] for task in denied.report()) == 0
    cluster.edit(lambda: cluster.write("guard", GUARD))
    cluster.edit(lambda: cluster.remove("more"))


@pytest.mark.parametrize("dead", ["node1", "node2"])
def test_a_killed_switch_stays_closed_until_its_flows_return(cluster: LiveCluster, dead: str) -> None:
    """On node1 are the clients, on node2 the servers."""
    alive = {"node1": "node2", "node2": "node1"}[dead]
    before, elsewhere, begun = cluster.meaning(dead), cluster.flows(alive), time.monotonic()
    with (
        sink(cluster, "a/far", SINK) as far,
        flowing(cluster, "a/client", *ALLOWED) as traffic,
        attempts(cluster, "b/stranger", *DENIED, ("udp", "a/far", SINK)) as denied,
    ):
        cluster.kill_switch(dead)
        cluster.await_state(lambda state: not state.nodes[dead].connected, "its death is noticed")
        cluster.node(dead).start_switch()
        eventually(lambda: cluster.meaning(dead) == before, "every flow is back, for the ports as they are now")
        traffic.flowing()
        past = time.monotonic() - begun
        assert all(shown.age >= elsewhere[text].age + 0.5 * past for text, shown in cluster.flows(alive).items()), (
            "the other node is sent nothing"
        )
        report = traffic.report()
        assert [task["lost"] for task in report[3:]] == [[]] * len(report[3:]), "established streams go on"
        assert sum(task["good"] for task in denied.report()) == 0
        assert far.report()[0]["good"] == 0
        if dead == "node2":
            assert report[1]["lost"] == [], "two pods of the other node notice nothing"
        assert "NORMAL" not in cluster.hidden_flows(dead)


def test_a_new_bridge_without_controller_forwards_nothing(cluster: LiveCluster) -> None:
    words = bridge_commands("node1", "unix:x", datapath_type())
    assert words.count("add-br") == 1
    assert "fail_mode=secure" in words
    assert "connection_mode=out-of-band" in words
    cluster.stop_controller()
    with (
        attempts(cluster, "a/client", ("udp", "a/near", 80), ("connect", "a/near", 80)) as near,
        attempts(cluster, "a/near", ("udp", "a/client", 80)) as back,
    ):
        near.flowing()
        cluster.kill_switch("node1")
        cluster.node("node1").start_switch()
        count = [task["good"] for task in (*near.report(), *back.report())]
        assert cluster.flows("node1") == {}
        assert "NORMAL" not in cluster.hidden_flows("node1")
        tried = len(near.report()[1]["lost"])
        eventually(lambda: len(near.report()[1]["lost"]) > tried + 20, "attempts fail")
        assert [task["good"] for task in (*near.report(), *back.report())] == count
        cluster.start_controller()
        near.flowing()
        back.flowing()


FROM_CLIENT = "{from: [{podSelector: {matchLabels: {app: client}}}]}"
NOT_NEAR = "{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [near]}]}}]}"
FRESH = "{from: [{podSelector: {matchLabels: {app: far}}}]}"
FINER = {
    "an unrelated rule": ingress_policy("unrelated", "app: guarded", FROM_CLIENT),
    "rules of theirs": ingress_policy("still", "app: far", NOT_NEAR)
    + ingress_policy("near-too", "app: near", FROM_CLIENT),
}
"""Policies that tell `client` from `far` and `guarded`, with which it was of one class."""


def _sent_to_node2(cluster: LiveCluster, count: int) -> bool:
    return cluster.sent_since(count)["node2"] > 0


@pytest.mark.parametrize("finer", FINER.values(), ids=FINER)
def test_a_policy_that_makes_classes_finer_interrupts_nothing(cluster: LiveCluster, finer: str) -> None:
    with flowing(cluster, "a/client", *ALLOWED, ("connect", "a/near", 81)) as traffic:
        for _ in range(2):
            count = len(cluster.heard)
            cluster.edit(lambda: cluster.write("finer", finer))
            # A port may change just then, which is another change: then the policy's flows are in a later event.
            eventually(partial(_sent_to_node2, cluster, count), "its tables change")
            traffic.flowing()
            cluster.edit(lambda: cluster.remove("finer"))
        traffic.unharmed()


@pytest.mark.alone  # It compares when changes of two switches are seen, to the millisecond.
def test_class_ids_are_introduced_adopted_and_active_in_order(cluster: LiveCluster) -> None:
    cluster.edit(lambda: cluster.write("naming", ingress_policy("naming", "app: far", NOT_NEAR)))
    old = {
        found
        for name in ("node1", "node2")
        for text in cluster.flows(name)
        for found in re.findall(r"set_field:(0x\w+)->reg1,", text)
    }
    owners = {cluster.pod(key).place.address for key in ("a/client", "a/far", "a/guarded")}
    with watched(cluster) as changes:
        cluster.edit(lambda: cluster.write("finer", ingress_policy("finer", "app: guarded", FRESH)))
        rule = f"cookie={cookie(Feature.POLICY, Origin('NetworkPolicy', 'a', 'finer', 'ingress[0]')):#x}"
        eventually(lambda: any(rule in change.text for change in changes()), "the rule comes into force")
    seen = changes()
    known = {identity: change for change in reversed(seen) for identity in re.findall(r"[ ,]reg7=(\w+),", change.text)}
    assigned = [
        (found[2], change)
        for change in seen
        if (found := re.search(r"nw_src=([0-9.]+) .*set_field:(0x\w+)->reg1,", change.text)) and found[1] in owners
    ]
    new = [(identity, change) for identity, change in assigned if identity not in old]
    assert new, "pods take new numbers, which rows of the first rule name"
    assert all(known[identity].precedes(change) for identity, change in new)
    assert all(change.precedes(ruled) for _, change in new for ruled in seen if rule in ruled.text)
    for name in ("naming", "finer"):
        cluster.edit(partial(cluster.remove, name))


@pytest.mark.alone
def test_only_the_removed_policy_cuts_connections(cluster: LiveCluster) -> None:
    cuts_both_ways(cluster)


def test_ports_are_added_removed_and_renumbered(cluster: LiveCluster) -> None:
    far, node = cluster.pod("a/far"), cluster.node("node2")
    tasks = (("udp", "a/far", 80), ("connect", "a/far", 80))
    with flowing(cluster, "a/client", *tasks, ("udp", "a/near", 80)) as traffic:
        for words in (
            ["set", "interface", far.port, "ofport_request=77"],
            ["set", "interface", far.port, "ofport_request=78", "external_ids:note=x"],
        ):
            sent = cluster.edit(partial(node.vsctl, *words))
            number = words[3].partition("=")[2]
            assert cluster.emulation.state.pods[PodKey("a/far")].port == int(number)
            assert any(f"in_port={number}," in text for text in cluster.flows("node2"))
            assert sent["node1"] == 0
            traffic.flowing()
        assert not any("in_port=77," in text for text in cluster.flows("node2"))
        cluster.edit(lambda: node.vsctl("remove", "interface", far.port, "external_ids", "iface-id"), portless=1)
        assert not any("in_port=78," in text for text in cluster.flows("node2")), "nobody's port is closed"
        stopped = traffic.report()
        assert cluster.log().count(f"port {far.port} has no external_ids:iface-id") == 1
        sent = cluster.edit(lambda: node.vsctl("set", "interface", far.port, "external_ids:iface-id=a/far"))
        assert sent["node1"] == 0
        traffic.flowing()
        report = traffic.report()
        assert report[0]["good"] > stopped[0]["good"]
        assert report[2]["lost"] == [], "other pods notice nothing"
        assert cluster.log().count(f"port {far.port} has no external_ids:iface-id") == 1


def test_a_port_that_claims_nobody_or_somebody_else_is_closed(cluster: LiveCluster) -> None:
    guarded, node = cluster.pod("a/guarded"), cluster.node("node2")
    with (
        attempts(cluster, "a/guarded", ("udp", "a/far", 80), ("udp", "a/near", 80)) as its,
        flowing(cluster, "a/client", ("udp", "a/near", 80), ("udp", "a/far", 80)) as others,
    ):
        its.flowing()
        cluster.edit(lambda: node.vsctl("set", "interface", guarded.port, "external_ids:iface-id=a/nobody"), portless=1)
        closed = its.report()
        others.flowing()
        cluster.edit(lambda: cluster.write("nobody", ingress_policy("nobody", "app: nobody")), portless=1)
        assert [task["settled"] for task in its.report()] == [task["settled"] for task in closed]
        assert cluster.log().count("a port claims pod a/nobody") == 1, "said once, whatever is computed after it"
        others.unharmed()
        cluster.edit(lambda: node.vsctl("set", "interface", guarded.port, "external_ids:iface-id=a/far"), portless=1)
        stranger = f"a port claims pod a/far of UID {guarded.place.uid}, whose UID is {cluster.pod('a/far').place.uid}"
        assert any(stranger in problem for problem in cluster.emulation.state.problems)
        cluster.edit(
            lambda: node.vsctl("remove", "interface", guarded.port, "external_ids", "iface-id-ver"), portless=1
        )
        assert any("both claim pod a/far" in problem for problem in cluster.emulation.state.problems)
        claimed = its.report()
        asked = [task["next"] + 10 for task in claimed]
        eventually(
            lambda: [task["next"] >= least for task, least in zip(its.report(), asked, strict=True)] == [True, True],
            "it has asked",
        )
        others.flowing()  # By the same switches, and later: what was asked before has come through, or never will.
        assert [task["settled"] for task in its.report()] == [task["settled"] for task in claimed]
        cluster.edit(lambda: node.vsctl("set", "interface", guarded.port, "external_ids:iface-id=a/guarded"))
        its.flowing()
        others.flowing()
        assert cluster.log().count("both claim pod a/far") == 1
    cluster.edit(lambda: cluster.remove("nobody"))


def test_after_all_that_every_pair_is_as_the_reference_says(cluster: LiveCluster) -> None:
    manifests = ManifestFolder(cluster.folder, 2, cluster.emulation.addresses)
    expected = manifests.expected([PortRef.parse(port) for port in PORTS])
    measured = measure(cluster.emulation.pods, PORTS, expected=expected)
    assert measured.differences(expected) == []
    assert cluster.emulation.state.packet_ins == 0
    assert cluster.emulation.state.problems == ()
