"""Represents the actions in use as values that render themselves in ovs-ofctl's syntax. Source: ovs-actions(7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from romana_ovs.pipeline.fields import FIELDS, Shape, written


@dataclass(frozen=True, slots=True)
class Bits:
    """Bits `low` to `low + width - 1` of a field."""

    field: str
    low: int
    width: int

    def __str__(self) -> str:
        if self.low == 0 and self.width == FIELDS[self.field].width:
            return f"{self.field}[]"
        return f"{self.field}[{self.low}..{self.low + self.width - 1}]"


@dataclass(frozen=True, slots=True)
class Load:
    """Write a constant into some bits (set_field with a mask)."""

    to: Bits
    value: int

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        field = FIELDS[self.to.field]
        mask = ((1 << self.to.width) - 1) << self.to.low
        shown = written(field, self.value << self.to.low, mask).partition("=")[2]
        if field.shape is Shape.IPV4 and mask != field.ones:
            shown = f"{self.value << self.to.low:#x}/{mask:#x}"
        return f"set_field:{shown}->{self.to.field}"


@dataclass(frozen=True, slots=True)
class Move:
    """Copy bits from one field to another of the same width."""

    source: Bits
    to: Bits

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"move:{self.source}->{self.to}"


@dataclass(frozen=True, slots=True)
class Ct:
    """Send the packet through conntrack, in a constant zone or in that of a register; with `table` it is resubmitted
    there, tracked.

    `writes` (Load or Move into ct_mark and ct_label) need `commit`.
    """

    zone: int | Bits
    table: str | None = None
    commit: bool = False
    force: bool = False
    writes: tuple[Load | Move, ...] = ()

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        parts = (["commit"] if self.commit else []) + (["force"] if self.force else [])
        if self.table is not None:
            parts.append(f"table={tables[self.table]}")
        parts.append(f"zone={self.zone}")
        if self.writes:
            parts.append(f"exec({','.join(write.text(tables) for write in self.writes)})")
        return f"ct({','.join(parts)})"


@dataclass(frozen=True, slots=True)
class CtClear:
    """Clear the conntrack state of the packet: a changed packet must be looked up again."""

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return "ct_clear"


@dataclass(frozen=True, slots=True)
class Output:
    """Send the packet out of a port (OpenFlow number)."""

    port: int

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"output:{self.port}"


@dataclass(frozen=True, slots=True)
class OutputReg:
    """Send the packet out of the port whose number is in a register."""

    port: Bits

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"output:{self.port}"


@dataclass(frozen=True, slots=True)
class InPort:
    """Output to the ingress port (IN_PORT)."""

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return "IN_PORT"


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look the packet up again in a table (which may be an earlier one), then go on."""

    table: str

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"resubmit(,{tables[self.table]})"


@dataclass(frozen=True, slots=True)
class Conjunction:
    """Clause `clause` (from 1) of `clauses` of conjunction `number`."""

    number: int
    clause: int
    clauses: int

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"conjunction({self.number},{self.clause}/{self.clauses})"


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on in a later table (the goto_table instruction); always last."""

    table: str

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"goto_table:{tables[self.table]}"


@dataclass(frozen=True, slots=True)
class ApplyMeter:
    """Apply meter `number`, which drops packets above its rate; always first."""

    number: int

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"meter:{self.number}"


@dataclass(frozen=True, slots=True)
class PushMpls:
    """Put an MPLS label before the packet (which must be popped again)."""

    eth_type: int = 0x8847

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"push_mpls:{self.eth_type:#06x}"


@dataclass(frozen=True, slots=True)
class PopMpls:
    """Take an MPLS label off; what is under it is of `eth_type`.

    Open vSwitch reads the fields below a label in a second pass, with a megaflow of its own. So the megaflow of the
    actions before it does not depend on these fields.
    """

    eth_type: int

    def text(self, tables: Mapping[str, int]) -> str:
        """As ovs-ofctl writes it."""
        return f"pop_mpls:{self.eth_type:#06x}"


Action = (
    Load
    | Move
    | Ct
    | CtClear
    | Output
    | OutputReg
    | InPort
    | Resubmit
    | Conjunction
    | Goto
    | ApplyMeter
    | PushMpls
    | PopMpls
)
