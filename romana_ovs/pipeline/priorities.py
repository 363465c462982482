"""Priority bands, by table. A flow of a table has one of its priorities; nothing else knows the numbers."""

from __future__ import annotations

from enum import IntEnum


class SpoofGuard(IntEnum):
    """Who sent it."""

    REFUSED = 300
    """A pod's address arriving from the gateway."""
    SOURCE = 200
    OUTSIDE = 100
    MISS = 0


class SourceMac(IntEnum):
    """A pod's own MAC, part by part, so that few datapath flows refuse all others."""

    PART = 100
    MISS = 0


class DestinationMac(IntEnum):
    """The MAC of all next hops, likewise."""

    PART = 100
    MISS = 0


class Fragments(IntEnum):
    """How many pieces of packets a pod may send."""

    LIMITED = 100
    MISS = 0


class ArpSpoofGuard(IntEnum):
    """Who asks."""

    UNSPECIFIED = 300
    POD = 200
    ASK = 100
    MISS = 0


class ArpSelf(IntEnum):
    """Asking as another; asking for its own address."""

    WRONG = 200
    ASK = 100
    MISS = 0


class ArpResponder(IntEnum):
    """The answer."""

    ANSWER = 100
    MISS = 0


class Compare(IntEnum):
    """Bits that differ."""

    DIFFERENT = 100
    MISS = 0


class L3Forward(IntEnum):
    """Where it goes: by prefixes alone."""

    ENDPOINT = 400
    """Pods' and the node's own addresses that are not from this node's share of the plan: exact."""
    NETWORK = 200
    SPECIAL = 150
    """Multicast, broadcast, unspecified, loopback."""
    OUTSIDE = 100
    MISS = 0


class L3ForwardNode(IntEnum):
    """Which node's share of the plan it is."""

    HOST = 300
    MISS = 0


class L3ForwardLocal(IntEnum):
    """Who has an address of this node's share."""

    ENDPOINT = 400
    MISS = 0


class ConntrackZone(IntEnum):
    """Into conntrack, or on to the next bridge."""

    TRANSIT = 300
    SELF = 250
    """A pod's packets to itself."""
    QUESTION = 200
    """TCP that one node asks another about: judged by policy alone, as it fits no window of its connection."""
    RESERVED = 190
    """An end elsewhere with an address in the plan's network that is not from the plan."""
    FIRST_BLOCK = 175
    REMOTE = 170
    """A shared tenant's pod here and an end on another node: by whose tenant is there."""
    SHARED = 160
    """Both ends here, or one here: by whose tenant is not shared."""
    TENANT = 150
    HERE = 140
    TRACK = 100
    MISS = 0


class ConntrackState(IntEnum):
    """The conntrack table of docs/dataplane.md."""

    RELATED_OWN = 730
    """ICMP errors that the node itself sends about connections to itself."""
    RELATED_NODE = 720
    """And about those of its pods: it is a router on every way of theirs."""
    RELATED = 700
    INVALID = 500
    TURNED = 400
    """A TCP connection opened against a tracked one."""
    REPLY = 300
    LOST = 250
    """TCP without SYN: of connections that were lost."""
    STRAY = 200
    ORIGINAL = 150
    DECIDE = 100
    MISS = 0


class ClientServer(IntEnum):
    """Who is client and who is server."""

    FORGED = 300
    """An ICMP error that a pod sends about a connection of others."""
    LOST = 250
    ANSWERED = 240
    KNOWN = 150
    """The client has the identity that its connection is remembered with."""
    FORMER = 140
    FORMER_OTHER = 130
    STALE = 120
    STALE_OTHER = 110
    ROLE = 100
    MISS = 0


class Egress(IntEnum):
    """What the client's node decides."""

    ELSEWHERE = 700
    OWN_NODE = 600
    CUT_OFF = 500
    UNSELECTED = 400
    ALLOW = 350
    CONJUNCTION = 340
    CLAUSE = 330
    NOT_A_POD = 200
    OPEN = 100
    MISS = 0


class OpenEgress(IntEnum):
    """What the server's node decides of the client's egress."""

    ELSEWHERE = 500
    DECIDED = 400
    ALLOW = 300
    CONJUNCTION = 200
    CLAUSE = 100
    NOT_ADMITTED = 50
    """A reply that open egress rules do not admit: whether they had to, the client's node knows."""
    MISS = 0


class Tenancy(IntEnum):
    """Whether the tenants may meet."""

    REFUSED = 400
    OUTSIDE = 300
    PASS = 100
    MISS = 0


class Ingress(IntEnum):
    """What the server's node decides."""

    ALLOW = 300
    CONJUNCTION = 200
    CLAUSE = 100
    MISS = 0


class ConntrackCommit(IntEnum):
    """Remembering what was accepted."""

    FRAGMENT = 500
    QUESTION_OPEN = 460
    QUESTION = 450
    CONFIRMED = 420
    """A reply shows that the direction of an entry was guessed right."""
    REPLY = 400
    LOOSE_LIMITED = 370
    LOOSE_ANEW = 360
    LOOSE = 350
    ORPHAN = 300
    KNOWN = 200
    ANEW = 150
    LIMITED = 120
    """A local pod's new connections that leave the node: as many a second as its meter lets pass."""
    COMMIT = 100
    MISS = 0


class ConntrackRevoke(IntEnum):
    """Forgetting what is refused."""

    RELATED = 310
    QUESTION = 300
    LOST = 280
    RENEW = 250
    RETRY = 200
    ASK = 150
    FORGET = 100
    MISS = 0


class Output(IntEnum):
    """Out of the bridge."""

    QUESTION = 200
    OUT = 100
    MISS = 0
