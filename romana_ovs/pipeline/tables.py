"""Declares the tables in the order of the switch, and builds flows that are checked against the declarations.

To add a table: declare it here in order, give it a class in `priorities`, and run `make docs`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from romana_ovs.model.errors import PipelineError
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, ApplyMeter, Conjunction, Ct, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.cookies import Feature, cookie
from romana_ovs.pipeline.fields import FIELDS
from romana_ovs.pipeline.flow import Flow, canonical
from romana_ovs.policy.view import Origin

_L3 = frozenset({"eth_type", "nw_src", "nw_dst"})
_L3_ABOUT = frozenset({"ct_state", "ct_nw_src", "ct_nw_dst"})
"""Addresses of the connection that an ICMP error quotes."""
_PORTS = frozenset(
    {
        "eth_type",
        "nw_proto",
        "nw_frag",
        "tcp_src",
        "tcp_dst",
        "udp_src",
        "udp_dst",
        "sctp_src",
        "sctp_dst",
        "ct_state",
        "ct_nw_proto",
        "ct_tp_dst",
    }
)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its purpose, what its flows may match and write, where they may lead, and their priorities.

    `matches` and `writes` are field names (registers as `reg0`); `leads_to` are names of tables, reached by
    goto or out of conntrack. A packet that no flow takes is dropped.
    """

    name: str
    purpose: str
    matches: frozenset[str]
    writes: frozenset[str]
    leads_to: tuple[str, ...]
    priorities: type[IntEnum]


def _names(*names: str) -> frozenset[str]:
    return frozenset(names)


TABLES: tuple[Table, ...] = (
    Table(
        "SpoofGuard",
        "Accepts packets of a pod on its own port with its own address, of another node, or of the node itself.",
        _names("in_port", "eth_src", "vlan_tci", "tun_src", "eth_type", "nw_src", "arp_op"),
        _names("reg0", "reg1", "reg2", "reg3", "reg11", "reg14"),
        ("ArpSpoofGuard", "SourceMac", "DestinationMac"),
        priorities.SpoofGuard,
    ),
    Table(
        "SourceMac",
        "Drops frames of a pod that do not come from its MAC. Compares four bits at a time, to make few megaflows.",
        _names("eth_src", "reg0", "reg13"),
        _names("reg0", "reg13", "reg15"),
        ("SourceMac", "DestinationMac", "Compare"),
        priorities.SourceMac,
    ),
    Table(
        "DestinationMac",
        "Drops frames that are not for the next-hop MAC, likewise.",
        _names("eth_dst", "reg13"),
        _names("reg13"),
        ("DestinationMac", "Fragments"),
        priorities.DestinationMac,
    ),
    Table(
        "Fragments",
        "Meters the fragments of each pod, then those of each tenant: all pods share the room that conntrack has for "
        "unfinished datagrams.",
        _names("in_port", "eth_type", "nw_frag", "reg11", "reg13"),
        _names("reg13"),
        ("Fragments", "L3Forward"),
        priorities.Fragments,
    ),
    Table(
        "ArpSpoofGuard",
        "Drops ARP requests of a pod that do not come from its MAC and address. No request is flooded.",
        _names("in_port", "eth_type", "eth_src", "arp_op", "arp_spa", "arp_sha", "reg0"),
        _names("reg0", "reg13", "reg15"),
        ("ArpSelf", "Compare"),
        priorities.ArpSpoofGuard,
    ),
    Table(
        "ArpSelf",
        "Drops ARP requests for the sender's own address.",
        _names("eth_type", "arp_op", "reg0"),
        _names("reg0", "reg13", "reg15"),
        ("ArpResponder", "Compare"),
        priorities.ArpSelf,
    ),
    Table(
        "ArpResponder",
        "Answers every ARP request with the next-hop MAC.",
        _names("eth_type", "arp_op", "reg0"),
        _names("eth_src", "eth_dst", "arp_op", "arp_spa", "arp_tpa", "arp_sha", "arp_tha", "reg13"),
        (),
        priorities.ArpResponder,
    ),
    Table(
        "L3Forward",
        "Finds the way to the destination: outside, inside the address plan, or a single address that is not in this "
        "node's share of the plan.",
        _L3,
        _names("eth_src", "eth_dst", "reg0", "reg4", "reg5", "reg6", "reg11", "reg12", "reg13", "reg15"),
        ("L3ForwardNode", "ConntrackZone", "Compare"),
        priorities.L3Forward,
    ),
    Table(
        "L3ForwardNode",
        "Finds the node of an address of the plan, by the host bits.",
        _L3,
        _names("reg0", "reg11", "reg12"),
        ("L3ForwardLocal", "ConntrackZone"),
        priorities.L3ForwardNode,
    ),
    Table(
        "L3ForwardLocal",
        "Finds the local pod, or the node itself, with an address of this node's share of the plan.",
        _L3,
        _names("eth_src", "eth_dst", "reg0", "reg4", "reg5", "reg6", "reg11", "reg13", "reg15"),
        ("ConntrackZone", "Compare"),
        priorities.L3ForwardLocal,
    ),
    Table(
        "ConntrackZone",
        "Sends packets through the conntrack zone of their tenant; transit between uplinks passes unchanged.",
        _names("in_port", "eth_type", "nw_src", "nw_dst", "nw_proto", "reg0", "reg11"),
        _names("tun_dst", "reg0", "reg11"),
        ("ConntrackState", "ClientServer", "Output"),
        priorities.ConntrackZone,
    ),
    Table(
        "ConntrackState",
        "Sets the direction from the conntrack state and the sender's direction mark: original, reply or midstream.",
        _names(
            "eth_type",
            "nw_src",
            "nw_proto",
            "tcp_flags",
            "ct_state",
            "ct_label",
            "ct_nw_src",
            "ct_nw_dst",
            "reg0",
            "reg1",
        ),
        _names("reg0", "reg1", "reg13", "reg15"),
        ("ClientServer", "Compare"),
        priorities.ConntrackState,
    ),
    Table(
        "ClientServer",
        "Sets client and server of the connection, whichever of them sent this packet. Revalidates replies to local "
        "clients whose identity changed.",
        _names("eth_type", "nw_proto", "ct_mark", "reg0", "reg4"),
        _names(
            "eth_dst",
            "nw_src",
            "nw_dst",
            "tcp_src",
            "tcp_dst",
            "udp_src",
            "udp_dst",
            "sctp_src",
            "sctp_dst",
            "reg0",
            "reg1",
            "reg2",
            "reg3",
            "reg7",
            "reg8",
            "reg9",
            "reg10",
            "reg13",
        ),
        ("Egress", "L3Forward"),
        priorities.ClientServer,
    ),
    Table(
        "Egress",
        "On the client's node: decides egress rules with numeric ports and addresses, and defers others.",
        _L3 | _L3_ABOUT | _PORTS | _names("conj_id", "reg0", "reg1", "reg7", "reg8"),
        _names("reg0"),
        ("DeferredEgress", "ConntrackCommit", "ConntrackRevoke"),
        priorities.Egress,
    ),
    Table(
        "DeferredEgress",
        "On the server's node: decides the deferred egress rules, those with selectors or named ports.",
        _PORTS | _names("conj_id", "reg0", "reg7", "reg10"),
        _names("reg0"),
        ("Tenancy", "ConntrackCommit", "ConntrackRevoke"),
        priorities.DeferredEgress,
    ),
    Table(
        "Tenancy",
        "On the server's node: separates tenants, except from shared ones.",
        _L3 | _names("reg0", "reg7", "reg9"),
        frozenset(),
        ("Ingress", "ConntrackRevoke"),
        priorities.Tenancy,
    ),
    Table(
        "Ingress",
        "On the server's node: decides ingress rules or, without them, the isolation level.",
        _L3 | _L3_ABOUT | _PORTS | _names("conj_id", "reg0", "reg7", "reg10"),
        frozenset(),
        ("ConntrackCommit", "ConntrackRevoke"),
        priorities.Ingress,
    ),
    Table(
        "ConntrackCommit",
        "Commits an accepted connection with its client's identity, unless that is done.",
        _names("in_port", "eth_type", "nw_proto", "nw_frag", "ct_state", "ct_mark", "ct_label", "reg0", "reg7"),
        _names(
            "eth_dst",
            "nw_src",
            "nw_dst",
            "tcp_src",
            "tcp_dst",
            "reg0",
            "reg1",
            "reg2",
            "reg3",
            "reg13",
        ),
        ("ConntrackCommit", "Output", "L3Forward"),
        priorities.ConntrackCommit,
    ),
    Table(
        "ConntrackRevoke",
        "Clears the mark of a denied connection, so that its replies stop too.",
        _names("eth_type", "nw_proto", "nw_frag", "ct_state", "ct_label", "reg0"),
        _names("reg0"),
        ("ClientServer", "Output"),
        priorities.ConntrackRevoke,
    ),
    Table(
        "Output",
        "Sends packets out: to another node with identity and marks in the source MAC.",
        _names("ct_label", "reg0"),
        _names("eth_dst", "eth_src", "tun_dst"),
        (),
        priorities.Output,
    ),
    Table(
        "Compare",
        "Compares two registers bit by bit. Other tables resubmit to it.",
        _names("reg13", "reg15"),
        _names("reg0"),
        (),
        priorities.Compare,
    ),
)

TABLE: dict[str, Table] = {table.name: table for table in TABLES}
TABLE_IDS: dict[str, int] = {table.name: position for position, table in enumerate(TABLES)}

Condition = tuple[str, int, int] | tuple[str, int]


def flow(
    priority: IntEnum, match: Iterable[Condition], actions: Iterable[Action], *, feature: Feature, origin: Origin
) -> Flow:
    """The flow of the table that `priority` belongs to, its prerequisites filled in.

    Conditions are (field, value) or (field, value, mask); several on one field are joined.
    Raises PipelineError when the flow breaks the table's declaration.
    """
    table = _OF_PRIORITIES[type(priority)]
    listed = tuple(actions)
    conditions = _joined(table, match)
    _check_actions(table, listed)
    return Flow(
        table=table.name,
        priority=int(priority),
        match=canonical(conditions),
        actions=listed,
        cookie=cookie(feature, origin),
        origin=origin,
    )


_OF_PRIORITIES: dict[type[IntEnum], Table] = {table.priorities: table for table in TABLES}


def _joined(table: Table, match: Iterable[Condition]) -> dict[str, tuple[int, int]]:
    conditions: dict[str, tuple[int, int]] = {}
    for name, value, *rest in match:
        field = FIELDS[name]
        mask = rest[0] if rest else field.ones
        if name not in table.matches:
            raise PipelineError(f"table {table.name} does not match {name}")
        if value & ~mask or mask & ~field.ones or (mask != field.ones and not field.maskable):
            raise PipelineError(f"table {table.name}: {name}={value:#x}/{mask:#x} is not a valid match")
        _join(conditions, name, value, mask)
        for prerequisite, required in field.needs:
            _join(conditions, prerequisite, required, FIELDS[prerequisite].ones)
    return conditions


def _join(conditions: dict[str, tuple[int, int]], name: str, value: int, mask: int) -> None:
    old_value, old_mask = conditions.get(name, (0, 0))
    if (old_value ^ value) & old_mask & mask:
        raise PipelineError(f"a flow can never match {name}={value:#x}/{mask:#x} and {old_value:#x}/{old_mask:#x}")
    conditions[name] = (old_value | value, old_mask | mask)


def _check_actions(table: Table, actions: tuple[Action, ...]) -> None:
    kinds = {type(action) for action in actions}
    if Conjunction in kinds and len(kinds) > 1:
        raise PipelineError(f"table {table.name}: a conjunction clause has no other actions")
    for position, action in enumerate(actions):
        if isinstance(action, (Load, Move)):
            if action.to.field not in table.writes:
                raise PipelineError(f"table {table.name} does not write {action.to.field}")
            if isinstance(action, Load) and action.value >> action.to.width:
                raise PipelineError(f"table {table.name}: {action.value:#x} does not fit {action.to}")
            if isinstance(action, Move) and action.source.width != action.to.width:
                raise PipelineError(f"table {table.name}: {action.source} and {action.to} differ in width")
        target = action.table if isinstance(action, (Goto, Ct, Resubmit)) else None
        if target is not None and target not in table.leads_to:
            raise PipelineError(f"table {table.name} does not lead to {target}")
        if isinstance(action, Goto) and (
            position != len(actions) - 1 or TABLE_IDS[action.table] <= TABLE_IDS[table.name]
        ):
            raise PipelineError(f"table {table.name}: goto {action.table} must be last and go forward")
        if isinstance(action, ApplyMeter) and position:
            raise PipelineError(f"table {table.name}: a meter must come first")
