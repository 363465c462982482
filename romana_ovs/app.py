"""Wires the controller: the Ryu application, its event handlers, and the work loop that runs the rounds.

    backend (folder, API server) -> Cluster -> step: numbers, NodeAgents -> NodeView -> Verdicts -> Program -> Session
    ovsdb                        -> BridgeFacts -------------------------------^

Every change sets one flag; a round then computes everything from what is current. When it cannot, what is programmed
stays as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from romana_ovs import config, runtime
from romana_ovs.controller.backend import ApiBackend, FolderBackend, backend_of
from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.controller.conntrack_limits import ConntrackLimits, Place, Zones
from romana_ovs.controller.flag import Flag
from romana_ovs.controller.gc_freeze import GcFreeze
from romana_ovs.controller.offload import Offload
from romana_ovs.controller.pre_restart import known_pods, marks_of
from romana_ovs.controller.progress import Progress
from romana_ovs.controller.rounds import Round, Rounds
from romana_ovs.controller.session import Session, Wanted
from romana_ovs.controller.state_saver import StateSaver
from romana_ovs.controller.status import PortClaim, nodes_status, pods_seen_elsewhere, pods_status, unclaimed_ports
from romana_ovs.controller.status_server import StatusServer
from romana_ovs.controller.table_compiler import Compiled, TableCompiler
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.errors import InputError, RomanaError
from romana_ovs.model.objects import PodKey
from romana_ovs.pipeline.compile import Program
from romana_ovs.pipeline.zones import COMMON, colliding
from romana_ovs.policy.published import Observed
from romana_ovs.switch.bridges import Bridge, BridgeRow
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
    """Keeps every connected bridge as its origin, a folder or an API server, wants it."""

    OFP_VERSIONS = (runtime.OFP_VERSION,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flag = Flag()
        self._offload = Offload()
        try:
            self._read_settings()
        except RomanaError as error:
            runtime.refuse(error)
        self.cluster: Cluster | None = None
        self.ports = BridgeIndex(() if self.options.registry_only else self.options.ovsdb)
        self._watches = {remote: OvsdbWatch(remote, self._ports_changed) for remote in self.ports.remotes}
        self.sessions: dict[int, Session] = {}
        self.progress = Progress()
        self.refused: tuple[str, ...] = ()
        self._status_server = (
            StatusServer(self.options.status_socket, self.status) if self.options.status_socket is not None else None
        )
        self._gc_freeze = GcFreeze()
        self._tables = TableCompiler()
        self._rounds = Rounds()
        self._due = False
        self._failure = self._status_error = ""
        self._unclaimed_ports: Mapping[PortClaim, str] = {}
        self._seen_elsewhere: Mapping[PodKey, str] = {}
        self._sharing: Mapping[str, str] = {}
        self._listing_deadline = 0.0
        self._last: ClusterSnapshot | None = None

    def _read_settings(self) -> None:
        """What the configuration decides. Raises RomanaError when it, or the state file, cannot be used."""
        self.options = config.controller_options_from(runtime.CONF)
        settings = config.settings_from(runtime.CONF)
        self._state = StateSaver(self.options.state_file)
        self._limits = ConntrackLimits(settings.tenant_connections, self._observed)
        self._backend = backend_of(self.options, settings, self._state.load(), self)
        self._api = self._backend if isinstance(self._backend, ApiBackend) else None
        self._folder = self._backend if isinstance(self._backend, FolderBackend) else None
        self.agents = self._backend.agents

    def start(self) -> None:
        """Start every green thread; called by Ryu once all applications are there."""
        super().start()
        if self._status_server is not None:
            self._status_server.listen()
            runtime.spawn(self._status_server.serve)
            runtime.spawn(self._status_server.publish)
        self._listing_deadline = time.monotonic() + LISTING_SECONDS
        runtime.spawn_after(LISTING_SECONDS, self.schedule_round)
        for watch in self._watches.values():
            runtime.spawn(watch.run)
        runtime.spawn(self._limits.run)
        runtime.spawn(self._backend.run)
        runtime.spawn(self._work)

    # What happens, from wherever it comes: taken note of at once, worked on by `_work`.

    @runtime.on_state_change
    def _connection_changed(self, event: runtime.StateChange) -> None:
        """A switch has finished its handshake, or its connection has ended."""
        datapath = event.datapath
        known = self.sessions.get(datapath.id)
        if event.state == runtime.DEAD_DISPATCHER:
            if known is not None and known.channel.is_for(datapath):
                del self.sessions[datapath.id]
                known.on_disconnect()
                self.status_changed()
        elif known is not None:
            LOG.error(
                "switch %016x is connected already; a second connection from %s is refused",
                datapath.id,
                datapath.address,
            )
            datapath.abort()
        else:
            session = self.sessions[datapath.id] = Session(Channel(datapath), self)
            LOG.info("switch %s: connected", session.name)
            runtime.spawn_one(session.run)

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        """There is a new cluster, or the same with other problems."""
        self._last = loaded
        self._refuse(tuple(str(problem) for problem in loaded.problems))
        if loaded.cluster is not self.cluster:
            self.cluster = loaded.cluster
            self.progress.change(noticed)
            self._follow_ports()
            self.schedule_round()
        self.status_changed()

    def on_unreadable(self, error: InputError) -> None:
        """The manifests cannot be read; the last cluster stays in force."""
        self._refuse(tuple(str(problem) for problem in error.problems))
        self.status_changed()

    def _ports_changed(self, remote: str, rows: tuple[BridgeRow, ...]) -> None:
        """A database says something new."""
        noticed = time.monotonic()
        if self.ports.replace(remote, rows):
            self.progress.change(noticed)
            self._follow_ports()
            self.schedule_round()
        self.status_changed()

    def _follow_ports(self) -> None:
        """Pods that no manifest binds to a node are where their ports are, in any order of arrival."""
        found = pods_seen_elsewhere(self.cluster, self.ports.bridges) if self.cluster is not None else {}
        if found != self._seen_elsewhere:
            self._seen_elsewhere = found
            if self._folder is not None:
                self._folder.set_observed_nodes(found)

    def on_session_ready(self, session: Session) -> None:
        """A session knows what its switch has."""
        self._limits.check_now()
        self._observed()
        self.schedule_round()

    def _observed(self) -> None:
        """Something of a switch beside its tables is known that was not, or is otherwise."""
        full = self._limits.full
        seen = {
            node: Observed(session.sctp_ports, frozenset(full.get(node, ())) - {COMMON})
            for node, session in self._sessions_by_node().items()
        }
        if self._api is not None:
            reconciler = self._api.reconciler
            self.defer(lambda: reconciler.observe(seen))
        self.status_changed()

    def on_state_change(self, session: Session) -> None:
        """A session's state, or what is wrong with it, is another."""
        if session.state is SessionState.FAILED:
            self._flag.set()
        self.status_changed()

    def on_programmed(self, session: Session, sent: int) -> None:
        """A switch has what its session was given."""
        bridge = self.ports.by_dpid(session.channel.dpid)
        if bridge is not None:
            self.progress.sent(bridge.node, sent)
            if session.synced is not None:
                self._watches[self.ports.remote_of[bridge.node]].note(bridge, session.synced.marks)
            if session.synced is not None and session.synced.pledge is not None:
                node, pledge = bridge.node, session.synced.pledge
                self.defer(lambda: self._backend.on_programmed(node, pledge))
        self._flag.set()
        self.status_changed()

    # The work.

    def _work(self) -> None:
        """Never returns: one round for all changes since the last, and a look at what the switches confirmed.

        In between each group that was put off has its turn.
        """
        pause: float | None = None
        while True:
            behind = self._next_turns()
            if not self._flag.wait(0.0 if behind else pause) and not behind:
                self._due = True
            following = FIRST_PAUSE if pause is None else min(2 * pause, LONGEST_PAUSE)
            pause = following if self._attempt() else None
            self.status_changed()
            if self._last is not None:
                self._report_statuses(self._last)

    def _report_statuses(self, loaded: ClusterSnapshot) -> None:
        """Have the cluster told how its objects fare."""
        refusing = any(one.state is SessionState.FAILED for one in self.sessions.values())
        before, self._status_error = self._status_error, ""
        try:
            if self._api is not None:
                self._api.report_statuses(loaded, failing=refusing or bool(self._failures))
        except Exception as error:  # An internal error there must not keep switches from being programmed.
            self._status_error = f"statuses are not reported: internal error: {error!r}"
            if self._status_error != before:
                LOG.exception("internal error; statuses are not reported; please report this")

    def _attempt(self) -> bool:
        """Do what is due; returns whether any of it failed."""
        if self.cluster is None or not self._listed():
            return False
        try:
            if self._due:
                self._due, self._failure = False, ""
                self._tables.failures.clear()
                self._round(self.cluster)
            else:
                self._finish()
            self._turn()
        except RomanaError as error:
            LOG.error("%s; what is programmed stays", error)
            self._failure = str(error)
        except Exception as error:  # An internal error must not open or close a path, nor end the process.
            LOG.exception("internal error; what is programmed stays; please report this")
            self._failure = f"internal error: {error!r}"
        return bool(self._failures)

    @property
    def _failures(self) -> tuple[str, ...]:
        """What went wrong in the last round, in sentences."""
        return tuple(filter(None, (self._failure, *self._tables.failures.values())))

    def _round(self, cluster: Cluster) -> None:
        number, generation = self.progress.next_round(), self.progress.generation
        driven = frozenset(node for node in self.ports.bridges if self.options.node in (None, node))
        awaited = frozenset(node for node, one in self._awaited().items() if one.state is not SessionState.FAILED)
        save = self._offload.run(lambda: self._step(cluster, driven, awaited))
        if self._api is not None:
            self._api.reconciler.flush_writes()
        self._warn_of_unclaimed_ports(cluster)
        facts = {node: self._facts(bridge) for node, bridge in self.ports.bridges.items()}
        sharing = self._sharing_zones()
        for node in sharing.keys() - self._sharing.keys():
            LOG.error("%s", sharing[node])
        self._sharing = sharing
        nodes = [node for node in self._programmable() if node in facts and node in driven]
        self._rounds.begin(number, Round(generation, {node: self._backend.pending_ack(node) for node in nodes}), nodes)
        self._tables.keep(facts)
        for node in nodes:
            # Each is sent as soon as it is known; the first one not before the numbers that it uses are durable.
            made = self._offload.run(partial(self._tables.compile, self.agents, facts[node], facts, number), save)
            save = None
            self._give(node, made)
        if save is not None:
            self._offload.run(save)

    def _turn(self) -> None:
        """Have one of the groups that were put off made, and its node's switch given it."""
        nodes = self._next_turns()
        found = self._offload.run(lambda: self._tables.compile_deferred(nodes)) if nodes else None
        if found is not None:
            self._give(*found)

    def _next_turns(self) -> list[str]:
        """The nodes for which something was put off, and whose switches have all that they were given."""
        busy = self._tables.busy
        return [node for node, session in self._programmable().items() if node in busy and session.idle]

    def _give(self, node: str, made: Compiled | None) -> None:
        session, host = self._programmable().get(node), self.agents.host_number(node)
        if made is not None and session is not None and host is not None:
            self._limits.set_zones({node: self._zones(node, made.program)}, self.ports.bridges)
            session.set_desired(self._with_marks(self._rounds.wanted(node, made, host), node, session))

    def _with_marks(self, wanted: Wanted, node: str, session: Session) -> Wanted:
        """With what is known of the node's pods from its database, and what is to be noted there."""
        bridge, survivors = self.ports.bridges[node], session.survivors
        lost_at = survivors.lost_at if survivors is not None else None
        known = frozenset(known_pods(bridge, self.agents).values())
        return replace(wanted, known=known, marks=marks_of(bridge, self.agents, lost_at))

    def _programmable(self) -> dict[str, Session]:
        """The sessions that may be given tables, by node."""
        return {
            node: one
            for node, one in self._sessions_by_node().items()
            if one.ready and self.agents.host_number(node) is not None and node not in self._sharing
        }

    def _sharing_zones(self) -> dict[str, str]:
        """A sentence for each node left alone because another bridge of its ovs-vswitchd has its conntrack zones."""
        places: dict[str, dict[str, int]] = {}
        for node in self.ports.bridges:
            host = self.agents.host_number(node)
            if host is not None:
                places.setdefault(self.ports.remote_of[node], {})[node] = host
        return {
            node: f"node {node} is not programmed: its conntrack zones are those of node {other}, of the same switch"
            for hosts in places.values()
            for node, other in colliding(hosts).items()
        }

    def _step(self, cluster: Cluster, driven: frozenset[str], awaited: frozenset[str]) -> Callable[[], None] | None:
        """Follow the cluster; returns what makes new numbers durable, before any flow uses them."""
        self._backend.step(cluster, driven, awaited)
        return self._state.unsaved(self._backend.numbers)

    def _finish(self) -> None:
        """When every switch has the last round: tell that all is programmed."""
        waiting = self._awaited()
        behind = [s for s in waiting.values() if s.synced is None or s.synced.number != self.progress.round]
        if not waiting or self._failures or self._backend.unsettled or behind or self._tables.busy:
            return
        if self.progress.current and self._api is not None:
            self._api.reconciler.programmed()
        done = self.progress.finish(waiting, time.monotonic())
        if done is not None and self._status_server is not None:
            self._status_server.broadcast({"event": "programmed", **asdict(done)})
        if self.cluster is not None:
            self._gc_freeze.after(len(self.cluster.pods))

    def _awaited(self) -> dict[str, Session]:
        """The sessions of the nodes that have a number, by node."""
        return {
            node: session
            for node, session in self._sessions_by_node().items()
            if self.agents.host_number(node) is not None and node not in self._sharing
        }

    # What the rounds need.

    def _listed(self) -> bool:
        """Whether all sources are listed, so that what is missing in them is really gone."""
        return not self.ports.missing or time.monotonic() >= self._listing_deadline

    def _sessions_by_node(self) -> dict[str, Session]:
        """The connected switches whose bridge is known, by node."""
        bridges = self.ports.bridges
        return {node: self.sessions[bridge.dpid] for node, bridge in bridges.items() if bridge.dpid in self.sessions}

    def _facts(self, bridge: Bridge) -> BridgeFacts:
        session = self.sessions.get(bridge.dpid)
        if session is None or session.survivors is None:
            return bridge.facts
        first, now = not session.survivors.found, time.time()
        facts = session.survivors.mark(bridge, self.agents, now)
        left = session.survivors.seconds_left(now)
        if first and left:
            runtime.spawn_after(left + 1.0, self.schedule_round)
        return facts

    def _zones(self, node: str, program: Program) -> Zones:
        """The conntrack zones of a node's bridge, and whose each is."""
        return Zones(Place(self.ports.remote_of[node], self.ports.bridges[node].datapath), program.zones)

    def _warn_of_unclaimed_ports(self, cluster: Cluster) -> None:
        found = unclaimed_ports(cluster, self.agents, self.ports.bridges.values())
        for key in found.keys() - self._unclaimed_ports.keys():
            LOG.warning("%s", found[key])
        self._unclaimed_ports = found

    def _refuse(self, problems: tuple[str, ...]) -> None:
        if problems == self.refused:
            return
        known, self.refused = frozenset(self.refused), problems
        for problem in problems:
            # Objects that come one by one, each with a problem, are thousands of lines: each is said once.
            if problem not in known:
                LOG.error("refused: %s", problem)
        if problems and self._status_server is not None:
            self._status_server.broadcast({"event": "refused", "problems": list(problems)})

    def schedule_round(self, after: float = 0.0) -> None:
        """Compute everything again, at once or in so many seconds."""
        if after > 0.0:
            runtime.spawn_after(after, self.schedule_round)
            return
        self._due = True
        self._flag.set()

    def wake(self, after: float) -> None:
        """Have the work loop look whether there is anything to do, in so many seconds."""
        runtime.spawn_after(after, self._flag.set)

    def defer(self, job: Callable[[], None]) -> None:
        """Call `job` once no round is being computed in another thread."""
        self._offload.defer(job)

    def status_changed(self) -> None:
        """The status snapshot may have changed."""
        if self._status_server is not None:
            self._status_server.changed()

    def status(self) -> dict[str, Any] | None:
        """Everything that is known now, as the status feed tells it; None while the world is being worked on."""
        if self._offload.busy:
            return None
        bridges = self.ports.bridges
        cluster = self.cluster if self.cluster is not None else Cluster()
        problems = [
            *self._backend.problems,
            *self.ports.warnings,
            *self._limits.problems,
            *self._sharing.values(),
            *self._unclaimed_ports.values(),
            *self._failures,
            *self._tables.closed,
            *map(str, self._tables.over),
            *filter(None, [self._status_error]),
            *(text for s in self.sessions.values() for text in s.problems),
        ]
        return {
            "event": "state",
            "generation": self.progress.generation,
            "pending": self._due or self.agents.pending,
            "nodes": nodes_status(cluster, self.agents, bridges, self._sessions_by_node(), self._limits.full),
            "pods": pods_status(cluster, self.agents, bridges),
            "problems": problems,
            "refused": list(self.refused),
            "packet_ins": sum(session.channel.packets_in for session in self.sessions.values()),
            **(self._api.reconciler.status() if self._api is not None else {}),
        }
