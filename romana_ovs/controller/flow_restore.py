"""Programs switches that wait for their flows (`flow-restore-wait`) over their management sockets, and ends the wait.

Source: vswitchd.conf.db(5), Open_vSwitch other_config:flow-restore-wait. An ovs-vswitchd that starts with it leaves the
megaflows of the kernel's datapath alone and connects to no controller. The management socket of each bridge is the one
OpenFlow connection that it accepts meanwhile (docs/dataplane.md, "Restarts of Open vSwitch").
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import eventlet

from romana_ovs.controller.bridge_index import BridgeIndex
from romana_ovs.model.errors import SwitchError
from romana_ovs.switch.bridges import Bridge

LOG = logging.getLogger("romana_ovs.flow_restore")

RETRY_SECONDS = 0.05
"""Between two attempts to connect, while the process starts."""
OTHERS_SECONDS = 10.0
"""How long a wait that was set while the switch was away stays after it was programmed.

`ovs-ctl restart` sets it then, restores the flows that it saved, and removes it itself. Were it removed earlier, these
flows would replace newer ones of a connected controller, which would not notice.
"""


class RestoreSession(Protocol):
    """The session of a switch."""

    @property
    def management(self) -> bool:
        """Whether it uses the management socket."""

    @property
    def idle(self) -> bool:
        """Whether its switch has confirmed the desired state."""


class RestorableSwitches(Protocol):
    """The bridges that this process programs."""

    @property
    def driven(self) -> frozenset[str]:
        """The nodes with a bridge that this process programs, connected or not."""

    @property
    def sessions_by_node(self) -> Mapping[str, RestoreSession]:
        """The sessions of connected switches, by node."""

    @property
    def programmable(self) -> Mapping[str, RestoreSession]:
        """Those of nodes that have tables."""


class FlowRestore:
    """Connects to bridges that wait, and ends the wait of a database (`end_wait`) when its bridges have their flows.

    A wait that was set while the switch was connected is ended at once, as it was set for this controller; any other
    after OTHERS_SECONDS. `serve` serves the connection to a management socket until it ends, and raises SwitchError
    when there is none.
    """

    def __init__(
        self,
        bridges: BridgeIndex,
        switches: RestorableSwitches,
        *,
        serve: Callable[[Path], None],
        end_wait: Callable[[str], None],
    ) -> None:
        self._bridges = bridges
        self._switches = switches
        self._serve = serve
        self._end_wait = end_wait
        self._prepared: set[str] = set()
        """The databases whose wait was set while a switch was connected by its Controller row."""
        self._end_at: dict[str, float] = {}
        self._faults: dict[str, str] = {}
        """By node to which a connection is attempted: why there is none; empty while there is one."""

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each switch that waits and cannot be reached."""
        return tuple(
            f"bridge {self._bridges.bridges[node].name} of node {node} waits for its flows and connects to no "
            f"controller (ovs-vsctl remove open_vswitch . other_config flow-restore-wait): {fault}"
            for node, fault in sorted(self._faults.items())
            if fault and node in self._bridges.bridges
        )

    @property
    def check_at(self) -> float | None:
        """When to call `check` again at the latest, in `time.monotonic`; None without a limit."""
        return min(self._end_at.values(), default=None)

    def check(self, now: float) -> None:
        """Connect to bridges that wait and have no session, and end the wait of those that have their flows."""
        waiting: dict[str, list[str]] = {}
        for node in self._switches.driven:
            if self._bridges.bridges[node].flow_restore_wait:
                waiting.setdefault(self._bridges.remote_of[node], []).append(node)
        self._prepared &= waiting.keys()
        self._end_at = {remote: at for remote, at in self._end_at.items() if remote in waiting}
        for remote, nodes in waiting.items():
            self._check_database(remote, nodes, now)

    def _check_database(self, remote: str, nodes: list[str], now: float) -> None:
        sessions = self._switches.sessions_by_node
        if any(node in sessions and not sessions[node].management for node in nodes):
            # The process has not been restarted yet.
            self._prepared.add(remote)
            return
        for node in nodes:
            if node not in sessions and node not in self._faults:
                self._faults[node] = ""
                eventlet.spawn(self._connect, node)
        expected = self._switches.programmable
        programmed = [expected[node].idle for node in nodes if node in expected]
        if not (programmed and all(programmed) and all(node in sessions for node in nodes)):
            self._end_at.pop(remote, None)
        elif now >= self._end_at.setdefault(remote, now if remote in self._prepared else now + OTHERS_SECONDS):
            LOG.info("%s: its switch has its flows, flow-restore-wait is removed", remote)
            self._end_wait(remote)
            # Again later, should that fail.
            self._end_at[remote] = now + OTHERS_SECONDS

    def _connect(self, node: str) -> None:
        """Serve the management socket of a node's bridge; try again as long as it waits and has no session."""
        try:
            while node not in self._switches.sessions_by_node:
                bridge = self._bridges.bridges.get(node)
                if bridge is None or not bridge.flow_restore_wait:
                    return
                try:
                    self._serve(management_socket(self._bridges.remote_of[node], bridge))
                    self._faults[node] = ""
                except SwitchError as error:
                    self._faults[node] = str(error)
                eventlet.sleep(RETRY_SECONDS)
        finally:
            del self._faults[node]


def management_socket(remote: str, bridge: Bridge) -> Path:
    """The management socket of a bridge, which is beside its database. Raises SwitchError when that is elsewhere."""
    if not remote.startswith("unix:"):
        raise SwitchError(f"its database {remote} is not a unix socket, so its management socket cannot be found")
    return Path(remote.removeprefix("unix:")).parent / f"{bridge.name}.mgmt"
