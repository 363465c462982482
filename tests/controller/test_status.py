"""Which port is a pod's, and the sentences about ports without a pod."""

from __future__ import annotations

from dataclasses import replace

from romana_ovs.controller.status import observed_nodes, pods_status, port_problems, unclaimed_ports
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge
from tests.support.builders import cluster, pod
from tests.support.confirming_engine import follow

A = PodKey("ns/a")


def cluster_with(uid: str) -> Cluster:
    return cluster(pod("a", "n1", uid=uid), nodes=("n1", "n2"))


def bridge(node: str, *ports: PodPort) -> Bridge:
    """The bridge of a node with these ports that claim the pod, newest first."""
    older = {A: ports[1:]} if ports[1:] else {}
    return Bridge(1, f"br-{node}", BridgeFacts(node, pod_ports={A: ports[0]} if ports else {}, superseded_ports=older))


def test_a_pods_port_is_the_one_of_its_uid() -> None:
    for ports, expected in (
        ((PodPort(3, uid="1"),), 3),
        ((PodPort(4, uid="2"),), None),
        ((PodPort(5),), 5),
        ((PodPort(4, uid="2"), PodPort(3, uid="1")), 3),
    ):
        at = cluster_with("1")
        (status,) = pods_status(at, follow(at).agents, {"n1": bridge("n1", *ports)}).values()
        assert (status["port"], status["uid"]) == (expected, "1")


def test_an_address_has_the_uid_that_it_was_allocated_to() -> None:
    """Whoever asks for a new pod of the name must not take the old one's."""
    late = follow(cluster_with("1"))
    (status,) = pods_status(cluster_with("2"), late.agents, {}).values()
    assert status["uid"] == "1"
    before = status["address"]
    late.update(cluster_with("2"))
    (status,) = pods_status(cluster_with("2"), late.agents, {}).values()
    assert status["uid"] == "2" and status["address"] != before


def test_ports_of_other_pods_of_the_name_are_problems() -> None:
    at = cluster_with("1")
    sentences = unclaimed_ports(at, follow(at).agents, [bridge("n1", PodPort(4, uid="2"), PodPort(3, uid="1"))])
    assert list(sentences.values()) == [
        "bridge br-n1 of node n1: a port claims pod ns/a of UID 2, whose UID is 1; nothing passes it"
    ]
    assert not unclaimed_ports(at, follow(at).agents, [bridge("n1", PodPort(3))])
    sentences = unclaimed_ports(
        at, follow(at).agents, [bridge("n2", PodPort(3, uid="1")), bridge("n1", PodPort(3, uid="1"))]
    )
    assert list(sentences.values()) == [
        "bridge br-n2 of node n2: a port claims pod ns/a of UID 1, which belongs on node n1; nothing passes it"
    ]


def test_the_newest_port_has_the_reason_why_nothing_passes_it() -> None:
    at = cluster_with("1")
    old_and_new = bridge("n1", PodPort(4, uid="2"), PodPort(3, uid="1"))
    unclaimed = unclaimed_ports(at, follow(at).agents, [old_and_new])
    reasons = ("Pod ns/ab: of another", "Pod ns/a: its range is full")
    (sentence,) = port_problems(unclaimed, reasons, old_and_new).values()
    assert sentence.endswith("whose UID is 1; nothing passes it; Pod ns/a: its range is full")
    assert not port_problems(unclaimed, reasons, bridge("n1", PodPort(3, uid="1")))


def test_a_pod_is_placed_where_its_own_port_is_only() -> None:
    bridges = {"n1": bridge("n1"), "n2": bridge("n2", PodPort(3, uid="1"))}
    assert observed_nodes(cluster_with("1"), bridges) == {A: "n2"}
    assert observed_nodes(cluster_with("2"), bridges) == {}
    bridges["n1"] = bridge("n1", PodPort(4, uid="2"))
    assert observed_nodes(cluster_with("1"), bridges) == {A: "n2"}
    bridges["n1"] = replace(bridges["n1"], facts=BridgeFacts("n1", pod_ports={A: PodPort(4)}))
    assert observed_nodes(cluster_with("1"), bridges) == {}
