"""Programs one switch over one OpenFlow connection, by the state machine of `sync.session`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Protocol

from romana_ovs.controller.flag import Flag
from romana_ovs.controller.pre_restart import PreRestartPods
from romana_ovs.engine.node_agents import PendingAck
from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.compile import Program
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.zones import common_zone, zone
from romana_ovs.switch.bridges import Marks
from romana_ovs.switch.channel import Channel, ConnectionLost, NoAnswer, ReadBack, SwitchRefused
from romana_ovs.sync.attached_pods import AttachedPod, Owners, attached_pod_changes, attached_pods, reassigned
from romana_ovs.sync.diff import FlowDiff, applied, changed_sections, flow_diff
from romana_ovs.sync.meters import meter_diff
from romana_ovs.sync.session import SessionEvent, SessionState, next_state

LOG = logging.getLogger("romana_ovs.session")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a refused program is tried again; doubled each time, cut short by anything new to send."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a switch should have from now on: the tables of round `number`, for the node of this `host` number.

    `generation` is the change of the cluster that the round is about; a change may take several rounds. `pledge` is
    what the registry may be told once the switch has it. `owners` are the pods whose addresses are in the tables;
    `known` are addresses whose pods had them before, so that the switch has no connections of others under them;
    `marks` is to be noted of its bridge once it has it.
    """

    number: int
    generation: int
    program: Program
    host: int
    pledge: PendingAck | None = None
    owners: Owners = field(default_factory=lambda: MappingProxyType({}))
    known: frozenset[IPv4Address] = frozenset()
    marks: Marks = field(default_factory=Marks)


class Listener(Protocol):
    """Who wants to know how a session goes."""

    def on_session_ready(self, session: Session) -> None:
        """Its switch's flows are known: it can be given something to want."""

    def on_programmed(self, session: Session, sent: int) -> None:
        """The switch has what `session.synced` says; `sent` flow-mods and meter-mods were needed."""

    def on_state_change(self, session: Session) -> None:
        """Its state is another, or what is wrong with it."""


class Session:
    """`run` is a green thread's job and ends with the connection."""

    def __init__(self, channel: Channel, listener: Listener) -> None:
        self.channel = channel
        self.state = SessionState.DISCONNECTED
        self.problems: tuple[str, ...] = ()
        self.survivors: PreRestartPods | None = None
        self.sctp_ports: bool | None = None
        """Whether the switch tracks SCTP by ports; None while that is not known."""
        self.synced: Wanted | None = None
        self._listener = listener
        self._wake = Flag()
        self._wanted: Wanted | None = None
        self._actual: Mapping[FlowKey, Flow] = {}
        self._foreign: frozenset[FlowKey] = frozenset()
        self._meters: Mapping[int, Meter] = {}
        self._failures = 0

    @property
    def name(self) -> str:
        """The switch's datapath id, as ovs-ofctl writes it."""
        return f"{self.channel.dpid:016x}"

    @property
    def ready(self) -> bool:
        """Whether what the switch had is known, so that it may be given something to want."""
        return self.survivors is not None and self.state is not SessionState.DISCONNECTED

    @property
    def idle(self) -> bool:
        """Whether its switch has all that it was given."""
        return self.state is SessionState.SYNCED and self._outstanding() is None

    def set_desired(self, wanted: Wanted) -> None:
        """Make the switch have `wanted`, in place of all that was wanted before and is not sent yet."""
        self._wanted = wanted
        self._wake.set()

    def on_disconnect(self) -> None:
        """The connection has ended."""
        self.channel.on_disconnect()
        self._step(SessionEvent.LOST)
        self._wake.set()

    def run(self) -> None:
        """Returns when the connection has ended; however it returns, the connection ends too."""
        try:
            self._step(SessionEvent.CONNECTED)
            while self.state is not SessionState.DISCONNECTED:
                self._try_to_advance()
        finally:
            self.channel.close()

    def _try_to_advance(self) -> None:
        try:
            self._advance()
        except ConnectionLost:
            LOG.info("switch %s: disconnected", self.name)
            self._step(SessionEvent.LOST)
        except NoAnswer as error:
            self._fail((f"switch {self.name}: {error}; reconnecting",))
            self._step(SessionEvent.LOST)
        except SwitchRefused as error:
            self._fail(tuple(f"switch {self.name}: {text}" for text in str(error).split("; ")))
        except SwitchError as error:
            self._fail((f"switch {self.name}: {error}",))

    def _advance(self) -> None:
        if self.state is SessionState.READING:
            self._read()
        elif self.state is SessionState.FAILED:
            pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
            self._wake.wait(pause)
            if self.state is SessionState.FAILED:
                self._step(SessionEvent.RETRY)
        elif self._outstanding() is not None or self._wake.wait():
            wanted = self._outstanding()
            if wanted is not None:
                self._wake.clear()
                self._step(SessionEvent.DESIRED)
                self._send(wanted)

    def _outstanding(self) -> Wanted | None:
        wanted = self._wanted
        return wanted if wanted is not self.synced else None

    def _read(self) -> None:
        self.channel.prepare()
        found: ReadBack = self.channel.read()
        self._actual, self._foreign, self._meters, self.synced = found.ours, found.foreign, found.meters, None
        first = self.survivors is None
        if first:
            self.sctp_ports = self.channel.sctp_ports()
            self.survivors = PreRestartPods(attached_pods(found.ours.values()), fresh=not found.ours)
        self._step(SessionEvent.READ)
        if first:
            self._listener.on_session_ready(self)

    def _send(self, wanted: Wanted) -> None:
        todo = self._plan(wanted)
        around = attached_pod_changes(self._actual, todo)
        # Before a pod's first flow its address's old connections go; after its last flow its own do
        # (docs/hazards.md B13).
        came = {address: end for address, end in around.added.items() if address not in wanted.known}
        anew = reassigned(self.synced.owners, wanted.owners) if self.synced is not None else ()
        there = attached_pods(wanted.program.flows.values()) if anew else {}
        self._flush(wanted, came | {address: there[address] for address in anew if address in there})
        self.channel.send(todo)
        self._flush(wanted, around.removed)
        self._actual, self._meters = applied(self._actual, todo), wanted.program.meters
        self.synced = wanted
        self._failures = 0
        self.problems = tuple(
            f"switch {self.name}: a flow that is not ours stands in the place of {flow.table} {flow.match_text()}"
            for flow in todo.blocked
        )
        self._step(SessionEvent.CONFIRMED)
        self._listener.on_programmed(self, todo.size)

    def _plan(self, wanted: Wanted) -> FlowDiff:
        return replace(self._flows_plan(wanted), meters=meter_diff(wanted.program.meters, self._meters))

    def _flows_plan(self, wanted: Wanted) -> FlowDiff:
        if self.synced is not None and not self._foreign:
            part = changed_sections(self.synced.program.sections, wanted.program.sections)
            if part is not None:
                return flow_diff(*part)
        return flow_diff(wanted.program.flows, self._actual, self._foreign)

    def _flush(self, wanted: Wanted, ends: Mapping[IPv4Address, AttachedPod]) -> None:
        """Forget the connections of these addresses: in their tenant's zone and the common one.

        What a shared tenant's pod has with others is in the zones of these, which may be thousands, and each question
        costs the switch a look at its whole table: so it is asked about all zones at once. What other bridges of the
        switch, or the host, remember of the address goes with it: that was about the same pod, and had to pass here.
        """
        by_zone: dict[int | None, list[IPv4Address]] = {}
        for address, end in ends.items():
            own = sorted({zone(wanted.host, end.zone), common_zone(wanted.host)})
            for number in (None,) if end.shared else own:
                by_zone.setdefault(number, []).append(address)
        try:
            for number, addresses in by_zone.items():
                self.channel.flush_connections(number, tuple(addresses))
        except SwitchRefused as error:
            # Without it the tables still keep a reused address from inheriting anything (docs/dataplane.md).
            LOG.warning("switch %s cannot forget connections (Open vSwitch before 3.1?): %s", self.name, error)

    def _fail(self, problems: tuple[str, ...]) -> None:
        self._failures += 1
        self.problems = problems
        for sentence in problems:
            LOG.error("%s", sentence)
        if self.state is not SessionState.DISCONNECTED:
            self._step(SessionEvent.REFUSED)

    def _step(self, event: SessionEvent) -> None:
        self.state = next_state(self.state, event)
        self._listener.on_state_change(self)
