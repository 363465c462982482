"""Renders the registers and conntrack bits that a flow matches and writes by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from romana_ovs.pipeline.actions import Action, Bits, Ct, Load, Move
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import CONNTRACK_BITS, REGISTERS, Register

_ALL = (*REGISTERS, *CONNTRACK_BITS)
_DECLARED: Mapping[str, tuple[Register, ...]] = MappingProxyType(
    {
        field: tuple(register for register in _ALL if register.bits.field == field)
        for field in {register.bits.field for register in _ALL}
    }
)
"""The registers in each field."""


def symbols(item: Flow) -> str:
    """What a flow matches and writes, by name: `pkt_source=local pkt_destination=uplink -> direction=original`.

    Empty for a flow without any. Numbers of more than 16 bits are in hexadecimal; `client_id=sender_id` is a move.
    """
    matched = " ".join(f"{register.name}={text}" for register, text in matches(item))
    written = " ".join(f"{register.name}={text}" for register, text in writes(item))
    if not written:
        return matched
    return f"{matched} -> {written}" if matched else f"-> {written}"


def matches(item: Flow) -> Iterator[tuple[Register, str]]:
    """The registers that a flow matches, each with the value as text."""
    for condition in item.match:
        for register in _DECLARED.get(condition.field, ()):
            ones = (1 << register.bits.width) - 1
            mask, value = condition.mask >> register.bits.low & ones, condition.value >> register.bits.low & ones
            if mask == ones:
                yield register, _value(register, value)
            elif mask:
                yield register, f"{value:#x}/{mask:#x}"


def writes(item: Flow) -> Iterator[tuple[Register, str]]:
    """The registers that a flow writes, each with the value as text, or the name of what is moved there."""
    for action in item.actions:
        yield from _register_writes(action)


def _register_writes(action: Action) -> Iterator[tuple[Register, str]]:
    if isinstance(action, Ct):
        for write in action.writes:
            yield from _register_writes(write)
    elif isinstance(action, Move):
        for register in _DECLARED.get(action.to.field, ()):
            if register.bits == action.to:
                yield register, _named(action.source)
    elif isinstance(action, Load):
        for register in _DECLARED.get(action.to.field, ()):
            if _overlaps(register.bits, action.to):
                shifted = action.value << action.to.low >> register.bits.low
                yield register, _value(register, shifted & (1 << register.bits.width) - 1)


def _overlaps(left: Bits, right: Bits) -> bool:
    return left.low < right.low + right.width and right.low < left.low + left.width


def _named(bits: Bits) -> str:
    """The register that has exactly these bits, or the bits."""
    return next((register.name for register in _DECLARED.get(bits.field, ()) if register.bits == bits), str(bits))


def _value(register: Register, value: int) -> str:
    names = {number: name for name, number in register.values}
    return names.get(value) or (f"{value:#x}" if register.bits.width > 16 else str(value))
