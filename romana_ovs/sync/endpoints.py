"""Which local pods a switch's flows serve, read from the flows themselves.

So a restarted controller knows from the switch alone which pods were attached already and which of them are
older than the conntrack table, and which connections must be forgotten is a function of a plan.
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
from romana_ovs.sync.plan import Plan

Owners = Mapping[IPv4Address, tuple[PodKey, str]]
"""Of each address the pod that has it: its name and its UID."""
_PLACES = {
    table.name: rank.ENDPOINT
    for table in TABLES
    for rank in (priorities.L3Forward, priorities.L3ForwardLocal)
    if table.priorities is rank
}
"""The tables with rows of local pods, and the priority of these."""
_WHOLE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A local pod as the flows know it: its OpenFlow port, whether it is older than the bridge's connections, the index
    of its conntrack zone, and whether its tenant is shared.
    """

    port: int
    pre_restart: bool
    zone: int = 0
    shared: bool = False


def endpoints(flows: Iterable[Flow]) -> dict[IPv4Address, Endpoint]:
    """The local pods among `flows`, by address."""
    found: dict[IPv4Address, Endpoint] = {}
    for flow in flows:
        if flow.priority != _PLACES.get(flow.table) or _loaded(flow, PKT_DESTINATION) != LOCAL:
            continue
        for item in flow.match:
            if item.field == "nw_dst" and item.mask == _WHOLE:
                found[IPv4Address(item.value)] = Endpoint(
                    _loaded(flow, OUT_PORT),
                    bool(_loaded(flow, RECEIVER_PRE_RESTART)),
                    _loaded(flow, RECEIVER_ZONE),
                    bool(_loaded(flow, RECEIVER_SHARED)),
                )
    return found


def _loaded(flow: Flow, register: Register) -> int:
    return next((a.value for a in flow.actions if isinstance(a, Load) and a.to == register.bits), 0)


@dataclass(frozen=True, slots=True)
class Moves:
    """Pods by address that come to a switch (or to another port or zone of it), and those that go from it."""

    came: Mapping[IPv4Address, Endpoint] = field(default_factory=dict)
    gone: Mapping[IPv4Address, Endpoint] = field(default_factory=dict)


def renewed(before: Owners, after: Owners) -> tuple[IPv4Address, ...]:
    """The addresses that another pod has now, maybe on the same port; of an unknown UID nothing can be said."""
    return tuple(
        sorted(
            address
            for address, (key, uid) in after.items()
            if address in before and (before[address][0] != key or not same_uid(before[address][1], uid))
        )
    )


def moves(before: Mapping[FlowKey, Flow], plan: Plan) -> Moves:
    """Whose connections must be forgotten around `plan`, on a switch that has `before`.

    A pod that keeps its port keeps its connections, whatever else changes about it.
    """
    replaced = (before[flow.key] for flow in plan.modify if flow.key in before)
    old = endpoints((*plan.delete, *replaced))
    new = endpoints((*plan.add, *plan.modify))
    came = {
        address: new[address]
        for address in sorted(new)
        if address not in old or (old[address].port, old[address].zone) != (new[address].port, new[address].zone)
    }
    return Moves(came, {address: old[address] for address in sorted(old.keys() - new.keys())})
