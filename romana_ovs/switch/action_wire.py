"""Encodes and decodes OpenFlow 1.5 actions. Sources: OpenFlow 1.5.1 section 7.2.6, ovs-actions(7), nicira-ext.h."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
    PopMpls,
    PushMpls,
    Resubmit,
)
from romana_ovs.pipeline.fields import FIELDS
from romana_ovs.pipeline.tables import TABLE_IDS
from romana_ovs.switch.oxm import UNKNOWN, field_bytes, header_of, narrow_port, read_field, wide_port

OUTPUT, PUSH_MPLS, POP_MPLS, SET_FIELD, COPY_FIELD, METER, EXPERIMENTER = 0, 19, 20, 25, 28, 29, 0xFFFF
NICIRA = 0x2320
RESUBMIT_TABLE, OUTPUT_REG, CONJUNCTION, CT, CT_CLEAR = 14, 15, 34, 35, 43
IN_PORT = 0xFFFFFFF8
IN_PORT_SHORT = 0xFFF8
CT_COMMIT, CT_FORCE = 1, 2
NO_TABLE = 0xFF
GOTO_TABLE, APPLY_ACTIONS = 1, 4

_HEAD = struct.Struct("!HH")
_OUTPUT = struct.Struct("!HHIH6x")
_COPY = struct.Struct("!HHHHHH")
_METER = struct.Struct("!HHI")
_MPLS = struct.Struct("!HHH2x")
_NX = struct.Struct("!HHIH")
_RESUBMIT = struct.Struct("!HHIHHB3x")
_OUTPUT_REG = struct.Struct("!HHIHHIH6x")
_CONJUNCTION = struct.Struct("!HHIHBBI")
_CT = struct.Struct("!HHIHHIHB3xH")
"""The zone follows its source: 0 for a number, else the header of a field, and then the bits of that."""
_CT_CLEAR = struct.Struct("!HHIH6x")
_INSTRUCTION = struct.Struct("!HH4x")
_GOTO = struct.Struct("!HHB3x")

_TABLE_NAMES = {number: name for name, number in TABLE_IDS.items()}


@dataclass(frozen=True, slots=True)
class Opaque:
    """Bytes of an unknown action or instruction; it equals no known action, so its flow is unequal to ours."""

    data: bytes

    def text(self, tables: Mapping[str, int]) -> str:
        """The bytes, as an ovs-ofctl note."""
        return f"note:{self.data.hex()}"


Readable = Action | Opaque


def table_name(number: int) -> str:
    """The name of a table by its number; `table:N` for an undeclared one."""
    return _TABLE_NAMES.get(number) or f"table:{number}"


def table_number(name: str) -> int:
    """The number of a table by the name of `table_name`."""
    number = TABLE_IDS.get(name)
    return int(name.removeprefix("table:")) if number is None else number


def instructions_bytes(actions: tuple[Action, ...]) -> bytes:
    """The instructions of a flow with these actions; none at all is a drop."""
    goto = actions[-1] if actions and isinstance(actions[-1], Goto) else None
    applied = actions_bytes(actions[:-1] if goto else actions)
    parts = b""
    if applied:
        parts = _INSTRUCTION.pack(APPLY_ACTIONS, _INSTRUCTION.size + len(applied)) + applied
    if goto is not None:
        parts += _GOTO.pack(GOTO_TABLE, _GOTO.size, TABLE_IDS[goto.table])
    return parts


def actions_bytes(actions: tuple[Action, ...]) -> bytes:
    """A list of actions, each padded to eight bytes."""
    return b"".join([_WRITERS[type(action)](action) for action in actions])


def _padded(kind: int, body: bytes) -> bytes:
    length = _HEAD.size + len(body)
    full = length + -length % 8
    return _HEAD.pack(kind, full) + body + bytes(full - length)


def _load(action: Load) -> bytes:
    low, width = action.to.low, action.to.width
    return _padded(SET_FIELD, field_bytes(action.to.field, action.value << low, ((1 << width) - 1) << low))


def _move(action: Move) -> bytes:
    fields = header_of(action.source.field) + header_of(action.to.field)
    head = _COPY.pack(0, 0, action.to.width, action.source.low, action.to.low, 0)
    return _padded(COPY_FIELD, head[_HEAD.size :] + fields)


def _ct(action: Ct) -> bytes:
    nested = actions_bytes(action.writes)
    flags = (CT_COMMIT if action.commit else 0) | (CT_FORCE if action.force else 0)
    table = NO_TABLE if action.table is None else TABLE_IDS[action.table]
    source, zone = 0, action.zone
    if isinstance(zone, Bits):
        (source,) = struct.unpack("!I", header_of(zone.field))
        zone = _ofs_nbits(zone)
    head = _CT.pack(EXPERIMENTER, _CT.size + len(nested), NICIRA, CT, flags, source, zone, table, 0)
    return head + nested


def _ofs_nbits(bits: Bits) -> int:
    """ofs_nbits of nicira-ext.h."""
    return bits.low << 6 | bits.width - 1


def _ct_clear(action: CtClear) -> bytes:
    return _CT_CLEAR.pack(EXPERIMENTER, _CT_CLEAR.size, NICIRA, CT_CLEAR)


def _output(action: Output) -> bytes:
    return _OUTPUT.pack(OUTPUT, _OUTPUT.size, wide_port(action.port), 0)


def _output_reg(action: OutputReg) -> bytes:
    bits = action.port
    (header,) = struct.unpack("!I", header_of(bits.field))
    return _OUTPUT_REG.pack(EXPERIMENTER, _OUTPUT_REG.size, NICIRA, OUTPUT_REG, _ofs_nbits(bits), header, 0)


def _in_port(action: InPort) -> bytes:
    return _OUTPUT.pack(OUTPUT, _OUTPUT.size, IN_PORT, 0)


def _resubmit(action: Resubmit) -> bytes:
    table = TABLE_IDS[action.table]
    return _RESUBMIT.pack(EXPERIMENTER, _RESUBMIT.size, NICIRA, RESUBMIT_TABLE, IN_PORT_SHORT, table)


def _conjunction(action: Conjunction) -> bytes:
    return _CONJUNCTION.pack(
        EXPERIMENTER, _CONJUNCTION.size, NICIRA, CONJUNCTION, action.clause - 1, action.clauses, action.number
    )


def _push_mpls(action: PushMpls) -> bytes:
    return _MPLS.pack(PUSH_MPLS, _MPLS.size, action.eth_type)


def _pop_mpls(action: PopMpls) -> bytes:
    return _MPLS.pack(POP_MPLS, _MPLS.size, action.eth_type)


def _apply_meter(action: ApplyMeter) -> bytes:
    return _METER.pack(METER, _METER.size, action.number)


_WRITERS: dict[type, Callable[..., bytes]] = {
    Load: _load,
    Move: _move,
    Ct: _ct,
    CtClear: _ct_clear,
    Output: _output,
    OutputReg: _output_reg,
    InPort: _in_port,
    Resubmit: _resubmit,
    Conjunction: _conjunction,
    ApplyMeter: _apply_meter,
    PushMpls: _push_mpls,
    PopMpls: _pop_mpls,
}


def read_instructions(data: memoryview) -> tuple[Readable, ...]:
    """The actions of the instructions in `data`. Raises SwitchError when a length is impossible."""
    readables: list[Readable] = []
    at = 0
    while at < len(data):
        kind, length = _action_header(data, at)
        piece = data[at : at + length]
        if kind == GOTO_TABLE and length == _GOTO.size:
            readables.append(Goto(table_name(_GOTO.unpack(piece)[2])))
        elif kind == APPLY_ACTIONS and length >= _INSTRUCTION.size:
            readables.extend(read_actions(piece[_INSTRUCTION.size :]))
        else:
            readables.append(Opaque(bytes(piece)))
        at += length
    return tuple(readables)


def read_actions(data: memoryview) -> list[Readable]:
    """The actions in `data`; unknown ones as Opaque. Raises SwitchError on an impossible length."""
    readables: list[Readable] = []
    at = 0
    while at < len(data):
        kind, length = _action_header(data, at)
        piece = data[at : at + length]
        readables.append(_read(kind, piece) or Opaque(bytes(piece)))
        at += length
    return readables


def _action_header(data: memoryview, at: int) -> tuple[int, int]:
    if at + _HEAD.size > len(data):
        raise SwitchError("an action or instruction from the switch is cut short")
    kind, length = _HEAD.unpack_from(data, at)
    if length < 8 or length % 8 or at + length > len(data):
        raise SwitchError(f"an action or instruction from the switch has the impossible length {length}")
    return kind, length


def _read(kind: int, piece: memoryview) -> Readable | None:
    if kind == OUTPUT and len(piece) == _OUTPUT.size:
        port = _OUTPUT.unpack(piece)[2]
        return InPort() if port == IN_PORT else Output(narrow_port(port))
    if kind == SET_FIELD:
        return _read_load(piece)
    if kind == COPY_FIELD:
        return _read_move(piece)
    if kind in (PUSH_MPLS, POP_MPLS) and len(piece) == _MPLS.size:
        eth_type = _MPLS.unpack(piece)[2]
        return PushMpls(eth_type) if kind == PUSH_MPLS else PopMpls(eth_type)
    if kind == METER and len(piece) == _METER.size:
        return ApplyMeter(_METER.unpack(piece)[2])
    if kind == EXPERIMENTER and len(piece) >= 16:
        _, _, vendor, subtype = _NX.unpack_from(piece)
        reader = _NX_READERS.get(subtype) if vendor == NICIRA else None
        return reader(piece) if reader is not None else None
    return None


def _read_load(piece: memoryview) -> Readable | None:
    name, value, mask, _ = read_field(piece, _HEAD.size)
    if name.startswith(UNKNOWN) or not mask:
        return None
    low = (mask & -mask).bit_length() - 1
    width = mask.bit_length() - low
    if mask >> low != (1 << width) - 1:
        return None
    return Load(Bits(name, low, width), value >> low)


def _read_move(piece: memoryview) -> Readable | None:
    if len(piece) < _COPY.size + 8:
        return None
    _, _, width, source, to, _ = _COPY.unpack_from(piece)
    names = [_bare_field(piece, _COPY.size), _bare_field(piece, _COPY.size + 4)]
    if None in names:
        return None
    return Move(Bits(str(names[0]), source, width), Bits(str(names[1]), to, width))


def _bare_field(piece: memoryview, at: int) -> str | None:
    return _BY_HEADER.get(bytes(piece[at : at + 4]))


_BY_HEADER = {header_of(name): name for name in FIELDS}


def _read_resubmit(piece: memoryview) -> Readable | None:
    if len(piece) != _RESUBMIT.size:
        return None
    *_, port, table = _RESUBMIT.unpack(piece)
    return Resubmit(table_name(table)) if port == IN_PORT_SHORT else None


def _read_output_bits(piece: memoryview) -> Readable | None:
    if len(piece) != _OUTPUT_REG.size:
        return None
    *_, spread, header, _ = _OUTPUT_REG.unpack(piece)
    name = _BY_HEADER.get(struct.pack("!I", header))
    return OutputReg(Bits(name, spread >> 6, (spread & 0x3F) + 1)) if name is not None else None


def _read_conjunction(piece: memoryview) -> Readable | None:
    if len(piece) != _CONJUNCTION.size:
        return None
    *_, clause, clauses, number = _CONJUNCTION.unpack(piece)
    return Conjunction(number, clause + 1, clauses)


def _read_ct(piece: memoryview) -> Readable | None:
    if len(piece) < _CT.size:
        return None
    *_, flags, source, zone, table, helper = _CT.unpack_from(piece)
    writes = read_actions(piece[_CT.size :])
    field = _BY_HEADER.get(struct.pack("!I", source)) if source else None
    if (source and field is None) or helper or flags & ~(CT_COMMIT | CT_FORCE):
        return None
    known = tuple(write for write in writes if isinstance(write, (Load, Move)))
    if len(known) != len(writes):
        return None
    name = None if table == NO_TABLE else table_name(table)
    where = zone if field is None else Bits(field, zone >> 6, (zone & 0x3F) + 1)
    return Ct(where, name, bool(flags & CT_COMMIT), bool(flags & CT_FORCE), known)


def _read_ct_clear(piece: memoryview) -> Readable | None:
    return CtClear() if len(piece) == _CT_CLEAR.size else None


_NX_READERS: dict[int, Callable[[memoryview], Readable | None]] = {
    RESUBMIT_TABLE: _read_resubmit,
    OUTPUT_REG: _read_output_bits,
    CONJUNCTION: _read_conjunction,
    CT: _read_ct,
    CT_CLEAR: _read_ct_clear,
}
