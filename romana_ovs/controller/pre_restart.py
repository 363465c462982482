"""Finds the pods that were attached before their bridge last lost its conntrack entries.

A restart of ovs-vswitchd deletes all flows, and in the userspace datapath all conntrack entries; the kernel datapath
keeps them. Notes in OVSDB, which survive a restart of both the switch and the controller, distinguish a restart from a
first start: each pod's Interface has the pod and address that it was programmed for, and the Bridge the time when
conntrack entries were last lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from types import MappingProxyType
from typing import Protocol

from romana_ovs.model.bridge import BridgeFacts
from romana_ovs.model.objects import PodKey, same_uid
from romana_ovs.switch.bridges import Bridge, BridgeExternalIds
from romana_ovs.sync.attached_pods import AttachedPod, PodByAddress

SURVIVAL_SECONDS = 8100.0
"""How long TCP may go on after a loss: past two hours, when Linux's keepalive makes the most silent end send."""


class PodLookup(Protocol):
    """Looks up pods by name."""

    def address_of(self, pod: PodKey) -> IPv4Address | None:
        """The address of a pod; None when it has none or is unknown."""

    def uid_of(self, pod: PodKey) -> str:
        """The UID of a pod; empty when it is unknown."""


@dataclass(slots=True)
class PreRestartPods:
    """The pre-restart pods of one bridge, for one connection of its switch.

    `attached` are the pods that the switch had flows of when it connected; `fresh`: it had no flow of ours. Times are
    seconds since the epoch, as they are compared with those of before a restart of the controller.
    """

    attached: Mapping[IPv4Address, AttachedPod]
    fresh: bool
    lost_at: float | None = None
    _row_of: Mapping[PodKey, str] | None = None

    def marked_facts(self, bridge: Bridge, pods_by_name: PodLookup, now: float) -> BridgeFacts:
        """The bridge's facts with pre-restart pods marked; a pod that was detached since is none any more."""
        if self._row_of is None:
            self._row_of = self._determine(bridge, pods_by_name, now)
        if self.seconds_left(now) <= 0:
            self._row_of = {}
        self._row_of = {pod: row for pod, row in self._row_of.items() if bridge.rows.get(pod) == row}
        pods = {
            pod: replace(port, pre_restart=True) if pod in self._row_of else port
            for pod, port in bridge.facts.pod_ports.items()
        }
        lost = self.seconds_left(now) > 0
        return replace(bridge.facts, pod_ports=MappingProxyType(pods), conntrack_lost=lost)

    def seconds_left(self, now: float) -> float:
        """For how long pods remain pre-restart; 0 when no connections were lost, or long ago."""
        if self.lost_at is None:
            return 0.0
        return min(max(self.lost_at + SURVIVAL_SECONDS - now, 0.0), SURVIVAL_SECONDS)

    def _determine(self, bridge: Bridge, pods_by_name: PodLookup, now: float) -> dict[PodKey, str]:
        ports = bridge.facts.pod_ports
        if not self.fresh:
            self.lost_at = bridge.external_ids.lost_at
            return {
                pod: bridge.rows[pod]
                for pod in ports
                if self._survived(pods_by_name.address_of(pod), ports[pod].ofport)
            }
        if bridge.keeps_connections:
            return {}
        programmed = programmed_pods(bridge, pods_by_name)
        if programmed:
            self.lost_at = now
        return {pod: bridge.rows[pod] for pod in programmed}

    def _survived(self, address: IPv4Address | None, ofport: int) -> bool:
        attached_pod = self.attached.get(address) if address is not None else None
        return attached_pod is not None and attached_pod.pre_restart and attached_pod.port == ofport


def programmed_text(pod: PodKey, address: IPv4Address, uid: str) -> str:
    """The text in the external_ids of the Interface of a pod whose port has been programmed."""
    return f"{pod} {address} {uid}".strip()


def programmed_pods(bridge: Bridge, pods_by_name: PodLookup) -> Mapping[PodKey, IPv4Address]:
    """The pods whose ports were programmed for the address and UID that they have now, with these addresses."""
    return MappingProxyType(
        {pod: address for pod, address, uid, text in _written(bridge, pods_by_name) if _is_of(text, pod, address, uid)}
    )


def reassigned_addresses(bridge: Bridge, pods_by_name: PodLookup) -> frozenset[IPv4Address]:
    """The addresses of pods whose ports were programmed for another pod with the same address."""
    return frozenset(
        address
        for pod, address, uid, text in _written(bridge, pods_by_name)
        if text.split()[1:2] == [str(address)] and not _is_of(text, pod, address, uid)
    )


def _written(bridge: Bridge, pods_by_name: PodLookup) -> Iterator[tuple[PodKey, IPv4Address, str, str]]:
    """The pods with an address, their addresses and UIDs, and the `programmed_text` that their ports have."""
    for pod, text in bridge.external_ids.programmed.items():
        address = pods_by_name.address_of(pod)
        if address is not None:
            yield pod, address, pods_by_name.uid_of(pod), text


def _is_of(text: str, pod: PodKey, address: IPv4Address, uid: str) -> bool:
    """Whether the text is that of the pod with this address and UID; an unknown UID counts as the same."""
    name, written_address, written_uid = (*text.split(), "", "", "")[:3]
    return (name, written_address) == (str(pod), str(address)) and same_uid(written_uid, uid)


def external_ids_of(bridge: Bridge, pod_by_address: PodByAddress, lost_at: float | None) -> BridgeExternalIds:
    """The external_ids of a bridge whose switch has just been programmed with the addresses of `pod_by_address`."""
    programmed = {
        pod: programmed_text(pod, address, uid)
        for address, (pod, uid) in pod_by_address.items()
        if pod in bridge.facts.pod_ports and same_uid(bridge.facts.pod_ports[pod].uid, uid)
    }
    lost_at = lost_at if lost_at is not None else bridge.external_ids.lost_at
    return BridgeExternalIds(MappingProxyType(programmed), lost_at, rows=bridge.rows)
