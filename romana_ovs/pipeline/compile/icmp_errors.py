"""Compiles rows of ConntrackState, ConntrackCommit and ConntrackRevoke for ICMP errors about connections.

An error is decided like a packet of its connection in the same direction, by the connection's own addresses and ports
(`permissions.ICMP_ERROR`); each node decides its own part. Conntrack relates an error to the packet that it quotes,
whoever sends it. So an error must also come from an end of its connection, or from where a router on the path would
send it. Between nodes both must see the same direction: an entry that only the sending node made, because the other
denied its packet, has the opposite direction there. Without this, two denied pods could communicate by ICMP errors
(docs/dataplane.md, "ICMP errors").
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from ipaddress import IPv4Address

from romana_ovs.model.identity import OUTSIDE, node_identity
from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Goto, Move
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.conditions import (
    FROM_GATEWAY,
    FROM_LOCAL,
    FROM_UPLINK,
    IP,
    TO_LOCAL,
    ct_state_match,
    feature_origin,
    load,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    CT_ACCEPTED,
    CT_CLIENT,
    CT_DESTINATION,
    CT_SOURCE,
    DEFERRED,
    DIFFERENT,
    DIRECTION,
    EGRESS,
    GATEWAY,
    LOCAL,
    ORIGINAL,
    PKT_SOURCE,
    RECEIVER_ID,
    RELATED,
    REPLY,
    SENDER_ID,
    UNSELECTED,
    UPLINK,
)
from romana_ovs.pipeline.tables import Condition, flow

_ERROR_BY_SERVER = (ct_state_match("+trk+rel+rpl-inv"), CT_ACCEPTED.match(1))
_ERROR_BY_CLIENT = (ct_state_match("+trk+rel-rpl-inv"), CT_ACCEPTED.match(1))
_COMPARE_CLIENT_ID = compare(RECEIVER_ID.bits, CT_CLIENT.bits)
"""Compares the client's present identity with the committed one, as for other replies."""


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("icmp errors"))


def _then_client_server(*actions: Action) -> tuple[Action, ...]:
    return (load(RELATED, 1), *actions, Goto("ClientServer"))


def error_rows() -> tuple[Flow, ...]:
    """Errors from local pods about their own connections, from other nodes (which checked the same), and from routers
    outside. All others are dropped.
    """
    priority, local, uplink, gateway = priorities.ConntrackState, FROM_LOCAL, FROM_UPLINK, FROM_GATEWAY
    sender, server, client = (Bits(name, 0, 32) for name in ("nw_src", "ct_nw_dst", "ct_nw_src"))
    committed = Move(CT_CLIENT.bits, SENDER_ID.bits)
    return (
        _row(
            priority.RELATED,
            [IP, local, *_ERROR_BY_SERVER],
            _then_client_server(load(DIRECTION, REPLY), *compare(sender, server)),
        ),
        _row(
            priority.RELATED,
            [IP, local, *_ERROR_BY_CLIENT],
            _then_client_server(load(DIRECTION, ORIGINAL), *compare(sender, client)),
        ),
        _row(priorities.ClientServer.FORGED, [RELATED.match(1), FROM_LOCAL, DIFFERENT.match(1)], []),
        _row(
            priority.RELATED,
            [uplink, DIRECTION.match(REPLY), *_ERROR_BY_SERVER, CT_DESTINATION.match(UPLINK)],
            _then_client_server(*_COMPARE_CLIENT_ID),
        ),
        _row(
            priority.RELATED,
            [uplink, DIRECTION.match(ORIGINAL), *_ERROR_BY_CLIENT, CT_SOURCE.match(UPLINK)],
            _then_client_server(),
        ),
        _row(
            priority.RELATED,
            [gateway, *_ERROR_BY_SERVER, CT_DESTINATION.match(GATEWAY)],
            _then_client_server(load(DIRECTION, REPLY)),
        ),
        _row(
            priority.RELATED,
            [gateway, *_ERROR_BY_CLIENT, CT_SOURCE.match(GATEWAY)],
            _then_client_server(committed, load(DIRECTION, ORIGINAL)),
        ),
        _row(priority.INVALID, [ct_state_match("+trk+rel-inv")], []),
        _row(priorities.ConntrackCommit.REPLY, [RELATED.match(1)], [Goto("Output")]),
        _row(priorities.ConntrackRevoke.RELATED, [IP, RELATED.match(1)], []),
    )


def node_errors(host: int, addresses: tuple[IPv4Address, ...]) -> tuple[Flow, ...]:
    """Errors that the node itself sends as the router of its pods, about any of their connections.

    Of a connection between two pods only the receiving pod's part is decided, as if the error came by an uplink. The
    other pod's node does not see the error.
    """
    priority, node = priorities.ConntrackState.RELATED_NODE, (FROM_GATEWAY, SENDER_ID.match(node_identity(host)))
    committed = Move(CT_CLIENT.bits, SENDER_ID.bits)
    reply, original = load(DIRECTION, REPLY), load(DIRECTION, ORIGINAL)
    to_own = tuple(
        _row(
            priorities.ConntrackState.RELATED_OWN,
            [*node, *_ERROR_BY_SERVER, CT_DESTINATION.match(GATEWAY), ("ct_nw_dst", int(address))],
            _then_client_server(reply),
        )
        for address in sorted(set(addresses))
    )
    rows = [
        _row(
            priority,
            [*node, *_ERROR_BY_SERVER, CT_DESTINATION.match(GATEWAY)],
            _then_client_server(load(SENDER_ID, OUTSIDE), reply),
        ),
        _row(priority, [*node, *_ERROR_BY_CLIENT, CT_SOURCE.match(GATEWAY)], _then_client_server(committed, original)),
    ]
    for side in (LOCAL, UPLINK):
        # The identity of any pod: the server's node has checked whether the server is a pod or a node.
        server = (committed, reply, load(PKT_SOURCE, UPLINK), load(EGRESS, DEFERRED), *_COMPARE_CLIENT_ID)
        client = (committed, original, load(PKT_SOURCE, UPLINK), load(EGRESS, UNSELECTED))
        rows += [
            _row(
                priority, [*node, *_ERROR_BY_SERVER, CT_DESTINATION.match(side), TO_LOCAL], _then_client_server(*server)
            ),
            _row(priority, [*node, *_ERROR_BY_CLIENT, CT_SOURCE.match(side), TO_LOCAL], _then_client_server(*client)),
        ]
    return (*to_own, *rows)
