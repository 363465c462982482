"""Provides the channel of a switch that exists only as a dictionary of flows, and records what it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from romana_ovs import runtime
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.switch.channel import ReadBack, SwitchRefused
from romana_ovs.sync.diff import FlowDiff

assert runtime.OFP_VERSION == 6, "Ryu's modules can be imported in its own order alone: runtime comes first"


@dataclass
class FakeChannel:
    """A switch with these flows, what it was asked for, in order, and whether it refuses every bundle."""

    flows: Mapping[FlowKey, Flow] = field(default_factory=dict)
    refuses: bool = False
    asked: list[object] = field(default_factory=list)
    closed: bool = False
    dpid: int = 1
    management: bool = False

    def prepare(self) -> None:
        """Nothing to prepare."""

    def read(self) -> ReadBack:
        return ReadBack(dict(self.flows), frozenset(), {})

    def sctp_ports(self) -> bool:
        return True

    def send(self, diff: FlowDiff) -> None:
        self.asked.append("flows")
        if self.refuses:
            raise SwitchRefused([(None, "OFPBRC_BAD_TABLE_ID")])

    def flush_connections(self, zone: int | None, addresses: Iterable[IPv4Address]) -> None:
        self.asked += [(zone, address) for address in addresses]

    def on_disconnect(self) -> None:
        """Nobody waits."""

    def close(self) -> None:
        self.closed = True
