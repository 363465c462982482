"""Flows as bytes and back, without a switch: every flow we can build survives the way."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.actions import (
    Action,
    ApplyMeter,
    Bits,
    Conjunction,
    Ct,
    CtClear,
    Goto,
    InPort,
    Load,
    Move,
    Output,
    OutputReg,
    Resubmit,
)
from romana_ovs.pipeline.cookies import OURS
from romana_ovs.pipeline.fields import FIELDS
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.pipeline.meters import METERS, Meter, connection_meter
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.policy.view import Origin
from romana_ovs.switch.action_wire import Opaque, instructions_bytes, read_instructions
from romana_ovs.switch.meter_wire import meter_mod, read_meters
from romana_ovs.switch.oxm import match_bytes, narrow_port, read_match, wide_port
from romana_ovs.switch.wire import LONGEST, add_flow, delete_flow, message
from romana_ovs.sync.meters import MeterChange

WIDE = ("eth_src", "eth_dst", "ct_label", "reg0", "reg5", "reg15", "ct_mark", "tun_dst")


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, tuple[int, int]]:
    chosen = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=6))
    found = {}
    for name in chosen:
        field = FIELDS[name]
        mask = draw(st.integers(1, field.ones)) if field.maskable and name != "vlan_tci" else field.ones
        value = draw(st.integers(0, 0xFEFF if name == "in_port" else field.ones))
        found[name] = (value & mask, mask)
    return found


@st.composite
def bits(draw: st.DrawFn, width: int | None = None) -> Bits:
    name = draw(st.sampled_from(WIDE))
    size = FIELDS[name].width
    width = draw(st.integers(1, size)) if width is None else width
    return Bits(name, draw(st.integers(0, size - width)), width)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    to = draw(bits())
    return Load(to, draw(st.integers(0, (1 << to.width) - 1)))


@st.composite
def moves(draw: st.DrawFn) -> Move:
    width = draw(st.integers(1, 32))
    return Move(draw(bits(width=width)), draw(bits(width=width)))


tables = st.sampled_from(sorted(TABLE_IDS))
writes = st.one_of(loads(), moves())
plain = st.one_of(
    writes,
    st.builds(Output, st.integers(1, 0xFFFE)),
    st.builds(ApplyMeter, st.integers(1, 0xFFFF0000)),
    st.builds(OutputReg, bits(width=16)),
    st.just(InPort()),
    st.builds(Resubmit, tables),
    st.builds(CtClear),
    st.builds(
        Ct,
        st.integers(0, 0xFFFF),
        st.none() | tables,
        st.booleans(),
        st.booleans(),
        st.lists(writes, max_size=3).map(tuple),
    ),
    st.builds(lambda number, clause: Conjunction(number, clause, 64), st.integers(0, 0xFFFFFFFF), st.integers(1, 64)),
)


@given(st.lists(plain, max_size=5), st.none() | tables)
def test_actions_survive(listed: list[Action], goto: str | None) -> None:
    actions = (*listed, *([Goto(goto)] if goto else []))
    data = instructions_bytes(actions)
    assert len(data) % 8 == 0
    # Port 0xfff8 is IN_PORT by its number, so both ways of saying it come back as one.
    expected = tuple(InPort() if action == Output(0xFFF8) else action for action in actions)
    assert read_instructions(memoryview(data)) == expected


@given(st.integers(0, 0xFFFF), st.integers(1, 1_000_000))
def test_meters_survive(port: int, rate: int) -> None:
    """A meter-mod says after its command what a description says after its length (OpenFlow 1.5.1 section 7.3.5.14)."""
    meter = connection_meter(port, rate, Origin("Test"))
    body = meter_mod(MeterChange.ADD, meter, 1)[8:]
    described = struct.pack("!H", len(body)) + body[2:]
    assert list(read_meters(memoryview(described))) == [meter]


def test_meters_outside_our_numbers_are_not_read() -> None:
    band = struct.pack("!HHII4x", 1, 16, 100, 1000)
    forms = [(METERS[1], 14, band), (METERS[2], 6, band), (METERS[3], 14, band + band), (METERS[4], 14, b"")]
    others = [(METERS.start - 1, 14, band), (METERS.stop, 14, band)]
    body = b"".join(
        struct.pack("!HHI", 8 + len(bands), flags, number) + bands for number, flags, bands in (*forms, *others)
    )
    whose = Origin("Test")
    assert list(read_meters(memoryview(body))) == [
        Meter(METERS[1], 100, 1000, whose), *(Meter(METERS[port], 0, 0, whose) for port in (2, 3, 4)),
    ]  # fmt: skip


@given(conditions())
def test_matches_survive(wanted: dict[str, tuple[int, int]]) -> None:
    match = canonical(wanted)
    data = match_bytes(match)
    assert len(data) % 8 == 0
    assert read_match(memoryview(data), 0) == (match, len(data))


@given(st.integers(0, 0xFFFF))
def test_reserved_ports_are_widened_and_narrowed(port: int) -> None:
    assert narrow_port(wide_port(port)) == port
    assert wide_port(0xFFFE) == 0xFFFFFFFE


def test_register_pairs_are_taken_apart() -> None:
    pair = struct.pack("!HHIQQ", 1, 24, 0x80010000 | 1 << 9 | 0x100 | 16, 5 << 32 | 7, 0xFF << 32 | 0xF).ljust(
        24, b"\0"
    )
    match, _ = read_match(memoryview(pair), 0)
    assert [(item.field, item.value, item.mask) for item in match] == [("reg2", 5, 0xFF), ("reg3", 7, 0xF)]


def test_fields_and_actions_of_others_are_kept_is_complete() -> None:
    unknown = struct.pack("!HHI", 1, 16, 0x80000A08) + bytes(8)
    match, _ = read_match(memoryview(unknown), 0)
    assert [item.field for item in match] == ["oxm:80000a08"]
    assert match_bytes(match) == unknown
    meter = bytes.fromhex("0006000800000001")
    assert read_instructions(memoryview(meter)) == (Opaque(meter),)


def test_deletes_are_strict_and_only_for_our_cookie() -> None:
    flow = Flow("L3Forward", 7, (), (Output(1),), OURS | 5, Origin("Test"))
    deletion = delete_flow(flow, 9)
    cookie, mask, table, command = struct.unpack_from("!QQBB", deletion, 8)
    assert (cookie, mask, table, command) == (OURS, 0xFFFF << 48, TABLE_IDS["L3Forward"], 4)
    assert struct.unpack_from("!Q", add_flow(flow, 9), 8) == (OURS | 5,)


def test_a_message_too_long_for_its_header_raises() -> None:
    assert len(message(1, 1, bytes(LONGEST - 8))) == LONGEST
    with pytest.raises(SwitchError, match="message of 65536 bytes cannot be sent"):
        message(1, 1, bytes(LONGEST - 7))
