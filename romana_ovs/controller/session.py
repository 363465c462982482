"""Programs one switch over one OpenFlow connection, by the state machine of `sync.session`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.backoff import Backoff
from romana_ovs.controller.flush_queue import FlushQueue
from romana_ovs.controller.pre_restart import PreRestartPods
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.flag import Flag
from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.compile import Program
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.meters import Meter
from romana_ovs.switch.bridges import BridgeExternalIds
from romana_ovs.switch.channel import Channel, ConnectionLost, NoAnswer, ReadBack, SwitchRefused
from romana_ovs.sync.attached_pods import (
    AttachedPod,
    AttachedPodChanges,
    PodByAddress,
    attached_pod_changes,
    attached_pods,
    reassigned,
)
from romana_ovs.sync.diff import FlowDiff, applied, changed_sections, flow_diff
from romana_ovs.sync.meters import meter_diff
from romana_ovs.sync.session import SessionEvent, SessionState, next_state

LOG = logging.getLogger("romana_ovs.session")

FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
"""Seconds before a refused program is tried again, doubled each time; a new desired state ends the wait."""


@dataclass(frozen=True, slots=True)
class DesiredState:
    """What a switch should have: the tables of a `round`, for the node with this `host` number.

    `generation` is the change of the cluster that the round is about; a change may take several rounds. `ack` is
    what the node may report once the switch has it. `pod_by_address` has the addresses in the tables. By
    the external_ids in its bridge's database, `unchanged_addresses` were programmed for the pod that has them, so that
    its connections are kept, and `reassigned_addresses` for another pod on the same port. `external_ids` are to be
    written there once the switch has this state.
    """

    round: int
    generation: int
    program: Program
    host: int
    ack: PendingAck | None = None
    pod_by_address: PodByAddress = field(default_factory=lambda: MappingProxyType({}))
    unchanged_addresses: frozenset[IPv4Address] = frozenset()
    reassigned_addresses: frozenset[IPv4Address] = frozenset()
    external_ids: BridgeExternalIds = field(default_factory=BridgeExternalIds)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """A switch has the `desired` state; `sent` flow-mods and meter-mods were needed."""

    desired: DesiredState
    sent: int


class Session:
    """Keeps the confirmations of its switch until they are taken, and raises `flag` for each, and for changes of state.

    `run` is for a green thread, and ends with the connection. `former` are the pre-restart pods of a session over the
    switch's management socket, which this one replaces.
    """

    def __init__(self, channel: Channel, flag: Flag, former: PreRestartPods | None = None) -> None:
        self.channel = channel
        self.state = SessionState.DISCONNECTED
        self.problems: tuple[str, ...] = ()
        self.pre_restart: PreRestartPods | None = None
        """The pods that were attached before a restart of the switch; None until its flows have been read."""
        self.sctp_ports: bool | None = None
        """Whether the switch tracks SCTP by ports; None until it has answered."""
        self.confirmed: DesiredState | None = None
        """What its switch has confirmed by the barrier; None until then, and while its flows are read again."""
        self.flushes = FlushQueue(channel)
        self._former = former
        self._flag = flag
        self._wake = Flag()
        self._desired: DesiredState | None = None
        self._confirmations: list[Confirmation] = []
        self._actual: Mapping[FlowKey, Flow] = {}
        self._foreign: frozenset[FlowKey] = frozenset()
        self._meters: Mapping[int, Meter] = {}
        self._backoff = Backoff(first=FIRST_RETRY_SECONDS, maximum=MAX_RETRY_SECONDS)
        self._retry_seconds = FIRST_RETRY_SECONDS

    @property
    def name(self) -> str:
        """The switch's datapath id, as ovs-ofctl writes it."""
        return f"{self.channel.dpid:016x}"

    @property
    def ready(self) -> bool:
        """Whether the flows of its switch have been read, so that it may be given a desired state."""
        return self.pre_restart is not None and self.state is not SessionState.DISCONNECTED

    @property
    def management(self) -> bool:
        """Whether it uses the management socket of its switch."""
        return self.channel.management

    @property
    def idle(self) -> bool:
        """Whether its switch has confirmed the desired state."""
        return self.state is SessionState.SYNCED and self._outstanding() is None

    def set_desired(self, desired: DesiredState) -> None:
        """Program the switch with `desired`; it replaces what was desired before and is not sent yet."""
        self._desired = desired
        self._wake.set()

    def take_confirmations(self) -> tuple[Confirmation, ...]:
        """The confirmations since the last call, in order."""
        confirmations, self._confirmations = self._confirmations, []
        return tuple(confirmations)

    def on_disconnect(self) -> None:
        """The connection has ended."""
        self.channel.on_disconnect()
        self._transition(SessionEvent.LOST)
        self._wake.set()

    def run(self) -> None:
        """Program the switch until the connection ends; an error ends the connection, too."""
        try:
            self._transition(SessionEvent.CONNECTED)
            while self.state is not SessionState.DISCONNECTED:
                self._try_to_advance()
        finally:
            self.channel.close()

    def _try_to_advance(self) -> None:
        try:
            self._advance()
        except ConnectionLost:
            LOG.info("switch %s: disconnected", self.name)
            self._transition(SessionEvent.LOST)
        except NoAnswer as error:
            self._fail((f"switch {self.name}: {error}; reconnecting",))
            self._transition(SessionEvent.LOST)
        except SwitchRefused as error:
            self._fail(tuple(f"switch {self.name}: {text}" for text in str(error).split("; ")))
        except SwitchError as error:
            self._fail((f"switch {self.name}: {error}",))

    def _advance(self) -> None:
        if self.state is SessionState.READING:
            self._read()
        elif self.state is SessionState.FAILED:
            self._wake.wait(self._retry_seconds)
            if self.state is SessionState.FAILED:
                self._transition(SessionEvent.RETRY)
        elif self._outstanding() is None and self.flushes.pending:
            self._wake.wait(self.flushes.flush_one())
        else:
            if self._outstanding() is None:
                self._wake.wait()
            desired = self._outstanding()
            if desired is not None:
                self._wake.clear()
                self._transition(SessionEvent.DESIRED)
                self._send(desired)

    def _outstanding(self) -> DesiredState | None:
        return self._desired if self._desired is not self.confirmed else None

    def _read(self) -> None:
        self.channel.prepare()
        read: ReadBack = self.channel.read()
        self._actual, self._foreign, self._meters, self.confirmed = read.ours, read.foreign, read.meters, None
        if self.pre_restart is None:
            if not self.management:
                # A switch that waits for its flows returns no packets.
                self.sctp_ports = self.channel.sctp_ports()
            former = self._former if read.ours else None
            self.pre_restart = former or PreRestartPods(attached_pods(read.ours.values()), fresh=not read.ours)
        self._transition(SessionEvent.READ)

    def _send(self, desired: DesiredState) -> None:
        diff = self._diff(desired)
        changes = attached_pod_changes(self._actual, diff)
        # Old connections of a pod's address are deleted before its first flow, its own after its last flow
        # (docs/hazards.md B13).
        self.flushes.flush_now(desired.host, self._addresses_to_flush(desired, changes))
        self.flushes.cancel(changes.added)
        self.channel.send(diff)
        self.flushes.flush_later(desired.host, changes.removed)
        self._actual, self._meters = applied(self._actual, diff), desired.program.meters
        self.confirmed = desired
        self._backoff.succeeded()
        self.problems = tuple(
            f"switch {self.name}: a foreign flow already has the match and priority of {flow.table} {flow.match_text()}"
            for flow in diff.conflicting_flows
        )
        self._confirmations.append(Confirmation(desired, diff.size))
        self._transition(SessionEvent.CONFIRMED)

    def _addresses_to_flush(
        self, desired: DesiredState, changes: AttachedPodChanges
    ) -> Mapping[IPv4Address, AttachedPod]:
        """The pods whose addresses may have connections of other pods.

        That a switch has no flow of ours is no sign of it: the kernel's datapath keeps connections while ovs-vswitchd
        is restarted.
        """
        added = {address: pod for address, pod in changes.added.items() if address not in desired.unchanged_addresses}
        other_owner: Collection[IPv4Address] = desired.reassigned_addresses
        if self.confirmed is not None:
            other_owner = reassigned(self.confirmed.pod_by_address, desired.pod_by_address)
        attached = attached_pods(desired.program.flows.values()) if other_owner else {}
        return added | {address: attached[address] for address in other_owner if address in attached}

    def _diff(self, desired: DesiredState) -> FlowDiff:
        return replace(self._flow_diff(desired), meters=meter_diff(desired.program.meters, self._meters))

    def _flow_diff(self, desired: DesiredState) -> FlowDiff:
        if self.confirmed is not None and not self._foreign:
            changed = changed_sections(self.confirmed.program.sections, desired.program.sections)
            if changed is not None:
                return flow_diff(*changed)
        return flow_diff(desired.program.flows, self._actual, self._foreign)

    def _fail(self, problems: tuple[str, ...]) -> None:
        self._retry_seconds = self._backoff.failed()
        self.problems = problems
        for sentence in problems:
            LOG.error("%s", sentence)
        if self.state is not SessionState.DISCONNECTED:
            self._transition(SessionEvent.ERROR)

    def _transition(self, event: SessionEvent) -> None:
        self.state = next_state(self.state, event)
        self._flag.set()
