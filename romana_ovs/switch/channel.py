"""The conversation with one switch: read what it has, change flows in one atomic bundle, know what became of it.

Every wait has a deadline and is ended by the answer, an error or the end of the connection, whichever is first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import eventlet
from eventlet.event import Event as Signal

from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter, setting_of
from romana_ovs.switch import messages
from romana_ovs.switch.datapath import GuardedDatapath, error_text
from romana_ovs.switch.meter_wire import meter_mod, meters_request, read_meters
from romana_ovs.switch.sctp_probe import PROBE_PACKETS, probe_messages, seen_in, tracks_ports
from romana_ovs.switch.wire import REPLY_MORE, add_flow, delete_flow, flows_request, read_flows
from romana_ovs.sync.meters import MeterChange
from romana_ovs.sync.plan import Change, Plan

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("romana_ovs.switch")

ANSWER_SECONDS = 10.0
"""How long a switch may take to answer; a bundle of Open vSwitch expires after 10 s without a message."""
PROBE_SECONDS = 1.0
"""How long the packets that ask about SCTP may take to come back: milliseconds, where they come back at all."""
MAX_ANSWER = 1 << 28
"""Bytes; a switch that describes its flows in more (about two million) is not believed: memory has an end."""
CHUNK = 1 << 18
"""Bytes handed to the connection at once."""


class ConnectionLost(SwitchError):
    """The switch hung up, or its connection was replaced, while an answer was awaited."""


class NoAnswer(SwitchError):
    """The switch did not answer in time."""


class Refused(SwitchError):
    """The switch refused flows or meters; `failures` are each with the reason (None when it is unknown which)."""

    def __init__(self, failures: Sequence[tuple[Flow | Meter | None, str]]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{_named(flow)}: {reason}" for flow, reason in self.failures))


def _named(flow: Flow | Meter | None) -> str:
    if flow is None:
        return "the switch refused"
    if isinstance(flow, Meter):
        setting = setting_of(flow.number)
        without = f", which {setting} = 0 does without" if setting else ""
        return f"the switch refused the meter {flow.text()} ({flow.origin}){without}"
    return f"the switch refused the flow {flow.table} priority={flow.priority} {flow.match_text()} ({flow.origin})"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a switch has: flows of ours, the keys of all others, and meters of ours by number."""

    ours: dict[FlowKey, Flow]
    foreign: frozenset[FlowKey]
    meters: dict[int, Meter]


@dataclass(slots=True)
class _Exchange:
    """One wait: the numbers of the messages it is about, what has come so far, and the signal that ends it."""

    last: int
    xids: frozenset[int]
    errors: list[tuple[int, str]] = field(default_factory=list)
    bodies: list[memoryview] = field(default_factory=list)
    done: Signal = field(default_factory=Signal)

    def finish(self, error: SwitchError | None = None) -> None:
        if not self.done.ready():
            if error is None:
                self.done.send(None)
            else:
                self.done.send_exception(error)


@dataclass(slots=True)
class _Probe:
    """The packets that have come back of those that ask about SCTP: see `tracks_ports`."""

    seen: dict[bool, bool] = field(default_factory=dict)
    done: Signal = field(default_factory=Signal)

    def take(self, same_ports: bool, reply: bool) -> None:
        self.seen[same_ports] = reply
        if len(self.seen) > 1 and not self.done.ready():
            self.done.send(None)


class Channel:
    """The one user of a connection's flows; its methods block their green thread, one call at a time."""

    def __init__(self, datapath: GuardedDatapath) -> None:
        self.packets_in = 0
        self._datapath = datapath
        self._bundle = 0
        self._current: _Exchange | None = None
        self._lost = False
        self._probe: _Probe | None = None
        datapath.receiver = self

    @property
    def dpid(self) -> int:
        """The datapath id that the switch named itself by."""
        return int(self._datapath.id)

    def uses(self, datapath: GuardedDatapath) -> bool:
        """Whether this is the conversation over that connection."""
        return self._datapath is datapath

    def prepare(self) -> None:
        """Configure the switch for our tables. Raises SwitchError."""
        with self._exchange(1) as (exchange, first):
            self._send(messages.set_config(first) + messages.barrier(exchange.last))
            self._await(exchange)
        self._raise(exchange, {})

    def sctp_ports(self) -> bool | None:
        """Whether the switch tracks SCTP by ports; None when it cannot be found out. Raises SwitchError.

        Asked of the switch itself: the answer depends on its version and on its datapath.
        """
        self._probe = probe = _Probe()
        try:
            with self._exchange(PROBE_PACKETS) as (exchange, first):
                self._send(b"".join(probe_messages(first)) + messages.barrier(exchange.last))
                self._await(exchange)
            if exchange.errors:
                LOG.info("switch %016x: SCTP cannot be asked about: %s", self.dpid, exchange.errors[0][1])
                return None
            # What the switch sends back need not come before its barrier's reply.
            with eventlet.Timeout(PROBE_SECONDS, False):
                probe.done.wait()
            return tracks_ports(probe.seen)
        finally:
            self._probe = None

    def read(self) -> ReadBack:
        """Every flow that the switch has, and every meter of ours. Raises SwitchError."""
        ours: dict[FlowKey, Flow] = {}
        foreign: set[FlowKey] = set()
        for body in self._described(flows_request):
            for item in read_flows(body[8:]):
                if item.ours:
                    ours[item.flow.key] = item.flow
                else:
                    foreign.add(item.flow.key)
            eventlet.sleep(0)
        found = (meter for body in self._described(meters_request) for meter in read_meters(body[8:]))
        return ReadBack(ours, frozenset(foreign), {meter.number: meter for meter in found})

    def _described(self, request: Callable[[int], bytes]) -> list[memoryview]:
        """The bodies of the answers to a question."""
        with self._exchange(0) as (exchange, _):
            self._send(request(exchange.last))
            self._await(exchange)
        self._raise(exchange, {})
        return exchange.bodies

    def send(self, plan: Plan) -> None:
        """Carry out `plan`, its flows in one bundle: when this returns, a barrier has confirmed all of it.

        Raises Refused (then nothing was done of the flows), ConnectionLost or NoAnswer (then all or nothing of
        them). What was done of the meters only reading tells.
        """
        self._change_meters(plan.meters.before)
        if plan.flow_mods:
            self._bundle_flows(plan)
        self._change_meters(plan.meters.after)

    def _change_meters(self, changes: Sequence[tuple[MeterChange, Meter]]) -> None:
        if not changes:
            return
        with self._exchange(len(changes)) as (exchange, first):
            mods = [meter_mod(change, meter, xid) for xid, (change, meter) in enumerate(changes, first)]
            self._send_parts([*mods, messages.barrier(exchange.last)])
            self._await(exchange)
        self._raise(exchange, {xid: meter for xid, (_, meter) in enumerate(changes, first)})

    def _bundle_flows(self, plan: Plan) -> None:
        self._bundle += 1
        sent, refused = self._fill(plan)
        # A refused message leaves the others in the bundle, so committing waits for the verdict on all of them.
        if refused:
            self._bundle_step(messages.DISCARD, {})
            raise Refused(refused)
        self._bundle_step(messages.COMMIT, sent)

    def _fill(self, plan: Plan) -> tuple[dict[int, Flow], list[tuple[Flow | None, str]]]:
        """Open the bundle and put everything in; returns flows by message number, and what was refused."""
        changes = plan.ordered()
        with self._exchange(len(changes) + 1) as (exchange, first):
            parts = [messages.bundle_control(self._bundle, messages.OPEN, first)]
            sent = {}
            for xid, (change, flow) in enumerate(changes, first + 1):
                inner = delete_flow(flow, xid) if change is Change.DELETE else add_flow(flow, xid)
                parts.append(messages.bundled(self._bundle, inner, xid))
                sent[xid] = flow
            parts.append(messages.barrier(exchange.last))
            self._send_parts(parts)
            self._await(exchange)
        return sent, [(sent.get(xid), reason) for xid, reason in exchange.errors]

    def _bundle_step(self, kind: int, sent: dict[int, Flow]) -> None:
        with self._exchange(1, frozenset(sent)) as (exchange, first):
            self._send(messages.bundle_control(self._bundle, kind, first) + messages.barrier(exchange.last))
            self._await(exchange)
        self._raise(exchange, sent)

    def flush_connections(self, zone: int | None, addresses: Iterable[IPv4Address]) -> None:
        """Forget every connection in `zone` (None: in all zones) from or to `addresses`. Raises SwitchError."""
        with self._exchange(1) as (exchange, first):
            parts = [messages.flush_connections(zone, address, first) for address in addresses]
            self._send_parts([*parts, messages.barrier(exchange.last)])
            self._await(exchange)
        self._raise(exchange, {})

    def lost(self) -> None:
        """The connection is over: whoever waits gets ConnectionLost."""
        self._lost = True
        if self._current is not None:
            self._current.finish(ConnectionLost("the switch disconnected"))
        if self._probe is not None and not self._probe.done.ready():
            self._probe.done.send(None)

    def cut(self) -> None:
        """End the connection."""
        self._datapath.cut()
        self.lost()

    def on_packet_in(self, body: memoryview) -> None:
        """Count a packet that came to the controller; none should, but those that ask about SCTP."""
        found = seen_in(body)
        if found is None:
            self.packets_in += 1
        elif self._probe is not None:
            self._probe.take(*found)

    def on_message(self, kind: int, xid: int, body: memoryview) -> None:
        """Take one answer of the switch; those that nobody waits for are dropped."""
        current = self._current
        if kind == messages.ERROR:
            self._on_error(current, xid, error_text(body))
        elif current is None or xid != current.last:
            return
        elif kind == messages.MULTIPART_REPLY:
            current.bodies.append(body)
            if sum(map(len, current.bodies)) > MAX_ANSWER:
                current.finish(SwitchError(f"the switch describes its flows in more than {MAX_ANSWER} bytes"))
            elif not int.from_bytes(body[2:4], "big") & REPLY_MORE:
                current.finish()
        elif kind == messages.BARRIER_REPLY:
            current.finish()

    def _on_error(self, current: _Exchange | None, xid: int, text: str) -> None:
        if current is None or not (xid == current.last or xid in current.xids):
            LOG.warning("switch %016x: error about nothing that is under way: %s", self.dpid, text)
            return
        current.errors.append((xid, text))
        if xid == current.last:
            current.finish()

    @contextmanager
    def _exchange(self, count: int, older: frozenset[int] = frozenset()) -> Iterator[tuple[_Exchange, int]]:
        """An exchange of `count` messages and a last one that is answered; and the number of the first."""
        if self._lost:
            raise ConnectionLost("the switch is not connected")
        if self._current is not None:
            raise SwitchError("two green threads use one channel")
        xids = [self._datapath.next_xid() for _ in range(count + 1)]
        if xids[-1] - xids[0] != count:
            # The numbers have wrapped around; those after it are contiguous.
            xids = [self._datapath.next_xid() for _ in range(count + 1)]
        self._current = _Exchange(xids[-1], frozenset(xids) | older)
        try:
            yield self._current, xids[0]
        finally:
            self._current = None

    def _send_parts(self, parts: Sequence[bytes]) -> None:
        data = b"".join(parts)
        for start in range(0, len(data), CHUNK):
            self._send(data[start : start + CHUNK])

    def _send(self, data: bytes) -> None:
        with eventlet.Timeout(ANSWER_SECONDS, NoAnswer(f"the switch took nothing for {ANSWER_SECONDS:g} s")):
            if not self._datapath.send(data):
                raise ConnectionLost("the connection to the switch is ending")

    def _await(self, exchange: _Exchange) -> None:
        if self._lost:
            raise ConnectionLost("the switch disconnected")
        with eventlet.Timeout(ANSWER_SECONDS, NoAnswer(f"no answer from the switch within {ANSWER_SECONDS:g} s")):
            exchange.done.wait()

    def _raise(self, exchange: _Exchange, sent: Mapping[int, Flow | Meter]) -> None:
        if exchange.errors:
            raise Refused([(sent.get(xid), reason) for xid, reason in exchange.errors])
