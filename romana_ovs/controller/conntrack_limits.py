"""Keeps the connection limit of each tenant in the conntrack zones of every node, and reports who is at a limit.

An ovs-vswitchd that restarts loses its limits, so each check compares the limits there with those wanted. Nothing waits
for it; when limits cannot be set, a problem says so and everything else goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from romana_ovs.flag import Flag
from romana_ovs.model.errors import SwitchError
from romana_ovs.pipeline.zones import COMMON, Share
from romana_ovs.switch.zone_limits import ZoneLimits, ZoneUse

LOG = logging.getLogger("romana_ovs.limits")

TENANT_SHARE, COMMON_SHARE = 4, 2
"""One tenant gets a fourth of a table at most, what is no single tenant's half of it, whatever the setting says."""
MOST_FRAGMENTS = 5000
"""Fragments that the userspace datapath keeps at a time: as many as it can be told to, where 1,000 are what it does."""
LOOK_SECONDS = 10.0
"""Between two looks at how many connections there are."""
RETRY_SECONDS = 1.0
"""Before another look after one that failed: a switch that starts anew is there again within a second."""
PATIENCE_SECONDS = 5.0
"""How long looks may fail before it is told: as long as a switch may take to start anew."""
OVER_SHARE = 0.9
"""A tenant that was at its limit is told of until it has less than this of it, so that it is not told of in turns."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the conntrack table of a bridge is: the database of its Open vSwitch, and the type of its datapath."""

    remote: str
    datapath: str


@dataclass(frozen=True, slots=True)
class Zones:
    """The conntrack zones of one bridge, and whose each is."""

    place: Place
    shares: Mapping[int, Share]


@dataclass(frozen=True, slots=True)
class Full:
    """A zone that is at its limit: of which node, of which tenant (or COMMON), and whether it is one of several."""

    node: str
    tenant: str
    limit: int
    partly: bool = False

    def __str__(self) -> str:
        """One sentence."""
        if self.tenant == COMMON:
            return (
                f"node {self.node}: the connections that are no single tenant's are as many as there may be "
                f"({self.limit}): more are refused or get no answer until some of them end"
            )
        limit = f"{self.limit}, {'a part of ' if self.partly else ''}tenant_connections"
        return (
            f"node {self.node}: tenant {self.tenant} has as many connections as it may have there ({limit}): "
            f"more are refused or get no answer until some of them end"
        )


def limits_of(shares: Mapping[int, Share], setting: int, table: int | None) -> dict[int, int]:
    """The limit of each zone that gets one: none does with the `setting` 0, nor COMMON in a table of unknown size."""
    found = {}
    for zone, share in shares.items() if setting else ():
        if share.tenant != COMMON:
            whole = setting if table is None else min(setting, table // TENANT_SHARE)
            found[zone] = max(1, whole // share.part)
        elif table is not None:
            found[zone] = max(1, table // COMMON_SHARE)
    return found


@dataclass(slots=True)
class _Table:
    """What is known of one conntrack table: its size, the zones that have limits of ours, and which are full."""

    zones: ZoneLimits
    size: int | None = None
    ours: frozenset[int] = frozenset()
    full: dict[int, Full] = field(default_factory=dict)
    trouble: str = ""
    failing_since: float | None = None

    def work(self, shares: Mapping[int, Share], nodes: Mapping[int, str], setting: int) -> None:
        """Look once: put right what is not as it should be, and see which zones are full. Raises SwitchError."""
        found = self.zones.read(shares.keys() | self.ours)
        # New zones, or a new process.
        anew = bool(setting) and not shares.keys() <= found.keys()
        if anew:
            self.size = self.zones.table_size()
        limits = limits_of(shares, setting, self.size)
        wrong = {zone: limit for zone, limit in limits.items() if zone not in found or found[zone].limit != limit}
        self.zones.set(wrong)
        self.zones.remove((self.ours - limits.keys()) & found.keys())
        self.ours = frozenset(limits)
        if anew:
            # Last: a switch that takes no such number has its limits all the same.
            self.zones.set_fragments(MOST_FRAGMENTS)
        now = {
            zone: Full(nodes[zone], shares[zone].tenant, limit, shares[zone].part > 1) for zone, limit in limits.items()
        }
        self._judge({zone: full for zone, full in now.items() if self._at_limit(zone, full.limit, found)})

    def _at_limit(self, zone: int, limit: int, found: Mapping[int, ZoneUse]) -> bool:
        count = found[zone].count if zone in found else 0
        return count >= (limit * OVER_SHARE if zone in self.full else limit)

    def _judge(self, now: dict[int, Full]) -> None:
        for zone, full in now.items():
            if zone not in self.full:
                LOG.warning("%s", full)
        for zone, full in self.full.items():
            if zone not in now:
                LOG.info("node %s: tenant %s can open connections again", full.node, full.tenant or "(none)")
        self.full = now


class ConntrackLimits:
    """Keeps the limits of every bridge's zones, and raises `flag` when `problems` or `full` change.

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
        self._wanted: dict[str, Zones] = {}
        self._tables: dict[Place, _Table] = {}
        self._shown: tuple[object, ...] = (self.problems, self.full)

    def set_zones(self, wanted: Mapping[str, Zones], nodes: Collection[str]) -> None:
        """These are the zones of nodes now; the others of `nodes`, which are all that there are, keep theirs."""
        before = self._wanted
        self._wanted = {node: zones for node, zones in {**before, **wanted}.items() if node in nodes}
        if self._wanted != before:
            self._wake.set()

    def check_now(self) -> None:
        """Something may be otherwise, such as a switch that has started anew: look soon."""
        self._wake.set()

    def run(self) -> None:
        """Never returns."""
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            pause = RETRY_SECONDS if self.work() else LOOK_SECONDS

    def work(self) -> bool:
        """Look once at every table; returns whether any could not be looked at, and soon should be again."""
        by_place: dict[Place, dict[str, Zones]] = {place: {} for place in self._tables}
        for node, zones in self._wanted.items():
            by_place.setdefault(zones.place, {})[node] = zones
        failed = [self._look_at(place, own) for place, own in by_place.items()]
        self._tables = {place: table for place, table in self._tables.items() if by_place.get(place) or table.ours}
        shown = (self.problems, self.full)
        if shown != self._shown:
            self._shown = shown
            self._flag.set()
        return any(failed)

    def _look_at(self, place: Place, own: Mapping[str, Zones]) -> bool:
        """Look once at one table; returns as `work` does."""
        if place not in self._tables:
            if not self._setting:
                return False
            self._tables[place] = _Table(self._zones_at(place.remote, place.datapath))
        table = self._tables[place]
        shares = {zone: share for zones in own.values() for zone, share in zones.shares.items()}
        nodes = {zone: node for node, zones in own.items() for zone in zones.shares}
        try:
            table.work(shares, nodes, self._setting)
        except SwitchError as error:
            if not own:
                # The bridges are gone, and their switch with them.
                table.ours = frozenset()
                return False
            self._fail(table, str(error))
            return not table.trouble
        if table.trouble:
            LOG.info("connections are limited again at %s", place.remote)
        table.trouble, table.failing_since = "", None
        return False

    def _fail(self, table: _Table, reason: str) -> None:
        now = self._clock()
        table.failing_since = now if table.failing_since is None else table.failing_since
        if not table.trouble and now - table.failing_since >= PATIENCE_SECONDS:
            table.trouble = f"tenants' connections are not limited (tenant_connections): {reason}"
            LOG.warning("%s", table.trouble)

    @property
    def problems(self) -> tuple[str, ...]:
        """Who is at a limit, and which limits cannot be kept, in sentences."""
        troubles = (table.trouble for table in self._tables.values() if table.trouble)
        return (*troubles, *(str(full) for table in self._tables.values() for full in table.full.values()))

    @property
    def full(self) -> Mapping[str, tuple[str, ...]]:
        """By node, the tenants (and COMMON) that are at their limit there."""
        found: dict[str, list[str]] = {}
        for table in self._tables.values():
            for full in table.full.values():
                found.setdefault(full.node, []).append(full.tenant)
        return MappingProxyType({node: tuple(sorted(set(tenants))) for node, tenants in sorted(found.items())})
