"""Sets the connection limit of each tenant in the conntrack zones of every node, and reports tenants at a limit.

A restart of ovs-vswitchd deletes its limits, so each check compares the actual limits with the desired ones. Nothing
waits for it; when limits cannot be set, a problem says so and everything else goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.flag import Flag
from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.zones import COMMON, COMMON_DIVISOR, TENANT_DIVISOR, ZoneShare
from romana_ovs.switch.zone_limits import ZoneLimits, ZoneUse

LOG = logging.getLogger("romana_ovs.limits")

MAX_FRAGMENTS = 5000
"""Fragments that the userspace datapath keeps: the most that can be set; its default is 1,000."""
CHECK_SECONDS = 10.0
"""Between two checks of the numbers of connections."""
RETRY_SECONDS = 1.0
"""Before the check after a failed one: a restarting ovs-vswitchd answers again within a second."""
REPORT_AFTER_SECONDS = 5.0
"""How long checks may fail before that is a problem: as long as a restart of ovs-vswitchd may take."""
CLEAR_SHARE = 0.9
"""A tenant counts as at its limit until it has less than this share of it, so that reports do not alternate."""


@dataclass(frozen=True, slots=True)
class DatapathRef:
    """The datapath with the conntrack table of a bridge: the database of its Open vSwitch, and its type."""

    remote: str
    datapath_type: str


@dataclass(frozen=True, slots=True)
class BridgeZones:
    """The conntrack zones of one bridge, with the tenant of each."""

    datapath: DatapathRef
    shares: Mapping[int, ZoneShare]


@dataclass(frozen=True, slots=True)
class ZoneAtLimit:
    """A zone of `tenant` (or COMMON) that is at its limit; `shared_zones`: the tenant has several, with a part each."""

    node: str
    tenant: str
    limit: int
    shared_zones: bool = False

    def __str__(self) -> str:
        """One sentence."""
        if self.tenant == COMMON:
            return (
                f"node {self.node}: the connections that are no single tenant's are as many as there may be "
                f"({self.limit}): more are refused or get no answer until some of them end"
            )
        limit = f"{self.limit}, {'a part of ' if self.shared_zones else ''}tenant_connections"
        return (
            f"node {self.node}: tenant {self.tenant} has as many connections as it may have there ({limit}): "
            f"more are refused or get no answer until some of them end"
        )


def limits_of(shares: Mapping[int, ZoneShare], setting: int, table: int | None) -> dict[int, int]:
    """The limit of each zone; none without a `setting` (0), and none for COMMON in a table of unknown size."""
    limits = {}
    for zone, share in shares.items() if setting else ():
        if share.tenant != COMMON:
            whole = setting if table is None else min(setting, table // TENANT_DIVISOR)
            limits[zone] = max(1, whole // share.divisor)
        elif table is not None:
            limits[zone] = max(1, table // COMMON_DIVISOR)
    return limits


@dataclass(slots=True)
class _Table:
    """One conntrack table: its size, the zones in which we have set limits, and those at their limit."""

    zones: ZoneLimits
    size: int | None = None
    ours: frozenset[int] = frozenset()
    at_limit: dict[int, ZoneAtLimit] = field(default_factory=dict)
    error: str = ""
    failing_since: float | None = None

    def check(self, shares: Mapping[int, ZoneShare], nodes: Mapping[int, str], setting: int) -> None:
        """Check once: set limits that differ, and find the zones at their limit. Raises SwitchError."""
        uses = self.zones.read(shares.keys() | self.ours)
        # New zones, or a new process.
        set_up = bool(setting) and not shares.keys() <= uses.keys()
        if set_up:
            self.size = self.zones.table_size()
        limits = limits_of(shares, setting, self.size)
        to_set = {zone: limit for zone, limit in limits.items() if zone not in uses or uses[zone].limit != limit}
        self.zones.set(to_set)
        self.zones.remove((self.ours - limits.keys()) & uses.keys())
        self.ours = frozenset(limits)
        if set_up:
            # Last: if the switch refuses this, the limits are set already.
            self.zones.set_fragments(MAX_FRAGMENTS)
        now = {
            zone: ZoneAtLimit(nodes[zone], shares[zone].tenant, limit, shares[zone].divisor > 1)
            for zone, limit in limits.items()
        }
        self._set_at_limit({zone: state for zone, state in now.items() if self._is_at_limit(zone, state.limit, uses)})

    def _is_at_limit(self, zone: int, limit: int, uses: Mapping[int, ZoneUse]) -> bool:
        count = uses[zone].count if zone in uses else 0
        return count >= (limit * CLEAR_SHARE if zone in self.at_limit else limit)

    def _set_at_limit(self, now: dict[int, ZoneAtLimit]) -> None:
        for zone, state in now.items():
            if zone not in self.at_limit:
                LOG.warning("%s", state)
        for zone, state in self.at_limit.items():
            if zone not in now:
                LOG.info("node %s: tenant %s can open connections again", state.node, state.tenant or "(none)")
        self.at_limit = now


class ConntrackLimits:
    """Keeps the limits of every bridge's zones, and raises `flag` when `problems` or `tenants_at_limit` change.

    `run` is a green thread's job.
    """

    def __init__(
        self,
        setting: int,
        flag: Flag,
        *,
        clock: Callable[[], float] = time.monotonic,
        zones_at: Callable[[str, str], ZoneLimits] = ZoneLimits,
    ) -> None:
        self._setting = setting
        self._flag = flag
        self._clock = clock
        self._zones_at = zones_at
        self._wake = Flag()
        self._desired: dict[str, BridgeZones] = {}
        self._tables: dict[DatapathRef, _Table] = {}
        self._last_state: tuple[object, ...] = (self.problems, self.tenants_at_limit)

    def set_zones(self, desired: Mapping[str, BridgeZones], nodes: Collection[str]) -> None:
        """Set the zones of the nodes in `desired`; other ones of `nodes`, which are all nodes, keep theirs."""
        before = self._desired
        self._desired = {node: zones for node, zones in {**before, **desired}.items() if node in nodes}
        if self._desired != before:
            self._wake.set()

    def check_now(self) -> None:
        """Check soon, as limits may be gone: after a restart of ovs-vswitchd, for instance."""
        self._wake.set()

    def run(self) -> None:
        """Never returns."""
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            pause = RETRY_SECONDS if self.check() else CHECK_SECONDS

    def check(self) -> bool:
        """Check every table once; returns whether any failed and should be checked again soon."""
        by_datapath: dict[DatapathRef, dict[str, BridgeZones]] = {datapath: {} for datapath in self._tables}
        for node, zones in self._desired.items():
            by_datapath.setdefault(zones.datapath, {})[node] = zones
        failed = [self._check_table(datapath, bridges) for datapath, bridges in by_datapath.items()]
        self._tables = {
            datapath: table for datapath, table in self._tables.items() if by_datapath.get(datapath) or table.ours
        }
        state = (self.problems, self.tenants_at_limit)
        if state != self._last_state:
            self._last_state = state
            self._flag.set()
        return any(failed)

    def _check_table(self, datapath: DatapathRef, bridges: Mapping[str, BridgeZones]) -> bool:
        """Check one table once; returns as `check` does."""
        if datapath not in self._tables:
            if not self._setting:
                return False
            self._tables[datapath] = _Table(self._zones_at(datapath.remote, datapath.datapath_type))
        table = self._tables[datapath]
        shares = {zone: share for zones in bridges.values() for zone, share in zones.shares.items()}
        nodes = {zone: node for node, zones in bridges.items() for zone in zones.shares}
        try:
            table.check(shares, nodes, self._setting)
        except SwitchError as error:
            if not bridges:
                # The bridges are gone, and their switch with them.
                table.ours = frozenset()
                return False
            self._fail(table, str(error))
            return not table.error
        if table.error:
            LOG.info("connections are limited again at %s", datapath.remote)
        table.error, table.failing_since = "", None
        return False

    def _fail(self, table: _Table, reason: str) -> None:
        now = self._clock()
        table.failing_since = now if table.failing_since is None else table.failing_since
        if not table.error and now - table.failing_since >= REPORT_AFTER_SECONDS:
            table.error = f"tenants' connections are not limited (tenant_connections): {reason}"
            LOG.warning("%s", table.error)

    @property
    def problems(self) -> tuple[str, ...]:
        """The tenants at a limit, and the limits that cannot be set, in sentences."""
        errors = (table.error for table in self._tables.values() if table.error)
        return (*errors, *(str(zone) for table in self._tables.values() for zone in table.at_limit.values()))

    @property
    def tenants_at_limit(self) -> Mapping[str, tuple[str, ...]]:
        """The tenants (and COMMON) at their limit, by node."""
        tenants_of: dict[str, list[str]] = {}
        for table in self._tables.values():
            for zone in table.at_limit.values():
                tenants_of.setdefault(zone.node, []).append(zone.tenant)
        return MappingProxyType({node: tuple(sorted(set(tenants))) for node, tenants in sorted(tenants_of.items())})
