"""Replies from another node to a client that is no longer what that node takes it for: rows of table ClientServer.

D, the server's node, judges replies by the client's identity as of the client's last packet. The client's own node S
has both: the identity that its entry remembers, which went to D with that packet, and the present one. Where they
differ, D has to be told, or a server could go on pushing to a client that was relabelled and never sends again, and
could not go on pushing to one that a rule has come to tell from others. So S turns such a datagram round, as if the
client had sent it: it passes the tables of S and D as any packet of the client's would and both bridges remember the
client as it is now, but no pod ever sees it (`QUESTION`). The datagram itself is lost; those a round trip later are
judged right.
- Only replies are turned round and a turned one goes forward, so no question makes another.
- TCP is passed on: the client acknowledges within a round trip, and that is a packet with its present identity. A
  segment turned round would fit no window. SCTP likewise.
- ICMP is dropped until the client asks again: an answer without a request is nothing that has to go on.
- What D refuses of TCP and UDP comes to S as a question too (table ConntrackRevoke), since D may have judged by what
  the client no longer is. If so, the same happens as with other replies; if not, table Output drops it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, CtClear, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.compile.track import TO_CLIENT
from romana_ovs.pipeline.compile.words import BACKWARD, IP, feature_origin, load, swapped
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ICMP, SCTP, TCP, UDP
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.registers import (
    DIFFERENT,
    EGRESS,
    EXIT,
    LOCAL,
    MARKS,
    NEXT_HOP_MAC,
    OPEN,
    QUESTION,
    RECEIVER_CLIENT,
    RECEIVER_ID,
    RECEIVER_SERVER,
    SENDER_CLIENT,
    SENDER_ID,
    SENDER_SERVER,
    SIDE,
    TRUNK,
)
from romana_ovs.pipeline.tables import Condition, flow

_REPLY = (BACKWARD, SIDE.match(TRUNK), EXIT.match(LOCAL))
_ICMP: Condition = ("nw_proto", ICMP)
_TCP: Condition = ("nw_proto", TCP)
_UDP: Condition = ("nw_proto", UDP)
_SCTP: Condition = ("nw_proto", SCTP)


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("stale"))


ADDRESSES = swapped(Bits("nw_src", 0, 32), Bits("nw_dst", 0, 32))
UDP_ENDS = (*ADDRESSES, *swapped(Bits("udp_src", 0, 16), Bits("udp_dst", 0, 16)))
_SCTP_ENDS = (*ADDRESSES, *swapped(Bits("sctp_src", 0, 16), Bits("sctp_dst", 0, 16)))
TO_NEXT_HOP = Load(Bits("eth_dst", 0, 48), NEXT_HOP_MAC)
ASK = (
    TO_NEXT_HOP,
    Move(RECEIVER_ID.bits, SENDER_ID.bits),
    Move(RECEIVER_CLIENT.bits, SENDER_CLIENT.bits),
    Move(RECEIVER_SERVER.bits, SENDER_SERVER.bits),
    Load(MARKS, LOCAL << SIDE.bits.low | 1 << QUESTION.bits.low),
    # Conntrack would take the packet for the one that it has seen already.
    CtClear(),
    Resubmit("L3Forward"),
)


def stale() -> tuple[Flow, ...]:
    """Replies to a client that has the identity it is remembered with, and what becomes of the others."""
    rank = priorities.ClientServer
    # What open egress rules say of the client as it is now, the server's node will tell when the client answers.
    passed = (load(QUESTION, 0), load(EGRESS, OPEN), *TO_CLIENT, Goto("Egress"))
    return (
        _row(rank.KNOWN, [*_REPLY, DIFFERENT.match(0)], [*TO_CLIENT, Goto("Egress")]),
        _row(rank.STALE, [IP, _TCP, *_REPLY], passed),
        _row(rank.STALE, [IP, _SCTP, *_REPLY], passed),
        _row(rank.STALE, [IP, _ICMP, *_REPLY], []),
        _row(rank.STALE, [IP, _UDP, *_REPLY], [*UDP_ENDS, *ASK]),
        _row(rank.STALE_OTHER, [IP, *_REPLY], [*ADDRESSES, *ASK]),
    )


def former_receivers(pairs: Iterable[tuple[int, int]]) -> tuple[Flow, ...]:
    """The same for (identity, former one) that the rules in force do not tell apart: right now, but not for long.

    So D is asked as well, before rules come into force that do.
    """
    rank = priorities.ClientServer
    judge: tuple[Action, ...] = (*TO_CLIENT, Resubmit("Egress"))
    onward: tuple[Action, ...] = (*TO_CLIENT, Goto("Egress"))
    rows: list[Flow] = []
    for identity, number in sorted(pairs):
        here = (*_REPLY, QUESTION.match(0), RECEIVER_ID.match(identity), ("ct_mark", number))
        rows += [
            _row(rank.FORMER, [IP, _UDP, *here], [*judge, *UDP_ENDS, *ASK]),
            _row(rank.FORMER, [IP, _SCTP, *here], [*judge, *_SCTP_ENDS, *ASK]),
            _row(rank.FORMER, [IP, _TCP, *here], onward),
            _row(rank.FORMER, [IP, _ICMP, *here], onward),
            _row(rank.FORMER_OTHER, [IP, *here], [*judge, *ADDRESSES, *ASK]),
        ]
    return tuple(rows)
