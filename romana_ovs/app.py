"""Wires the controller: the Ryu application, its event handlers, and the work loop.

    Manifests | Kubernetes -> FolderReconciler | ApiReconciler -> Programmer -> Session, Channel
    OvsdbWatch             -------------^             (the stages of each are in controller/reconciler.py)

Sources, databases and sessions keep what is new and raise one flag. The work loop then takes all of it, runs a step of
the reconciler, and programs the switches when their tables may have changed. A step that fails sends nothing, a node
that fails keeps its tables, and a pod or group that cannot be compiled is closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from romana_ovs import config, runtime
from romana_ovs.backoff import Backoff
from romana_ovs.controller.backend import backend_of
from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.controller.conntrack_limits import ConntrackLimits
from romana_ovs.controller.deadlines import earliest
from romana_ovs.controller.flow_restore import FlowRestore
from romana_ovs.controller.gc_freeze import GcFreeze
from romana_ovs.controller.host_checks import HostChecks
from romana_ovs.controller.programmer import Programmer
from romana_ovs.controller.progress import Progress
from romana_ovs.controller.readiness import not_ready_node, not_ready_registry
from romana_ovs.controller.reconciler import EventsLost, Inputs, Outcome
from romana_ovs.controller.session import Session
from romana_ovs.controller.state_saver import StateSaver
from romana_ovs.controller.status import PortClaim, nodes_status, pods_status, port_problems, unclaimed_ports
from romana_ovs.controller.status_server import StatusServer
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.flag import Flag
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import RomanaError
from romana_ovs.pipeline.zones import COMMON
from romana_ovs.registry_types.report import Observed
from romana_ovs.switch.channel import Channel
from romana_ovs.switch.ovsdb import OvsdbWatch
from romana_ovs.sync.session import SessionState

LOG = logging.getLogger("romana_ovs")

LISTING_SECONDS = 10.0
"""How long to wait at the start for databases that do not answer; then the nodes in them are left out."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 30.0
"""Seconds before a failed computation is tried again, doubled each time; any change ends the wait."""

config.register(runtime.CONF)


class RomanaOvs(runtime.RyuApp):  # type: ignore[misc]  # Ryu has no types
    """Keeps the tables of every connected bridge as the cluster of a folder or an API server requires."""

    OFP_VERSIONS = (runtime.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        runtime.use_native_log_locks()
        # First of all: the saved state is large, too.
        self._gc_freeze = GcFreeze()
        self._flag = Flag()
        try:
            self._read_settings()
        except RomanaError as error:
            runtime.exit_with_error(error)
        self.cluster: Cluster | None = None
        self.progress = Progress()
        self.invalid_objects: tuple[str, ...] = ()
        status_socket = self.options.status_socket
        self._status_server = StatusServer(status_socket, self.status) if status_socket is not None else None
        self._acks: list[tuple[str, PendingAck]] = []
        self._ready_sessions: frozenset[Session] = frozenset()
        self._compute_due = False
        self._failure = ""
        self._backoff = Backoff(first=FIRST_RETRY_SECONDS, maximum=MAX_RETRY_SECONDS)
        self._retry_at: float | None = None
        self._next_check: float | None = None
        self._last_inputs: Inputs | None = None
        self._listing_deadline = 0.0
        self._unclaimed_ports: Mapping[PortClaim, str] = {}

    def _read_settings(self) -> None:
        """Make what depends on the configuration. Raises RomanaError when it or the state file is invalid."""
        self.options = config.controller_options_from(runtime.CONF)
        settings = config.settings_from(runtime.CONF)
        self._state = StateSaver(self.options.state_file)
        self._source, self._reconciler = backend_of(self.options, settings, self._state.load(), self._flag)
        self.agents = self._reconciler.agents
        self.bridge_index = BridgeIndex(() if self.options.registry_only else self.options.ovsdb, self.options.datapath)
        self._watches = {remote: OvsdbWatch(remote, self._flag) for remote in self.bridge_index.remotes}
        self._limits = ConntrackLimits(settings.tenant_connections, self._flag)
        self._host_checks = HostChecks(self.bridge_index.remotes, settings, self._flag)
        self._programmer = Programmer(
            self.agents,
            pending_ack=self._reconciler.pending_ack,
            bridges=self.bridge_index,
            limits=self._limits,
            node=self.options.node,
        )
        self.sessions = self._programmer.sessions
        self._flow_restore = FlowRestore(
            self.bridge_index,
            self._programmer,
            serve=runtime.serve_management,
            end_wait=lambda remote: self._watches[remote].end_flow_restore_wait(),
        )

    def start(self) -> None:
        """Start every green thread; Ryu calls this once all applications are loaded."""
        super().start()
        if self._status_server is not None:
            self._status_server.listen()
            runtime.spawn_essential(self._status_server.serve)
            runtime.spawn_essential(self._status_server.publish)
        runtime.serve_health(self.not_ready)
        self._listing_deadline = time.monotonic() + LISTING_SECONDS
        for watch in self._watches.values():
            runtime.spawn_essential(watch.run)
        runtime.spawn_essential(self._limits.run)
        runtime.spawn_essential(self._host_checks.run)
        runtime.spawn_essential(self._source.run)
        runtime.spawn_essential(self._work_loop)

    @runtime.on_state_change
    def _connection_changed(self, event: runtime.StateChange) -> None:
        """A switch has finished its handshake, or its connection has ended."""
        datapath = event.datapath
        session = self.sessions.get(datapath.id)
        if event.state == runtime.DEAD_DISPATCHER:
            if session is not None and session.channel.is_for(datapath):
                self._process_confirmations(session)
                del self.sessions[datapath.id]
                session.on_disconnect()
        elif session is not None and (datapath.management or not session.management):
            LOG.error(
                "switch %016x is connected already; a second connection from %s is refused",
                datapath.id,
                datapath.address,
            )
            datapath.abort()
        else:
            former = session.pre_restart if session is not None else None
            if session is not None:
                self._process_confirmations(session)
                session.channel.close()
                session.on_disconnect()
            session = self.sessions[datapath.id] = Session(Channel(datapath), self._flag, former)
            LOG.info("switch %s: connected%s", session.name, " over its management socket" * datapath.management)
            runtime.spawn(session.run)

    # The work loop.

    def _work_loop(self) -> None:
        """Never returns; each pass handles all changes since the last."""
        while True:
            self._flag.wait(self._seconds_to_wait())
            self._pass()
            if self._status_server is not None:
                self._status_server.changed()

    def _seconds_to_wait(self) -> float | None:
        """How long to wait for the flag at most; None without a limit."""
        if self._programmer.ready_for_postponed:
            return 0.0
        now = time.monotonic()
        listing_deadline = (
            self._listing_deadline if self.bridge_index.missing and now < self._listing_deadline else None
        )
        first = earliest(
            self._next_check,
            self._retry_at,
            self._programmer.recompute_at,
            listing_deadline,
            self._flow_restore.check_at,
        )
        return None if first is None else max(0.0, first - now)

    def _pass(self) -> None:
        """Take what is new, run a step, and program switches. A step that fails changes no tables."""
        now = time.monotonic()
        self._take_changes(now)
        attempted = self._compute_due
        try:
            outcome, save = self._step(now)
            if outcome.views_changed:
                attempted, self._compute_due, self._failure = True, False, ""
                self._program(save)
            elif self._last_inputs is not None and self._last_inputs.all_confirmed:
                # As it was when the pass began: what came since is not counted yet.
                self._announce_programmed(now)
            self._programmer.program_postponed()
            self._flow_restore.check(time.monotonic())
        except RomanaError as error:
            if isinstance(error, EventsLost):
                LOG.critical("internal error; a new process lists everything; please report this", exc_info=True)
                runtime.fail()
            LOG.error("%s; what is programmed stays", error)
            self._failure, attempted = str(error), True
        except Exception as error:  # An internal error must change no table, nor end the process.
            LOG.exception("internal error; what is programmed stays; please report this")
            self._failure, attempted = f"internal error: {error!r}", True
        self._set_retry(attempted)

    def _set_retry(self, attempted: bool) -> None:
        """After a failed computation set the time of the next one; each time is twice as long as the last."""
        if not self._failures:
            self._backoff.succeeded()
            self._retry_at = None
        elif attempted:
            self._retry_at = time.monotonic() + self._backoff.failed()

    def _take_changes(self, now: float) -> None:
        """Take what databases and sessions have kept; a computation is due when it may change tables."""
        for remote, watch in self._watches.items():
            read = watch.take()
            if read is not None and self.bridge_index.replace(remote, read.rows):
                self.progress.on_change(read.noticed)
                self._compute_due = True
        for session in self.sessions.values():
            self._process_confirmations(session)
        ready = frozenset(session for session in self.sessions.values() if session.ready)
        if not ready <= self._ready_sessions:
            self._limits.check_now()
            self._compute_due = True
        self._ready_sessions = ready
        recompute_at = self._programmer.recompute_at
        if recompute_at is not None and now >= recompute_at:
            self._compute_due, self._programmer.recompute_at = True, None
        self._compute_due |= self._retry_at is not None and now >= self._retry_at

    def _process_confirmations(self, session: Session) -> None:
        """Queue the external_ids of confirmed tables for the bridge's database, and keep the acknowledgements."""
        bridge = self.bridge_index.by_dpid(session.channel.dpid)
        for confirmation in session.take_confirmations():
            if bridge is not None:
                desired = confirmation.desired
                self.progress.count_sent(bridge.node, confirmation.sent)
                self._watches[self.bridge_index.remote_of[bridge.node]].queue_external_ids(bridge, desired.external_ids)
                if desired.ack is not None:
                    self._acks.append((bridge.node, desired.ack))

    def _step(self, now: float) -> tuple[Outcome, Callable[[], None] | None]:
        """Run a step of the reconciler, if anything is new; returns its outcome, and a function that saves numbers."""
        inputs = self._inputs(now)
        if not self._has_work(inputs, now):
            return Outcome(next_check=self._next_check), None
        self._last_inputs, self._next_check = _without_news(inputs), None

        def step() -> tuple[Outcome, Callable[[], None] | None]:
            outcome = self._reconciler.step(inputs, now)
            return outcome, self._state.pending_save(self._reconciler.durable_state) if outcome.views_changed else None

        try:
            # Waking a thread takes longer than a step that only takes note of confirmations.
            outcome, save = self._programmer.offload.run(step) if self._reconciler.may_be_slow(inputs) else step()
        finally:
            self._note_snapshot()
        self._next_check = outcome.next_check
        self._source.send(outcome.messages)
        return outcome, save

    def _has_work(self, inputs: Inputs, now: float) -> bool:
        """Whether a step is due: something is new, a check is due, or bridges or switches have changed."""
        check_due = self._next_check is not None and now >= self._next_check
        news = inputs.received or inputs.acks or inputs.resync
        return bool(news) or check_due or _without_news(inputs) != self._last_inputs

    def _inputs(self, now: float) -> Inputs:
        """The inputs of the next step; what is new is in them once."""
        acks, self._acks = tuple(self._acks), []
        at_limit = self._limits.tenants_at_limit
        return Inputs(
            received=self._source.receive(),
            acks=acks,
            all_confirmed=self._programmed,
            bridges=self.bridge_index.bridges,
            driven=self._programmer.driven,
            awaited=self._programmer.awaited,
            observed={
                node: Observed(session.sctp_ports, frozenset(at_limit.get(node, ())) - {COMMON})
                for node, session in self._programmer.sessions_by_node.items()
            },
            failing=self._any_session_failed or bool(self._failures),
            synced=not self.bridge_index.missing or now >= self._listing_deadline,
            resync=self._compute_due,
        )

    def _note_snapshot(self) -> None:
        """Keep the cluster as last read, and the problems of its objects."""
        snapshot = self._reconciler.snapshot
        if snapshot is not None and snapshot.cluster is not self.cluster:
            self.cluster = snapshot.cluster
            self.progress.on_change(self._reconciler.noticed)
        self._set_invalid_objects(self._reconciler.object_problems)

    def _program(self, save: Callable[[], None] | None) -> None:
        """Begin a round: compile the tables of what was just computed, and hand them to the sessions."""
        self._programmer.compiler.failures.clear()
        number, generation = self.progress.next_round(), self.progress.generation
        try:
            self._programmer.program(number, generation, save)
        finally:
            # Last, as its transaction would delay the flows; also when numbers cannot be saved.
            if self.cluster is not None:
                self._warn_of_unclaimed_ports(self.cluster)

    def _announce_programmed(self, now: float) -> None:
        """When every switch has confirmed a change, send the event `programmed`, once."""
        programmed = self.progress.finish(self._programmer.programmable, now)
        if programmed is None:
            return
        if self._status_server is not None:
            self._status_server.broadcast({"event": "programmed", **asdict(programmed)})
        if self.cluster is not None:
            self._gc_freeze.update(len(self.cluster.pods))

    @property
    def _programmed(self) -> bool:
        """Whether every switch has confirmed the latest change."""
        sessions = self._programmer.programmable.values()
        if not sessions or self._failures or self._reconciler.unsettled or not self.progress.current:
            return False
        if self._programmer.compiler.nodes_with_postponed:
            return False
        return all(
            session.confirmed is not None and session.confirmed.round == self.progress.round for session in sessions
        )

    # What the status socket shows.

    @property
    def _any_session_failed(self) -> bool:
        """Whether a switch refuses its tables."""
        return any(session.state is SessionState.FAILED for session in self.sessions.values())

    @property
    def _failures(self) -> tuple[str, ...]:
        """The errors of the last computation, in sentences."""
        return tuple(filter(None, (self._failure, *self._programmer.compiler.failures.values())))

    def _warn_of_unclaimed_ports(self, cluster: Cluster) -> None:
        """Log each port that is not that of its pod once, and note at the port why nothing passes it."""
        unclaimed = unclaimed_ports(cluster, self.agents, self.bridge_index.bridges.values())
        for claim in unclaimed.keys() - self._unclaimed_ports.keys():
            LOG.warning("%s", unclaimed[claim])
        self._unclaimed_ports = unclaimed
        # Only a known pod has a reason; collecting all problems takes as long as many a change.
        reasons = self._reconciler.problems if any(pod in cluster.pods for _, pod, _ in unclaimed) else ()
        for node in self._programmer.driven:
            bridge = self.bridge_index.bridges[node]
            watch = self._watches[self.bridge_index.remote_of[node]]
            watch.queue_problems(bridge, port_problems(unclaimed, reasons, bridge))

    def _set_invalid_objects(self, problems: tuple[str, ...]) -> None:
        if problems == self.invalid_objects:
            return
        logged, self.invalid_objects = frozenset(self.invalid_objects), problems
        for problem in problems:
            # While a list is read, problems come one by one, each time with all before: each is logged once.
            if problem not in logged:
                LOG.error("refused: %s", problem)
        if problems and self._status_server is not None:
            self._status_server.broadcast({"event": "refused", "problems": list(problems)})

    def not_ready(self) -> str:
        """Why this process is not ready, in a sentence; empty when it is."""
        if self.options.registry_only:
            return not_ready_registry(listed=self.cluster is not None)
        return not_ready_node(self.options.node, self._programmer.driven, self._programmer.sessions_by_node)

    def status(self) -> dict[str, Any] | None:
        """The state as the status socket shows it; None during a computation."""
        if self._programmer.offload.busy:
            return None
        bridges, tables = self.bridge_index.bridges, self._programmer.compiler
        cluster = self.cluster if self.cluster is not None else Cluster()
        problems = [
            *self._source.problems,
            *self._reconciler.problems,
            *self.bridge_index.warnings,
            *self._flow_restore.problems,
            *self._limits.problems,
            *self._host_checks.problems,
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
            "pending": self._compute_due or self.agents.awaits_registry,
            "nodes": nodes_status(cluster, self.agents, bridges, sessions, self._limits.tenants_at_limit),
            "pods": pods_status(cluster, self.agents, bridges),
            "problems": problems,
            "refused": list(self.invalid_objects),
            "packet_ins": sum(session.channel.packets_in for session in self.sessions.values()),
            **self._reconciler.status(),
        }


def _without_news(inputs: Inputs) -> Inputs:
    """`inputs` without what is in them once: the present state of bridges and switches."""
    return replace(inputs, received=(), acks=(), resync=False)
