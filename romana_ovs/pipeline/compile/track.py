"""Rows of ConntrackState, ClientServer, ConntrackCommit and ConntrackRevoke (docs/dataplane.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, Ct, Goto, Load, Move, Resubmit, ThroughMeter
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.words import (
    BACKWARD,
    FORWARD,
    TO_ELSEWHERE,
    feature_origin,
    flags,
    load,
    state,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ETH_IP, FRAG_ANY, FRAG_LATER
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.registers import (
    CLIENT_GROUP,
    CLIENT_ID,
    CT_ACCEPTED,
    CT_CLIENT,
    CT_EXIT,
    CT_LABEL_BITS,
    CT_SIDE,
    DIFFERENT,
    DIRECTION,
    EGRESS,
    EXIT,
    FORCE,
    GATEWAY,
    LOCAL,
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
    SERVER_GROUP,
    SERVER_ID,
    SETTLED,
    SIDE,
    TRUNK,
    UNSELECTED,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow
from romana_ovs.policy.view import LocalPod, Origin

TCP: Condition = ("nw_proto", 6)
UDP: Condition = ("nw_proto", 17)
SCTP: Condition = ("nw_proto", 132)
_IP: Condition = ("eth_type", ETH_IP)
_ORIGIN: Origin = feature_origin("conntrack")
_HERE = (LOCAL, GATEWAY)
"""Sides whose direction this bridge decides itself; on a trunk the sending node's mark counts too."""


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=_ORIGIN)


def _ct_row(priority: IntEnum, match: Sequence[Condition], ct: Ct) -> Flow:
    """A row that goes through conntrack: Open vSwitch wants the match to say IP."""
    return _row(priority, [_IP, *match], [ct])


def _on(*actions: Action) -> tuple[Action, ...]:
    return (*actions, Goto("ClientServer"))


def states() -> tuple[Flow, ...]:
    """The conntrack table of docs/dataplane.md, row by row."""
    return (_row(priorities.ConntrackState.INVALID, [state("+trk+inv")], []), *_replies(), *_openings(), *_decisions())


def _replies() -> tuple[Flow, ...]:
    """Accepted replies, from the side the connection left by only; others of TCP are strays."""
    rank, tracked = priorities.ConntrackState, state("+trk+rpl")
    rows = [
        _row(
            rank.REPLY,
            [tracked, CT_ACCEPTED.match(1), SIDE.match(side), CT_EXIT.match(side)],
            _on(load(DIRECTION, REPLY)),
        )
        for side in _HERE
    ]
    marked = (SIDE.match(TRUNK), DIRECTION.match(REPLY))
    orphaned = (SIDE.match(TRUNK), DIRECTION.match(ORPHAN))
    asked = (*marked, QUESTION.match(1))
    current = compare(RECEIVER_ID.bits, CT_CLIENT.bits)
    rows.append(_row(rank.REPLY, [tracked, CT_ACCEPTED.match(1), *marked, CT_EXIT.match(TRUNK)], _on(*current)))
    rows += [
        _row(rank.STRAY, [*mark, found], []) for mark in (marked, orphaned) for found in (tracked, state("+trk+new"))
    ]
    # A reply that its server's node refused is never taken for a packet of a client.
    rows.append(_row(rank.STRAY, [*asked, state("+trk+est-rpl")], []))
    rows.append(_row(rank.STRAY, [_IP, TCP, SIDE.match(TRUNK), DIRECTION.match(ORIGINAL), tracked], []))
    rows += [_row(rank.STRAY, [_IP, TCP, SIDE.match(side), tracked], []) for side in _HERE]
    return tuple(rows)


def _openings() -> tuple[Flow, ...]:
    """TCP that opens a connection, and TCP in the middle of one that nobody here knows."""
    rank, opening = priorities.ConntrackState, flags("+syn-ack")
    turned = state("+trk+rpl")
    rows = [
        _row(rank.TURNED, [opening, SIDE.match(TRUNK), DIRECTION.match(ORIGINAL), turned], _on(load(FORCE, 1))),
    ]
    for side in _HERE:
        original = load(DIRECTION, ORIGINAL)
        rows += [
            _row(rank.TURNED, [opening, SIDE.match(side), turned], _on(original, load(FORCE, 1))),
            _row(rank.TURNED, [opening, SIDE.match(side), state("+trk+new")], _on(original)),
            _row(rank.STRAY, [_IP, TCP, SIDE.match(side), state("+trk+new")], _on(load(DIRECTION, ORPHAN))),
        ]
    return tuple(rows)


def _decisions() -> tuple[Flow, ...]:
    """What is to be decided as a packet of the connection's client."""
    rank, original = priorities.ConntrackState, load(DIRECTION, ORIGINAL)
    rows = [
        _row(
            rank.ORIGINAL,
            [state("+trk+est-rpl"), CT_ACCEPTED.match(1), CT_EXIT.match(side), EXIT.match(side)],
            _on(original, load(SETTLED, 1), *compare(SENDER_ID.bits, CT_CLIENT.bits)),
        )
        for side in (LOCAL, TRUNK, GATEWAY)
    ]
    rows.append(_row(rank.DECIDE, [state("+trk+est-rpl")], _on(original)))
    turned = (state("+trk+rpl"),)
    rows.append(_row(rank.DECIDE, [SIDE.match(TRUNK), DIRECTION.match(ORIGINAL), *turned], _on(load(FORCE, 1))))
    rows.append(_row(rank.DECIDE, [SIDE.match(TRUNK), DIRECTION.match(ORIGINAL), state("+trk+new")], _on()))
    for side in _HERE:
        rows.append(_row(rank.DECIDE, [SIDE.match(side), *turned], _on(original, load(FORCE, 1))))
        rows.append(_row(rank.DECIDE, [SIDE.match(side), state("+trk+new")], _on(original)))
    return tuple(rows)


_SENDER_SERVES = (Move(SENDER_ID.bits, SERVER_ID.bits), Move(SENDER_SERVER.bits, SERVER_GROUP.bits))
TO_CLIENT = (
    Move(RECEIVER_ID.bits, CLIENT_ID.bits),
    Move(RECEIVER_CLIENT.bits, CLIENT_GROUP.bits),
    *_SENDER_SERVES,
)


def roles() -> tuple[Flow, ...]:
    """Who is client and who server; a local client's present identity counts, else the remembered one."""
    rank = priorities.ClientServer
    remembered = (Move(CT_CLIENT.bits, CLIENT_ID.bits), *_SENDER_SERVES)
    # Only its own node knows what egress policies say of a client now: OpenEgress looks whether they would do if open.
    ask, decided = load(EGRESS, OPEN), load(EGRESS, UNSELECTED)
    forward = (
        Move(SENDER_ID.bits, CLIENT_ID.bits),
        Move(SENDER_CLIENT.bits, CLIENT_GROUP.bits),
        Move(RECEIVER_ID.bits, SERVER_ID.bits),
        Move(RECEIVER_SERVER.bits, SERVER_GROUP.bits),
        Goto("Egress"),
    )
    return (
        _row(rank.ROLE, [FORWARD], forward),
        _row(rank.ROLE, [BACKWARD, EXIT.match(LOCAL)], [*TO_CLIENT, Goto("Egress")]),
        _row(rank.ROLE, [BACKWARD, EXIT.match(TRUNK)], [*remembered, ask, Goto("Egress")]),
        _row(rank.ROLE, [BACKWARD, EXIT.match(GATEWAY)], [*remembered, decided, Goto("Egress")]),
    )


REMEMBERED = (
    Move(CLIENT_ID.bits, CT_CLIENT.bits),
    Move(SIDE.bits, CT_SIDE.bits),
    Move(EXIT.bits, CT_EXIT.bits),
    Load(CT_ACCEPTED.bits, 1),
)


def commits() -> tuple[Flow, ...]:
    """Accepted originals are remembered with their client; replies and orphans pass as they are."""
    rank = priorities.ConntrackCommit
    remembered = Ct(zone=ZONE.bits, table="Output", commit=True, writes=REMEMBERED)
    fragment: Condition = ("nw_frag", FRAG_ANY, FRAG_ANY)
    return (
        # Later fragments carry no ports: only the way through conntrack ties them to an admitted first one.
        _ct_row(rank.FRAGMENT, [BACKWARD, fragment], Ct(zone=ZONE.bits, table="Output")),
        _row(rank.REPLY, [BACKWARD], [Goto("Output")]),
        _row(rank.ORPHAN, [DIRECTION.match(ORPHAN), EXIT.match(TRUNK)], [Goto("Output")]),
        *(_row(rank.ORPHAN, [DIRECTION.match(ORPHAN), EXIT.match(side)], []) for side in _HERE),
        # The entry stands under the client's present identity already: no second pass.
        _row(
            rank.KNOWN,
            [SETTLED.match(1), FORCE.match(0), DIFFERENT.match(0), _IP, ("nw_frag", 0, FRAG_ANY | FRAG_LATER)],
            [Goto("Output")],
        ),
        _ct_row(rank.ANEW, [FORCE.match(1)], replace(remembered, force=True)),
        _ct_row(rank.COMMIT, [FORWARD], remembered),
    )


def limited(pod: LocalPod, meter: Meter) -> tuple[Flow, ...]:
    """What `pod` opens towards elsewhere passes its meter before it is remembered: another node may yet drop it.

    Only what would make a new entry: not the later packets of a connection that nobody answers (+new too, but its
    entry is accepted), and not what commits anew, which puts an entry in the place of another.
    """
    new = ("in_port", pod.ofport), FORWARD, TO_ELSEWHERE, state("+trk+new"), CT_ACCEPTED.match(0)
    remembered = Ct(zone=ZONE.bits, table="Output", commit=True, writes=REMEMBERED)
    actions = (ThroughMeter(meter.number), remembered)
    return (
        flow(priorities.ConntrackCommit.LIMITED, [_IP, *new], actions, feature=Feature.CONNTRACK, origin=meter.origin),
    )


def refusals() -> tuple[Flow, ...]:
    """A refused original clears the mark of its entry, which stops the replies too.

    A refused reply to another node goes there as a question: the client may have become another (`stale`). A refused
    answer to that clears nothing: the client may have become what this node hears of only in a moment. From then on
    the replies are judged by what it is; on its own node it is remembered as it was, so that it is asked about again.

    SCTP is tracked without ports before Open vSwitch 3.2: one entry stands for all associations of a pair,
    so it is never cleared, and what is no reply by its ports is decided again as an original. But its client is
    remembered as it is now, so that the replies are judged like what was refused.
    """
    rank = priorities.ConntrackRevoke
    again = (load(DIRECTION, ORIGINAL), load(FORCE, 1), Resubmit("ClientServer"))
    refused_reply = (BACKWARD, SIDE.match(LOCAL), EXIT.match(TRUNK), ("nw_frag", 0, FRAG_ANY | FRAG_LATER))
    accepted = (DIRECTION.match(ORIGINAL), state("+trk-rpl"), CT_ACCEPTED.match(1))
    forget = (Load(CT_CLIENT.bits, 0), Load(CT_LABEL_BITS, 0))
    renew = Ct(zone=ZONE.bits, commit=True, writes=(Move(CLIENT_ID.bits, CT_CLIENT.bits),))
    return (
        _row(rank.QUESTION, [FORWARD, QUESTION.match(1), SIDE.match(LOCAL)], []),
        _ct_row(rank.RENEW, [*accepted, SIDE.match(TRUNK), QUESTION.match(1)], renew),
        _ct_row(rank.RENEW, [*accepted, SIDE.match(TRUNK), SCTP], renew),
        *(_row(rank.RETRY, [_IP, SCTP, BACKWARD, SIDE.match(side)], again) for side in _HERE),
        _row(rank.RETRY, [_IP, SCTP, FORWARD], []),
        *(_row(rank.ASK, [protocol, *refused_reply], [load(QUESTION, 1), Goto("Output")]) for protocol in (TCP, UDP)),
        _ct_row(rank.FORGET, accepted, Ct(zone=ZONE.bits, commit=True, writes=forget)),
    )
