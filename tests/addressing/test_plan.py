"""The address plan: arithmetic both ways, and what is refused with which words."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.addressing.plan import AddressParts, AddressPlan
from romana_ovs.model.errors import AddressError
from romana_ovs.model.settings import Settings

DEFAULT = AddressPlan.of(Settings())


@st.composite
def plans(draw: st.DrawFn) -> AddressPlan:
    length = draw(st.integers(8, 28))
    left = 32 - length
    host = draw(st.integers(1, min(15, left - 3)))
    segment = draw(st.integers(max(1, left - host - 20), min(15, left - host - 2)))
    base = draw(st.integers(0, 2**length - 1)) << left
    return AddressPlan(IPv4Network((base, length)), segment, host, left - host - segment)


@given(plans(), st.data())
def test_split_undoes_address(plan: AddressPlan, data: st.DataObject) -> None:
    numbers = AddressParts(
        *(data.draw(st.integers(0, count - 1)) for count in (plan.segments, plan.hosts, plan.endpoints))
    )
    ends = (plan.network.network_address, plan.network.broadcast_address)
    first, last = plan.split(ends[0]), plan.split(ends[1])
    if numbers in (first, last):
        with pytest.raises(AddressError, match="first or last address"):
            plan.address(*numbers)
        return
    address = plan.address(*numbers)
    assert plan.split(address) == numbers
    assert address in plan.segment_cidr(numbers[0])
    value, mask = plan.host_match(numbers[1])
    assert int(address) & mask == value


@given(plans(), st.data())
def test_host_match_is_exactly_the_addresses_of_the_host(plan: AddressPlan, data: st.DataObject) -> None:
    value, mask = plan.host_match(data.draw(st.integers(0, plan.hosts - 1)))
    parts = plan.split(IPv4Address(value))
    assert parts is not None
    other = IPv4Address(data.draw(st.integers(0, 2**32 - 1)))
    place = plan.split(other)
    assert (int(other) & mask == value) == (place is not None and place.host == parts.host)


@given(plans())
def test_segments_tile_the_network_and_runs_are_their_union(plan: AddressPlan) -> None:
    assert plan.block_cidr(0, plan.segments) == plan.network
    assert plan.segment_cidr(plan.segments - 1).broadcast_address == plan.network.broadcast_address
    assert plan.node_addresses() == plan.segment_cidr(0)
    assert plan.gateway(0) in plan.node_addresses()


def test_the_default_plan_in_numbers() -> None:
    assert DEFAULT.address(1, 2, 3) == IPv4Address("10.0.16.131")
    assert DEFAULT.block_cidr(4, 4) == IPv4Network("10.0.64.0/18")
    assert DEFAULT.host_match(2) == (0x0A000080, 0xFF000FC0)
    assert DEFAULT.gateway(2) == IPv4Address("10.0.0.129")
    assert DEFAULT.mac(IPv4Address("10.0.16.131")) == "0a:58:0a:00:10:83"
    assert DEFAULT.mac(IPv4Address("192.168.0.1")) == "0a:58:c0:a8:00:01"
    assert DEFAULT.split(IPv4Address("11.0.0.1")) is None


@pytest.mark.parametrize(
    ("network", "bits", "words"),
    [
        ("10.0.0.0/8", (12, 6, 7), "leaves 32 - 8 = 24 bits, but segment_bits 12 .* endpoint_bits 7 = 25"),
        ("10.0.0.0/8", (12, 6, 5), "= 24 bits, but .* = 23"),
        ("10.0.0.0/16", (12, 6, 6), "32 - 16 = 16 bits, but .* = 24"),
        ("10.0.0.0/8", (16, 4, 4), "segment_bits is 16; it must be from 1 to 15"),
        ("10.0.0.0/8", (0, 12, 12), "segment_bits is 0"),
        ("10.0.0.0/8", (4, 16, 4), "host_bits is 16"),
        ("10.0.0.0/8", (12, 0, 12), "host_bits is 0"),
        ("10.0.0.0/8", (14, 9, 1), "endpoint_bits is 1; it must be at least 2"),
        ("10.0.0.0/8", (-1, 13, 12), "segment_bits is -1"),
    ],
)
def test_a_plan_that_cannot_fit_is_refused_with_the_arithmetic(
    network: str, bits: tuple[int, int, int], words: str
) -> None:
    with pytest.raises(AddressError, match=words):
        AddressPlan(IPv4Network(network), *bits)


@pytest.mark.parametrize(("base", "size"), [(2, 4), (0, 3), (4096, 1), (-4, 4), (4, 0)])
def test_a_run_that_is_not_aligned_is_refused(base: int, size: int) -> None:
    with pytest.raises(AddressError, match="not an aligned block"):
        DEFAULT.block_cidr(base, size)


@pytest.mark.parametrize("numbers", [(4096, 0, 0), (0, 64, 0), (0, 0, 64), (-1, 0, 1)])
def test_numbers_out_of_range_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(AddressError, match="is out of range"):
        DEFAULT.address(*numbers)


def test_narrow_widths_use_the_first_part_of_the_network() -> None:
    plan = AddressPlan.of(Settings(segment_bits=10, host_bits=6, endpoint_bits=6))
    assert plan.network == IPv4Network("10.0.0.0/10")
    with pytest.raises(AddressError, match="leaves 32 - 8 = 24 bits.*= 25"):
        AddressPlan.of(Settings(segment_bits=13, host_bits=6, endpoint_bits=6))
