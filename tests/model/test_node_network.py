"""What the attach agent has to know of the address plan, and its text."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from romana_ovs.model.node_network import NodeNetwork

NETWORK = NodeNetwork(
    IPv4Address("10.0.0.65"),
    IPv4Network("10.0.0.0/8"),
    IPv4Address("10.0.0.64"),
    IPv4Address("255.0.15.192"),
    (IPv4Network("192.0.2.1/32"), IPv4Network("192.0.2.4/30")),
    (IPv4Network("172.30.0.0/16"),),
)
IDS = {
    "romana-node-address": "10.0.0.65",
    "romana-pod-network": "10.0.0.0/8",
    "romana-node-pods": "10.0.0.64/255.0.15.192",
    "romana-tunnel-peers": "192.0.2.1/32,192.0.2.4/30",
    "romana-service-ranges": "172.30.0.0/16",
}

LISTS = ("romana-tunnel-peers", "romana-service-ranges")


def test_external_ids_say_it_and_are_read_again() -> None:
    assert NETWORK.to_external_ids() == IDS
    assert NodeNetwork.from_external_ids({**IDS, "romana-node": "node1"}) == NETWORK


def test_a_node_may_be_alone() -> None:
    alone = replace(NETWORK, tunnel_peers=(), service_ranges=())
    assert NodeNetwork.from_external_ids({**IDS, **dict.fromkeys(LISTS, "")}) == alone
    assert NodeNetwork.from_external_ids(alone.to_external_ids()) == alone


@pytest.mark.parametrize("key", [key for key in IDS if key not in LISTS])
@pytest.mark.parametrize("text", ["", "x", "10.0.0.1/33", "::1"])
def test_what_is_missing_or_other_text_says_nothing(key: str, text: str) -> None:
    assert NodeNetwork.from_external_ids({**IDS, key: text}) is None
