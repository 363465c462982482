"""Addresses that no pod and no node can have: refused where an object comes in, in a sentence that names it."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from romana_ovs.kube.api.messages import Update
from romana_ovs.kube.api.resources import NODES, PODS
from romana_ovs.model.objects import PodKey
from tests.support import manifests
from tests.support.observed_objects import listed_cache, observe, observed, observed_pod

SPECIAL = {
    "0.0.0.0": "the unspecified address",
    "0.1.2.3": 'an address of "this network" (0.0.0.0/8)',
    "127.0.0.1": "a loopback address",
    "127.255.255.254": "a loopback address",
    "169.254.1.1": "a link-local address",
    "224.0.0.1": "a multicast address",
    "239.255.255.255": "a multicast address",
    "240.0.0.1": "a reserved address (240.0.0.0/4)",
    "255.255.255.255": "the broadcast address",
    "::": "the unspecified address",
    "::1": "the loopback address",
    "fe80::1": "a link-local address",
    "ff02::1": "a multicast address",
}
NETWORKS = {"10.0.0.0": "first", "10.255.255.255": "last"}


@pytest.mark.parametrize("address", [*SPECIAL, *NETWORKS, "::ffff:127.0.0.1"])
@pytest.mark.parametrize("place", ["podIP", "podIPs[1].ip"])
def test_a_pod_with_an_address_that_no_pod_can_have_is_refused(address: str, place: str) -> None:
    first = address if place == "podIP" else "10.5.5.5"
    status = f"status: {{phase: Running, podIP: '{first}', podIPs: [{{ip: '{first}'}}, {{ip: '{address}'}}]}}\n"
    item = manifests.item(manifests.pod("a") + status)
    told = [(problem.field, problem.reason) for problem in item.problems]
    assert item.value is None
    kind = SPECIAL.get(address, f"the {NETWORKS.get(address)} address of the network 10.0.0.0/8")
    text = address.removeprefix("::ffff:")
    kind = SPECIAL[text] if text != address else kind
    assert (f"status.{place}", f"{text} is {kind}, which no pod and no node can have") in told


@pytest.mark.parametrize(
    "address", ["1.0.0.1", "10.0.0.2", "10.255.255.254", "169.253.0.1", "223.255.255.255", "fd00::1", "2001:db8::1"]
)
def test_other_addresses_are_taken(address: str) -> None:
    assert manifests.item(manifests.pod("a") + f"status: {{phase: Running, podIP: '{address}'}}\n").value is not None


@pytest.mark.parametrize("address", SPECIAL)
def test_what_is_not_the_pods_own_address_means_nothing(address: str) -> None:
    """A pod on its node's network, or one that has finished: its status is not what it is on the network."""
    on_host = manifests.pod("a", more="  hostNetwork: true\n") + f"status: {{phase: Running, podIP: '{address}'}}\n"
    finished = manifests.pod("a") + f"status: {{phase: Succeeded, podIP: '{address}'}}\n"
    for text in (on_host, finished):
        item = manifests.item(text)
        assert item.value is not None and not item.problems


@pytest.mark.parametrize("kind", ["InternalIP", "ExternalIP"])
@pytest.mark.parametrize("address", SPECIAL)
def test_a_node_with_an_address_that_no_node_can_have_is_refused(address: str, kind: str) -> None:
    item = manifests.item(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"
        f"status: {{addresses: [{{type: Hostname, address: n1}}, {{type: {kind}, address: '{address}'}}]}}\n"
    )
    assert item.value is None
    assert [str(problem) for problem in item.problems] == [
        f"a.yaml, document 1: Node n1: status.addresses[1].address: {address} is {SPECIAL[address]}, "
        "which no pod and no node can have"
    ]


@pytest.mark.parametrize("address", [each for each in (*SPECIAL, *NETWORKS) if ":" not in each])
def test_an_api_servers_pod_keeps_its_last_valid_address(address: str) -> None:
    store, _ = listed_cache(pods=[observed_pod("a", ip="10.5.5.5"), observed_pod("b", ip="10.5.5.6")])
    loaded = store.apply(observe(PODS, observed_pod("a", 2, ip=address)))
    assert loaded is not None
    assert loaded.cluster.pods[PodKey("shop/a")].address == IPv4Address("10.5.5.5")
    assert [problem.name for problem in loaded.problems] == ["shop/a"] * 2
    assert f"{address} is" in loaded.problems[0].reason
    assert [str(key) for key in loaded.kept] == ["Pod shop/a"]
    # One that never had a valid address is nobody; the others are not concerned.
    loaded = store.apply(observe(PODS, observed_pod("c", 3, ip=address, uid="c")))
    assert loaded is not None
    assert sorted(loaded.cluster.pods) == ["shop/a", "shop/b"]


def test_an_api_servers_node_keeps_its_last_valid_addresses() -> None:
    def node(version: int, address: str) -> Update:
        return observed(NODES, "n", version, status={"addresses": [{"type": "InternalIP", "address": address}]})

    store, _ = listed_cache(pods=[observed_pod("a", ip="10.5.5.5")], nodes=[node(1, "172.16.0.1")])
    loaded = store.apply(observe(NODES, node(2, "224.0.0.1")))
    assert loaded is not None
    assert loaded.cluster.nodes["n"].addresses == (IPv4Address("172.16.0.1"),)
    assert "Node n: status.addresses[0].address: 224.0.0.1 is a multicast address" in str(loaded.problems[0])
