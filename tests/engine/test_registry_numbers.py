"""Registry and node agents by examples: host numbers, classes, and foreign addresses."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.engine.foreign import ForeignAddresses
from romana_ovs.engine.node_agent import NodeAgent
from romana_ovs.engine.registry import Registry
from romana_ovs.kube.published import published_to_json
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import InputError
from romana_ovs.model.objects import Node, PodKey
from romana_ovs.model.settings import Settings
from romana_ovs.policy import classes
from romana_ovs.policy.view import ForeignRoute
from romana_ovs.registry_types.published import Claim
from romana_ovs.registry_types.report import Report
from tests.engine.registry_and_agents import NOT_WEB, confirm, newest, rounds, settled, update_agent
from tests.support.builders import DEFAULTS, TINY, cluster, pod, pods, policy, rule
from tests.support.known import known
from tests.support.reordered_messages import RegistryAndAgents, tables

# Numbers


def test_a_host_number_is_reused_once_every_node_released_it() -> None:
    names = tuple(f"node{number}" for number in range(1, 5))
    simulation = settled(settings=TINY, nodes=names)
    node4 = simulation.cluster.nodes["node4"]
    simulation.change(simulation.cluster.without(node4).with_object(replace(node4, name="late")))
    simulation.registry_looks(newest(simulation))
    assert "late" not in simulation.messages[-1].hosts and "late" in str(simulation.registry.problems[0])
    for name in names[:3]:
        update_agent(simulation, name)
    confirm(simulation, "node1", "node2")
    simulation.registry_looks(newest(simulation))
    assert "late" not in simulation.messages[-1].hosts
    confirm(simulation, "node3")
    simulation.registry_looks(newest(simulation))
    assert (
        simulation.messages[-1].hosts["late"] == simulation.messages[0].hosts["node4"]
        and simulation.registry.problems == ()
    )


def test_a_retired_class_is_reserved_until_all_released_it() -> None:
    at = cluster(pod("a"), pod("other/b", "node2"))
    simulation = settled(pod("a"), pod("other/b", "node2"))
    (number,) = simulation.messages[-1].class_sets["other"].classes
    simulation.change(at.without(pod("other/b")).without(at.namespaces["other"]))
    simulation.registry_looks(newest(simulation))
    assert simulation.messages[-1].class_sets["other"].retired == {number}
    for name in simulation.nodes:
        update_agent(simulation, name)
    confirm(simulation, "node1", "node2")
    simulation.registry_looks(newest(simulation))
    assert simulation.messages[-1].class_sets["other"].retired == {number}
    confirm(simulation, "node3")
    simulation.registry_looks(newest(simulation))
    assert "other" not in simulation.messages[-1].class_sets


def test_only_a_full_segment_grows_when_its_node_asks() -> None:
    crowd = [pod(f"p{number}") for number in range(5)]
    simulation = RegistryAndAgents(cluster(*crowd, settings=TINY))
    simulation.registry_looks(0)
    update_agent(simulation, "node1")
    node, segment = simulation.nodes["node1"], SegmentKey("ns", "default")
    assert node.report.exhausted_segments == {segment: 1} and "waits for the registry" in str(node.problems[-1])
    liar = replace(simulation.nodes["node1"].report, node="node2")
    update_agent(simulation, "node2")
    simulation.reports["node2"] = liar
    simulation.registry_looks(0)
    assert len(simulation.messages[-1].indexes[segment]) == 1
    simulation.settle()
    assert len(simulation.messages[-1].indexes[segment]) == 2
    assert node.problems == () and node.report.exhausted_segments == {}
    assert all(node.address_of(each.key) is not None for each in crowd)


def test_a_deleted_pod_without_a_range_is_no_problem() -> None:
    crowd = [pod(f"n{number:02}/p") for number in range(20)]
    registry = Registry(TINY, None, writer="r")
    registry.update(cluster(*crowd, settings=TINY))
    assert [problem.name for problem in registry.problems] == [f"n{number}/p" for number in range(15, 20)]
    registry.update(cluster(*crowd[:16], settings=TINY))
    assert [problem.name for problem in registry.problems] == ["n15/p"]


def test_a_pod_without_a_class_gets_a_released_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "CLASS_MASK", 2)
    lasting, first, second = pod("a"), pod("b", app="web"), pod("c", app="db")
    asked = [policy(f"asks-{value}", ingress=[rule(pods(app=value))]) for value in ("web", "db")]
    simulation = settled(lasting, first, second, *asked)
    assert [problem.name for problem in simulation.registry.problems] == ["ns/c"]
    simulation.change(cluster(lasting, pod("b"), second, asked[1]))
    simulation.settle()
    assert simulation.registry.problems == ()


def test_settings_that_change_the_plan_are_refused() -> None:
    simulation = settled(pod("a"))
    other = replace(simulation.cluster, settings=Settings(network=IPv4Network("10.0.0.0/9"), segment_bits=11))
    for update in (simulation.nodes["node1"].update, lambda at, _: simulation.registry.update(at)):
        with pytest.raises(InputError, match="the address plan .* cannot change under live pods"):
            update(other, None)


# Addresses from elsewhere


def test_a_foreign_address_is_served_once_it_is_routed() -> None:
    simulation = RegistryAndAgents(cluster(pod("a", address="192.168.5.9"), pod("b", "node2")))
    simulation.registry_looks(0)
    update_agent(simulation, "node1")
    node, address = simulation.nodes["node1"], IPv4Address("192.168.5.9")
    assert node.address_of(PodKey("ns/a")) is None and node.report.foreign == {address}
    simulation.settle()
    assert node.address_of(PodKey("ns/a")) == address and node.problems == ()
    assert simulation.messages[-1].foreign == {address: Claim("node1", granted=True)}
    assert known(simulation.view("node2")).foreign == (ForeignRoute(address, simulation.messages[-1].hosts["node1"]),)
    simulation.change(simulation.cluster.without(pod("a", address="192.168.5.9")))
    simulation.settle()
    assert simulation.messages[-1].foreign == {}


@pytest.mark.parametrize(
    ("address", "whose"),
    [
        ("172.16.0.2", "that of a node"),
        ("10.0.0.65", "that of node node2 on its own bridge"),
        ("127.0.0.1", "a loopback address, which no pod and no node can have"),
        ("10.0.0.0", "the first address of the network 10.0.0.0/8, which no pod and no node can have"),
    ],
)
def test_an_impossible_address_is_refused_and_the_old_one_stays(address: str, whose: str) -> None:
    simulation = settled(pod("thief", address=address), pod("a"), pod("b", "node2"))
    node, given = simulation.nodes["node1"], simulation.nodes["node1"].address_of(PodKey("ns/a"))
    assert node.address_of(PodKey("ns/thief")) is None and given is not None
    assert [str(problem) for problem in node.problems] == [f"Pod ns/thief: address {address} is {whose}"]
    simulation.change(simulation.cluster.with_object(pod("a", address=address)))
    simulation.settle()
    assert node.address_of(PodKey("ns/a")) == given
    assert f"Pod ns/a: address {address} is {whose}; it keeps {given}" in map(str, node.problems)
    assert simulation.messages[-1].foreign == {}


def test_an_impossible_published_address_is_removed() -> None:
    """By an earlier version, which accepted any address of a pod."""
    simulation = settled(pod("a", address="192.168.5.9"))
    before = simulation.messages[-1]
    bad = IPv4Address("224.0.0.1")
    claims = ForeignAddresses(replace(before, foreign={**before.foreign, bad: Claim("node1", granted=True)}), 1)
    reports = {"node1": Report("node1", foreign=frozenset({bad, *before.foreign}))}
    claims.update(reports, before.hosts, node_addresses=frozenset(), revision=2)
    assert dict(claims.claims) == dict(before.foreign)


def test_an_address_that_a_node_took_is_routed_to_no_pod() -> None:
    simulation = settled(pod("alien", address="192.168.7.9"), pod("other", "node2"))
    assert simulation.messages[-1].foreign
    simulation.change(simulation.cluster.with_object(Node("node2", addresses=(IPv4Address("192.168.7.9"),))))
    update_agent(simulation, "node2", numbers=False)
    assert known(simulation.view("node2")).foreign and tables(known(simulation.view("node2")))
    simulation.settle()
    assert not simulation.messages[-1].foreign


def test_only_the_node_that_may_give_an_address_can_contest_it() -> None:
    simulation = RegistryAndAgents(cluster(pod("b", address="192.168.5.9", node="node2")))
    for name in ("node1", "node2"):
        update_agent(simulation, name, numbers=False)
    simulation.reports["node1"] = replace(
        simulation.reports["node1"], conflicting=frozenset({IPv4Address("192.168.5.9")})
    )
    simulation.node_programs("node2")
    simulation.report_arrives("node2")
    for _ in range(2):
        simulation.registry_looks(0)
    assert simulation.messages[-1].foreign == {IPv4Address("192.168.5.9"): Claim("node2", granted=True)}


def test_a_node_cannot_claim_an_address_that_no_pod_of_its_has() -> None:
    simulation = settled(pod("a"), pod("b", address="192.168.5.9", node="node2"))
    stolen = frozenset(map(IPv4Address, ("8.8.8.8", "192.168.5.10", "192.168.5.9")))
    simulation.reports["node1"] = replace(simulation.reports["node1"], foreign=stolen)
    simulation.registry_looks(newest(simulation))
    assert simulation.messages[-1].foreign == {IPv4Address("192.168.5.9"): Claim("node2", granted=True)}


def test_a_pods_address_is_not_granted_to_another_pod() -> None:
    simulation = settled(pod("owner", "node2"))
    address = simulation.nodes["node2"].address_of(PodKey("ns/owner"))
    simulation.change(simulation.cluster.with_object(pod("thief", address=str(address))))
    simulation.settle()
    assert simulation.nodes["node1"].address_of(PodKey("ns/thief")) is None
    assert "waits for the registry" in str(simulation.nodes["node1"].problems[0])
    assert simulation.nodes["node2"].report.conflicting == {address}
    assert known(simulation.view("node3")).foreign == ()
    simulation.change(simulation.cluster.without(pod("owner")))
    simulation.settle()
    assert (
        simulation.nodes["node1"].address_of(PodKey("ns/thief")) == address and simulation.nodes["node1"].problems == ()
    )


def test_an_address_that_another_node_claims_is_given_to_nobody() -> None:
    free = IPv4Address("10.0.64.66")
    simulation = settled(pod("a", "node2"), pod("guest", address=str(free)))
    share = simulation.nodes["node2"]
    assert known(share.plan.split(known(share.address_of(PodKey("ns/a")))))[:2] == known(share.plan.split(free))[:2]
    simulation.change(simulation.cluster.with_object(pod("b", "node2")).with_object(pod("c", "node2")))
    simulation.settle()
    given = {share.address_of(PodKey(f"ns/{name}")) for name in "abc"}
    assert len(given) == 3 and free not in given


def test_states_are_plain_json() -> None:
    simulation = settled(pod("a"), pod("b", address="192.168.5.9"), policy("p", ingress=[rule(pods())]))
    for node in simulation.nodes.values():
        saved = node.to_json()
        assert json.loads(json.dumps(saved)) == saved
        numbers = json.loads(json.dumps(published_to_json(known(node.published))))
        again = NodeAgent(node.node, DEFAULTS, saved, numbers)
        again.update(simulation.cluster, None)
        assert again.to_json() == saved and again.published == node.published


def test_a_former_class_counts_until_rules_distinguish_it() -> None:
    simulation = settled(pod("a", app="web"), pod("b", "node2"), pod("server", "node3"))
    old = simulation.nodes["node1"].identity_of(PodKey("ns/a"))
    simulation.change(simulation.cluster.with_object(NOT_WEB))
    seen = []
    for _ in rounds(simulation, 3):
        (shown,) = known(simulation.view("node1")).pods
        seen.append((shown.identity == old, shown.previous_ids))
    assert seen == [(True, ()), (False, (old,)), (False, ())]
