"""Encodes flows as OpenFlow 1.5 messages, and decodes the flows that a switch reports.

A flow that was sent is decoded to an equal Flow, so that desired and actual flows can be compared. Any other flow is
decoded without loss and is unequal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.cookies import OURS, OURS_MASK
from romana_ovs.pipeline.flow import Flow
from romana_ovs.policy.view import Origin
from romana_ovs.switch.action_wire import (
    Opaque,
    Readable,
    instructions_bytes,
    read_instructions,
    table_name,
    table_number,
)
from romana_ovs.switch.oxm import match_bytes, read_match

VERSION = 6
"""OpenFlow 1.5 as a header writes it."""

LONGEST = 0xFFFF
"""Bytes of a message, its header included."""

ADD, DELETE_STRICT = 0, 4
NO_BUFFER = ANY_PORT = ANY_GROUP = 0xFFFFFFFF
ALL_TABLES = 0xFF
FLOW_DESC = 1
REPLY_MORE = 1
_FLOW_MOD = 14
MULTIPART_REQUEST = 18

HEADER = struct.Struct("!BBHI")
_MOD = struct.Struct("!QQBBHHHIIIHH")
_REQUEST = struct.Struct("!HH4x")
_FLOW_REQUEST = struct.Struct("!B3xII4xQQ")
_DESC = struct.Struct("!H2xBxHHHHHQ")
_OXS = struct.Struct("!HH")

READ_BACK = Origin("Switch")
"""The origin of flows that were read from a switch, which does not know theirs."""


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """One OpenFlow 1.5 message. Raises SwitchError when it is too long."""
    length = HEADER.size + len(body)
    if length > LONGEST:
        raise SwitchError(f"an OpenFlow message of {length} bytes cannot be sent: the limit is {LONGEST}")
    return HEADER.pack(VERSION, kind, length, xid) + body


def add_flow(flow: Flow, xid: int) -> bytes:
    """The flow-mod that adds `flow`, or replaces the flow with its key."""
    head = _MOD.pack(
        flow.cookie, 0, table_number(flow.table), ADD, 0, 0, flow.priority, NO_BUFFER, ANY_PORT, ANY_GROUP, 0, 0
    )
    return message(_FLOW_MOD, xid, head + match_bytes(flow.match) + instructions_bytes(flow.actions))


def delete_flow(flow: Flow, xid: int) -> bytes:
    """The flow-mod that deletes exactly `flow`, and only if its cookie is ours (docs/hazards.md B6)."""
    head = _MOD.pack(
        OURS,
        OURS_MASK,
        table_number(flow.table),
        DELETE_STRICT,
        0,
        0,
        flow.priority,
        NO_BUFFER,
        ANY_PORT,
        ANY_GROUP,
        0,
        0,
    )
    return message(_FLOW_MOD, xid, head + match_bytes(flow.match))


def flows_request(xid: int) -> bytes:
    """The request for every flow of every table, also foreign ones, which must not be overwritten."""
    body = _REQUEST.pack(FLOW_DESC, 0) + _FLOW_REQUEST.pack(ALL_TABLES, ANY_PORT, ANY_GROUP, 0, 0) + match_bytes(())
    return message(MULTIPART_REQUEST, xid, body)


@dataclass(frozen=True, slots=True)
class ReadFlow:
    """A flow of the switch, and whether its cookie is ours."""

    flow: Flow
    ours: bool


def read_flows(body: memoryview) -> Iterator[ReadFlow]:
    """The flows in one multipart reply's entries. Raises SwitchError when a length is impossible."""
    at = 0
    while at < len(body):
        if at + _DESC.size > len(body):
            raise SwitchError("a flow description from the switch is cut short")
        length, table, priority, idle, hard, flags, importance, cookie = _DESC.unpack_from(body, at)
        if length < _DESC.size or at + length > len(body):
            raise SwitchError(f"a flow description from the switch has the impossible length {length}")
        entry = body[at : at + length]
        match, after = read_match(entry, _DESC.size)
        actions = read_instructions(entry[_after_counters(entry, after) :])
        yield ReadFlow(
            _flow(table, priority, cookie, match, _with_limits(actions, (idle, hard, flags, importance))),
            cookie & OURS_MASK == OURS,
        )
        at += length


def _flow(table: int, priority: int, cookie: int, match: object, actions: tuple[Readable, ...]) -> Flow:
    return Flow(table_name(table), priority, match, actions, cookie, READ_BACK)  # type: ignore[arg-type]


def _with_limits(actions: tuple[Readable, ...], limits: tuple[int, int, int, int]) -> tuple[Readable, ...]:
    """`actions`, with a mark that makes the flow unequal if it has timeouts or flags, which ours never have."""
    return (*actions, Opaque(repr(limits).encode())) if any(limits) else actions


def _after_counters(entry: memoryview, at: int) -> int:
    if at + _OXS.size > len(entry):
        raise SwitchError("a flow's counters from the switch are cut short")
    length: int = _OXS.unpack_from(entry, at)[1]
    end = at + length + -length % 8
    if length < _OXS.size or end > len(entry):
        raise SwitchError(f"a flow's counters from the switch have the impossible length {length}")
    return end
