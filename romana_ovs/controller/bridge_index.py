"""Indexes our bridges of all OVSDB servers by node."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from romana_ovs.model.bridge import DatapathType
from romana_ovs.switch.bridges import Bridge, BridgeRow, bridges

LOG = logging.getLogger("romana_ovs.ports")


class BridgeIndex:
    """The bridges of every database in `remotes`; one that is not on `datapath` (None: on any) has a warning."""

    def __init__(self, remotes: tuple[str, ...], datapath: DatapathType | None = None) -> None:
        self.remotes = remotes
        self._datapath = datapath
        self._rows: dict[str, tuple[BridgeRow, ...]] = {}
        self._warned: frozenset[str] = frozenset()
        self.bridges: Mapping[str, Bridge] = MappingProxyType({})
        self.remote_of: Mapping[str, str] = MappingProxyType({})
        """The database of each node's bridge."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The databases that have not been read yet."""
        return tuple(remote for remote in self.remotes if remote not in self._rows)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The present warnings about bridges, in sentences."""
        return tuple(sorted(self._warned))

    def replace(self, remote: str, rows: tuple[BridgeRow, ...]) -> bool:
        """Replace the rows of `remote`; returns whether tables may change. Each warning is logged once."""
        first = remote not in self._rows
        self._rows[remote] = rows
        before = self.bridges
        by_node: dict[str, Bridge] = {}
        remotes: dict[str, str] = {}
        warnings: set[str] = set()
        for database in self.remotes:
            for bridge in bridges(self._rows.get(database, ())):
                warnings.update(bridge.warnings)
                warnings.update(self._other_datapath(bridge))
                if bridge.node in by_node:
                    warnings.add(
                        f"bridge {bridge.name} in {database} is left alone: node {bridge.node} has one elsewhere"
                    )
                else:
                    by_node[bridge.node] = bridge
                    remotes[bridge.node] = database
        for warning in sorted(warnings - self._warned):
            LOG.warning("%s", warning)
        self._warned = frozenset(warnings)
        # Also when they are equal: their marks, which are not compared, may differ.
        self.bridges, self.remote_of = MappingProxyType(by_node), MappingProxyType(remotes)
        return first or by_node != dict(before)

    def _other_datapath(self, bridge: Bridge) -> Iterator[str]:
        wanted = self._datapath
        if wanted is not None and bridge.datapath != wanted.value:
            yield (
                f"bridge {bridge.name} of node {bridge.node} is on the datapath {bridge.datapath}, and the setting is "
                f"datapath = {wanted.value} (ovs-vsctl set bridge {bridge.name} datapath_type={wanted.value})"
            )

    def by_dpid(self, dpid: int) -> Bridge | None:
        """The bridge with this datapath id, if a database has one."""
        return next((bridge for bridge in self.bridges.values() if bridge.dpid == dpid), None)
