"""Compiles rows of ClientServer for replies to a local client whose identity has changed.

D, the server's node, decides replies by the identity that the client had when it last sent. S, the client's node, knows
both that identity, from its conntrack entry, and the current one. If they differ, S must inform D. Otherwise a server
could continue to send to a client that was relabelled and never sends again, and could not continue to send to a client
with a new class. So S returns such a datagram to D with source and destination swapped, as a packet of the client
(`REVALIDATION`): it passes the tables of S and D like any packet of the client, both bridges commit the client's
current identity, and no pod receives it. The datagram itself is lost; from a round trip later, D decides correctly.
- Only replies are returned, and the returned packet is an original, so no revalidation packet causes a further one.
- TCP is delivered: the client acknowledges within a round trip, by a packet with its current identity. A swapped
  segment would fit no TCP window. SCTP likewise.
- ICMP is dropped until the client's next request.
- D sends TCP and UDP replies that it denies to S as revalidation packets too (table ConntrackRevoke), as it may have
  decided by an old identity. If the identity did change, S handles them like other replies; if not, Output drops them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, CtClear, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.compile.conditions import FROM_SERVER, FROM_UPLINK, IP, TO_LOCAL, feature_origin, load, swapped
from romana_ovs.pipeline.compile.conntrack import TO_CLIENT
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ICMP, SCTP, TCP, UDP
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    DEFERRED,
    DIFFERENT,
    EGRESS,
    LOCAL,
    MARKS,
    NEXT_HOP_MAC,
    PKT_SOURCE,
    RECEIVER_CLIENT_GROUP,
    RECEIVER_ID,
    RECEIVER_SERVER_GROUP,
    REVALIDATION,
    SENDER_CLIENT_GROUP,
    SENDER_ID,
    SENDER_SERVER_GROUP,
)
from romana_ovs.pipeline.tables import Condition, flow

_REPLY = (FROM_SERVER, FROM_UPLINK, TO_LOCAL)
_ICMP: Condition = ("nw_proto", ICMP)
_TCP: Condition = ("nw_proto", TCP)
_UDP: Condition = ("nw_proto", UDP)
_SCTP: Condition = ("nw_proto", SCTP)


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("revalidation"))


ADDRESSES = swapped(Bits("nw_src", 0, 32), Bits("nw_dst", 0, 32))
UDP_ENDS = (*ADDRESSES, *swapped(Bits("udp_src", 0, 16), Bits("udp_dst", 0, 16)))
_SCTP_ENDS = (*ADDRESSES, *swapped(Bits("sctp_src", 0, 16), Bits("sctp_dst", 0, 16)))
TO_NEXT_HOP = Load(Bits("eth_dst", 0, 48), NEXT_HOP_MAC)
REVALIDATE = (
    TO_NEXT_HOP,
    Move(RECEIVER_ID.bits, SENDER_ID.bits),
    Move(RECEIVER_CLIENT_GROUP.bits, SENDER_CLIENT_GROUP.bits),
    Move(RECEIVER_SERVER_GROUP.bits, SENDER_SERVER_GROUP.bits),
    Load(MARKS, LOCAL << PKT_SOURCE.bits.low | 1 << REVALIDATION.bits.low),
    # Without this, conntrack would not look up the swapped packet again.
    CtClear(),
    Resubmit("L3Forward"),
)


def changed_clients() -> tuple[Flow, ...]:
    """Replies to a client by whether its identity is the committed one."""
    priority = priorities.ClientServer
    # The server's node will apply deferred rules to the client's present identity when the client answers.
    deliver = (load(REVALIDATION, 0), load(EGRESS, DEFERRED), *TO_CLIENT, Goto("Egress"))
    return (
        _row(priority.SAME_ID, [*_REPLY, DIFFERENT.match(0)], [*TO_CLIENT, Goto("Egress")]),
        _row(priority.CHANGED_ID, [IP, _TCP, *_REPLY], deliver),
        _row(priority.CHANGED_ID, [IP, _SCTP, *_REPLY], deliver),
        _row(priority.CHANGED_ID, [IP, _ICMP, *_REPLY], []),
        _row(priority.CHANGED_ID, [IP, _UDP, *_REPLY], [*UDP_ENDS, *REVALIDATE]),
        _row(priority.CHANGED_ID_OTHER, [IP, *_REPLY], [*ADDRESSES, *REVALIDATE]),
    )


def previous_ids(pairs: Iterable[tuple[int, int]]) -> tuple[Flow, ...]:
    """Replies to clients with a previous identity that no rule in force distinguishes from the present one.

    They are delivered, as the decision is still right, and revalidated before new rules come into force that do
    distinguish. `pairs` are (present identity, previous identity).
    """
    priority = priorities.ClientServer
    decide: tuple[Action, ...] = (*TO_CLIENT, Resubmit("Egress"))
    onward: tuple[Action, ...] = (*TO_CLIENT, Goto("Egress"))
    rows: list[Flow] = []
    for identity, previous in sorted(pairs):
        here = (*_REPLY, REVALIDATION.match(0), RECEIVER_ID.match(identity), ("ct_mark", previous))
        rows += [
            _row(priority.PREVIOUS_ID, [IP, _UDP, *here], [*decide, *UDP_ENDS, *REVALIDATE]),
            _row(priority.PREVIOUS_ID, [IP, _SCTP, *here], [*decide, *_SCTP_ENDS, *REVALIDATE]),
            _row(priority.PREVIOUS_ID, [IP, _TCP, *here], onward),
            _row(priority.PREVIOUS_ID, [IP, _ICMP, *here], onward),
            _row(priority.PREVIOUS_ID_OTHER, [IP, *here], [*decide, *ADDRESSES, *REVALIDATE]),
        ]
    return tuple(rows)
