"""Declares the priorities of each table. Every flow has one of its table's priorities; the numbers are here only."""

from __future__ import annotations

from enum import IntEnum


class SpoofGuard(IntEnum):
    """Packets by port: of pods, other nodes, and the node itself."""

    DENY = 300
    """The node's own addresses, and pods' addresses that arrive from the gateway."""
    TRANSLATED = 250
    """Packets of local pods that return from the host, whose proxy translated a Service's address."""
    SOURCE = 200
    OUTSIDE = 100
    MISS = 0


class SourceMac(IntEnum):
    """A pod's own MAC, part by part, so that few megaflows drop all others."""

    PART = 100
    MISS = 0


class DestinationMac(IntEnum):
    """The MAC of all next hops, part by part."""

    PART = 100
    MISS = 0


class Fragments(IntEnum):
    """Fragments of pods."""

    TENANT = 200
    """Those that have passed the meter of their pod."""
    METERED = 100
    MISS = 0


class ArpSpoofGuard(IntEnum):
    """Senders of ARP requests."""

    UNSPECIFIED = 300
    OTHER_MAC = 250
    """Pods whose MAC is not derived from their address."""
    POD = 200
    REQUEST = 100
    MISS = 0


class ArpSelf(IntEnum):
    """Spoofed requests, and requests for the sender's own address."""

    SPOOFED = 200
    REQUEST = 100
    MISS = 0


class ArpResponder(IntEnum):
    """Replies to ARP requests."""

    REPLY = 100
    MISS = 0


class Compare(IntEnum):
    """Pairs of different bits."""

    DIFFERENT = 100
    MISS = 0


class L3Forward(IntEnum):
    """Destinations by prefix, and single addresses."""

    SERVICE = 450
    """Ranges of Services: no pod has such an address, whatever its status says."""
    ENDPOINT = 400
    """Single addresses of pods and of the node that are not in this node's share of the plan."""
    NETWORK = 200
    SPECIAL = 150
    """Multicast, broadcast, unspecified, loopback."""
    OUTSIDE = 100
    MISS = 0


class L3ForwardNode(IntEnum):
    """Nodes by host bits."""

    HOST = 300
    MISS = 0


class L3ForwardLocal(IntEnum):
    """Single addresses of this node's share of the plan."""

    ENDPOINT = 400
    MISS = 0


class ConntrackZone(IntEnum):
    """Which conntrack zone, or on to the next bridge."""

    TRANSIT = 300
    SELF = 250
    """A pod's packets to itself."""
    REVALIDATION = 200
    """TCP revalidation packets: they bypass conntrack, as they fit no window of their connection."""
    OUT_OF_PLAN = 190
    """The other end has an address in the plan's network that the plan did not give."""
    FIRST_BLOCK = 175
    REMOTE = 170
    """A pod of a shared tenant and an end on another node: the zone of the other end's tenant."""
    SHARED = 160
    """Both ends local: the zone of the tenant that is not shared."""
    TENANT = 150
    LOCAL = 140
    DEFAULT = 100
    MISS = 0


class ConntrackState(IntEnum):
    """Rows of the conntrack table in docs/dataplane.md."""

    RELATED_OWN = 730
    """ICMP errors that the node itself sends about connections to itself."""
    RELATED_NODE = 720
    """ICMP errors that the node itself sends about connections of its pods, as their router."""
    RELATED = 700
    INVALID = 500
    SYN = 400
    """TCP SYN: of a new connection, or in the reply direction of a known one, whose entry it reverses."""
    REPLY = 300
    PICKUP = 250
    """TCP without SYN, of connections that may have been lost."""
    UNSOLICITED = 200
    """Packets of no accepted connection that may not begin one: dropped. But TCP without SYN from a local pod or the
    gateway goes to other nodes as midstream."""
    ORIGINAL = 150
    DECIDE = 100
    MISS = 0


class ClientServer(IntEnum):
    """Client and server by direction; clients whose identity changed."""

    FORGED = 300
    """An ICMP error that a pod sends about another pod's connection."""
    PICKUP = 250
    REVALIDATED = 240
    SAME_ID = 150
    """The client still has the identity that is committed with its connection."""
    PREVIOUS_ID = 140
    PREVIOUS_ID_OTHER = 130
    CHANGED_ID = 120
    CHANGED_ID_OTHER = 110
    DEFAULT = 100
    MISS = 0


class Egress(IntEnum):
    """Egress rules that the client's node decides."""

    ELSEWHERE = 700
    OWN_NODE = 600
    TENANTLESS = 500
    UNSELECTED = 400
    FRONTEND_ALLOWED = 390
    """Frontends of Services with backends that are no pods, whose packets do not return: all these are allowed."""
    FRONTEND = 385
    SERVICE = 380
    """Services: policy decides about their backends, when the packet returns from the host."""
    ALLOW = 350
    CONJUNCTION = 340
    CLAUSE = 330
    NOT_A_POD = 200
    DEFERRED = 100
    MISS = 0


class DeferredEgress(IntEnum):
    """Egress rules that the server's node decides."""

    ELSEWHERE = 500
    DECIDED = 400
    ALLOW = 300
    CONJUNCTION = 200
    CLAUSE = 100
    NOT_ADMITTED = 50
    """A reply that no deferred rule admits. Only the client's node knows whether one had to."""
    MISS = 0


class Tenancy(IntEnum):
    """Pairs of tenants."""

    DENY = 400
    OUTSIDE = 300
    ALLOW = 100
    MISS = 0


class Ingress(IntEnum):
    """Ingress rules and isolation levels."""

    ALLOW = 300
    CONJUNCTION = 200
    CLAUSE = 100
    MISS = 0


class ConntrackCommit(IntEnum):
    """Accepted packets by whether their connection is committed."""

    TRANSLATED = 600
    """Packets of local pods that return from the host."""
    TRANSLATED_REVALIDATION = 550
    FRAGMENT = 500
    REVALIDATION_DEFERRED = 460
    REVALIDATION = 450
    CONFIRMED = 420
    """A reply that confirms the guessed direction of a loose entry."""
    REPLY = 400
    LOOSE_METERED = 370
    LOOSE_FORCED = 360
    LOOSE = 350
    MIDSTREAM = 300
    OTHER_SOURCE = 210
    """The connection came in elsewhere before: from the pod itself or, translated, from the host."""
    COMMITTED = 200
    FORCED = 150
    METERED = 120
    """New connections of a local pod that leave the node pass the pod's meter."""
    COMMIT = 100
    MISS = 0


class ConntrackRevoke(IntEnum):
    """Denied packets by what happens to their connection."""

    RELATED = 310
    REVALIDATION = 300
    PICKUP = 280
    UPDATE_ID = 250
    DECIDE_AS_ORIGINAL = 200
    REVALIDATE = 150
    REVOKE = 100
    MISS = 0


class Output(IntEnum):
    """Out of the bridge's ports."""

    REVALIDATION = 200
    TRANSLATED = 150
    """Replies that the host translates back."""
    OUT = 100
    MISS = 0
