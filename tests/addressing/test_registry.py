"""The allocator by examples: growth, exhaustion, foreign addresses, reuse, restarts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from romana_ovs.addressing.allocator import Allocator, Endpoint
from romana_ovs.addressing.blocks import Block
from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.cluster import SegmentKey
from romana_ovs.model.errors import AddressError, InputError
from romana_ovs.model.objects import PodKey
from romana_ovs.model.settings import Settings

TINY = AddressPlan(IPv4Network("10.9.0.0/24"), 4, 2, 2)
"""15 segment indexes for tenants, 4 hosts, 4 endpoints each; a first run holds one index."""
WEB, DB = SegmentKey("a", "web"), SegmentKey("a", "db")


def attach(registry: Allocator, name: str, segment: SegmentKey = WEB, node: str = "n1") -> Endpoint:
    return registry.attach(PodKey(f"ns/{name}"), uid=name, node=node, segment=segment)


@pytest.fixture
def registry() -> Allocator:
    return Allocator(TINY)


def test_the_first_run_has_room_for_the_tiers_that_are_known() -> None:
    registry = Allocator(AddressPlan.of(Settings()))
    registry.allocate_tiers("small", ["x"])
    registry.allocate_tiers("large", [f"t{i}" for i in range(5)])
    assert registry.tenants["small"] == (Block(4, 4),)
    assert registry.tenants["large"] == (Block(8, 8),)
    assert [registry.ensure_number(SegmentKey("large", f"t{i}")) for i in range(5)] == [8, 9, 10, 11, 12]


def test_a_full_share_takes_a_further_index_and_the_number_stays(registry: Allocator) -> None:
    number = registry.ensure_number(WEB)
    addresses = [attach(registry, f"p{i}").address for i in range(9)]
    assert len(set(addresses)) == 9
    assert registry.ensure_number(WEB) == number == registry.indexes(WEB)[0]
    assert len(registry.indexes(WEB)) == 3
    for address in addresses:
        place = TINY.split(address)
        assert place is not None and place.segment in registry.indexes(WEB) and place.host == registry.hosts["n1"]


def test_a_further_run_beside_the_first_makes_one_range(registry: Allocator) -> None:
    registry.allocate_tiers("b", ["x"])
    registry.allocate_tiers("a", ["x"])
    registry.ensure_number(SegmentKey("a", "y"))
    assert registry.tenants["a"] == (Block(2, 2),)
    registry.ensure_number(SegmentKey("a", "z"))
    registry.ensure_number(SegmentKey("b", "y"))
    assert registry.tenants["b"] == (Block(1, 1), Block(6, 1))
    assert list(registry.tenants["a"]) == [Block(2, 2), Block(4, 2)]


def test_exhaustion_is_reported_and_affects_one_tenant(registry: Allocator) -> None:
    """docs/hazards.md E9."""
    other = SegmentKey("b", "web")
    attach(registry, "other", other)
    count = 0
    with pytest.raises(AddressError) as refused:
        for count in range(100):
            attach(registry, f"p{count}")
    assert count == 14 * 4
    assert str(refused.value) == (
        "no address is left for tenant 'a', tier 'web' on node n1: 14 * 2**2 = 56 (endpoint_bits 2) are in use, "
        "and all 16 - 1 = 15 segment indexes of network 10.9.0.0/24 (segment_bits 4) belong to tenants"
    )
    assert attach(registry, "other2", other).address != attach(registry, "other").address
    assert attach(registry, "q", node="n2").node == "n2"
    with pytest.raises(AddressError, match="tenant 'c', tier 'web' gets no range: all 16 - 1"):
        attach(registry, "c", SegmentKey("c", "web"))
    freed = registry.endpoints[PodKey("ns/p7")].address
    assert registry.release(PodKey("ns/p7"), uid="p7")
    assert attach(registry, "later").address == freed


def test_a_freed_address_waits_until_all_others_were_used(registry: Allocator) -> None:
    first = [attach(registry, f"p{i}").address for i in range(2)]
    registry.release(PodKey("ns/p0"), uid="p0")
    assert [attach(registry, f"q{i}").address for i in range(2)].count(first[0]) == 0
    assert attach(registry, "r").address == first[0]


def test_a_late_word_about_an_old_pod_does_not_evict_the_new_one(registry: Allocator) -> None:
    attach(registry, "p")
    registry.attach(PodKey("ns/p"), uid="second", node="n1", segment=WEB)
    assert not registry.release(PodKey("ns/p"), uid="p")
    assert registry.endpoints[PodKey("ns/p")].uid == "second"


def test_a_relabelled_pod_keeps_its_address(registry: Allocator) -> None:
    before = attach(registry, "p")
    assert attach(registry, "p", DB) == before
    registry.release(PodKey("ns/p"), uid="p")
    seen = {attach(registry, f"w{i}", WEB).address for i in range(4)}
    assert before.address in seen


def test_a_pod_of_another_uid_or_node_gets_another_address(registry: Allocator) -> None:
    before = attach(registry, "p").address
    again = registry.attach(PodKey("ns/p"), uid="new", node="n1", segment=WEB).address
    moved = registry.attach(PodKey("ns/p"), uid="new", node="n2", segment=WEB).address
    assert len({before, again, moved}) == 3
    assert TINY.is_on(registry.hosts["n2"], moved)


def test_only_addresses_of_our_record_are_not_foreign(registry: Allocator) -> None:
    ours = attach(registry, "p")
    assert registry.claim(PodKey("ns/p"), uid="p", node="n1", address=ours.address) == ours
    registry.release(PodKey("ns/p"), uid="p")
    assert registry.claim(PodKey("ns/p"), uid="new", node="n1", address=ours.address).foreign


def test_a_foreign_address_inside_the_prefix_is_never_given_out(registry: Allocator) -> None:
    number = registry.ensure_number(WEB)
    registry.host("n1")
    taken = TINY.address(number, 0, 1)
    registry.claim(PodKey("ns/foreign"), uid="f", node="n2", address=taken)
    assert taken not in {attach(registry, f"p{i}").address for i in range(20)}
    registry.release(PodKey("ns/foreign"), uid="f")
    assert taken in {attach(registry, f"q{i}").address for i in range(4)}


def test_two_claims_of_one_address_leave_it_to_who_has_it(registry: Allocator) -> None:
    address = IPv4Address("192.168.0.5")
    registry.claim(PodKey("ns/b"), uid="b", node="n1", address=address)
    with pytest.raises(AddressError, match="address 192.168.0.5 is already that of pod ns/b"):
        registry.claim(PodKey("ns/a"), uid="a", node="n1", address=address)
    assert registry.endpoints[PodKey("ns/b")].address == address and registry.endpoint(PodKey("ns/a")) is None


def test_addresses_of_nodes_are_never_allocated(registry: Allocator) -> None:
    number = registry.ensure_number(WEB)
    registry.host("n1")
    blocked = TINY.address(number, 0, 0)
    registry.reserve([blocked])
    assert blocked not in {attach(registry, f"p{i}").address for i in range(8)}
    for address in (blocked, TINY.gateway(registry.host("n1"))):
        with pytest.raises(AddressError, match=f"address {address} is that of"):
            registry.claim(PodKey("ns/x"), uid="x", node="n1", address=address)
    registry.reserve([])
    assert registry.claim(PodKey("ns/x"), uid="x", node="n1", address=blocked).foreign


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.0.0.9",
        "127.0.0.1",
        "169.254.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_an_invalid_address_is_not_claimed(registry: Allocator, text: str) -> None:
    for address in (IPv4Address(text), TINY.network.network_address, TINY.network.broadcast_address):
        with pytest.raises(AddressError, match=f"address {address} is .* which no pod and no node can have"):
            registry.claim(PodKey("ns/x"), uid="x", node="n1", address=address)
    assert not registry.endpoints


def test_a_host_number_whose_gateway_is_taken_is_passed_over(registry: Allocator) -> None:
    registry.claim(PodKey("ns/x"), uid="x", node="n1", address=TINY.gateway(0))
    assert registry.host("n1") == 1


def test_a_host_number_is_kept_while_its_node_has_pods(registry: Allocator) -> None:
    attach(registry, "p", node="n0")
    for name in ("n1", "n2", "n3"):
        registry.host(name)
    with pytest.raises(AddressError, match=r"node n4 gets no host number: all 2\*\*2 = 4 \(host_bits 2\)"):
        registry.host("n4")
    registry.forget_host("n0")
    assert registry.hosts["n0"] == 0
    registry.release(PodKey("ns/p"), uid="p")
    assert "n0" not in registry.hosts and registry.host("n4") == 0


def test_a_host_that_comes_back_in_time_keeps_its_number(registry: Allocator) -> None:
    attach(registry, "p", node="n0")
    registry.forget_host("n0")
    registry.host("n0")
    registry.release(PodKey("ns/p"), uid="p")
    assert registry.hosts["n0"] == 0


def test_network_and_broadcast_address_are_not_allocated() -> None:
    plan = AddressPlan(IPv4Network("10.9.0.0/28"), 1, 1, 2)
    registry = Allocator(plan)
    registry.host("n0")
    given = [attach(registry, f"p{i}", node="n1").address for i in range(3)]
    assert str(plan.network.broadcast_address) not in map(str, given)
    with pytest.raises(AddressError):
        attach(registry, "p3", node="n1")


def test_a_state_of_another_plan_is_refused_with_both(registry: Allocator) -> None:
    other = AddressPlan(IPv4Network("10.9.0.0/24"), 3, 2, 3)
    words = "written for the plan 10.9.0.0/24 = 4 segment.*the settings say 10.9.0.0/24 = 3"
    with pytest.raises(AddressError, match=words):
        Allocator.from_json(registry.to_json(), other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("hosts"),
        lambda data: data.update(format=9),
        lambda data: data["endpoints"].append([PodKey("ns/z"), "z", "n1", data["endpoints"][0][3], "a", "web"]),
        lambda data: data["endpoints"].append([PodKey("ns/z"), "z", "n1", "no address", "a", "web"]),
        lambda data: data["segments"].append(["a", "db", 0]),
        lambda data: data["runs"].update(b=[[1, 1]]),
        lambda data: data["hosts"].update(n9=0),
        lambda data: data.update(shares=3),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(
    registry: Allocator, damage: Callable[[dict[str, Any]], object]
) -> None:
    attach(registry, "p")
    data = copy.deepcopy(registry.to_json())
    damage(data)
    with pytest.raises(InputError, match="addresses"):
        Allocator.from_json(data, TINY)
