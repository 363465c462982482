"""What all databases say about our bridges, joined; and which pods are older than their bridge's conntrack table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType

from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, BridgeRow, bridges
from romana_ovs.sync.endpoints import Endpoint

LOG = logging.getLogger("romana_ovs.ports")


class Ports:
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
        """Take what `remote` says now; returns whether anything about our bridges changed. Logs what is wrong once."""
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
        self.bridges, self.remote_of = MappingProxyType(joined), MappingProxyType(remotes)
        return first or joined != dict(before)

    def by_dpid(self, dpid: int) -> Bridge | None:
        """The bridge with this datapath id, if a database knows one."""
        return next((bridge for bridge in self.bridges.values() if bridge.dpid == dpid), None)


@dataclass(slots=True)
class Survivors:
    """The pods of one bridge that are older than its conntrack table, from one connection to the next.

    `served` is what the switch had when it connected: nothing means that its process is new, and then
    every pod that is there has lost its connections' state.
    """

    served: Mapping[IPv4Address, Endpoint]
    fresh: bool
    _rows: dict[PodKey, str] | None = None

    def mark(self, bridge: Bridge, address_of: Callable[[PodKey], IPv4Address | None]) -> BridgeFacts:
        """The bridge's facts with the survivors marked; a pod that was taken out meanwhile is none any more."""
        if self._rows is None:
            self._rows = {
                pod: bridge.rows[pod]
                for pod, port in bridge.facts.pods.items()
                if self.fresh or self._served(address_of(pod), port.ofport)
            }
        self._rows = {pod: row for pod, row in self._rows.items() if bridge.rows.get(pod) == row}
        pods = {
            pod: replace(port, survivor=True) if pod in self._rows else port for pod, port in bridge.facts.pods.items()
        }
        return replace(bridge.facts, pods=MappingProxyType(pods))

    def _served(self, address: IPv4Address | None, ofport: int) -> bool:
        end = self.served.get(address) if address is not None else None
        return end is not None and end.survivor and end.port == ofport
