"""Extracts the local pods from a switch's flows, and computes whose conntrack entries must be flushed after a change.

A restarted controller reads from these flows which pods were attached already, and which of them are pre-restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from romana_ovs.model.objects import PodKey, same_uid
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Load
from romana_ovs.pipeline.flow import Flow, FlowKey
from romana_ovs.pipeline.registers import (
    LOCAL,
    OUT_PORT,
    PKT_DESTINATION,
    RECEIVER_PRE_RESTART,
    RECEIVER_SHARED,
    RECEIVER_ZONE,
    Register,
)
from romana_ovs.pipeline.tables import TABLES
from romana_ovs.sync.diff import FlowDiff

PodByAddress = Mapping[IPv4Address, tuple[PodKey, str]]
"""The name and UID of the pod with each address."""
_ENDPOINT_PRIORITY = {
    table.name: rank.ENDPOINT
    for table in TABLES
    for rank in (priorities.L3Forward, priorities.L3ForwardLocal)
    if table.priorities is rank
}
"""The tables with rows of local pods, and the priority of these rows."""
_EXACT = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class AttachedPod:
    """A local pod in the flows: its OpenFlow port, whether it is pre-restart, its zone index, and whether its tenant is
    shared.
    """

    port: int
    pre_restart: bool
    zone: int = 0
    shared: bool = False


def attached_pods(flows: Iterable[Flow]) -> dict[IPv4Address, AttachedPod]:
    """The local pods among `flows`, by address."""
    pods: dict[IPv4Address, AttachedPod] = {}
    for flow in flows:
        if flow.priority != _ENDPOINT_PRIORITY.get(flow.table) or _loaded(flow, PKT_DESTINATION) != LOCAL:
            continue
        for item in flow.match:
            if item.field == "nw_dst" and item.mask == _EXACT:
                pods[IPv4Address(item.value)] = AttachedPod(
                    _loaded(flow, OUT_PORT),
                    bool(_loaded(flow, RECEIVER_PRE_RESTART)),
                    _loaded(flow, RECEIVER_ZONE),
                    bool(_loaded(flow, RECEIVER_SHARED)),
                )
    return pods


def _loaded(flow: Flow, register: Register) -> int:
    return next((a.value for a in flow.actions if isinstance(a, Load) and a.to == register.bits), 0)


@dataclass(frozen=True, slots=True)
class AttachedPodChanges:
    """Pods by address: those added or moved to another port or zone, and those removed."""

    added: Mapping[IPv4Address, AttachedPod] = field(default_factory=dict)
    removed: Mapping[IPv4Address, AttachedPod] = field(default_factory=dict)


def reassigned(before: PodByAddress, after: PodByAddress) -> tuple[IPv4Address, ...]:
    """The addresses whose pod changed, maybe on the same port. An unknown UID counts as unchanged."""
    return tuple(
        sorted(
            address
            for address, (key, uid) in after.items()
            if address in before and (before[address][0] != key or not same_uid(before[address][1], uid))
        )
    )


def attached_pod_changes(before: Mapping[FlowKey, Flow], diff: FlowDiff) -> AttachedPodChanges:
    """The local pods that `diff` adds to and removes from the flows `before`: their connections are flushed.

    A pod that keeps its port and zone keeps its connections.
    """
    replaced = (before[flow.key] for flow in diff.modify if flow.key in before)
    old = attached_pods((*diff.delete, *replaced))
    new = attached_pods((*diff.add, *diff.modify))
    added = {
        address: new[address]
        for address in sorted(new)
        if address not in old or (old[address].port, old[address].zone) != (new[address].port, new[address].zone)
    }
    return AttachedPodChanges(added, {address: old[address] for address in sorted(old.keys() - new.keys())})
