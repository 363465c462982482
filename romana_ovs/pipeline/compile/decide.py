"""Who may reach whom: tables Egress, OpenEgress, Tenancy, Ingress, and the way out (Output)."""

from __future__ import annotations

from enum import IntEnum
from functools import partial

from romana_ovs.addressing.plan import Plan
from romana_ovs.model.identity import NOT_A_POD, IdentityMatch, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Bits, Goto, InPort, Load, Move, OutputBits
from romana_ovs.pipeline.compile.permissions import Place, permissions
from romana_ovs.pipeline.compile.words import (
    BACKWARD,
    FORWARD,
    FROM_ELSEWHERE,
    TO_ELSEWHERE,
    feature_origin,
    identified,
    load,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    ACCEPTED,
    ANSWERED,
    CLIENT_GROUP,
    CLIENT_ID,
    DIRECTION,
    EGRESS,
    EXIT,
    GATEWAY,
    LOCAL,
    OPEN,
    ORIGINAL,
    OUT_PORT,
    OWN_NODE,
    QUESTION,
    SENDER_ID,
    SERVER_GROUP,
    SERVER_ID,
    SIDE,
    TRUNK,
    TUNNEL,
    UNSELECTED,
    WIRE_ANSWERED,
    WIRE_DIRECTION,
    WIRE_EGRESS,
    WIRE_ID,
    WIRE_QUESTION,
    WIRE_REST,
    WIRE_REST_VALUE,
)
from romana_ovs.pipeline.tables import flow
from romana_ovs.policy.view import ClientGroup, Origin, ServerGroup, TenantPass


def egress_frame(plan: Plan, host: int, cut_off: tuple[IdentityMatch, ...]) -> tuple[Flow, ...]:
    """Egress apart from groups: decided elsewhere, the node itself, pods without tenant, nobody's."""
    rank = priorities.Egress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node_net = plan.node_addresses()
    to_nodes = ("nw_dst", int(node_net.network_address), int(node_net.netmask))
    accepted = load(EGRESS, ACCEPTED)
    refuse = [Goto("ConntrackRevoke")]
    return (
        row(rank.ELSEWHERE, [FORWARD, FROM_ELSEWHERE], [Goto("OpenEgress")]),
        row(rank.ELSEWHERE, [BACKWARD, TO_ELSEWHERE], [Goto("OpenEgress")]),
        row(rank.OWN_NODE, [FORWARD, OWN_NODE.match(1)], [accepted, Goto("ConntrackCommit")]),
        row(
            rank.OWN_NODE,
            [BACKWARD, SIDE.match(GATEWAY), SENDER_ID.match(node_identity(host))],
            [Goto("ConntrackCommit")],
        ),
        *(row(rank.CUT_OFF, [identified(CLIENT_ID, run)], refuse) for run in cut_off),
        row(rank.UNSELECTED, [CLIENT_GROUP.match(0)], [load(EGRESS, UNSELECTED), Goto("OpenEgress")]),
        row(rank.NOT_A_POD, [FORWARD, EXIT.match(GATEWAY)], refuse),
        row(rank.NOT_A_POD, [FORWARD, EXIT.match(TRUNK), to_nodes], refuse),
        row(rank.NOT_A_POD, [BACKWARD, SIDE.match(GATEWAY)], refuse),
        row(rank.NOT_A_POD, [BACKWARD, SIDE.match(TRUNK), identified(SENDER_ID, NOT_A_POD)], refuse),
        row(rank.MISS, [], refuse),
    )


def client_rows(group: ClientGroup, origin: Origin) -> tuple[Flow, ...]:
    """Egress of the local pods in one client group, as far as their own node decides it."""
    rank = priorities.Egress
    place = Place(
        allow=rank.ALLOW,
        conjunction=rank.CONJUNCTION,
        clause=rank.CLAUSE,
        base=(CLIENT_GROUP.match(group.number),),
        permitted=(load(EGRESS, ACCEPTED), Goto("OpenEgress")),
        peer_address="nw_dst",
    )
    flows = permissions(place, group.accepted)
    if not group.open:
        return flows
    row = partial(flow, feature=Feature.POLICY, origin=origin)
    # A reply from elsewhere passes when the server's node found that open egress rules admit it: the client may
    # have become open since it last sent, and a server must not go on pushing data until it sends again.
    return (
        *flows,
        row(rank.OPEN, [*place.base, SIDE.match(LOCAL)], [load(EGRESS, OPEN), Goto("OpenEgress")]),
        row(rank.OPEN, [*place.base, SIDE.match(TRUNK), EGRESS.match(OPEN)], [Goto("OpenEgress")]),
    )


def open_frame(host: int) -> tuple[Flow, ...]:
    """OpenEgress apart from groups: servers elsewhere, the node's own probes, egress decided already."""
    rank = priorities.OpenEgress
    row = partial(flow, feature=Feature.POLICY, origin=feature_origin("egress"))
    node = CLIENT_ID.match(node_identity(host))
    done = [Goto("ConntrackCommit")]
    return (
        row(rank.ELSEWHERE, [FORWARD, TO_ELSEWHERE], done),
        row(rank.ELSEWHERE, [BACKWARD, FROM_ELSEWHERE], done),
        row(rank.ELSEWHERE, [FORWARD, EXIT.match(LOCAL), SIDE.match(GATEWAY), node], done),
        row(rank.ELSEWHERE, [BACKWARD, SIDE.match(LOCAL), EXIT.match(GATEWAY), node], done),
        row(rank.DECIDED, [EGRESS.match(0, mask=1)], [Goto("Tenancy")]),
        row(rank.DECIDED, [EGRESS.match(UNSELECTED)], [Goto("Tenancy")]),
        row(rank.NOT_ADMITTED, [BACKWARD, EXIT.match(TRUNK)], [load(EGRESS, UNSELECTED), Goto("Tenancy")]),
        row(rank.MISS, [], [Goto("ConntrackRevoke")]),
    )


def open_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """What clients marked open may reach in one server group."""
    rank = priorities.OpenEgress
    return permissions(_server_place(group, rank.ALLOW, rank.CONJUNCTION, rank.CLAUSE, "Tenancy"), group.open_egress)


def ingress_rows(group: ServerGroup) -> tuple[Flow, ...]:
    """What one server group admits."""
    rank = priorities.Ingress
    return permissions(
        _server_place(group, rank.ALLOW, rank.CONJUNCTION, rank.CLAUSE, "ConntrackCommit"), group.ingress
    )


def _server_place(group: ServerGroup, allow: IntEnum, conjunction: IntEnum, clause: IntEnum, then: str) -> Place:
    return Place(
        allow=allow,
        conjunction=conjunction,
        clause=clause,
        base=(SERVER_GROUP.match(group.number),),
        permitted=(Goto(then),),
        peer_address="nw_src",
    )


def tenancy_rows(passes: tuple[TenantPass, ...] | None, cut_off: tuple[IdentityMatch, ...]) -> tuple[Flow, ...]:
    """Which tenants' pods may be considered by which; outsiders have no tenant and pass on to ingress."""
    rank = priorities.Tenancy
    row = partial(flow, feature=Feature.ISOLATION, origin=feature_origin("tenancy"))
    onward = [Goto("Ingress")]
    if passes is None:
        return (row(rank.PASS, [], onward),)
    rows = {
        item.key: item
        for item in (
            flow(
                rank.PASS,
                [
                    identified(SERVER_ID, entry.server),
                    *([identified(CLIENT_ID, entry.client)] if entry.client is not None else []),
                ],
                onward,
                feature=Feature.ISOLATION,
                origin=entry.origin,
            )
            for entry in passes
        )
    }
    return (
        *(row(rank.REFUSED, [identified(SERVER_ID, run)], [Goto("ConntrackRevoke")]) for run in cut_off),
        row(rank.OUTSIDE, [identified(CLIENT_ID, NOT_A_POD)], onward),
        *rows.values(),
        row(rank.MISS, [], [Goto("ConntrackRevoke")]),
    )


def ingress_frame() -> tuple[Flow, ...]:
    """What nothing admits is refused."""
    return (
        flow(
            priorities.Ingress.MISS,
            [],
            [Goto("ConntrackRevoke")],
            feature=Feature.POLICY,
            origin=feature_origin("ingress"),
        ),
    )


def deliveries() -> tuple[Flow, ...]:
    """Out of the port; onto a trunk with the sender's identity and the marks in the source MAC."""
    row = partial(flow, feature=Feature.DELIVERY, origin=feature_origin("delivery"))
    out = OutputBits(OUT_PORT.bits)
    wire = (
        Load(WIRE_REST, WIRE_REST_VALUE),
        Move(EGRESS.bits, WIRE_EGRESS),
        Move(DIRECTION.bits, WIRE_DIRECTION),
        Move(QUESTION.bits, WIRE_QUESTION),
        Move(ANSWERED.bits, WIRE_ANSWERED),
        Move(SENDER_ID.bits, WIRE_ID),
        Move(TUNNEL.bits, Bits("tun_dst", 0, 32)),
    )
    rank = priorities.Output
    return (
        row(rank.QUESTION, [QUESTION.match(1), EXIT.match(LOCAL)], []),
        row(rank.QUESTION, [QUESTION.match(1), EXIT.match(GATEWAY)], []),
        # What a reply was made into goes back by the trunk that it came by, where no other output would send it.
        row(rank.QUESTION, [QUESTION.match(1), DIRECTION.match(ORIGINAL), EXIT.match(TRUNK)], [*wire, InPort()]),
        row(rank.QUESTION, [ANSWERED.match(1), SIDE.match(LOCAL), EXIT.match(TRUNK)], [*wire, InPort()]),
        row(rank.OUT, [EXIT.match(LOCAL)], [out]),
        row(rank.OUT, [EXIT.match(GATEWAY)], [out]),
        row(rank.OUT, [EXIT.match(TRUNK)], [*wire, out]),
    )
