"""Declares every register and conntrack bit in use: what it holds, and between which tables."""

from __future__ import annotations

from dataclasses import dataclass

from romana_ovs.pipeline.actions import Bits


@dataclass(frozen=True, slots=True)
class Register:
    """Some bits with a meaning; `written` names the first table that sets them, `read` the last that uses them."""

    name: str
    bits: Bits
    purpose: str
    written: str
    read: str
    values: tuple[tuple[str, int], ...] = ()

    def match(self, value: int, mask: int | None = None) -> tuple[str, int, int]:
        """(field, value, mask) that matches `value` in these bits (under `mask`, of the bits' own width)."""
        ones = (1 << self.bits.width) - 1
        return self.bits.field, value << self.bits.low, (ones if mask is None else mask) << self.bits.low


def _reg(number: int, low: int = 0, width: int = 32) -> Bits:
    return Bits(f"reg{number}", low, width)


LOCAL, UPLINK, GATEWAY = 1, 2, 3
_SIDES = (("local", LOCAL), ("uplink", UPLINK), ("gateway", GATEWAY))
ORIGINAL, REPLY, MIDSTREAM = 1, 2, 3
UNSELECTED, ACCEPTED, DEFERRED = 1, 2, 3

PKT_SOURCE = Register("pkt_source", _reg(0, 0, 2), "where the packet came in", "SpoofGuard", "Output", _SIDES)
DIRECTION = Register(
    "direction",
    _reg(0, 2, 2),
    "of the packet in its connection (docs/dataplane.md, direction mark)",
    "SpoofGuard",
    "Output",
    (("original", ORIGINAL), ("reply", REPLY), ("midstream", MIDSTREAM)),
)
EGRESS = Register(
    "egress",
    _reg(0, 4, 2),
    "what the client's node decided about egress; in a reply, deferred: a deferred rule admits the connection",
    "SpoofGuard",
    "Output",
    (("unselected", UNSELECTED), ("accepted", ACCEPTED), ("deferred", DEFERRED)),
)
PKT_DESTINATION = Register("pkt_destination", _reg(0, 6, 2), "where the packet goes out", "L3Forward", "Output", _SIDES)
OWN_NODE = Register("own_node", _reg(0, 8, 1), "the destination is this node itself", "L3Forward", "Egress")
RECEIVER_PRE_RESTART = Register(
    "receiver_pre_restart",
    _reg(0, 9, 1),
    "the receiver was attached before the bridge last lost its conntrack entries",
    "L3Forward",
    "ConntrackState",
)
FORCE = Register(
    "force", _reg(0, 10, 1), "commit with force, which reverses the entry", "ConntrackState", "ConntrackCommit"
)
COMMITTED = Register(
    "committed",
    _reg(0, 11, 1),
    "the entry is accepted already, for the same way out",
    "ConntrackState",
    "ConntrackCommit",
)
RELATED = Register(
    "related",
    _reg(0, 12, 1),
    "an ICMP error: decided like a packet of the connection that it quotes, in the same direction",
    "ConntrackState",
    "ConntrackCommit",
)
REVALIDATION = Register(
    "revalidation",
    _reg(0, 13, 1),
    "a revalidation packet between two nodes: no pod receives it (below, Between nodes)",
    "SpoofGuard",
    "Output",
)
SENDER_PRE_RESTART = Register(
    "sender_pre_restart",
    _reg(0, 14, 1),
    "the local sender was attached before the bridge last lost its conntrack entries",
    "SpoofGuard",
    "ConntrackState",
)
PICKUP = Register(
    "pickup",
    _reg(0, 15, 1),
    "the connection may have been lost with the bridge's others: policy decides in either direction",
    "ConntrackState",
    "ConntrackRevoke",
)
REVALIDATED = Register(
    "revalidated",
    _reg(0, 16, 1),
    "a TCP reply that its server's node returned after it was revalidated there",
    "SpoofGuard",
    "Output",
)
DIFFERENT = Register("different", _reg(0, 17, 1), "the two compared values differ", "Compare", "ConntrackCommit")
RECEIVER_ZONE = Register(
    "receiver_zone", _reg(0, 18, 12), "zone index of a local receiver (zones.py)", "L3Forward", "ConntrackZone"
)
SENDER_SHARED = Register(
    "sender_shared", _reg(0, 30, 1), "the tenant of a local sender is shared", "SpoofGuard", "ConntrackZone"
)
RECEIVER_SHARED = Register(
    "receiver_shared", _reg(0, 31, 1), "the tenant of a local receiver is shared", "L3Forward", "ConntrackZone"
)
MARKS = _reg(0)
"""All of the above at once."""

SENDER_ID = Register("sender_id", _reg(1), "identity of the pod or node that sent the packet", "SpoofGuard", "Output")
SENDER_CLIENT_GROUP = Register(
    "sender_client_group", _reg(2), "client group of a local sender", "SpoofGuard", "ClientServer"
)
SENDER_SERVER_GROUP = Register(
    "sender_server_group", _reg(3), "server group of a local sender", "SpoofGuard", "ClientServer"
)
RECEIVER_ID = Register("receiver_id", _reg(4), "identity of a local receiver", "L3Forward", "ClientServer")
RECEIVER_CLIENT_GROUP = Register(
    "receiver_client_group", _reg(5), "client group of a local receiver", "L3Forward", "ClientServer"
)
RECEIVER_SERVER_GROUP = Register(
    "receiver_server_group", _reg(6), "server group of a local receiver", "L3Forward", "ClientServer"
)
CLIENT_ID = Register("client_id", _reg(7), "identity of the client", "ClientServer", "ConntrackCommit")
CLIENT_GROUP = Register("client_group", _reg(8), "client group of a local client", "ClientServer", "Egress")
SERVER_ID = Register("server_id", _reg(9), "identity of a local server", "ClientServer", "Tenancy")
SERVER_GROUP = Register("server_group", _reg(10), "server group of a local server", "ClientServer", "Ingress")
OUT_PORT = Register("out_port", _reg(11, 0, 16), "OpenFlow port to send the packet to", "L3Forward", "Output")
ZONE = Register(
    "zone",
    _reg(11, 16, 16),
    "conntrack zone; before table ConntrackZone that of a local sender",
    "SpoofGuard",
    "ConntrackRevoke",
)
TUNNEL = Register("tunnel", _reg(12), "underlay address of the node to tunnel to", "L3Forward", "Output")
SCRATCH = Register(
    "scratch",
    _reg(13),
    "for swapping fields; the second of two compared values; which part of a MAC or meter is next",
    "SourceMac",
    "ConntrackCommit",
)
SENDER_MAC = Register(
    "sender_mac",
    _reg(14),
    "last four bytes of a local sender's MAC, which are its address",
    "SpoofGuard",
    "ArpSpoofGuard",
)
COMPARED = Register("compared", _reg(15), "the first of two compared values", "SourceMac", "Compare")

CT_SOURCE = Register(
    "ct_source",
    Bits("ct_label", 0, 2),
    "where the connection's first packet came in; the gateway also for a local client's that returned from the host",
    "ConntrackCommit",
    "Output",
    _SIDES,
)
CT_DESTINATION = Register(
    "ct_destination",
    Bits("ct_label", 2, 2),
    "where it went out; replies are accepted from there only",
    "ConntrackCommit",
    "ConntrackState",
    _SIDES,
)
CT_ACCEPTED = Register(
    "ct_accepted", Bits("ct_label", 6, 1), "this bridge accepted the connection", "ConntrackCommit", "ConntrackCommit"
)
CT_CLIENT = Register("ct_client", Bits("ct_mark", 0, 32), "identity of the client", "ConntrackCommit", "ClientServer")
CT_LOOSE = Register(
    "ct_loose",
    Bits("ct_label", 7, 1),
    "picked up mid-stream (nf_conntrack_tcp_loose): which end is the client is a guess",
    "ConntrackCommit",
    "ConntrackCommit",
)
CT_LABEL_BITS = Bits("ct_label", 0, 8)
"""All bits of ct_label that are ours."""

WIRE_ID = Bits("eth_src", 0, 32)
"""Between nodes: the sender's identity in the inner source MAC."""
WIRE_DIRECTION = Bits("eth_src", 32, 2)
WIRE_EGRESS = Bits("eth_src", 34, 2)
WIRE_REVALIDATION = Bits("eth_src", 36, 1)
WIRE_REVALIDATED = Bits("eth_src", 37, 1)
WIRE_FIXED = Bits("eth_src", 38, 10)
WIRE_FIXED_VALUE = 0x028
"""First byte 0a, upper two bits of the mark byte 0: so the mark byte is never 58."""


REGISTERS: tuple[Register, ...] = (
    PKT_SOURCE,
    DIRECTION,
    EGRESS,
    PKT_DESTINATION,
    OWN_NODE,
    RECEIVER_PRE_RESTART,
    FORCE,
    COMMITTED,
    RELATED,
    REVALIDATION,
    SENDER_PRE_RESTART,
    PICKUP,
    REVALIDATED,
    DIFFERENT,
    RECEIVER_ZONE,
    SENDER_SHARED,
    RECEIVER_SHARED,
    SENDER_ID,
    SENDER_CLIENT_GROUP,
    SENDER_SERVER_GROUP,
    RECEIVER_ID,
    RECEIVER_CLIENT_GROUP,
    RECEIVER_SERVER_GROUP,
    CLIENT_ID,
    CLIENT_GROUP,
    SERVER_ID,
    SERVER_GROUP,
    OUT_PORT,
    ZONE,
    TUNNEL,
    SCRATCH,
    SENDER_MAC,
    COMPARED,
)
CONNTRACK_BITS: tuple[Register, ...] = (CT_SOURCE, CT_DESTINATION, CT_ACCEPTED, CT_LOOSE, CT_CLIENT)

NEXT_HOP_MAC = 0x0A5800000001
"""The MAC of every next hop: the answer to all ARP requests, the destination of all incoming frames, and the source of
all frames delivered to a pod or the node. So no sender can choose a MAC that megaflows match."""
MAC_PREFIX = 0x0A58
