"""Messages that no switch sends are refused before anything parses them (docs/hazards.md D12)."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.errors import SwitchError
from romana_ovs.switch import message_checks, messages
from romana_ovs.switch.action_wire import read_instructions
from romana_ovs.switch.meter_wire import read_meters
from romana_ovs.switch.oxm import read_match
from romana_ovs.switch.wire import read_flows


def test_a_hello_with_a_version_bitmap_is_fine() -> None:
    message_checks.check_header(6, messages.HELLO, 16)
    message_checks.check_hello(memoryview(struct.pack("!HHI", 1, 8, 1 << 6)))
    message_checks.check_hello(memoryview(b""))


@pytest.mark.parametrize("element", ["00010000", "00010003", "0001", "00010010", "000100080000004000020000"])
def test_impossible_hello_elements_are_refused(element: str) -> None:
    with pytest.raises(SwitchError, match="hello element"):
        message_checks.check_hello(memoryview(bytes.fromhex(element)))


@pytest.mark.parametrize(
    ("version", "kind", "length"),
    [
        (6, messages.HELLO, 0),
        (6, messages.HELLO, 7),
        (0, messages.HELLO, 8),
        (6, messages.HELLO, 60000),
        (4, messages.FEATURES_REPLY, 32),
        (1, messages.PACKET_IN, 32),
        (6, messages.BARRIER_REPLY, 4),
    ],
)
def test_impossible_headers_are_refused(version: int, kind: int, length: int) -> None:
    with pytest.raises(SwitchError):
        message_checks.check_header(version, kind, length)


def _port(properties: bytes, length: int | None = None) -> bytes:
    whole = 40 + len(properties)
    head = struct.pack("!IH2x6s2x16sII", 1, whole if length is None else length, bytes(6), b"p", 0, 0)
    return bytes(8) + head + properties


def test_ports_with_properties_are_fine() -> None:
    message_checks.check_ports(memoryview(_port(struct.pack("!HH28x", 0, 32))))


@pytest.mark.parametrize(
    "body", [_port(b"", 0), _port(b"", 39), _port(b"", 48), _port(b"\0\0\0\0"), _port(bytes(4) + bytes(4)), bytes(20)]
)
def test_impossible_ports_are_refused(body: bytes) -> None:
    with pytest.raises(SwitchError, match="port"):
        message_checks.check_ports(memoryview(body))


@pytest.mark.parametrize(
    "data", ["00040000", "0004000400000000", "000100090000000000", "00040010000000000000000000000000"]
)
def test_instructions_and_actions_of_length_zero_are_refused(data: str) -> None:
    with pytest.raises(SwitchError, match="length|cut short"):
        read_instructions(memoryview(bytes.fromhex(data)))


@pytest.mark.parametrize("data", ["00010003", "0001", "000000080000000000000000", "0001000880000000", "000100ff"])
def test_impossible_matches_are_refused(data: str) -> None:
    with pytest.raises(SwitchError):
        read_match(memoryview(bytes.fromhex(data)), 0)


@pytest.mark.parametrize("data", ["0000000e524f0001", "0007000e524f0001", "0010000e524f0001", "0008000e"])
def test_impossible_meters_are_refused(data: str) -> None:
    with pytest.raises(SwitchError, match="meter"):
        list(read_meters(memoryview(bytes.fromhex(data))))


@given(st.binary(max_size=200))
def test_random_bytes_are_meters_or_refused_but_nothing_else(data: bytes) -> None:
    try:
        assert sum(1 for _ in read_meters(memoryview(data))) * 8 <= len(data)
    except SwitchError as error:
        assert str(error)


@given(st.binary(max_size=200))
def test_random_bytes_are_flows_or_refused_but_nothing_else(data: bytes) -> None:
    try:
        assert sum(1 for _ in read_flows(memoryview(data))) * 40 <= len(data)
    except SwitchError as error:
        assert str(error)


@given(st.binary(max_size=120))
def test_random_matches_and_instructions_never_go_on_for_ever(data: bytes) -> None:
    for read in (
        lambda view: read_match(view, 0),
        read_instructions,
        message_checks.check_ports,
        message_checks.check_hello,
    ):
        try:
            read(memoryview(data))
        except SwitchError as error:
            assert str(error)
