"""Compiles rows of several tables that pick up TCP connections which a restart of the userspace datapath has lost.

Before a packet of such a connection is delivered, both nodes decide it by their present policies. Only endpoints that
were attached before the loss (*pre-restart*) are picked up, for a limited time (`controller.pre_restart`), and only TCP
without SYN.
- Both ends here, or one here and one outside: a segment passes if policy admits it as a packet of its client, which
  commits an entry, or else as a reply, which commits none (the other end's next segment will).
- Between nodes the sender's node marks it *midstream*, with its own egress decision. If that denies, it also sets the
  revalidation bit: the segment can then be a reply only. The other node, if it lost its conntrack entries too, decides
  it as a packet of a client. If that is denied, or if an entry says that it is a reply, it becomes a *revalidation
  packet*: it returns to the sender's node with source and destination swapped, as its client would send it. That node
  decides it as the client's packet and sends it back as a *revalidated* reply, which the client's node decides and
  delivers. Revalidation packets and revalidated replies bypass conntrack: a swapped segment fits no TCP window.
- An entry committed from a midstream packet is *loose*: which end is the client is a guess. Later packets are still
  sent as midstream. A packet that contradicts the guess reverses the entry; a reply by the other node's own entry
  confirms it.
- Other protocols are not picked up: they continue with the client's next packet. An entry from a server's packet could
  be for a connection that the client never opened: its address may have been a former pod's.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, ApplyMeter, Bits, Ct, CtClear, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.compile.conditions import (
    FROM_CLIENT,
    FROM_LOCAL,
    FROM_SERVER,
    FROM_UPLINK,
    IP,
    TO_ELSEWHERE,
    TO_GATEWAY,
    TO_LOCAL,
    TO_UPLINK,
    ct_state_match,
    feature_origin,
    load,
    swapped,
    tcp_flags_match,
)
from romana_ovs.pipeline.compile.conntrack import CT_WRITES, TO_CLIENT
from romana_ovs.pipeline.compile.revalidation import ADDRESSES, TO_NEXT_HOP
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import TCP
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.registers import (
    CT_ACCEPTED,
    CT_DESTINATION,
    CT_LOOSE,
    DEFERRED,
    DIRECTION,
    EGRESS,
    FORCE,
    GATEWAY,
    LOCAL,
    MARKS,
    MIDSTREAM,
    ORIGINAL,
    PICKUP,
    PKT_SOURCE,
    RECEIVER_CLIENT_GROUP,
    RECEIVER_ID,
    RECEIVER_PRE_RESTART,
    RECEIVER_SERVER_GROUP,
    REPLY,
    REVALIDATED,
    REVALIDATION,
    SENDER_CLIENT_GROUP,
    SENDER_ID,
    SENDER_PRE_RESTART,
    SENDER_SERVER_GROUP,
    UNSELECTED,
    UPLINK,
    ZONE,
)
from romana_ovs.pipeline.tables import Condition, flow

_HERE = (LOCAL, GATEWAY)
_TCP: tuple[Condition, ...] = (IP, ("nw_proto", TCP))
_MIDSTREAM_TCP: tuple[Condition, ...] = (*_TCP, tcp_flags_match("-syn"))
"""Neither SYN nor SYN-ACK: the client of a new connection sends SYN again, which makes an entry."""
_TCP_ENDS = (*ADDRESSES, *swapped(Bits("tcp_src", 0, 16), Bits("tcp_dst", 0, 16)))
_AS_RECEIVER = (
    Move(RECEIVER_ID.bits, SENDER_ID.bits),
    Move(RECEIVER_CLIENT_GROUP.bits, SENDER_CLIENT_GROUP.bits),
    Move(RECEIVER_SERVER_GROUP.bits, SENDER_SERVER_GROUP.bits),
)


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=feature_origin("pickup"))


def pickup_rows() -> tuple[Flow, ...]:
    """All rows except those of single pods."""
    return (
        *_revalidations(),
        *_to_other_nodes(),
        *_from_other_nodes(),
        *_replies(),
        *_commits(),
        *_revocations(),
    )


def _revalidations() -> tuple[Flow, ...]:
    """TCP revalidation packets bypass conntrack; table ConntrackCommit answers those that are admitted."""
    revalidation = (*_TCP, REVALIDATION.match(1))
    track, commit = priorities.ConntrackZone.REVALIDATION, priorities.ConntrackCommit
    return (
        _row(track, [*revalidation, FROM_LOCAL], [load(DIRECTION, ORIGINAL), Goto("ClientServer")]),
        _row(track, [*revalidation, FROM_UPLINK, DIRECTION.match(ORIGINAL)], [Goto("ClientServer")]),
        _row(track, [*_TCP, REVALIDATED.match(1), FROM_LOCAL], [Goto("Output")]),
        _row(commit.REVALIDATION, [*revalidation, FROM_CLIENT, FROM_LOCAL], [Goto("Output")]),
        _row(commit.REVALIDATION, [*revalidation, FROM_CLIENT, FROM_UPLINK], _revalidated_reply(UNSELECTED)),
        _row(
            commit.REVALIDATION_DEFERRED,
            [*revalidation, FROM_CLIENT, FROM_UPLINK, EGRESS.match(DEFERRED)],
            _revalidated_reply(DEFERRED),
        ),
    )


def _revalidated_reply(egress: int) -> tuple[Action, ...]:
    """The segment as its server sent it. `egress` tells the client's node whether a deferred rule admits it."""
    marks = (
        LOCAL << PKT_SOURCE.bits.low
        | REPLY << DIRECTION.bits.low
        | egress << EGRESS.bits.low
        | 1 << REVALIDATED.bits.low
    )
    return (*_TCP_ENDS, TO_NEXT_HOP, *_AS_RECEIVER, Load(MARKS, marks), Resubmit("L3Forward"))


def _to_other_nodes() -> tuple[Flow, ...]:
    """From a pre-restart pod here, or the node."""
    priority, pre_restart = priorities.ConntrackState.PICKUP, SENDER_PRE_RESTART.match(1)
    rows = []
    for side in _HERE:
        sent = (*_MIDSTREAM_TCP, PKT_SOURCE.match(side))
        midstream = (load(DIRECTION, MIDSTREAM), load(PICKUP, 1), Goto("ClientServer"))
        loose = (ct_state_match("+trk+est-rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1))
        rows += [
            _row(priority, [*sent, pre_restart, TO_UPLINK, ct_state_match("+trk+new")], midstream),
            _row(priority, [*sent, TO_UPLINK, *loose], midstream),
            _row(
                priority,
                [*sent, pre_restart, RECEIVER_PRE_RESTART.match(1), ct_state_match("+trk+new")],
                [load(DIRECTION, ORIGINAL), load(PICKUP, 1), Goto("ClientServer")],
            ),
        ]
    return tuple(rows)


def _from_other_nodes() -> tuple[Flow, ...]:
    """From another node, by its direction mark and the local conntrack state."""
    priority, uplink = priorities.ConntrackState.PICKUP, (FROM_UPLINK, REVALIDATION.match(0))
    midstream, reply, original = (
        (*_MIDSTREAM_TCP, *uplink, DIRECTION.match(direction)) for direction in (MIDSTREAM, REPLY, ORIGINAL)
    )
    reply_only = (FROM_UPLINK, REVALIDATION.match(1), DIRECTION.match(MIDSTREAM))
    replied = (ct_state_match("+trk+rpl"), CT_ACCEPTED.match(1), CT_DESTINATION.match(UPLINK))
    loose = (ct_state_match("+trk+est-rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1))
    unknown = (RECEIVER_PRE_RESTART.match(1), ct_state_match("+trk+new"))
    on = (load(PICKUP, 1), Goto("ClientServer"))
    as_reply = (load(DIRECTION, REPLY), load(REVALIDATION, 0), *on)
    return (
        *(_row(priority, [*midstream, *tracked], on) for tracked in (unknown, loose)),
        _row(priority, [*midstream, *replied, CT_LOOSE.match(1)], (load(FORCE, 1), *on)),
        _row(priority, [*midstream, *replied, CT_LOOSE.match(0)], as_reply),
        *(_row(priority, [*_MIDSTREAM_TCP, *reply_only, *tracked], as_reply) for tracked in (unknown, loose, replied)),
        _row(priorities.ConntrackState.UNSOLICITED, [*_TCP, *reply_only, ct_state_match("+trk+est-rpl")], []),
        _row(priority, [*original, *replied, CT_LOOSE.match(1)], (load(FORCE, 1), Goto("ClientServer"))),
        _row(priority, [*reply, *unknown], on),
    )


def _replies() -> tuple[Flow, ...]:
    """Replies from another node are revalidated there; revalidated ones, and those to the node itself, are decided."""
    priority = priorities.ClientServer
    reply = (FROM_SERVER, PICKUP.match(1), FROM_UPLINK)
    marks = Load(MARKS, LOCAL << PKT_SOURCE.bits.low | 1 << REVALIDATION.bits.low)
    revalidate = (*_TCP_ENDS, TO_NEXT_HOP, *_AS_RECEIVER, marks, CtClear(), Resubmit("L3Forward"))
    decide = (*TO_CLIENT, Goto("Egress"))
    egress_unselected = load(EGRESS, UNSELECTED)
    return (
        _row(priority.PICKUP, [*_TCP, *reply, REVALIDATED.match(0)], revalidate),
        _row(priority.REVALIDATED, [*_TCP, FROM_SERVER, REVALIDATED.match(1), FROM_UPLINK, TO_LOCAL], decide),
        _row(
            priority.REVALIDATED,
            [*_TCP, FROM_SERVER, PICKUP.match(1), TO_GATEWAY],
            [*TO_CLIENT, egress_unselected, Goto("Egress")],
        ),
    )


def _loose_commit(*, force: bool = False) -> Ct:
    writes = (*CT_WRITES, Load(CT_LOOSE.bits, 1))
    return Ct(zone=ZONE.bits, table="Output", commit=True, force=force, writes=writes)


def _commits() -> tuple[Flow, ...]:
    """Admitted midstream packets commit loose entries; a reply by the other node's own entry confirms them."""
    priority, midstream = priorities.ConntrackCommit, (*_TCP, PICKUP.match(1), DIRECTION.match(MIDSTREAM))
    confirm = Ct(zone=ZONE.bits, table="Output", commit=True, writes=(Load(CT_LOOSE.bits, 0),))
    by_entry = (FROM_SERVER, FROM_UPLINK, REVALIDATION.match(0), REVALIDATED.match(0))
    return (
        _row(priority.LOOSE_FORCED, [*midstream, FORCE.match(1)], [_loose_commit(force=True)]),
        _row(priority.LOOSE, [*midstream, ct_state_match("+trk+new")], [_loose_commit()]),
        _row(priority.LOOSE, [*midstream, ct_state_match("+trk+est")], [Goto("Output")]),
        _row(
            priority.CONFIRMED,
            [*_TCP, *by_entry, ct_state_match("+trk+rpl"), CT_ACCEPTED.match(1), CT_LOOSE.match(1)],
            [confirm],
        ),
    )


def metered_commits(ofport: int, meter: Meter) -> tuple[Flow, ...]:
    """Loose entries of the pod at this port pass its meter, as all its new entries do."""
    midstream = (*_TCP, ("in_port", ofport), PICKUP.match(1), DIRECTION.match(MIDSTREAM), TO_ELSEWHERE)
    new = (*midstream, ct_state_match("+trk+new"))
    actions = (ApplyMeter(meter.number), _loose_commit())
    return (
        flow(priorities.ConntrackCommit.LOOSE_METERED, new, actions, feature=Feature.CONNTRACK, origin=meter.origin),
    )


def _revocations() -> tuple[Flow, ...]:
    """A packet that is denied as a packet of a client may be a reply."""
    priority = priorities.ConntrackRevoke.PICKUP
    as_reply, revalidate = (load(DIRECTION, REPLY), Resubmit("ClientServer")), (load(REVALIDATION, 1), Goto("Output"))
    midstream = (IP, PICKUP.match(1), DIRECTION.match(MIDSTREAM))
    return (
        _row(priority, [IP, PICKUP.match(1), DIRECTION.match(ORIGINAL)], as_reply),
        _row(priority, [IP, PICKUP.match(1), FROM_SERVER], []),
        _row(priority, [*midstream, FROM_UPLINK], as_reply),
        *(_row(priority, [*midstream, PKT_SOURCE.match(side)], revalidate) for side in _HERE),
    )
