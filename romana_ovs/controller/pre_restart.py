"""Finds the pods that were attached before their bridge last lost its conntrack entries.

A restart of ovs-vswitchd deletes all flows, and in the userspace datapath all conntrack entries; the kernel datapath
keeps them. Notes in OVSDB, which survive a restart of both the switch and the controller, distinguish a restart from a
first start: each pod's Interface has the pod and address that it was programmed for, and the Bridge the time when
conntrack entries were last lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Protocol

from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.objects import PodKey
from romana_ovs.switch.bridges import Bridge, Marks
from romana_ovs.sync.attached_pods import AttachedPod

SURVIVAL_SECONDS = 8100.0
"""How long TCP may go on after a loss: past two hours, when Linux's keepalive makes the most silent end speak."""


class Places(Protocol):
    """What is known of pods by name."""

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address that a pod has, None when it has none or is not known."""

    def uid_of(self, pod: PodKey) -> str:
        """The pod's UID, empty when it is not known."""


@dataclass(slots=True)
class PreRestartPods:
    """The survivors of one bridge, from the connection of its switch to the end of that.

    `served` is what the switch had when it connected; `fresh` that it had no flow of ours. Times are seconds since
    the epoch: they are compared over restarts of the controller.
    """

    served: Mapping[IPv4Address, AttachedPod]
    fresh: bool
    lost_at: float | None = None
    _rows: Mapping[PodKey, str] | None = None

    @property
    def found(self) -> bool:
        """Whether they are known yet: the database has been read."""
        return self._rows is not None

    def mark(self, bridge: Bridge, places: Places, now: float) -> BridgeFacts:
        """The bridge's facts with the survivors marked; a pod that was taken out meanwhile is none any more."""
        if self._rows is None:
            self._rows = self._found(bridge, places, now)
        if self.seconds_left(now) <= 0:
            self._rows = {}
        self._rows = {pod: row for pod, row in self._rows.items() if bridge.rows.get(pod) == row}
        pods = {
            pod: replace(port, pre_restart=True) if pod in self._rows else port
            for pod, port in bridge.facts.pod_ports.items()
        }
        lost = self.seconds_left(now) > 0
        return replace(bridge.facts, pod_ports=MappingProxyType(pods), conntrack_lost=lost)

    def seconds_left(self, now: float) -> float:
        """How long survivors have left; 0 when nothing was lost or it is long ago."""
        if self.lost_at is None:
            return 0.0
        return min(max(self.lost_at + SURVIVAL_SECONDS - now, 0.0), SURVIVAL_SECONDS)

    def _found(self, bridge: Bridge, places: Places, now: float) -> dict[PodKey, str]:
        ports = bridge.facts.pod_ports
        if not self.fresh:
            self.lost_at = bridge.marks.lost_at
            return {pod: bridge.rows[pod] for pod in ports if self._survived(places.address_of(pod), ports[pod].ofport)}
        if bridge.keeps_connections:
            return {}
        known = known_pods(bridge, places)
        if known:
            self.lost_at = now
        return {pod: bridge.rows[pod] for pod in known}

    def _survived(self, address: IPv4Address | None, ofport: int) -> bool:
        end = self.served.get(address) if address is not None else None
        return end is not None and end.pre_restart and end.port == ofport


def programmed_for(pod: PodKey, address: IPv4Address, uid: str) -> str:
    """What is noted at the Interface of a pod whose port has been programmed."""
    return f"{pod} {address} {uid}".strip()


def known_pods(bridge: Bridge, places: Places) -> Mapping[PodKey, IPv4Address]:
    """The pods whose ports were programmed before, with the addresses that they still have."""
    noted = bridge.marks.programmed
    return MappingProxyType(
        {
            pod: address
            for pod in noted
            if (address := places.address_of(pod)) is not None
            and noted[pod] == programmed_for(pod, address, places.uid_of(pod))
        }
    )


def marks_of(bridge: Bridge, places: Places, lost_at: float | None) -> Marks:
    """What should be noted of a bridge whose switch has just been programmed."""
    programmed = {
        pod: programmed_for(pod, address, places.uid_of(pod))
        for pod in bridge.facts.pod_ports
        if (address := places.address_of(pod)) is not None
    }
    return Marks(MappingProxyType(programmed), lost_at if lost_at is not None else bridge.marks.lost_at)
