"""Compiles the connection tracking tables: ConntrackState, ClientServer, ConntrackCommit and ConntrackRevoke.

The meaning, row by row, is in docs/dataplane.md, "The conntrack table".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import IntEnum

from romana_ovs.pipeline import priorities
from romana_ovs.pipeline.actions import Action, ApplyMeter, Ct, Goto, Load, Move, Resubmit
from romana_ovs.pipeline.compile.compare import compare
from romana_ovs.pipeline.compile.conditions import (
    FROM_CLIENT,
    FROM_LOCAL,
    FROM_SERVER,
    FROM_UPLINK,
    TO_ELSEWHERE,
    TO_GATEWAY,
    TO_LOCAL,
    TO_UPLINK,
    ct_state_match,
    feature_origin,
    load,
    tcp_flags_match,
)
from romana_ovs.pipeline.cookies import Feature
from romana_ovs.pipeline.fields import ETH_IP, FRAG_ANY, FRAG_LATER
from romana_ovs.pipeline.flow import Flow
from romana_ovs.pipeline.meters import Meter
from romana_ovs.pipeline.registers import (
    CLIENT_GROUP,
    CLIENT_ID,
    COMMITTED,
    CT_ACCEPTED,
    CT_CLIENT,
    CT_DESTINATION,
    CT_LABEL_BITS,
    CT_SOURCE,
    DEFERRED,
    DIFFERENT,
    DIRECTION,
    EGRESS,
    FORCE,
    GATEWAY,
    LOCAL,
    MIDSTREAM,
    ORIGINAL,
    PKT_DESTINATION,
    PKT_SOURCE,
    RECEIVER_CLIENT_GROUP,
    RECEIVER_ID,
    RECEIVER_SERVER_GROUP,
    REPLY,
    REVALIDATION,
    SENDER_CLIENT_GROUP,
    SENDER_ID,
    SENDER_SERVER_GROUP,
    SERVER_GROUP,
    SERVER_ID,
    UNSELECTED,
    UPLINK,
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
"""Where this bridge sets the direction itself; from an uplink the direction mark of the sending node counts too."""


def _row(priority: IntEnum, match: Sequence[Condition], actions: Sequence[Action]) -> Flow:
    return flow(priority, match, actions, feature=Feature.CONNTRACK, origin=_ORIGIN)


def _ct_row(priority: IntEnum, match: Sequence[Condition], ct: Ct) -> Flow:
    """A row with a ct action, whose prerequisite is IP in the match."""
    return _row(priority, [_IP, *match], [ct])


def _then_client_server(*actions: Action) -> tuple[Action, ...]:
    return (*actions, Goto("ClientServer"))


def state_rows() -> tuple[Flow, ...]:
    """The rows of ConntrackState."""
    invalid = _row(priorities.ConntrackState.INVALID, [ct_state_match("+trk+inv")], [])
    return (invalid, *_replies(), *_openings(), *_original_rows())


def _replies() -> tuple[Flow, ...]:
    """Replies of accepted connections, from where the connection left.

    Any other packet that another node marked as reply or midstream is dropped, and other TCP in the reply direction.
    """
    priority, in_reply_direction = priorities.ConntrackState, ct_state_match("+trk+rpl")
    rows = [
        _row(
            priority.REPLY,
            [in_reply_direction, CT_ACCEPTED.match(1), PKT_SOURCE.match(place), CT_DESTINATION.match(place)],
            _then_client_server(load(DIRECTION, REPLY)),
        )
        for place in _HERE
    ]
    marked_reply = (FROM_UPLINK, DIRECTION.match(REPLY))
    marked_midstream = (FROM_UPLINK, DIRECTION.match(MIDSTREAM))
    revalidation_reply = (*marked_reply, REVALIDATION.match(1))
    compare_client_id = compare(RECEIVER_ID.bits, CT_CLIENT.bits)
    rows.append(
        _row(
            priority.REPLY,
            [in_reply_direction, CT_ACCEPTED.match(1), *marked_reply, CT_DESTINATION.match(UPLINK)],
            _then_client_server(*compare_client_id),
        )
    )
    rows += [
        _row(priority.UNSOLICITED, [*mark, connection_state], [])
        for mark in (marked_reply, marked_midstream)
        for connection_state in (in_reply_direction, ct_state_match("+trk+new"))
    ]
    # A reply that its server's node denied is never taken for a packet of a client.
    rows.append(_row(priority.UNSOLICITED, [*revalidation_reply, ct_state_match("+trk+est-rpl")], []))
    rows.append(_row(priority.UNSOLICITED, [_IP, TCP, FROM_UPLINK, DIRECTION.match(ORIGINAL), in_reply_direction], []))
    rows += [_row(priority.UNSOLICITED, [_IP, TCP, PKT_SOURCE.match(place), in_reply_direction], []) for place in _HERE]
    return tuple(rows)


def _openings() -> tuple[Flow, ...]:
    """TCP SYN, and TCP without SYN of a connection that conntrack does not know (midstream)."""
    priority, syn = priorities.ConntrackState, tcp_flags_match("+syn-ack")
    in_reply_direction = ct_state_match("+trk+rpl")
    rows = [
        _row(
            priority.SYN,
            [syn, FROM_UPLINK, DIRECTION.match(ORIGINAL), in_reply_direction],
            _then_client_server(load(FORCE, 1)),
        ),
    ]
    for place in _HERE:
        original = load(DIRECTION, ORIGINAL)
        rows += [
            _row(
                priority.SYN,
                [syn, PKT_SOURCE.match(place), in_reply_direction],
                _then_client_server(original, load(FORCE, 1)),
            ),
            _row(
                priority.SYN, [syn, PKT_SOURCE.match(place), ct_state_match("+trk+new")], _then_client_server(original)
            ),
            _row(
                priority.UNSOLICITED,
                [_IP, TCP, PKT_SOURCE.match(place), ct_state_match("+trk+new")],
                _then_client_server(load(DIRECTION, MIDSTREAM)),
            ),
        ]
    return tuple(rows)


def _original_rows() -> tuple[Flow, ...]:
    """Packets that policy decides as packets of the connection's client."""
    priority, original = priorities.ConntrackState, load(DIRECTION, ORIGINAL)
    rows = [
        _row(
            priority.ORIGINAL,
            [
                ct_state_match("+trk+est-rpl"),
                CT_ACCEPTED.match(1),
                CT_DESTINATION.match(place),
                PKT_DESTINATION.match(place),
            ],
            _then_client_server(original, load(COMMITTED, 1), *compare(SENDER_ID.bits, CT_CLIENT.bits)),
        )
        for place in (LOCAL, UPLINK, GATEWAY)
    ]
    rows.append(_row(priority.DECIDE, [ct_state_match("+trk+est-rpl")], _then_client_server(original)))
    in_reply_direction = ct_state_match("+trk+rpl")
    rows.append(
        _row(
            priority.DECIDE,
            [FROM_UPLINK, DIRECTION.match(ORIGINAL), in_reply_direction],
            _then_client_server(load(FORCE, 1)),
        )
    )
    rows.append(
        _row(
            priority.DECIDE, [FROM_UPLINK, DIRECTION.match(ORIGINAL), ct_state_match("+trk+new")], _then_client_server()
        )
    )
    for place in _HERE:
        rows.append(
            _row(
                priority.DECIDE,
                [PKT_SOURCE.match(place), in_reply_direction],
                _then_client_server(original, load(FORCE, 1)),
            )
        )
        rows.append(
            _row(priority.DECIDE, [PKT_SOURCE.match(place), ct_state_match("+trk+new")], _then_client_server(original))
        )
    return tuple(rows)


_SENDER_SERVES = (Move(SENDER_ID.bits, SERVER_ID.bits), Move(SENDER_SERVER_GROUP.bits, SERVER_GROUP.bits))
TO_CLIENT = (
    Move(RECEIVER_ID.bits, CLIENT_ID.bits),
    Move(RECEIVER_CLIENT_GROUP.bits, CLIENT_GROUP.bits),
    *_SENDER_SERVES,
)


def client_server_rows() -> tuple[Flow, ...]:
    """Client and server; of a local client the present identity counts, else the committed one."""
    priority = priorities.ClientServer
    committed = (Move(CT_CLIENT.bits, CLIENT_ID.bits), *_SENDER_SERVES)
    # Only the client's node knows its present egress policies. DeferredEgress finds out whether a deferred rule admits
    # the connection, and marks the reply to that node accordingly.
    egress_deferred, egress_unselected = load(EGRESS, DEFERRED), load(EGRESS, UNSELECTED)
    from_client = (
        Move(SENDER_ID.bits, CLIENT_ID.bits),
        Move(SENDER_CLIENT_GROUP.bits, CLIENT_GROUP.bits),
        Move(RECEIVER_ID.bits, SERVER_ID.bits),
        Move(RECEIVER_SERVER_GROUP.bits, SERVER_GROUP.bits),
        Goto("Egress"),
    )
    return (
        _row(priority.DEFAULT, [FROM_CLIENT], from_client),
        _row(priority.DEFAULT, [FROM_SERVER, TO_LOCAL], [*TO_CLIENT, Goto("Egress")]),
        _row(priority.DEFAULT, [FROM_SERVER, TO_UPLINK], [*committed, egress_deferred, Goto("Egress")]),
        _row(priority.DEFAULT, [FROM_SERVER, TO_GATEWAY], [*committed, egress_unselected, Goto("Egress")]),
    )


CT_WRITES = (
    Move(CLIENT_ID.bits, CT_CLIENT.bits),
    Move(PKT_SOURCE.bits, CT_SOURCE.bits),
    Move(PKT_DESTINATION.bits, CT_DESTINATION.bits),
    Load(CT_ACCEPTED.bits, 1),
)


def commit_rows() -> tuple[Flow, ...]:
    """Accepted originals are committed with their client's identity; replies and midstream packets are not."""
    priority = priorities.ConntrackCommit
    commit = Ct(zone=ZONE.bits, table="Output", commit=True, writes=CT_WRITES)
    any_fragment: Condition = ("nw_frag", FRAG_ANY, FRAG_ANY)
    return (
        # Later fragments carry no ports: only ct() ties them to an admitted first one.
        _ct_row(priority.FRAGMENT, [FROM_SERVER, any_fragment], Ct(zone=ZONE.bits, table="Output")),
        _row(priority.REPLY, [FROM_SERVER], [Goto("Output")]),
        _row(priority.MIDSTREAM, [DIRECTION.match(MIDSTREAM), TO_UPLINK], [Goto("Output")]),
        *(_row(priority.MIDSTREAM, [DIRECTION.match(MIDSTREAM), PKT_DESTINATION.match(place)], []) for place in _HERE),
        # The entry has the client's present identity already: no second ct().
        _row(
            priority.COMMITTED,
            [COMMITTED.match(1), FORCE.match(0), DIFFERENT.match(0), _IP, ("nw_frag", 0, FRAG_ANY | FRAG_LATER)],
            [Goto("Output")],
        ),
        _ct_row(priority.FORCED, [FORCE.match(1)], replace(commit, force=True)),
        _ct_row(priority.COMMIT, [FROM_CLIENT], commit),
    )


def metered_commits(pod: LocalPod, meter: Meter) -> tuple[Flow, ...]:
    """New connections of `pod` that leave the node pass its meter before the commit: another node may yet drop them.

    Only packets that make a new entry: not the later packets of an unanswered connection (+new too, but its entry is
    accepted), and not forced commits, which replace an entry.
    """
    new = ("in_port", pod.ofport), FROM_CLIENT, TO_ELSEWHERE, ct_state_match("+trk+new"), CT_ACCEPTED.match(0)
    commit = Ct(zone=ZONE.bits, table="Output", commit=True, writes=CT_WRITES)
    actions = (ApplyMeter(meter.number), commit)
    return (
        flow(priorities.ConntrackCommit.METERED, [_IP, *new], actions, feature=Feature.CONNTRACK, origin=meter.origin),
    )


def revoke_rows() -> tuple[Flow, ...]:
    """A denied original clears its entry's ct_mark and our bits of its ct_label.

    Without CT_ACCEPTED in the label the replies of the connection are dropped.

    A denied reply to another node is sent there as a revalidation packet: the client's identity may have changed
    (`revalidation`). If the returned packet is denied here, the entry is kept with the client's current identity, as
    this node may learn the client's new class a moment later. Replies are then decided by that identity. The client's
    node keeps the old identity, so that it revalidates the next reply again.

    SCTP is tracked without ports before Open vSwitch 3.2: one entry stands for all associations of a pair. So it is
    never cleared, and a reply that is denied by its ports is decided again as an original. But the entry gets the
    client's present identity, so that replies are decided like the denied packet.
    """
    priority = priorities.ConntrackRevoke
    decide_as_original = (load(DIRECTION, ORIGINAL), load(FORCE, 1), Resubmit("ClientServer"))
    denied_reply = (FROM_SERVER, FROM_LOCAL, TO_UPLINK, ("nw_frag", 0, FRAG_ANY | FRAG_LATER))
    accepted = (DIRECTION.match(ORIGINAL), ct_state_match("+trk-rpl"), CT_ACCEPTED.match(1))
    cleared = (Load(CT_CLIENT.bits, 0), Load(CT_LABEL_BITS, 0))
    update_id = Ct(zone=ZONE.bits, commit=True, writes=(Move(CLIENT_ID.bits, CT_CLIENT.bits),))
    return (
        _row(priority.REVALIDATION, [FROM_CLIENT, REVALIDATION.match(1), FROM_LOCAL], []),
        _ct_row(priority.UPDATE_ID, [*accepted, FROM_UPLINK, REVALIDATION.match(1)], update_id),
        _ct_row(priority.UPDATE_ID, [*accepted, FROM_UPLINK, SCTP], update_id),
        *(
            _row(priority.DECIDE_AS_ORIGINAL, [_IP, SCTP, FROM_SERVER, PKT_SOURCE.match(place)], decide_as_original)
            for place in _HERE
        ),
        _row(priority.DECIDE_AS_ORIGINAL, [_IP, SCTP, FROM_CLIENT], []),
        *(
            _row(priority.REVALIDATE, [protocol, *denied_reply], [load(REVALIDATION, 1), Goto("Output")])
            for protocol in (TCP, UDP)
        ),
        _ct_row(priority.REVOKE, accepted, Ct(zone=ZONE.bits, commit=True, writes=cleared)),
    )
