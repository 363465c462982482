"""Wires the controller: the Ryu application, its event handlers, and the work loop.

    Manifests | Kubernetes -> FolderReconciler | ApiReconciler -> Programmer -> Session, Channel
    OvsdbWatch             -------------^             (the stages of each are in controller/reconciler.py)

Whatever has something new keeps it and raises one flag. The work loop takes all that is new, has the reconciler step,
and programs the switches when their tables may be others. When it cannot, what is programmed stays as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from romana_ovs import config, runtime
from romana_ovs.controller.backend import backend_of
from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.controller.conntrack_limits import ConntrackLimits
from romana_ovs.controller.gc_freeze import GcFreeze
from romana_ovs.controller.programmer import Programmer
from romana_ovs.controller.progress import Progress
from romana_ovs.controller.reconciler import EventsLost, Inputs, Outcome, earliest
from romana_ovs.controller.session import Session
from romana_ovs.controller.state_saver import StateSaver
from romana_ovs.controller.status import PortClaim, nodes_status, pods_status, unclaimed_ports
from romana_ovs.controller.status_server import StatusServer
from romana_ovs.engine.node_agents import PendingAck
from romana_ovs.flag import Flag
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import RomanaError
from romana_ovs.pipeline.zones import COMMON
from romana_ovs.policy.published import Observed
from romana_ovs.switch.channel import Channel
from romana_ovs.switch.ovsdb import OvsdbWatch
from romana_ovs.sync.session import SessionState

LOG = logging.getLogger("romana_ovs")

LISTING_SECONDS = 10.0
"""How long to wait at the start for databases that do not answer; their nodes are then not known."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a computation that failed is tried again; doubled each time, cut short by any change."""

config.register(runtime.CONF)


class RomanaOvs(runtime.RyuApp):  # type: ignore[misc]  # Ryu has no types
    """Keeps every connected bridge as its cluster, from a folder or an API server, says."""

    OFP_VERSIONS = (runtime.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flag = Flag()
        try:
            self._read_settings()
        except RomanaError as error:
            runtime.refuse(error)
        self.cluster: Cluster | None = None
        self.progress = Progress()
        self.refused: tuple[str, ...] = ()
        status_socket = self.options.status_socket
        self._status_server = StatusServer(status_socket, self.status) if status_socket is not None else None
        self._gc_freeze = GcFreeze()
        self._acks: list[tuple[str, PendingAck]] = []
        self._ready: frozenset[Session] = frozenset()
        self._due = False
        self._failure = ""
        self._pause = 0.0
        self._retry_at: float | None = None
        self._next_check: float | None = None
        self._last_inputs: Inputs | None = None
        self._listing_deadline = 0.0
        self._unclaimed_ports: Mapping[PortClaim, str] = {}

    def _read_settings(self) -> None:
        """What the configuration decides. Raises RomanaError when it, or the state file, cannot be used."""
        self.options = config.controller_options_from(runtime.CONF)
        settings = config.settings_from(runtime.CONF)
        self._state = StateSaver(self.options.state_file)
        self._source, self._reconciler = backend_of(self.options, settings, self._state.load(), self._flag)
        self.agents = self._reconciler.agents
        self.bridge_index = BridgeIndex(() if self.options.registry_only else self.options.ovsdb)
        self._watches = {remote: OvsdbWatch(remote, self._flag) for remote in self.bridge_index.remotes}
        self._limits = ConntrackLimits(settings.tenant_connections, self._flag)
        self._programmer = Programmer(self._reconciler, self.bridge_index, self._limits, self.options.node)
        self.sessions = self._programmer.sessions

    def start(self) -> None:
        """Start every green thread; called by Ryu once all applications are there."""
        super().start()
        if self._status_server is not None:
            self._status_server.listen()
            runtime.spawn(self._status_server.serve)
            runtime.spawn(self._status_server.publish)
        self._listing_deadline = time.monotonic() + LISTING_SECONDS
        for watch in self._watches.values():
            runtime.spawn(watch.run)
        runtime.spawn(self._limits.run)
        runtime.spawn(self._source.run)
        runtime.spawn(self._work)

    @runtime.on_state_change
    def _connection_changed(self, event: runtime.StateChange) -> None:
        """A switch has finished its handshake, or its connection has ended."""
        datapath = event.datapath
        known = self.sessions.get(datapath.id)
        if event.state == runtime.DEAD_DISPATCHER:
            if known is not None and known.channel.is_for(datapath):
                self._take_confirmations(known)
                del self.sessions[datapath.id]
                known.on_disconnect()
        elif known is not None:
            LOG.error(
                "switch %016x is connected already; a second connection from %s is refused",
                datapath.id,
                datapath.address,
            )
            datapath.abort()
        else:
            session = self.sessions[datapath.id] = Session(Channel(datapath), self._flag)
            LOG.info("switch %s: connected", session.name)
            runtime.spawn_one(session.run)

    # The work loop.

    def _work(self) -> None:
        """Never returns: one pass for all changes since the last."""
        while True:
            self._flag.wait(self._seconds_to_wait())
            self._pass()
            if self._status_server is not None:
                self._status_server.changed()

    def _seconds_to_wait(self) -> float | None:
        """How long nothing is to be done if nothing happens; None for ever."""
        if self._programmer.ready_for_deferred:
            return 0.0
        now = time.monotonic()
        listing = self._listing_deadline if self.bridge_index.missing and now < self._listing_deadline else None
        first = earliest(self._next_check, self._retry_at, self._programmer.recompute_at, listing)
        return None if first is None else max(0.0, first - now)

    def _pass(self) -> None:
        """Take what is new, and do what follows from it. Whatever fails, what is programmed stays."""
        now = time.monotonic()
        self._take_news(now)
        tried = self._due
        try:
            outcome, save = self._step(now)
            if outcome.computed:
                tried, self._due, self._failure = True, False, ""
                self._program(save)
            elif self._last_inputs is not None and self._last_inputs.programmed:
                # As it was when the pass began: what came since is not counted yet.
                self._finish(now)
            self._programmer.program_deferred()
        except RomanaError as error:
            if isinstance(error, EventsLost):
                LOG.critical("internal error; a new process lists everything; please report this", exc_info=True)
                runtime.fail()
            LOG.error("%s; what is programmed stays", error)
            self._failure, tried = str(error), True
        except Exception as error:  # An internal error must not open or close a path, nor end the process.
            LOG.exception("internal error; what is programmed stays; please report this")
            self._failure, tried = f"internal error: {error!r}", True
        self._set_retry(tried)

    def _set_retry(self, tried: bool) -> None:
        """After a failed computation another one is due when a pause is over; each is twice as long as the last."""
        if not self._failures:
            self._pause, self._retry_at = 0.0, None
        elif tried:
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
            self._retry_at = time.monotonic() + self._pause

    def _take_news(self, now: float) -> None:
        """Take what databases and sessions have kept; a computation is due when tables may be others by it."""
        for remote, watch in self._watches.items():
            read = watch.take()
            if read is not None and self.bridge_index.replace(remote, read.rows):
                self.progress.change(read.noticed)
                self._due = True
        for session in self.sessions.values():
            self._take_confirmations(session)
        ready = frozenset(session for session in self.sessions.values() if session.ready)
        if not ready <= self._ready:
            self._limits.check_now()
            self._due = True
        self._ready = ready
        recompute_at = self._programmer.recompute_at
        if recompute_at is not None and now >= recompute_at:
            self._due, self._programmer.recompute_at = True, None
        self._due |= self._retry_at is not None and now >= self._retry_at

    def _take_confirmations(self, session: Session) -> None:
        """Write the marks of what a switch has confirmed to its database, and keep the acknowledgements."""
        bridge = self.bridge_index.by_dpid(session.channel.dpid)
        for confirmation in session.take():
            if bridge is not None:
                desired = confirmation.desired
                self.progress.sent(bridge.node, confirmation.sent)
                self._watches[self.bridge_index.remote_of[bridge.node]].note(bridge, desired.marks)
                if desired.ack is not None:
                    self._acks.append((bridge.node, desired.ack))

    def _step(self, now: float) -> tuple[Outcome, Callable[[], None] | None]:
        """Have the reconciler step, unless nothing is new; returns also what makes new numbers durable."""
        inputs = self._inputs(now)
        current = replace(inputs, news=(), acks=(), due=False)
        checked = self._next_check is not None and now >= self._next_check
        if not (inputs.news or inputs.acks or inputs.due or checked) and current == self._last_inputs:
            return Outcome(next_check=self._next_check), None
        self._last_inputs, self._next_check = current, None

        def step() -> tuple[Outcome, Callable[[], None] | None]:
            outcome = self._reconciler.step(inputs, now)
            return outcome, self._state.unsaved(self._reconciler.numbers) if outcome.computed else None

        try:
            outcome, save = self._programmer.offload.run(step)
        finally:
            self._note_snapshot()
        self._next_check = outcome.next_check
        self._source.send(outcome.messages)
        return outcome, save

    def _inputs(self, now: float) -> Inputs:
        """All that is new, taken once."""
        acks, self._acks = tuple(self._acks), []
        at_limit = self._limits.tenants_at_limit
        return Inputs(
            news=self._source.take(),
            acks=acks,
            programmed=self._programmed,
            bridges=self.bridge_index.bridges,
            driven=self._programmer.driven,
            awaited=self._programmer.awaited,
            observed={
                node: Observed(session.sctp_ports, frozenset(at_limit.get(node, ())) - {COMMON})
                for node, session in self._programmer.sessions_by_node.items()
            },
            failing=self._refusing or bool(self._failures),
            listed=not self.bridge_index.missing or now >= self._listing_deadline,
            due=self._due,
        )

    def _note_snapshot(self) -> None:
        """Note the cluster as last read, and the problems of its objects."""
        snapshot = self._reconciler.snapshot
        if snapshot is not None and snapshot.cluster is not self.cluster:
            self.cluster = snapshot.cluster
            self.progress.change(self._reconciler.noticed)
        self._refuse(self._reconciler.refused)

    def _program(self, save: Callable[[], None] | None) -> None:
        """Give every switch tables of what was just computed."""
        self._programmer.tables.failures.clear()
        number, generation = self.progress.next_round(), self.progress.generation
        if self.cluster is not None:
            self._warn_of_unclaimed_ports(self.cluster)
        self._programmer.program(number, generation, save)

    def _finish(self, now: float) -> None:
        """Report that all is programmed, if that is news."""
        done = self.progress.finish(self._programmer.expected, now)
        if done is None:
            return
        if self._status_server is not None:
            self._status_server.broadcast({"event": "programmed", **asdict(done)})
        if self.cluster is not None:
            self._gc_freeze.after(len(self.cluster.pods))

    @property
    def _programmed(self) -> bool:
        """Whether every switch has all that is known."""
        expected, tables = self._programmer.expected.values(), self._programmer.tables
        if not expected or self._failures or self._reconciler.unsettled or tables.busy or not self.progress.current:
            return False
        return all(one.synced is not None and one.synced.round == self.progress.round for one in expected)

    # What the status socket shows.

    @property
    def _refusing(self) -> bool:
        """Whether a switch refuses its tables."""
        return any(session.state is SessionState.FAILED for session in self.sessions.values())

    @property
    def _failures(self) -> tuple[str, ...]:
        """What went wrong in the last computation, in sentences."""
        return tuple(filter(None, (self._failure, *self._programmer.tables.failures.values())))

    def _warn_of_unclaimed_ports(self, cluster: Cluster) -> None:
        unclaimed = unclaimed_ports(cluster, self.agents, self.bridge_index.bridges.values())
        for claim in unclaimed.keys() - self._unclaimed_ports.keys():
            LOG.warning("%s", unclaimed[claim])
        self._unclaimed_ports = unclaimed

    def _refuse(self, problems: tuple[str, ...]) -> None:
        if problems == self.refused:
            return
        known, self.refused = frozenset(self.refused), problems
        for problem in problems:
            # Objects that come one by one, each with a problem, are thousands of lines: each is logged once.
            if problem not in known:
                LOG.error("refused: %s", problem)
        if problems and self._status_server is not None:
            self._status_server.broadcast({"event": "refused", "problems": list(problems)})

    def status(self) -> dict[str, Any] | None:
        """Everything that is known now, as the status socket shows it; None while something is being computed."""
        if self._programmer.offload.busy:
            return None
        bridges, tables = self.bridge_index.bridges, self._programmer.tables
        cluster = self.cluster if self.cluster is not None else Cluster()
        problems = [
            *self._source.problems,
            *self._reconciler.problems,
            *self.bridge_index.warnings,
            *self._limits.problems,
            *self._programmer.zone_conflicts.values(),
            *self._unclaimed_ports.values(),
            *self._failures,
            *tables.closed,
            *map(str, tables.over_limit),
            *(text for session in self.sessions.values() for text in session.problems),
        ]
        sessions = self._programmer.sessions_by_node
        return {
            "event": "state",
            "generation": self.progress.generation,
            "pending": self._due or self.agents.pending,
            "nodes": nodes_status(cluster, self.agents, bridges, sessions, self._limits.tenants_at_limit),
            "pods": pods_status(cluster, self.agents, bridges),
            "problems": problems,
            "refused": list(self.refused),
            "packet_ins": sum(session.channel.packets_in for session in self.sessions.values()),
            **self._reconciler.status(),
        }
