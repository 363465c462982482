"""Every register and conntrack bit we use, declared once: what it holds and from where to where it lives."""

from __future__ import annotations

from dataclasses import dataclass

from romana_ovs.pipeline.actions import Bits


@dataclass(frozen=True, slots=True)
class Register:
    """Some bits with a meaning; `written` and `read` name the tables between which they live."""

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


LOCAL, TRUNK, GATEWAY = 1, 2, 3
_SIDES = (("local", LOCAL), ("trunk", TRUNK), ("gateway", GATEWAY))
ORIGINAL, REPLY, ORPHAN = 1, 2, 3
UNSELECTED, ACCEPTED, OPEN = 1, 2, 3

SIDE = Register("side", _reg(0, 0, 2), "where the packet came in", "SpoofGuard", "Output", _SIDES)
DIRECTION = Register(
    "direction",
    _reg(0, 2, 2),
    "of the packet in its connection (docs/dataplane.md, direction mark)",
    "SpoofGuard",
    "Output",
    (("original", ORIGINAL), ("reply", REPLY), ("orphan", ORPHAN)),
)
EGRESS = Register(
    "egress",
    _reg(0, 4, 2),
    "what the client's node says of its egress; of a reply: open when the server's node found open egress admits it",
    "SpoofGuard",
    "Output",
    (("unselected", UNSELECTED), ("accepted", ACCEPTED), ("open", OPEN)),
)
EXIT = Register("exit", _reg(0, 6, 2), "where the packet leaves", "L3Forward", "Output", _SIDES)
OWN_NODE = Register("own_node", _reg(0, 8, 1), "the destination is this very node", "L3Forward", "Egress")
SURVIVOR = Register(
    "survivor",
    _reg(0, 9, 1),
    "the receiver is older than the bridge's connections, which were lost",
    "L3Forward",
    "ConntrackState",
)
FORCE = Register("force", _reg(0, 10, 1), "commit anew, turning the entry round", "ConntrackState", "ConntrackCommit")
SETTLED = Register(
    "settled", _reg(0, 11, 1), "the entry stands accepted for the same exit", "ConntrackState", "ConntrackCommit"
)
RELATED = Register(
    "related",
    _reg(0, 12, 1),
    "an ICMP error about a connection: judged by the connection's own addresses and ports, in its direction",
    "ConntrackState",
    "ConntrackCommit",
)
QUESTION = Register(
    "question",
    _reg(0, 13, 1),
    "between two nodes, about a client's identity: no pod sees it (below, Between nodes)",
    "SpoofGuard",
    "Output",
)
SENDER_SURVIVOR = Register(
    "sender_survivor", _reg(0, 14, 1), "the same of a sender on this node", "SpoofGuard", "ConntrackState"
)
LOST = Register(
    "lost",
    _reg(0, 15, 1),
    "the packet's connection may have been lost with the bridge's others: judged by policy in either direction",
    "ConntrackState",
    "ConntrackRevoke",
)
ANSWERED = Register(
    "answered", _reg(0, 16, 1), "a TCP reply that its server's node judged when it was asked", "SpoofGuard", "Output"
)
DIFFERENT = Register("different", _reg(0, 17, 1), "of the two values that were compared", "Compare", "ConntrackCommit")
RECEIVER_ZONE = Register(
    "receiver_zone", _reg(0, 18, 12), "zone index of a local receiver (zones.py)", "L3Forward", "ConntrackZone"
)
SENDER_SHARED = Register(
    "sender_shared", _reg(0, 30, 1), "a local sender's tenant is shared", "SpoofGuard", "ConntrackZone"
)
RECEIVER_SHARED = Register(
    "receiver_shared", _reg(0, 31, 1), "a local receiver's tenant is shared", "L3Forward", "ConntrackZone"
)
MARKS = _reg(0)
"""All of the above at once."""

SENDER_ID = Register("sender_id", _reg(1), "identity of the pod (or node) that sent the packet", "SpoofGuard", "Output")
SENDER_CLIENT = Register("sender_client", _reg(2), "client group of a local sender", "SpoofGuard", "ClientServer")
SENDER_SERVER = Register("sender_server", _reg(3), "server group of a local sender", "SpoofGuard", "ClientServer")
RECEIVER_ID = Register("receiver_id", _reg(4), "identity of a local receiver", "L3Forward", "ClientServer")
RECEIVER_CLIENT = Register("receiver_client", _reg(5), "client group of a local receiver", "L3Forward", "ClientServer")
RECEIVER_SERVER = Register("receiver_server", _reg(6), "server group of a local receiver", "L3Forward", "ClientServer")
CLIENT_ID = Register(
    "client_id", _reg(7), "identity of the connection's original source", "ClientServer", "ConntrackCommit"
)
CLIENT_GROUP = Register(
    "client_group", _reg(8), "client group of the original source, if local", "ClientServer", "Egress"
)
SERVER_ID = Register(
    "server_id", _reg(9), "identity of the connection's original destination, if local", "ClientServer", "Tenancy"
)
SERVER_GROUP = Register(
    "server_group", _reg(10), "server group of the original destination, if local", "ClientServer", "Ingress"
)
OUT_PORT = Register("out_port", _reg(11, 0, 16), "the port to leave by", "L3Forward", "Output")
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
    "for swapping fields; the second of two that are compared; which part of a MAC is next",
    "SourceMac",
    "ConntrackCommit",
)
SENDER_MAC = Register(
    "sender_mac",
    _reg(14),
    "last four bytes of the MAC that a local sender has, which are its address",
    "SpoofGuard",
    "ArpSpoofGuard",
)
COMPARED = Register("compared", _reg(15), "the first of two values that are compared", "SourceMac", "Compare")

CT_SIDE = Register(
    "ct_side",
    Bits("ct_label", 0, 2),
    "where the connection's first packet came in",
    "ConntrackCommit",
    "ConntrackState",
    _SIDES,
)
CT_EXIT = Register(
    "ct_exit",
    Bits("ct_label", 2, 2),
    "where it left; replies are accepted from there only",
    "ConntrackCommit",
    "ConntrackState",
    _SIDES,
)
CT_ACCEPTED = Register(
    "ct_accepted", Bits("ct_label", 6, 1), "this bridge accepted the connection", "ConntrackCommit", "ConntrackCommit"
)
CT_CLIENT = Register(
    "ct_client",
    Bits("ct_mark", 0, 32),
    "identity of the connection's original source",
    "ConntrackCommit",
    "ClientServer",
)
CT_LOOSE = Register(
    "ct_loose",
    Bits("ct_label", 7, 1),
    "picked up in mid-stream after a loss (nf_conntrack_tcp_loose): which end is the client is a guess",
    "ConntrackCommit",
    "ConntrackCommit",
)
CT_LABEL_BITS = Bits("ct_label", 0, 8)
"""All bits of ct_label that are ours."""

WIRE_ID = Bits("eth_src", 0, 32)
"""Between nodes: the sender's identity in the inner source MAC."""
WIRE_DIRECTION = Bits("eth_src", 32, 2)
WIRE_EGRESS = Bits("eth_src", 34, 2)
WIRE_QUESTION = Bits("eth_src", 36, 1)
WIRE_ANSWERED = Bits("eth_src", 37, 1)
WIRE_REST = Bits("eth_src", 38, 10)
WIRE_REST_VALUE = 0x028
"""First byte 0a, upper two bits of the mark byte 0: so the mark byte is never 58."""


REGISTERS: tuple[Register, ...] = (
    SIDE,
    DIRECTION,
    EGRESS,
    EXIT,
    OWN_NODE,
    SURVIVOR,
    FORCE,
    SETTLED,
    RELATED,
    QUESTION,
    SENDER_SURVIVOR,
    LOST,
    ANSWERED,
    DIFFERENT,
    RECEIVER_ZONE,
    SENDER_SHARED,
    RECEIVER_SHARED,
    SENDER_ID,
    SENDER_CLIENT,
    SENDER_SERVER,
    RECEIVER_ID,
    RECEIVER_CLIENT,
    RECEIVER_SERVER,
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
CONNTRACK_BITS: tuple[Register, ...] = (CT_SIDE, CT_EXIT, CT_ACCEPTED, CT_LOOSE, CT_CLIENT)

NEXT_HOP_MAC = 0x0A5800000001
"""The one MAC of every next hop: the answer to all ARP requests, the destination of all frames that come in, and the
source of all that are delivered to a pod or to the node. So no sender chooses a MAC that flows of the datapath read."""
MAC_PREFIX = 0x0A58
