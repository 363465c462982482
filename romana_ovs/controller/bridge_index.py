"""Joins what every OVSDB server says about our bridges into one index."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType

from romana_ovs.switch.bridges import Bridge, BridgeRow, bridges

LOG = logging.getLogger("romana_ovs.ports")


class BridgeIndex:
    """The bridges of every database in `remotes`."""

    def __init__(self, remotes: tuple[str, ...]) -> None:
        self.remotes = remotes
        self._rows: dict[str, tuple[BridgeRow, ...]] = {}
        self._warned: frozenset[str] = frozenset()
        self.bridges: Mapping[str, Bridge] = MappingProxyType({})
        self.remote_of: Mapping[str, str] = MappingProxyType({})
        """The database that each node's bridge is in."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The databases that have not been read yet."""
        return tuple(remote for remote in self.remotes if remote not in self._rows)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the bridges at the moment, in sentences."""
        return tuple(sorted(self._warned))

    def replace(self, remote: str, rows: tuple[BridgeRow, ...]) -> bool:
        """Replace the rows of `remote`; returns whether tables may be others by it. Logs each warning once."""
        first = remote not in self._rows
        self._rows[remote] = rows
        before = self.bridges
        joined: dict[str, Bridge] = {}
        remotes: dict[str, str] = {}
        warnings: set[str] = set()
        for source in self.remotes:
            for bridge in bridges(self._rows.get(source, ())):
                warnings.update(bridge.warnings)
                if bridge.node in joined:
                    warnings.add(
                        f"bridge {bridge.name} in {source} is left alone: node {bridge.node} has one elsewhere"
                    )
                else:
                    joined[bridge.node] = bridge
                    remotes[bridge.node] = source
        for sentence in sorted(warnings - self._warned):
            LOG.warning("%s", sentence)
        self._warned = frozenset(warnings)
        # Also when they are equal: marks are no part of that.
        self.bridges, self.remote_of = MappingProxyType(joined), MappingProxyType(remotes)
        return first or joined != dict(before)

    def by_dpid(self, dpid: int) -> Bridge | None:
        """The bridge with this datapath id, if a database knows one."""
        return next((bridge for bridge in self.bridges.values() if bridge.dpid == dpid), None)
