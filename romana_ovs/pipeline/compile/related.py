"""ICMP errors about connections: rows of tables ConntrackState, ConntrackCommit and ConntrackRevoke.

An error is judged exactly as a packet of its connection in the same direction would be, now, and by the connection's
own addresses and ports (`permissions.ABOUT`): each node decides its own part. Conntrack relates an error to whatever it
quotes, whoever sends it, so it is also held to come from an end of its connection, or from where a router on the way
would send it. Between nodes both must take it for the same direction: an entry that only the sending node made, of
what the other refused, says the opposite there (docs/dataplane.md, "ICMP errors": two refused pods talked that way).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address

from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Goto, Move
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.words import IP, feature_origin, load, state
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    CT_ACCEPTED,
    CT_CLIENT,
    CT_EXIT,
    CT_SIDE,
    DIFFERENT,
    DIRECTION,
    EGRESS,
    EXIT,
    GATEWAY,
    LOCAL,
    OPEN,
    ORIGINAL,
    RECEIVER_ID,
    RELATED,
    REPLY,
    SENDER_ID,
    SIDE,
    TRUNK,
    UNSELECTED,
)
from romana_ovs.pipeline.tables import Condition, flow

_FROM_SERVER = (state("+trk+rel+rpl-inv"), CT_ACCEPTED.match(1))
_FROM_CLIENT = (state("+trk+rel-rpl-inv"), CT_ACCEPTED.match(1))
_CURRENT = compare(RECEIVER_ID.bits, CT_CLIENT.bits)
"""Whether the client has the identity that its connection is remembered with, as for other replies."""


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("icmp errors"))


def _judged(*actions: Action) -> tuple[Action, ...]:
    return (load(RELATED, 1), *actions, Goto("ClientServer"))


def error_frame() -> tuple[Flow, ...]:
    """Errors from pods here, about connections of their own; from other nodes, which held them to the same; from
    routers outside. All others are dropped.
    """
    rank, local, trunk, gateway = priorities.ConntrackState, SIDE.match(LOCAL), SIDE.match(TRUNK), SIDE.match(GATEWAY)
    sender, server, client = (Bits(name, 0, 32) for name in ("nw_src", "ct_nw_dst", "ct_nw_src"))
    remembered = Move(CT_CLIENT.bits, SENDER_ID.bits)
    return (
        _row(rank.RELATED, [IP, local, *_FROM_SERVER], _judged(load(DIRECTION, REPLY), *compare(sender, server))),
        _row(rank.RELATED, [IP, local, *_FROM_CLIENT], _judged(load(DIRECTION, ORIGINAL), *compare(sender, client))),
        _row(priorities.ClientServer.FORGED, [RELATED.match(1), SIDE.match(LOCAL), DIFFERENT.match(1)], []),
        _row(rank.RELATED, [trunk, DIRECTION.match(REPLY), *_FROM_SERVER, CT_EXIT.match(TRUNK)], _judged(*_CURRENT)),
        _row(rank.RELATED, [trunk, DIRECTION.match(ORIGINAL), *_FROM_CLIENT, CT_SIDE.match(TRUNK)], _judged()),
        _row(rank.RELATED, [gateway, *_FROM_SERVER, CT_EXIT.match(GATEWAY)], _judged(load(DIRECTION, REPLY))),
        _row(
            rank.RELATED,
            [gateway, *_FROM_CLIENT, CT_SIDE.match(GATEWAY)],
            _judged(remembered, load(DIRECTION, ORIGINAL)),
        ),
        _row(rank.INVALID, [state("+trk+rel-inv")], []),
        _row(priorities.ConntrackCommit.REPLY, [RELATED.match(1)], [Goto("Output")]),
        _row(priorities.ConntrackRevoke.RELATED, [IP, RELATED.match(1)], []),
    )


def node_errors(host: int, addresses: tuple[IPv4Address, ...]) -> tuple[Flow, ...]:
    """Errors that the node itself sends, as a router of its pods: about any connection of theirs.

    Of a connection between two pods only the part of the pod that hears of it is judged, as if the error came by a
    trunk: the node is on no other side of it, and what the other pod's node has to say is not asked.
    """
    rank, node = priorities.ConntrackState.RELATED_NODE, (SIDE.match(GATEWAY), SENDER_ID.match(node_identity(host)))
    remembered = Move(CT_CLIENT.bits, SENDER_ID.bits)
    reply, original = load(DIRECTION, REPLY), load(DIRECTION, ORIGINAL)
    to_own = tuple(
        _row(
            priorities.ConntrackState.RELATED_OWN,
            [*node, *_FROM_SERVER, CT_EXIT.match(GATEWAY), ("ct_nw_dst", int(address))],
            _judged(reply),
        )
        for address in sorted(set(addresses))
    )
    rows = [
        _row(rank, [*node, *_FROM_SERVER, CT_EXIT.match(GATEWAY)], _judged(load(SENDER_ID, OUTSIDE), reply)),
        _row(rank, [*node, *_FROM_CLIENT, CT_SIDE.match(GATEWAY)], _judged(remembered, original)),
    ]
    for side in (LOCAL, TRUNK):
        # Some pod's identity: whether the server is a pod or another node, that node has seen to.
        server = (remembered, reply, load(SIDE, TRUNK), load(EGRESS, OPEN), *_CURRENT)
        client = (remembered, original, load(SIDE, TRUNK), load(EGRESS, UNSELECTED))
        rows += [
            _row(rank, [*node, *_FROM_SERVER, CT_EXIT.match(side), EXIT.match(LOCAL)], _judged(*server)),
            _row(rank, [*node, *_FROM_CLIENT, CT_SIDE.match(side), EXIT.match(LOCAL)], _judged(*client)),
        ]
    return (*to_own, *rows)
