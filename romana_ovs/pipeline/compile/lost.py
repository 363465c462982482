"""Connections that a bridge has lost, with a restart of Open vSwitch's userspace datapath: rows of several tables.

What goes on afterwards is judged by today's policy before it is delivered, on both nodes, each its part. Only pods that
were there before (*survivors*) may go on, and only for a while (`controller.ports`); only TCP without SYN does.
- Both ends here, or one here and one outside: a segment passes if policy admits it as a packet of its client, which
  makes an entry, or else as a reply, which makes none (the other end's next segment will).
- Between nodes the sender's node marks it an orphan, with what its own egress says; with the question's mark where that
  refuses it, so that it is a reply at most. The other node, if it lost its connections too, decides it as a packet of
  a client. Where that is refused, and where an entry says that it is a reply, it becomes a *question*: the segment
  goes back to the sender's node with its ends swapped, as its client would send it. That node judges it as the
  client's and sends it back as an *answered* reply, which the client's node judges and delivers. Questions and
  answers do not pass conntrack: a swapped segment fits no window.
- An entry that an orphan makes is *loose*: which end is the client is a guess. It leaves as an orphan still, and what
  contradicts it turns it round; a reply from the other node's own entry confirms it.
- Nothing else goes on: UDP, ICMP, SCTP and other protocols wait for the client. Asking for it would make a connection
  that it never opened: its address may have been another pod's when the server began to push.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Bits, Ct, CtClear, Goto, Load, Move, Resubmit, ThroughMeter
from romana_ovs.pipeline.compile.stale import ADDRESSES, TO_NEXT_HOP
from romana_ovs.pipeline.compile.track import REMEMBERED, TO_CLIENT
from romana_ovs.pipeline.compile.words import (
    BACKWARD,
    FORWARD,
    IP,
    TO_ELSEWHERE,
    feature_origin,
    flags,
    load,
    state,
    swapped,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import TCP
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.registers import (
    ANSWERED,
    CT_ACCEPTED,
    CT_EXIT,
    CT_LOOSE,
    DIRECTION,
    EGRESS,
    EXIT,
    FORCE,
    GATEWAY,
    LOCAL,
    LOST,
    MARKS,
    OPEN,
    ORIGINAL,
    ORPHAN,
    QUESTION,
    RECEIVER_CLIENT,
    RECEIVER_ID,
    RECEIVER_SERVER,
    REPLY,
    SENDER_CLIENT,
    SENDER_ID,
    SENDER_SERVER,
    SENDER_SURVIVOR,
    SIDE,
    SURVIVOR,
    TRUNK,
    UNSELECTED,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow

_HERE = (LOCAL, GATEWAY)
_IS_TCP: tuple[Condition, ...] = (IP, ("nw_proto", TCP))
_GOING_ON: tuple[Condition, ...] = (*_IS_TCP, flags("-syn"))
"""Not what opens a connection, nor the answer to that: who opens one tries again, and then there is an entry."""
_TCP_ENDS = (*ADDRESSES, *swapped(Bits("tcp_src", 0, 16), Bits("tcp_dst", 0, 16)))
_AS_RECEIVER = (
    Move(RECEIVER_ID.bits, SENDER_ID.bits),
    Move(RECEIVER_CLIENT.bits, SENDER_CLIENT.bits),
    Move(RECEIVER_SERVER.bits, SENDER_SERVER.bits),
)


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("lost connections"))


def lost() -> tuple[Flow, ...]:
    """Every row but those of single pods."""
    return (*_questions(), *_leaving(), *_arriving(), *_roles(), *_commits(), *_refusals())


def _questions() -> tuple[Flow, ...]:
    """TCP questions and their answers bypass conntrack; table ConntrackCommit answers admitted questions."""
    question = (*_IS_TCP, QUESTION.match(1))
    track, commit = priorities.ConntrackZone.QUESTION, priorities.ConntrackCommit
    return (
        _row(track, [*question, SIDE.match(LOCAL)], [load(DIRECTION, ORIGINAL), Goto("ClientServer")]),
        _row(track, [*question, SIDE.match(TRUNK), DIRECTION.match(ORIGINAL)], [Goto("ClientServer")]),
        _row(track, [*_IS_TCP, ANSWERED.match(1), SIDE.match(LOCAL)], [Goto("Output")]),
        _row(commit.QUESTION, [*question, FORWARD, SIDE.match(LOCAL)], [Goto("Output")]),
        _row(commit.QUESTION, [*question, FORWARD, SIDE.match(TRUNK)], _answer(UNSELECTED)),
        _row(commit.QUESTION_OPEN, [*question, FORWARD, SIDE.match(TRUNK), EGRESS.match(OPEN)], _answer(OPEN)),
    )


def _answer(egress: int) -> tuple[Action, ...]:
    """The segment as its server sent it; `egress` tells the client's node whether open egress admits it."""
    marks = LOCAL << SIDE.bits.low | REPLY << DIRECTION.bits.low | egress << EGRESS.bits.low | 1 << ANSWERED.bits.low
    return (*_TCP_ENDS, TO_NEXT_HOP, *_AS_RECEIVER, Load(MARKS, marks), Resubmit("L3Forward"))


def _leaving() -> tuple[Flow, ...]:
    """From a survivor here, or the node."""
    rank, survivor = priorities.ConntrackState.LOST, SENDER_SURVIVOR.match(1)
    rows = []
    for side in _HERE:
        sent = (*_GOING_ON, SIDE.match(side))
        orphan = (load(DIRECTION, ORPHAN), load(LOST, 1), Goto("ClientServer"))
        loose = (state("+trk+est-rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1))
        rows += [
            _row(rank, [*sent, survivor, EXIT.match(TRUNK), state("+trk+new")], orphan),
            _row(rank, [*sent, EXIT.match(TRUNK), *loose], orphan),
            _row(
                rank,
                [*sent, survivor, SURVIVOR.match(1), state("+trk+new")],
                [load(DIRECTION, ORIGINAL), load(LOST, 1), Goto("ClientServer")],
            ),
        ]
    return tuple(rows)


def _arriving() -> tuple[Flow, ...]:
    """From another node, by what its node says of it and by what is known here."""
    rank, trunk = priorities.ConntrackState.LOST, (SIDE.match(TRUNK), QUESTION.match(0))
    orphan, reply, original = (
        (*_GOING_ON, *trunk, DIRECTION.match(direction)) for direction in (ORPHAN, REPLY, ORIGINAL)
    )
    doubtful = (SIDE.match(TRUNK), QUESTION.match(1), DIRECTION.match(ORPHAN))
    replied = (state("+trk+rpl"), CT_ACCEPTED.match(1), CT_EXIT.match(TRUNK))
    guessed = (state("+trk+est-rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1))
    unknown = (SURVIVOR.match(1), state("+trk+new"))
    on = (load(LOST, 1), Goto("ClientServer"))
    as_reply = (load(DIRECTION, REPLY), load(QUESTION, 0), *on)
    return (
        *(_row(rank, [*orphan, *found], on) for found in (unknown, guessed)),
        _row(rank, [*orphan, *replied, CT_LOOSE.match(1)], (load(FORCE, 1), *on)),
        _row(rank, [*orphan, *replied, CT_LOOSE.match(0)], as_reply),
        *(_row(rank, [*_GOING_ON, *doubtful, *found], as_reply) for found in (unknown, guessed, replied)),
        _row(priorities.ConntrackState.STRAY, [*_IS_TCP, *doubtful, state("+trk+est-rpl")], []),
        _row(rank, [*original, *replied, CT_LOOSE.match(1)], (load(FORCE, 1), Goto("ClientServer"))),
        _row(rank, [*reply, *unknown], on),
    )


def _roles() -> tuple[Flow, ...]:
    """Replies of lost connections are asked about, unless they answer a question or both ends are here."""
    rank = priorities.ClientServer
    reply = (BACKWARD, LOST.match(1), SIDE.match(TRUNK))
    marks = Load(MARKS, LOCAL << SIDE.bits.low | 1 << QUESTION.bits.low)
    ask = (*_TCP_ENDS, TO_NEXT_HOP, *_AS_RECEIVER, marks, CtClear(), Resubmit("L3Forward"))
    judge = (*TO_CLIENT, Goto("Egress"))
    decided = load(EGRESS, UNSELECTED)
    return (
        _row(rank.LOST, [*_IS_TCP, *reply, ANSWERED.match(0)], ask),
        _row(rank.ANSWERED, [*_IS_TCP, BACKWARD, ANSWERED.match(1), SIDE.match(TRUNK), EXIT.match(LOCAL)], judge),
        _row(
            rank.ANSWERED,
            [*_IS_TCP, BACKWARD, LOST.match(1), EXIT.match(GATEWAY)],
            [*TO_CLIENT, decided, Goto("Egress")],
        ),
    )


def _remembered(*, force: bool = False) -> Ct:
    writes = (*REMEMBERED, Load(CT_LOOSE.bits, 1))
    return Ct(zone=ZONE.bits, table="Output", commit=True, force=force, writes=writes)


def _commits() -> tuple[Flow, ...]:
    """Orphans that a node admits make loose entries; a reply from the other node's own entry makes them firm."""
    rank, orphan = priorities.ConntrackCommit, (*_IS_TCP, LOST.match(1), DIRECTION.match(ORPHAN))
    firm = Ct(zone=ZONE.bits, table="Output", commit=True, writes=(Load(CT_LOOSE.bits, 0),))
    confirmed = (BACKWARD, SIDE.match(TRUNK), QUESTION.match(0), ANSWERED.match(0))
    return (
        _row(rank.LOOSE_ANEW, [*orphan, FORCE.match(1)], [_remembered(force=True)]),
        _row(rank.LOOSE, [*orphan, state("+trk+new")], [_remembered()]),
        _row(rank.LOOSE, [*orphan, state("+trk+est")], [Goto("Output")]),
        _row(
            rank.CONFIRMED,
            [*_IS_TCP, *confirmed, state("+trk+rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1)],
            [firm],
        ),
    )


def limited(ofport: int, meter: Meter) -> tuple[Flow, ...]:
    """The loose entries of the pod at this port pass its meter, as all its new entries do."""
    new = (*_IS_TCP, ("in_port", ofport), LOST.match(1), DIRECTION.match(ORPHAN), TO_ELSEWHERE, state("+trk+new"))
    actions = (ThroughMeter(meter.number), _remembered())
    return (
        flow(priorities.ConntrackCommit.LOOSE_LIMITED, new, actions, feature=Feature.CONNTRACK, origin=meter.origin),
    )


def _refusals() -> tuple[Flow, ...]:
    """What is refused as a packet of a client may be a reply."""
    rank = priorities.ConntrackRevoke.LOST
    turned = (load(DIRECTION, REPLY), Resubmit("ClientServer"))
    orphan = (IP, LOST.match(1), DIRECTION.match(ORPHAN))
    return (
        _row(rank, [IP, LOST.match(1), DIRECTION.match(ORIGINAL)], turned),
        _row(rank, [IP, LOST.match(1), BACKWARD], []),
        _row(rank, [*orphan, SIDE.match(TRUNK)], turned),
        *(_row(rank, [*orphan, SIDE.match(side)], [load(QUESTION, 1), Goto("Output")]) for side in _HERE),
    )
