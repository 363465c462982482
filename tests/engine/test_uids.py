"""Ports, addresses, identities and entries are a pod's by its UID, not by its name."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from romana_ovs.kube.manifests.pod_uids import PodUids
from romana_ovs.kube.manifests.store import ManifestStore
from romana_ovs.model.bridge import BridgeFacts, PodPort
from romana_ovs.model.objects import PodKey
from tests.engine.registry_and_agents import newest, settled, update_agent
from tests.support import manifests
from tests.support.builders import DEFAULTS, TINY, cluster, pod, pods, policy, rule
from tests.support.confirming_engine import ConfirmingEngine, follow
from tests.support.known import known

OLD, NEW = pod("a", uid="old", app="web"), pod("a", uid="new", app="db")
ASKS = policy("p", ingress=[rule(pods(app="web"))])


A = PodKey("ns/a")


def bridge(*ports: PodPort) -> BridgeFacts:
    """The node's bridge, on which these ports claim the pod, newest first."""
    return BridgeFacts("node1", pod_ports={A: ports[0]}, superseded_ports={A: ports[1:]} if ports[1:] else {})


def shown(engine: ConfirmingEngine, *ports: PodPort) -> list[tuple[int, str, IPv4Address]]:
    """What the node's switch serves with these ports: port, UID and address."""
    facts = bridge(*ports)
    return [(each.ofport, each.uid, each.address) for each in engine.view(facts, {"node1": facts}).pods]


def test_a_late_watch_gives_a_new_pod_nothing_of_the_old() -> None:
    """Its port is there before its object: it once got the old one's address and identity."""
    engine = follow(cluster(OLD, ASKS))
    was = engine.address_of("ns/a")
    assert shown(engine, PodPort(3, uid="old")) == [(3, "old", was)]
    assert shown(engine, PodPort(4, uid="new")) == []
    assert shown(engine, PodPort(4, uid="new"), PodPort(3, uid="old")) == [(3, "old", was)]
    engine.update(cluster(NEW, ASKS))
    is_now = engine.address_of("ns/a")
    assert is_now != was and engine.uid_of("ns/a") == "new"
    assert shown(engine, PodPort(3, uid="old")) == []
    assert shown(engine, PodPort(4, uid="new"), PodPort(3, uid="old")) == [(4, "new", is_now)]


def test_a_late_node_gives_a_new_pod_nothing_of_the_old() -> None:
    simulation = settled(OLD, ASKS)
    node = simulation.nodes["node1"]
    was, identity = node.address_of(PodKey("ns/a")), node.identity_of(PodKey("ns/a"))

    def serves(*ports: PodPort) -> list[tuple[int, IPv4Address, int]]:
        return [(each.ofport, each.address, each.identity) for each in known(node.view(bridge(*ports))).pods]

    assert serves(PodPort(4, uid="new")) == []
    assert serves(PodPort(4, uid="new"), PodPort(3, uid="old")) == [(3, was, identity)]
    simulation.change(cluster(NEW, ASKS))
    update_agent(simulation, "node1")
    assert serves(PodPort(3, uid="old")) == []
    assert node.address_of(PodKey("ns/a")) not in (None, was) and node.uid_of(PodKey("ns/a")) == "new"
    simulation.settle()
    ((port, address, now),) = serves(PodPort(4, uid="new"), PodPort(3, uid="old"))
    assert (port, address) == (4, node.address_of(PodKey("ns/a"))) and now != identity


def test_a_port_without_a_uid_counts_by_name() -> None:
    engine = follow(cluster(OLD))
    assert [port for port, _, _ in shown(engine, PodPort(3))] == [3]
    engine = follow(cluster(replace(OLD, uid="")))
    assert [port for port, _, _ in shown(engine, PodPort(3, uid="any"))] == [3]


def test_a_freed_address_is_not_the_new_pods_of_the_name_at_once() -> None:
    engine, seen = follow(cluster(pod("a", uid="0"), settings=TINY)), []
    for number in range(1, 9):
        seen.append(engine.address_of("ns/a"))
        engine.update(cluster(pod("a", uid=str(number)), settings=TINY))
    assert len(set(seen[:4])) == 4 and all(one != other for one, other in zip(seen, seen[1:], strict=False))


def test_a_new_pod_that_comes_with_the_old_ones_address_has_it() -> None:
    address = IPv4Address("192.168.5.5")
    engine = follow(cluster(pod("a", address="192.168.5.5", uid="old")))
    engine.update(cluster(pod("a", address="192.168.5.5", uid="new")))
    assert engine.address_of("ns/a") == address and engine.uid_of("ns/a") == "new" and engine.problems == ()
    assert shown(engine, PodPort(3, uid="old")) == []


def test_a_new_pod_of_the_name_was_never_anything_else() -> None:
    """What a pod was before a split counts until the step is over; a new pod of the name was nothing before."""
    at = cluster(pod("a", uid="old", app="web"), pod("b", "node2", app="db"))
    engine = follow(at)
    engine.update(at.with_object(ASKS))
    engine.advance()
    before = engine.view(bridge(PodPort(3)), {}).pods[0]
    assert before.previous_ids
    engine.update(at.with_object(ASKS).with_object(pod("a", uid="new", app="web")))
    after = engine.view(bridge(PodPort(3)), {}).pods[0]
    assert after.identity == before.identity and after.previous_ids == ()


@pytest.mark.parametrize("unknown", ["ns/a", "ns/b"])
def test_a_state_without_uids_loads_and_its_addresses_stay(unknown: str) -> None:
    """Written before pods of a folder had UIDs, or by `ipam`, which makes none up."""
    before = follow(cluster(pod("a", uid="x"), pod("b", uid="y")))
    addresses = [before.address_of(key) for key in ("ns/a", "ns/b")]
    state = json.loads(json.dumps(before.to_json()))
    own = state["parts"]["node1"]["addresses"]
    own["endpoints"] = [[key, "" if key == unknown else uid, *rest] for key, uid, *rest in own["endpoints"]]
    engine = ConfirmingEngine(DEFAULTS, state)
    revision = engine.revision
    engine.update(cluster(pod("a", uid="x"), pod("b", uid="y")))
    assert [engine.address_of(key) for key in ("ns/a", "ns/b")] == addresses
    assert [engine.uid_of(key) for key in ("ns/a", "ns/b")] == ["x", "y"], "it is known from now on"
    assert engine.revision > revision, "and saved"
    engine.update(cluster(pod("a", uid="x2"), pod("b", uid="y2")))
    assert not {engine.address_of(key) for key in ("ns/a", "ns/b")} & set(addresses)


def test_a_saved_state_remembers_uids() -> None:
    before = follow(cluster(OLD))
    engine = ConfirmingEngine(DEFAULTS, json.loads(json.dumps(before.to_json())))
    engine.update(cluster(NEW))
    assert engine.address_of("ns/a") != before.address_of("ns/a")
    simulation = settled(OLD)
    was = simulation.nodes["node1"].address_of(PodKey("ns/a"))
    simulation.change(cluster(NEW))
    simulation.restart_node("node1")
    simulation.node_looks("node1", newest(simulation), None)
    assert simulation.nodes["node1"].address_of(PodKey("ns/a")) not in (None, was)


def test_a_recreated_pod_of_a_folder_is_another() -> None:
    """Two readings before the engine looks: it never saw the folder without the pod."""
    files = {"a": manifests.pod("a", more="  nodeName: node1\n"), "b": manifests.pod("b", more="  nodeName: node1\n")}
    store = ManifestStore(DEFAULTS, pod_uids=PodUids({}))
    engine = follow(store.apply(manifests.content(**files)).cluster)
    keys = ("default/a", "default/b")
    was = [engine.address_of(key) for key in keys]
    store.apply(manifests.content(b=files["b"]))
    engine.update(store.apply(manifests.content(**files)).cluster)
    is_now = [engine.address_of(key) for key in keys]
    assert is_now[0] not in (None, was[0]) and is_now[1] == was[1]
    # After a restart they are who they were.
    again = ConfirmingEngine(DEFAULTS, json.loads(json.dumps(engine.to_json())))
    known = {key: end.uid for key, end in again.engine.agents.endpoints.items()}
    again.update(ManifestStore(DEFAULTS, pod_uids=PodUids(known)).apply(manifests.content(**files)).cluster)
    assert [again.address_of(key) for key in keys] == is_now
