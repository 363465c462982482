"""Reads the flows and meters of one switch, changes them in one atomic bundle, and waits for the result.

Every wait ends at the answer, an error, the end of the connection or a deadline, whichever is first.
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
from romana_ovs.sync.diff import Change, FlowDiff
from romana_ovs.sync.meters import MeterChange

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG = logging.getLogger("romana_ovs.switch")

ANSWER_SECONDS = 10.0
"""Deadline for an answer; a bundle of Open vSwitch expires after 10 s without a message."""
PROBE_SECONDS = 1.0
"""Deadline for the packets of the SCTP probe, which come back within milliseconds, if at all."""
MAX_ANSWER = 1 << 28
"""Limit of a flow description in bytes (about two million flows), to bound memory."""
CHUNK = 1 << 18
"""Bytes handed to the connection at once."""


class ConnectionLost(SwitchError):
    """The switch disconnected, or its connection was replaced, during a wait."""


class NoAnswer(SwitchError):
    """The switch did not answer in time."""


class SwitchRefused(SwitchError):
    """The switch refused flows or meters; `failures` are pairs of flow or meter (None: unknown) and reason."""

    def __init__(self, failures: Sequence[tuple[Flow | Meter | None, str]]) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{_named(flow)}: {reason}" for flow, reason in self.failures))


def _named(flow: Flow | Meter | None) -> str:
    if flow is None:
        return "the switch refused"
    if isinstance(flow, Meter):
        setting = setting_of(flow.number)
        without = f" ({setting} = 0 turns it off)" if setting else ""
        return f"the switch refused the meter {flow.text()} ({flow.origin}){without}"
    return f"the switch refused the flow {flow.table} priority={flow.priority} {flow.match_text()} ({flow.origin})"


@dataclass(frozen=True, slots=True)
class ReadBack:
    """The state of a switch: our flows, the keys of foreign flows, and our meters by number."""

    ours: dict[FlowKey, Flow]
    foreign: frozenset[FlowKey]
    meters: dict[int, Meter]


@dataclass(slots=True)
class _Exchange:
    """One wait: the xids of its messages, the answers so far, and the signal that ends it."""

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
    """The packets of the SCTP probe that came back (see `tracks_ports`)."""

    seen: dict[bool, bool] = field(default_factory=dict)
    done: Signal = field(default_factory=Signal)

    def take(self, same_ports: bool, reply: bool) -> None:
        self.seen[same_ports] = reply
        if len(self.seen) > 1 and not self.done.ready():
            self.done.send(None)


class Channel:
    """The flows and meters behind one connection. Methods block their green thread; one call at a time."""

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
        """The datapath id of the switch."""
        return int(self._datapath.id)

    @property
    def management(self) -> bool:
        """Whether it uses the management socket of the bridge: the switch may wait for its flows."""
        return self._datapath.management

    def is_for(self, datapath: GuardedDatapath) -> bool:
        """Whether this channel uses that connection."""
        return self._datapath is datapath

    def prepare(self) -> None:
        """Configures the switch for our tables. Raises SwitchError."""
        with self._exchange(1) as (exchange, first):
            self._send(messages.set_config(first) + messages.barrier(exchange.last))
            self._await(exchange)
        self._raise(exchange, {})

    def sctp_ports(self) -> bool | None:
        """Whether the switch tracks SCTP by ports; None when the probe fails. Raises SwitchError.

        The probe is needed because that depends on the version and the datapath.
        """
        self._probe = probe = _Probe()
        try:
            with self._exchange(PROBE_PACKETS) as (exchange, first):
                self._send(b"".join(probe_messages(first)) + messages.barrier(exchange.last))
                self._await(exchange)
            if exchange.errors:
                LOG.info("switch %016x: the SCTP probe failed: %s", self.dpid, exchange.errors[0][1])
                return None
            # The packets may come back after the barrier reply.
            with eventlet.Timeout(PROBE_SECONDS, False):
                probe.done.wait()
            return tracks_ports(probe.seen)
        finally:
            self._probe = None

    def read(self) -> ReadBack:
        """Every flow of the switch, and our meters. Raises SwitchError."""
        ours: dict[FlowKey, Flow] = {}
        foreign: set[FlowKey] = set()
        for body in self._described(flows_request):
            for item in read_flows(body[8:]):
                if item.ours:
                    ours[item.flow.key] = item.flow
                else:
                    foreign.add(item.flow.key)
            eventlet.sleep(0)
        meters = (meter for body in self._described(meters_request) for meter in read_meters(body[8:]))
        return ReadBack(ours, frozenset(foreign), {meter.number: meter for meter in meters})

    def _described(self, request: Callable[[int], bytes]) -> list[memoryview]:
        """The bodies of the replies to a multipart request."""
        with self._exchange(0) as (exchange, _):
            self._send(request(exchange.last))
            self._await(exchange)
        self._raise(exchange, {})
        return exchange.bodies

    def send(self, diff: FlowDiff) -> None:
        """Applies `diff`, its flows in one bundle. When this returns, a barrier has confirmed all of it.

        Raises SwitchRefused (no flow was changed), ConnectionLost or NoAnswer (all flows were changed, or none). After
        an error the meters must be read again.
        """
        self._change_meters(diff.meters.before)
        if diff.flow_mods:
            self._bundle_flows(diff)
        self._change_meters(diff.meters.after)

    def _change_meters(self, changes: Sequence[tuple[MeterChange, Meter]]) -> None:
        if not changes:
            return
        with self._exchange(len(changes)) as (exchange, first):
            mods = [meter_mod(change, meter, xid) for xid, (change, meter) in enumerate(changes, first)]
            self._send_parts([*mods, messages.barrier(exchange.last)])
            self._await(exchange)
        self._raise(exchange, {xid: meter for xid, (_, meter) in enumerate(changes, first)})

    def _bundle_flows(self, diff: FlowDiff) -> None:
        self._bundle += 1
        sent, rejected = self._fill(diff)
        # A rejected message leaves the others in the bundle, so the commit waits for the answers to all of them.
        if rejected:
            self._bundle_step(messages.DISCARD, {})
            raise SwitchRefused(rejected)
        self._bundle_step(messages.COMMIT, sent)

    def _fill(self, diff: FlowDiff) -> tuple[dict[int, Flow], list[tuple[Flow | None, str]]]:
        """Opens the bundle and adds all messages; returns the flows by xid, and the rejected ones."""
        changes = diff.ordered()
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
        """Flushes every connection in `zone` (None: in all zones) from or to `addresses`. Raises SwitchError."""
        with self._exchange(1) as (exchange, first):
            parts = [messages.flush_connections(zone, address, first) for address in addresses]
            self._send_parts([*parts, messages.barrier(exchange.last)])
            self._await(exchange)
        self._raise(exchange, {})

    def on_disconnect(self) -> None:
        """The connection has ended: a waiting call raises ConnectionLost."""
        self._lost = True
        if self._current is not None:
            self._current.finish(ConnectionLost("the switch disconnected"))
        if self._probe is not None and not self._probe.done.ready():
            self._probe.done.send(None)

    def close(self) -> None:
        """Ends the connection."""
        self._datapath.abort()
        self.on_disconnect()

    def on_packet_in(self, body: memoryview) -> None:
        """Counts packets to the controller; only those of the SCTP probe are expected."""
        sighting = seen_in(body)
        if sighting is None:
            self.packets_in += 1
        elif self._probe is not None:
            self._probe.take(*sighting)

    def on_message(self, kind: int, xid: int, body: memoryview) -> None:
        """Handles one answer of the switch; unexpected ones are dropped."""
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
            LOG.warning("switch %016x: error without a pending request: %s", self.dpid, text)
            return
        current.errors.append((xid, text))
        if xid == current.last:
            current.finish()

    @contextmanager
    def _exchange(self, count: int, older: frozenset[int] = frozenset()) -> Iterator[tuple[_Exchange, int]]:
        """An exchange of `count` messages and a last one that is answered; and the xid of the first."""
        if self._lost:
            raise ConnectionLost("the switch is not connected")
        if self._current is not None:
            raise SwitchError("internal error: two green threads use one channel, please report")
        xids = [self._datapath.next_xid() for _ in range(count + 1)]
        if xids[-1] - xids[0] != count:
            # The xids have wrapped around; the next ones are contiguous.
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
        with eventlet.Timeout(ANSWER_SECONDS, NoAnswer(f"the switch accepted no data for {ANSWER_SECONDS:g} s")):
            if not self._datapath.send(data):
                raise ConnectionLost("the connection to the switch is closing")

    def _await(self, exchange: _Exchange) -> None:
        if self._lost:
            raise ConnectionLost("the switch disconnected")
        with eventlet.Timeout(ANSWER_SECONDS, NoAnswer(f"no answer from the switch within {ANSWER_SECONDS:g} s")):
            exchange.done.wait()

    def _raise(self, exchange: _Exchange, sent: Mapping[int, Flow | Meter]) -> None:
        if exchange.errors:
            raise SwitchRefused([(sent.get(xid), reason) for xid, reason in exchange.errors])
