"""Products of peers and ports: joined by their ports, never more of them in one flow than a message has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.identity import IdentityMatch, identity
from romana_ovs.model.objects import Protocol
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Conjunction
from romana_ovs.pipeline.compile import conjunctions
from romana_ovs.pipeline.compile.conjunctions import MAX_CLAUSES, Product, bounded_products
from romana_ovs.pipeline.compile.policy_tables import client_rows, deferred_rows, ingress_rows
from romana_ovs.pipeline.flow import Flow
from romana_ovs.policy.rules import PortRange
from romana_ovs.policy.view import Allow, ClientGroup, Origin, ServerGroup
from romana_ovs.simulator.packet import tcp
from romana_ovs.switch.messages import bundled
from romana_ovs.switch.wire import add_flow
from tests.pipeline.crossed_rules import LARGEST, MANY, WHY, crossed, peer, tcp_port
from tests.support.simulated_network import SimNetwork, SimPod

_side = st.sets(st.integers(0, 5), min_size=1)
_products = st.lists(st.tuples(_side, _side), max_size=12)


@given(_products, st.integers(1, 4))
def test_an_alternative_in_too_many_products_gets_plain_flows(
    asked: list[tuple[set[int], set[int]]], most: int
) -> None:
    products = [
        Product(
            str(at), WHY, {(("nw_src", peer),): WHY for peer in peers}, {(("tcp_dst", port),): WHY for port in ports}
        )
        for at, (peers, ports) in enumerate(asked)
    ]
    kept, apart = bounded_products(products, most)
    meant = {(peer, port) for product in products for peer in product.peers for port in product.ports}
    assert {(peer, port) for product in kept for peer in product.peers for port in product.ports} | set(apart) == meant
    for side in ("peers", "ports"):
        held = [alternative for product in kept for alternative in getattr(product, side)]
        assert all(held.count(alternative) <= most for alternative in held)
    if len(products) <= most:
        assert kept == products and not apart


def alike(count: int) -> list[Allow]:
    """The attack: as many policies on one pod, two peers and two ports each, all of them the same."""
    both = frozenset({peer(1), peer(2)})
    return [Allow(Origin("NetworkPolicy", "red", f"p{at}"), both, ports=tcp_port(80, 81)) for at in range(count)]


def blocks(count: int) -> list[Allow]:
    """The same with addresses in the place of identities."""
    shared = IPv4Network("192.0.2.0/24")
    return [
        Allow(
            Origin("NetworkPolicy", "red", f"p{at}"),
            frozenset(),
            (shared, IPv4Network((0x0B000000 + (at << 8), 24))),
            tcp_port(80, 1000 + 2 * at),
        )
        for at in range(count)
    ]


def clauses(flows: tuple[Flow, ...]) -> int:
    return max(sum(isinstance(action, Conjunction) for action in item.actions) for item in flows)


@pytest.mark.slow("groups of the largest size there may be, each row of which is encoded")
@pytest.mark.parametrize("shape", [alike, crossed, blocks])
def test_no_group_makes_a_message_that_cannot_be_sent(shape: Callable[[int], Iterable[Allow]]) -> None:
    allows = tuple(shape(MANY))
    made = (
        *ingress_rows(ServerGroup(7, allows, ())),
        *deferred_rows(ServerGroup(7, (), tuple(allow for allow in allows if not allow.cidrs))),
        *client_rows(ClientGroup(7, allows, deferred=True), WHY),
    )
    assert max(len(bundled(1, add_flow(item, 1), 1)) for item in made) <= LARGEST
    assert clauses(made) <= MAX_CLAUSES
    assert len({item.key for item in made}) == len(made)
    terms = sum(len(allow.identities or ()) + 2 * len(allow.cidrs) + 5 for allow in allows)
    assert len(made) < 3 * (2 * terms + 100), "what is written out is no more than what was asked for"


def test_dns_rules_of_all_namespaces_are_one_conjunction() -> None:
    dns = (PortRange(Protocol.UDP, 53, 53), PortRange(Protocol.TCP, 53, 53))
    allows = tuple(
        Allow(Origin("NetworkPolicy", f"n{at}", "dns", "egress[0]"), frozenset({peer(at)}), ports=dns)
        for at in range(MANY)
    )
    flows = deferred_rows(ServerGroup(7, (), allows))
    assert len(flows) == MANY + 2 * 4 + 1 and clauses(flows) == 1
    rows = {item.key: item for item in flows}
    fewer = deferred_rows(ServerGroup(7, (), allows[:-1]))
    assert [item for item in fewer if rows.get(item.key) != item] == [], "one namespace more is one row more"
    of_peers = [
        item for item in flows if item.priority == priorities.DeferredEgress.CLAUSE and "reg" in str(item.match)
    ]
    assert {item.origin.namespace for item in of_peers} >= {f"n{at}" for at in range(MANY)}, "each for its own rule"


@pytest.mark.parametrize(("port", "passes"), [(80, True), (1002, True), (1004, False), (2000, False)])
@pytest.mark.parametrize("most", [1, 2, MAX_CLAUSES])
def test_plain_flows_mean_the_same_as_conjunctions(
    most: int, port: int, *, passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The peer is in all rules by the shared port, and by its own port in the rule that names it."""
    monkeypatch.setattr(conjunctions.bounded_products, "__defaults__", (most,))
    client = SimPod("c", 2, 2, number=3)
    ranges = [tcp_port(80, *range(1000 + 2 * at, 1100, 32)) for at in range(12)]
    allows = tuple(
        Allow(
            Origin("NetworkPolicy", "red", f"p{at}"),
            frozenset(
                {IdentityMatch(client.identity if at == 1 else identity(1, 100 + 9 * at + more)) for more in range(9)}
            ),
            ports=each,
        )
        for at, each in enumerate(ranges)
    )
    lab = SimNetwork.of(client, SimPod("s", 1, 1, server=ServerGroup(6, allows, ())))
    ingress = [item for item in lab.flows(1) if item.table == "Ingress"]
    assert clauses(tuple(ingress)) <= most
    assert sum("conj_id" in item.match_text() for item in ingress) > 1
    assert lab.delivered("c", tcp(lab.ends("c", "s"), 4000, port)) == ["s"] * passes
