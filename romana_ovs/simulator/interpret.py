"""Runs packets through compiled flows as Open vSwitch would.

Sources: ovs-fields(7) (conjunctive match, conntrack fields), ovs-actions(7), and Open vSwitch 3.1.0 itself,
with which tests/integration compare this. Pure: a `Switch` has state (conntrack, held fragments) but no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby

from romana_ovs.model.errors import PipelineError
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
from romana_ovs.pipeline.fields import FIELDS, ICMP
from romana_ovs.pipeline.flow import Flow, Match
from romana_ovs.pipeline.tables import TABLES
from romana_ovs.simulator.conntrack import NO_WRITE, Commitment, Conntrack, Tracked, Write
from romana_ovs.simulator.packet import FRAG_NO, Packet

MAX_DEPTH = 64
"""Depth of resubmits at which Open vSwitch drops the packet."""

_CT_FIELDS = (
    "ct_state",
    "ct_zone",
    "ct_mark",
    "ct_label",
    "ct_nw_proto",
    "ct_nw_src",
    "ct_nw_dst",
    "ct_tp_src",
    "ct_tp_dst",
)

Fields = dict[str, int]
"""Match fields of a packet, including registers and conntrack fields; absent ones are 0."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One table: the flow that matched (None: no flow) and the fields of the packet."""

    table: str
    flow: Flow | None
    fields: Mapping[str, int] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Tracking:
    """One pass through conntrack; `back` is the table where the packet continues (None: nowhere)."""

    result: Tracked
    committed: bool
    back: str | None


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet sent out of a port."""

    port: int
    packet: Packet


Event = Visit | Tracking | Sent


class FlowTable:
    """The flows of one table, indexed for lookups."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        ordered = sorted(flows, key=lambda item: -item.priority)
        self._bands = tuple(
            (priority, tuple(band)) for priority, band in groupby(ordered, key=lambda item: item.priority)
        )

    def lookup(self, fields: Mapping[str, int]) -> Flow | None:
        """The flow that matches a packet, with conjunctions resolved, or None.

        Raises PipelineError when flows of one priority take the same packet and do different things: Open
        vSwitch leaves open which of them wins (OpenFlow 1.5.1 section 5.3).
        """
        for _, band in self._bands:
            matching = [item for item in band if matches(item.match, fields)]
            plain = _only(item for item in matching if not _is_clause(item))
            if plain is not None and len(matching) > 1 and any(_is_clause(item) for item in matching):
                raise PipelineError(f"{plain.table}: a plain flow and a clause share a priority: {plain.match_text()}")
            if plain is not None:
                return plain
            met = _satisfied(matching)
            joined = _only(item for item in map(lambda number: self._conjunction(fields, number), met) if item)
            if joined is not None:
                return joined
        return None

    def _conjunction(self, fields: Mapping[str, int], number: int) -> Flow | None:
        """The flow that matches with `conj_id` = `number`; clauses no longer count."""
        named = {**fields, "conj_id": number}
        for _, band in self._bands:
            flow = _only(item for item in band if not _is_clause(item) and matches(item.match, named))
            if flow is not None:
                return flow
        return None


def matches(match: Match, fields: Mapping[str, int]) -> bool:
    """Whether a packet with these fields matches."""
    return all(fields.get(name, 0) & mask == value for name, value, mask in match)


def _is_clause(item: Flow) -> bool:
    return any(isinstance(action, Conjunction) for action in item.actions)


def _only(flows: Iterable[Flow]) -> Flow | None:
    listed = list(flows)
    if any(item.actions != listed[0].actions for item in listed[1:]):
        texts = " | ".join(f"{item.match_text()} [{item.origin}]" for item in listed)
        raise PipelineError(f"{listed[0].table}: flows of one priority take the same packet differently: {texts}")
    return listed[0] if listed else None


def _satisfied(flows: Iterable[Flow]) -> list[int]:
    """Numbers of the conjunctions of which every clause has a flow among `flows`, sorted."""
    clauses: dict[tuple[int, int], set[int]] = {}
    for item in flows:
        for action in item.actions:
            if isinstance(action, Conjunction):
                clauses.setdefault((action.number, action.clauses), set()).add(action.clause)
    return sorted(number for (number, count), have in clauses.items() if len(have) == count)


@dataclass(slots=True)
class _Context:
    """A packet inside one bridge; a copy continues after conntrack while the first goes on."""

    packet: Packet
    fields: Fields
    depth: int = 0
    passes: tuple[object, ...] = ()
    cut_again: bool = False
    """Whether it was reassembled, and leaves the bridge in fragments again."""

    def bits(self, where: Bits) -> int:
        return self.fields.get(where.field, 0) >> where.low & (1 << where.width) - 1

    def write(self, where: Bits, value: int) -> None:
        mask = (1 << where.width) - 1 << where.low
        self.fields[where.field] = self.fields.get(where.field, 0) & ~mask | value << where.low


class Switch:
    """One bridge: its flows, its conntrack, and fragments of unfinished datagrams.

    `trace` lists what happened to the last packet received. A packet taken by no flow is dropped.
    Bridges of one switch process share a table of connections: give them the same `conntrack`.
    """

    def __init__(self, flows: Iterable[Flow], *, conntrack: Conntrack | None = None) -> None:
        self.conntrack = conntrack or Conntrack()
        self.trace: list[Event] = []
        self._fragments: dict[tuple[object, ...], list[_Context]] = {}
        self.program(flows)

    def program(self, flows: Iterable[Flow]) -> None:
        """Replace all flows; connections and queued fragments stay. Raises PipelineError for a duplicate flow."""
        by_table: dict[str, dict[object, Flow]] = {}
        for item in flows:
            known = by_table.setdefault(item.table, {})
            if item.key in known:
                raise PipelineError(f"table {item.table} has the same flow twice: {item.priority} {item.match_text()}")
            known[item.key] = item
        self._tables = {name: FlowTable(known.values()) for name, known in by_table.items()}

    def receive(self, packet: Packet, in_port: int) -> list[Sent]:
        """The packets that leave the bridge, in order, when `packet` arrives at `in_port` (OpenFlow's number).

        Raises PipelineError where flows are ambiguous or go in circles.
        """
        self.trace = []
        self._enter(_Context(packet, {**packet.fields(), "in_port": in_port}), TABLES[0].name)
        return [event for event in self.trace if isinstance(event, Sent)]

    def _enter(self, ctx: _Context, table: str) -> None:
        if ctx.depth > MAX_DEPTH:
            raise PipelineError(f"a packet goes in circles through table {table}")
        known = self._tables.get(table)
        flow = known.lookup(ctx.fields) if known is not None else None
        self.trace.append(Visit(table, flow, dict(ctx.fields)))
        for action in flow.actions if flow is not None else ():
            _HANDLERS[type(action)](self, ctx, action)

    def _load(self, ctx: _Context, action: Load) -> None:
        ctx.write(action.to, action.value)

    def _move(self, ctx: _Context, action: Move) -> None:
        ctx.write(action.to, ctx.bits(action.source))

    def _goto(self, ctx: _Context, action: Goto | Resubmit) -> None:
        ctx.depth += 1
        self._enter(ctx, action.table)
        ctx.depth -= 1

    def _output(self, ctx: _Context, action: Output) -> None:
        # Open vSwitch outputs a packet to its ingress port only by the action IN_PORT.
        if action.port != ctx.fields["in_port"]:
            self._send(ctx, action.port)

    def _send(self, ctx: _Context, port: int) -> None:
        packet = ctx.packet.rewritten(ctx.fields)
        pieces = packet.fragments(packet.ip_id) if ctx.cut_again else (packet,)
        self.trace += [Sent(port, piece) for piece in pieces]

    def _output_reg(self, ctx: _Context, action: OutputReg) -> None:
        self._output(ctx, Output(ctx.bits(action.port)))

    def _in_port(self, ctx: _Context, action: InPort) -> None:
        self._send(ctx, ctx.fields["in_port"])

    def _ct(self, ctx: _Context, action: Ct) -> None:
        ctx.packet = ctx.packet.rewritten(ctx.fields)
        released = self._defragmented(ctx, action)
        if released:
            whole, zone = replace(released[0].packet, nw_frag=FRAG_NO), _zone(ctx, action)
            before = ctx.fields.get("ct_state", 0) if ctx.fields.get("ct_zone") == zone else 0
            result = self.conntrack.process(whole, zone, _commitment(ctx, action), before=before)
            self.trace.append(Tracking(result, action.commit, action.table))
            if self.conntrack.behaviour.reassembles and ctx.packet.nw_frag != FRAG_NO:
                released = [replace(released[0], packet=whole, cut_again=True)]
            for fragment in released if action.table is not None else ():
                # Fragments go on with the registers of the one that completed them.
                fields = {**ctx.fields, **fragment.packet.rewritten(fragment.fields).fields(), **_tracked(result)}
                back = _Context(
                    fragment.packet,
                    _without_transport(fields, fragment.packet),
                    ctx.depth + 1,
                    _recirculation_key(ctx, action),
                    fragment.cut_again,
                )
                self._enter(back, action.table or "")
        self._ct_clear(ctx)

    def _ct_clear(self, ctx: _Context, action: CtClear | None = None) -> None:
        for name in _CT_FIELDS:
            ctx.fields.pop(name, None)

    def _defragmented(self, ctx: _Context, action: Ct) -> list[_Context]:
        """The packets that conntrack releases: none while a fragment is missing, then all in order."""
        packet = ctx.packet
        if packet.nw_frag == FRAG_NO:
            return [ctx]
        key = (_zone(ctx, action), packet.nw_src, packet.nw_dst, packet.nw_proto, packet.ip_id, ctx.passes)
        fragments = self._fragments.setdefault(key, [])
        fragments.append(_copied(ctx))
        if len({fragment.packet.nw_frag for fragment in fragments}) < 2:
            return []
        del self._fragments[key]
        return sorted(fragments, key=lambda fragment: fragment.packet.nw_frag)


def _copied(ctx: _Context) -> _Context:
    """A copy that later writes to `ctx` do not change."""
    return replace(ctx, fields=dict(ctx.fields))


def _recirculation_key(ctx: _Context, action: Ct) -> tuple[object, ...]:
    """The key of recirculated packets: table and registers."""
    registers = tuple(sorted((name, value) for name, value in ctx.fields.items() if name.startswith("reg") and value))
    return (*ctx.passes, action.table, registers)


def _tracked(result: Tracked) -> Fields:
    known = {"ct_zone": result.zone, "ct_state": result.state, "ct_mark": result.mark, "ct_label": result.label}
    if result.original is not None:
        first = result.original
        known |= {"ct_nw_proto": first.proto, "ct_nw_src": first.source, "ct_nw_dst": first.target}
        if first.proto != ICMP:
            known |= {"ct_tp_src": first.source_port, "ct_tp_dst": first.target_port}
    return known


_TRANSPORT = tuple(name for name, declared in FIELDS.items() if any(need[0] == "nw_proto" for need in declared.needs))


def _without_transport(fields: Fields, packet: Packet) -> Fields:
    """`fields` with only those transport fields that `packet` itself has."""
    own = packet.fields()
    return {name: value for name, value in fields.items() if name not in _TRANSPORT or name in own}


def _zone(ctx: _Context, action: Ct) -> int:
    return ctx.bits(action.zone) if isinstance(action.zone, Bits) else action.zone


def _commitment(ctx: _Context, action: Ct) -> Commitment | None:
    if not action.commit:
        return None
    written = {"ct_mark": NO_WRITE, "ct_label": NO_WRITE}
    for write in action.writes:
        low, width = write.to.low, write.to.width
        value = ctx.bits(write.source) if isinstance(write, Move) else write.value
        mask = (1 << width) - 1 << low
        old = written[write.to.field]
        written[write.to.field] = Write(value << low | old.value & ~mask, mask | old.mask)
    return Commitment(action.force, written["ct_mark"], written["ct_label"])


def _refuse_clause(switch: Switch, ctx: _Context, action: Conjunction) -> None:
    raise PipelineError(f"conjunction {action.number} was taken as an action")


def _apply_meter(switch: Switch, ctx: _Context, action: ApplyMeter) -> None:
    """Does nothing: without a clock, every meter passes everything."""


def _recirculate(switch: Switch, ctx: _Context, action: PushMpls | PopMpls) -> None:
    """A label that is popped again leaves the packet as it was."""


_HANDLERS: Mapping[type[Action], Callable[..., None]] = {
    Load: Switch._load,
    Move: Switch._move,
    Ct: Switch._ct,
    CtClear: Switch._ct_clear,
    Output: Switch._output,
    OutputReg: Switch._output_reg,
    InPort: Switch._in_port,
    Resubmit: Switch._goto,
    Goto: Switch._goto,
    Conjunction: _refuse_clause,
    ApplyMeter: _apply_meter,
    PushMpls: _recirculate,
    PopMpls: _recirculate,
}
