"""Compiles the tables of the driven nodes, and hands them to the sessions of their switches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.controller.conntrack_limits import BridgeZones, ConntrackLimits, DatapathRef
from romana_ovs.controller.deadlines import earliest
from romana_ovs.controller.offload import Offload
from romana_ovs.controller.pre_restart import external_ids_of, programmed_pods, reassigned_addresses
from romana_ovs.controller.rounds import Round, Rounds
from romana_ovs.controller.session import DesiredState, Session
from romana_ovs.controller.table_compiler import Compiled, TableCompiler
from romana_ovs.engine.node_agent import PendingAck
from romana_ovs.engine.node_agents import NodeAgents
from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.node_network import NodeNetwork
from romana_ovs.pipeline.zones import colliding
from romana_ovs.switch.bridges import Bridge
from romana_ovs.sync.session import SessionState

LOG = logging.getLogger("romana_ovs")


class Programmer:
    """Compiles and hands out the tables of the bridges that this process programs: all, or only that of `node`.

    It keeps the sessions of all connected switches. The sets of nodes, each a part of the one before it:

    - `driven`: this process programs their bridges, connected or not;
    - `programmable`: connected, with a host number, and with conntrack zones of their own;
    - `awaited`: those of them that have not refused their tables, so that make-before-break waits for them.

    A programmable node whose flows have been read (`Session.ready`) gets tables in each round.
    """

    def __init__(
        self,
        agents: NodeAgents,
        *,
        pending_ack: Callable[[str], PendingAck | None],
        bridges: BridgeIndex,
        limits: ConntrackLimits,
        node: str | None,
    ) -> None:
        """`pending_ack` returns what a node may report once its switch has the present view."""
        self.sessions: dict[int, Session] = {}
        """The sessions of all connected switches, by datapath id."""
        self.compiler = TableCompiler()
        self.zone_conflicts: Mapping[str, str] = {}
        """A sentence for each node whose conntrack zones another bridge of its switch has; it is not programmed."""
        self.recompute_at: float | None = None
        """When pods cease to be pre-restart, so that facts of bridges change, in seconds of `time.monotonic`."""
        self._agents = agents
        self._pending_ack = pending_ack
        self._bridges = bridges
        self._limits = limits
        self._node = node
        self._offload = Offload()
        self._rounds = Rounds()

    @property
    def offload(self) -> Offload:
        """The threads that computations run in."""
        return self._offload

    @property
    def driven(self) -> frozenset[str]:
        """The nodes with a bridge that this process programs, connected or not."""
        return frozenset(node for node in self._bridges.bridges if self._node in (None, node))

    @property
    def sessions_by_node(self) -> dict[str, Session]:
        """The sessions of the switches whose bridge is known, by node."""
        bridges = self._bridges.bridges
        return {node: self.sessions[bridge.dpid] for node, bridge in bridges.items() if bridge.dpid in self.sessions}

    @property
    def programmable(self) -> dict[str, Session]:
        """The sessions of nodes that have a host number, by node: their switches should have every round."""
        return {
            node: session
            for node, session in self.sessions_by_node.items()
            if self._agents.host_number(node) is not None and node not in self.zone_conflicts
        }

    @property
    def awaited(self) -> frozenset[str]:
        """The nodes whose switches make-before-break waits for: those that have not refused their tables."""
        return frozenset(
            node for node, session in self.programmable.items() if session.state is not SessionState.FAILED
        )

    @property
    def ready_for_postponed(self) -> list[str]:
        """The nodes with postponed groups whose switches have confirmed everything sent."""
        postponed = self.compiler.nodes_with_postponed
        return [node for node, session in self._ready().items() if node in postponed and session.idle]

    def program(self, round_number: int, generation: int, save: Callable[[], None] | None) -> None:
        """Compile the tables of a round, and hand them to sessions.

        `save` makes the numbers that the tables use durable. It runs beside the first compilation: no session gets
        tables before it has ended. Raises InputError when the numbers cannot be saved.
        """
        facts, self.recompute_at = self._facts_by_node()
        self._update_zone_conflicts()
        driven = self.driven
        sessions = {node: session for node, session in self._ready().items() if node in driven}
        nodes = list(sessions)
        acks = {node: self._pending_ack(node) for node in nodes}
        self._rounds.begin(round_number, Round(generation, acks), nodes)
        self.compiler.retain(facts)
        for node in nodes:
            # Each is sent as soon as it is compiled; the first not before the numbers that it uses are durable.
            save_beside = save if node == nodes[0] else None
            compile_tables = partial(self.compiler.compile, self._agents, facts[node], facts, round_number)
            compiled = self._offload.run(compile_tables, save_beside)
            # A switch that has connected anew meanwhile has other facts: the next round is for it.
            if self._ready().get(node) is sessions[node]:
                self._set_desired(node, compiled)
        if save is not None and not nodes:
            self._offload.run(save)

    def program_postponed(self) -> None:
        """Compile one postponed group, and hand the tables to the session of its node."""
        nodes = self.ready_for_postponed
        compiled = self._offload.run(lambda: self.compiler.compile_postponed(nodes)) if nodes else None
        if compiled is not None:
            self._set_desired(*compiled)

    def _ready(self) -> dict[str, Session]:
        """The sessions that may get a desired state, by node."""
        return {node: session for node, session in self.programmable.items() if session.ready}

    def _set_desired(self, node: str, compiled: Compiled | None) -> None:
        session, host = self._ready().get(node), self._agents.host_number(node)
        if compiled is not None and session is not None and host is not None:
            bridge = self._bridges.bridges[node]
            datapath = DatapathRef(self._bridges.remote_of[node], bridge.datapath)
            self._limits.set_zones({node: BridgeZones(datapath, compiled.program.zones)}, self._bridges.bridges)
            desired = self._rounds.record_compiled(node, compiled, host)
            network = _node_network(self._agents.plan, host, compiled)
            session.set_desired(self._with_external_ids(desired, bridge, session, network))

    def _with_external_ids(
        self, desired: DesiredState, bridge: Bridge, session: Session, network: NodeNetwork
    ) -> DesiredState:
        """`desired` with what the external_ids in the bridge's database say, and those to write there."""
        lost_at = session.pre_restart.lost_at if session.pre_restart is not None else None
        programmed = frozenset(programmed_pods(bridge, self._agents).values())
        return replace(
            desired,
            unchanged_addresses=programmed,
            reassigned_addresses=reassigned_addresses(bridge, self._agents),
            external_ids=replace(
                external_ids_of(bridge, desired.pod_by_address, lost_at),
                node_network=MappingProxyType(network.to_external_ids()),
            ),
        )

    def _facts_by_node(self) -> tuple[dict[str, BridgeFacts], float | None]:
        """The facts of all bridges with pre-restart pods marked, and when the first of these cease to be so."""
        facts: dict[str, BridgeFacts] = {}
        recompute_at: float | None = None
        for node, bridge in self._bridges.bridges.items():
            session = self.sessions.get(bridge.dpid)
            pre_restart = session.pre_restart if session is not None else None
            if pre_restart is None:
                facts[node] = bridge.facts
                continue
            facts[node] = pre_restart.marked_facts(bridge, self._agents, time.time())
            seconds_left = pre_restart.seconds_left(time.time())
            if seconds_left:
                recompute_at = earliest(recompute_at, time.monotonic() + seconds_left + 1.0)
        return facts, recompute_at

    def _update_zone_conflicts(self) -> None:
        """Find the bridges that would share conntrack zones; each is logged once."""
        host_numbers: dict[str, dict[str, int]] = {}
        for node in self._bridges.bridges:
            host = self._agents.host_number(node)
            if host is not None:
                host_numbers.setdefault(self._bridges.remote_of[node], {})[node] = host
        zone_conflicts = {
            node: f"node {node} is not programmed: its conntrack zones are those of node {other}, of the same switch"
            for hosts in host_numbers.values()
            for node, other in colliding(hosts).items()
        }
        for node in zone_conflicts.keys() - self.zone_conflicts.keys():
            LOG.error("%s", zone_conflicts[node])
        self.zone_conflicts = zone_conflicts


def _node_network(plan: AddressPlan, host: int, compiled: Compiled) -> NodeNetwork:
    """What the attach agent of the node with this host number has to know."""
    value, mask = plan.host_match(host)
    return NodeNetwork(
        plan.gateway(host),
        plan.network,
        IPv4Address(value),
        IPv4Address(mask),
        compiled.tunnel_peers,
        compiled.service_ranges,
    )
