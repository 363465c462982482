"""Compiles the policy tables: Egress, DeferredEgress, Tenancy and Ingress."""

from __future__ import annotations

from enum import IntEnum
from functools import partial

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Goto
from romana_ovs.pipeline.compile.conditions import (
    BACKWARD,
    FORWARD,
    FROM_ELSEWHERE,
    FROM_GATEWAY,
    FROM_LOCAL,
    FROM_UPLINK,
    TO_ELSEWHERE,
    TO_GATEWAY,
    TO_LOCAL,
    TO_UPLINK,
    feature_origin,
    identified,
    load,
)
from romana_ovs.pipeline.compile.permissions import RuleTable, permissions
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    ACCEPTED,
    CLIENT_GROUP,
    CLIENT_ID,
    DEFERRED,
    EGRESS,
    OWN_NODE,
    SENDER_ID,
    SERVER_GROUP,
    SERVER_ID,
    UNSELECTED,
)
from romana_ovs.pipeline.tables import flow
from romana_ovs.policy.view import ClientGroup, Origin, ServerGroup, TenantAllow


def egress_base(plan: AddressPlan, host: int, tenantless: tuple[IdentityMatch, ...]) -> tuple[Flow, ...]:
    """Rows of Egress that belong to no group: decided elsewhere, the node itself, pods without tenant."""
    rank = priorities.Egress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node_net = plan.node_addresses()
    to_nodes = ("nw_dst", int(node_net.network_address), int(node_net.netmask))
    accepted = load(EGRESS, ACCEPTED)
    deny = [Goto("ConntrackRevoke")]
    return (
        row(rank.ELSEWHERE, [FORWARD, FROM_ELSEWHERE], [Goto("DeferredEgress")]),
        row(rank.ELSEWHERE, [BACKWARD, TO_ELSEWHERE], [Goto("DeferredEgress")]),
        row(rank.OWN_NODE, [FORWARD, OWN_NODE.match(1)], [accepted, Goto("ConntrackCommit")]),
        row(
            rank.OWN_NODE,
            [BACKWARD, FROM_GATEWAY, SENDER_ID.match(node_identity(host))],
            [Goto("ConntrackCommit")],
        ),
        *(row(rank.TENANTLESS, [identified(CLIENT_ID, block)], deny) for block in tenantless),
        row(rank.UNSELECTED, [CLIENT_GROUP.match(0)], [load(EGRESS, UNSELECTED), Goto("DeferredEgress")]),
        row(rank.NOT_A_POD, [FORWARD, TO_GATEWAY], deny),
        row(rank.NOT_A_POD, [FORWARD, TO_UPLINK, to_nodes], deny),
        row(rank.NOT_A_POD, [BACKWARD, FROM_GATEWAY], deny),
        row(rank.NOT_A_POD, [BACKWARD, FROM_UPLINK, identified(SENDER_ID, NOT_A_POD)], deny),
        row(rank.MISS, [], deny),
    )


def client_rows(group: ClientGroup, origin: Origin) -> tuple[Flow, ...]:
    """Rows of Egress for one client group."""
    rank = priorities.Egress
    table = RuleTable(
        allow=rank.ALLOW,
        conjunction=rank.CONJUNCTION,
        clause=rank.CLAUSE,
        base=(CLIENT_GROUP.match(group.number),),
        permitted=(load(EGRESS, ACCEPTED), Goto("DeferredEgress")),
        peer_address="nw_dst",
    )
    flows = permissions(table, group.accepted)
    if not group.deferred:
        return flows
    row = partial(flow, feature=Feature.POLICY, origin=origin)
    # A reply from another node passes if the server's node found that a deferred rule admits it. The client may have
    # got deferred rules since it last sent, and a server must not go on sending data unless one admits it.
    return (
        *flows,
        row(rank.DEFERRED, [*table.base, FROM_LOCAL], [load(EGRESS, DEFERRED), Goto("DeferredEgress")]),
        row(rank.DEFERRED, [*table.base, FROM_UPLINK, EGRESS.match(DEFERRED)], [Goto("DeferredEgress")]),
    )


def deferred_base(host: int) -> tuple[Flow, ...]:
    """Rows of DeferredEgress that belong to no group: servers elsewhere, the node's own probes, decided egress."""
    rank = priorities.DeferredEgress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node = CLIENT_ID.match(node_identity(host))
    accept = [Goto("ConntrackCommit")]
    return (
        row(rank.ELSEWHERE, [FORWARD, TO_ELSEWHERE], accept),
        row(rank.ELSEWHERE, [BACKWARD, FROM_ELSEWHERE], accept),
        row(rank.ELSEWHERE, [FORWARD, TO_LOCAL, FROM_GATEWAY, node], accept),
        row(rank.ELSEWHERE, [BACKWARD, FROM_LOCAL, TO_GATEWAY, node], accept),
        row(rank.DECIDED, [EGRESS.match(0, mask=1)], [Goto("Tenancy")]),
        row(rank.DECIDED, [EGRESS.match(UNSELECTED)], [Goto("Tenancy")]),
        row(rank.NOT_ADMITTED, [BACKWARD, TO_UPLINK], [load(EGRESS, UNSELECTED), Goto("Tenancy")]),
        row(rank.MISS, [], [Goto("ConntrackRevoke")]),
    )


def deferred_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """Rows of DeferredEgress for one server group: which clients with deferred rules may connect to it."""
    rank = priorities.DeferredEgress
    return permissions(
        _server_table(group, rank.ALLOW, rank.CONJUNCTION, rank.CLAUSE, "Tenancy"), group.deferred_egress
    )


def ingress_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """Rows of Ingress for one server group."""
    rank = priorities.Ingress
    return permissions(
        _server_table(group, rank.ALLOW, rank.CONJUNCTION, rank.CLAUSE, "ConntrackCommit"), group.ingress
    )


def _server_table(group: ServerGroup, allow: IntEnum, conjunction: IntEnum, clause: IntEnum, then: str) -> RuleTable:
    return RuleTable(
        allow=allow,
        conjunction=conjunction,
        clause=clause,
        base=(SERVER_GROUP.match(group.number),),
        permitted=(Goto(then),),
        peer_address="nw_src",
    )


def tenancy_rows(allows: tuple[TenantAllow, ...] | None, tenantless: tuple[IdentityMatch, ...]) -> tuple[Flow, ...]:
    """Rows of Tenancy; `allows` None: tenants are not separated. External clients have no tenant: Ingress follows."""
    rank = priorities.Tenancy
    row = partial(flow, feature=Feature.ISOLATION, origin=feature_origin("tenancy"))
    onward = [Goto("Ingress")]
    if allows is None:
        return (row(rank.ALLOW, [], onward),)
    rows = {
        item.key: item
        for item in (
            flow(
                rank.ALLOW,
                [
                    identified(SERVER_ID, entry.server),
                    *([identified(CLIENT_ID, entry.client)] if entry.client is not None else []),
                ],
                onward,
                feature=Feature.ISOLATION,
                origin=entry.origin,
            )
            for entry in allows
        )
    }
    return (
        *(row(rank.DENY, [identified(SERVER_ID, block)], [Goto("ConntrackRevoke")]) for block in tenantless),
        row(rank.OUTSIDE, [identified(CLIENT_ID, NOT_A_POD)], onward),
        *rows.values(),
        row(rank.MISS, [], [Goto("ConntrackRevoke")]),
    )


def ingress_base() -> tuple[Flow, ...]:
    """The row of Ingress that denies what no group admits."""
    return (
        flow(
            priorities.Ingress.MISS,
            [],
            [Goto("ConntrackRevoke")],
            feature=Feature.POLICY,
            origin=feature_origin("ingress"),
        ),
    )
