"""Compiles the policy tables: Egress, DeferredEgress, Tenancy and Ingress."""

from __future__ import annotations

from functools import partial

from romana_ovs.addressing.plan import AddressPlan
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Goto
from romana_ovs.pipeline.compile.conditions import (
    FROM_CLIENT,
    FROM_ELSEWHERE,
    FROM_GATEWAY,
    FROM_LOCAL,
    FROM_SERVER,
    FROM_UPLINK,
    TO_ELSEWHERE,
    TO_GATEWAY,
    TO_LOCAL,
    TO_UPLINK,
    feature_origin,
    identified,
    load,
)
from romana_ovs.pipeline.compile.permissions import RuleTable, permission_flows
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
    priority = priorities.Egress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node_net = plan.node_addresses()
    to_nodes = ("nw_dst", int(node_net.network_address), int(node_net.netmask))
    accepted = load(EGRESS, ACCEPTED)
    deny = [Goto("ConntrackRevoke")]
    return (
        row(priority.ELSEWHERE, [FROM_CLIENT, FROM_ELSEWHERE], [Goto("DeferredEgress")]),
        row(priority.ELSEWHERE, [FROM_SERVER, TO_ELSEWHERE], [Goto("DeferredEgress")]),
        row(priority.OWN_NODE, [FROM_CLIENT, OWN_NODE.match(1)], [accepted, Goto("ConntrackCommit")]),
        row(
            priority.OWN_NODE,
            [FROM_SERVER, FROM_GATEWAY, SENDER_ID.match(node_identity(host))],
            [Goto("ConntrackCommit")],
        ),
        *(row(priority.TENANTLESS, [identified(CLIENT_ID, block)], deny) for block in tenantless),
        row(priority.UNSELECTED, [CLIENT_GROUP.match(0)], [load(EGRESS, UNSELECTED), Goto("DeferredEgress")]),
        row(priority.NOT_A_POD, [FROM_CLIENT, TO_GATEWAY], deny),
        row(priority.NOT_A_POD, [FROM_CLIENT, TO_UPLINK, to_nodes], deny),
        row(priority.NOT_A_POD, [FROM_SERVER, FROM_GATEWAY], deny),
        row(priority.NOT_A_POD, [FROM_SERVER, FROM_UPLINK, identified(SENDER_ID, NOT_A_POD)], deny),
        row(priority.MISS, [], deny),
    )


def client_rows(group: ClientGroup, origin: Origin) -> tuple[Flow, ...]:
    """Rows of Egress for one client group."""
    priority = priorities.Egress
    table = RuleTable(
        table="Egress",
        allow=priority.ALLOW,
        conjunction=priority.CONJUNCTION,
        clause=priority.CLAUSE,
        base=(CLIENT_GROUP.match(group.number),),
        permitted=(load(EGRESS, ACCEPTED), Goto("DeferredEgress")),
        peer_address="nw_dst",
    )
    flows = permission_flows(table, group.local_egress)
    if not group.deferred:
        return flows
    row = partial(flow, feature=Feature.POLICY, origin=origin)
    # A reply from another node passes if the server's node found that a deferred rule admits it. The client may have
    # got deferred rules since it last sent, and a server must not go on sending data unless one admits it.
    return (
        *flows,
        row(priority.DEFERRED, [*table.base, FROM_LOCAL], [load(EGRESS, DEFERRED), Goto("DeferredEgress")]),
        row(priority.DEFERRED, [*table.base, FROM_UPLINK, EGRESS.match(DEFERRED)], [Goto("DeferredEgress")]),
    )


def deferred_base(host: int) -> tuple[Flow, ...]:
    """Rows of DeferredEgress that belong to no group: servers elsewhere, the node's own probes, decided egress."""
    priority = priorities.DeferredEgress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node = CLIENT_ID.match(node_identity(host))
    accept = [Goto("ConntrackCommit")]
    return (
        row(priority.ELSEWHERE, [FROM_CLIENT, TO_ELSEWHERE], accept),
        row(priority.ELSEWHERE, [FROM_SERVER, FROM_ELSEWHERE], accept),
        row(priority.ELSEWHERE, [FROM_CLIENT, TO_LOCAL, FROM_GATEWAY, node], accept),
        row(priority.ELSEWHERE, [FROM_SERVER, FROM_LOCAL, TO_GATEWAY, node], accept),
        row(priority.DECIDED, [EGRESS.match(0, mask=1)], [Goto("Tenancy")]),
        row(priority.DECIDED, [EGRESS.match(UNSELECTED)], [Goto("Tenancy")]),
        row(priority.NOT_ADMITTED, [FROM_SERVER, TO_UPLINK], [load(EGRESS, UNSELECTED), Goto("Tenancy")]),
        row(priority.MISS, [], [Goto("ConntrackRevoke")]),
    )


def deferred_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """Rows of DeferredEgress for one server group: which clients with deferred rules may connect to it."""
    priority = priorities.DeferredEgress
    return permission_flows(
        RuleTable(
            table="DeferredEgress",
            allow=priority.ALLOW,
            conjunction=priority.CONJUNCTION,
            clause=priority.CLAUSE,
            base=(SERVER_GROUP.match(group.number),),
            permitted=(Goto("Tenancy"),),
            peer_address="nw_src",
        ),
        group.deferred_egress,
    )


def ingress_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """Rows of Ingress for one server group."""
    priority = priorities.Ingress
    return permission_flows(
        RuleTable(
            table="Ingress",
            allow=priority.ALLOW,
            conjunction=priority.CONJUNCTION,
            clause=priority.CLAUSE,
            base=(SERVER_GROUP.match(group.number),),
            permitted=(Goto("ConntrackCommit"),),
            peer_address="nw_src",
        ),
        group.ingress,
    )


def tenancy_rows(allows: tuple[TenantAllow, ...] | None, tenantless: tuple[IdentityMatch, ...]) -> tuple[Flow, ...]:
    """Rows of Tenancy; `allows` None: tenants are not separated. External clients have no tenant: Ingress follows."""
    priority = priorities.Tenancy
    row = partial(flow, feature=Feature.ISOLATION, origin=feature_origin("tenancy"))
    onward = [Goto("Ingress")]
    if allows is None:
        return (row(priority.ALLOW, [], onward),)
    rows = {
        item.key: item
        for item in (
            flow(
                priority.ALLOW,
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
        *(row(priority.DENY, [identified(SERVER_ID, block)], [Goto("ConntrackRevoke")]) for block in tenantless),
        row(priority.OUTSIDE, [identified(CLIENT_ID, NOT_A_POD)], onward),
        *rows.values(),
        row(priority.MISS, [], [Goto("ConntrackRevoke")]),
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
