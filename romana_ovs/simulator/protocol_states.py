"""Tracks TCP, SCTP and other connections by their packets, as the conntrack of each datapath of Open vSwitch does.

Sources: lib/conntrack-tcp.c of Open vSwitch 3.1 for the userspace datapath; nf_conntrack_proto_tcp.c,
nf_conntrack_proto_sctp.c and openvswitch/conntrack.c of Linux 6.1 for the kernel's. No sequence numbers:
`Packet.in_window` stands for them, and the verification tag of an SCTP packet is always the right one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum, auto
from typing import NamedTuple, Protocol, Self

from romana_ovs.pipeline.fields import TCP_FLAG_BITS
from romana_ovs.simulator.packet import ACK, ECHO_REQUEST, FIN, INIT, INIT_ACK, RST, SYN, Packet

_PSH, _URG = TCP_FLAG_BITS["psh"], TCP_FLAG_BITS["urg"]


class Verdict(Enum):
    """What a packet is to the connection whose entry it has."""

    INVALID = auto()
    NEW = auto()
    ESTABLISHED = auto()
    BY_REPLY = auto()
    """Established once a packet of the reply direction has been seen, new before."""
    LAST = auto()
    """As BY_REPLY, and the entry is deleted."""
    REOPENS = auto()
    """The packet begins a new connection, which replaces the entry."""


class Transition(NamedTuple):
    """What a packet is, and the state of the connection after it."""

    verdict: Verdict
    state: ProtocolState


class ProtocolState(Protocol):
    """The state of a connection, as far as its protocol has one."""

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """The state of a connection that begins with `packet`; None if none can (then the packet is invalid)."""

    def after(self, packet: Packet, *, reply: bool, replied: bool) -> Transition:
        """The transition by a packet of the original or reply direction; `replied`: a reply preceded it."""


@dataclass(frozen=True, slots=True)
class Stateless:
    """A connection of UDP, or of a protocol that is not tracked any closer."""

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """Any packet begins one."""
        return cls()

    def after(self, packet: Packet, *, reply: bool, replied: bool) -> Transition:
        """Only the directions count."""
        return Transition(Verdict.BY_REPLY, self)


@dataclass(frozen=True, slots=True)
class Echo(Stateless):
    """ICMP echo requests and their replies."""

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """Only a request begins one."""
        return cls() if packet.icmp_type == ECHO_REQUEST else None


class _Peer(IntEnum):
    """The TCP state of one end, in the userspace datapath."""

    CLOSED = 0
    SYN_SENT = 1
    ESTABLISHED = 2
    CLOSING = 3
    FIN_WAIT = 4
    TIME_WAIT = 5


@dataclass(frozen=True, slots=True)
class UserspaceTcp:
    """TCP of the userspace datapath: a state of each end, `client` the original source."""

    client: _Peer = _Peer.SYN_SENT
    server: _Peer = _Peer.CLOSED

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """Every segment with valid flags but SYN+ACK begins one."""
        flags = packet.tcp_flags
        return None if _invalid_in_userspace(flags) or flags & (SYN | ACK) == SYN | ACK else cls()

    def after(self, packet: Packet, *, reply: bool, replied: bool) -> Transition:
        """A segment outside the window is invalid; any other makes the connection established, but a SYN."""
        flags = packet.tcp_flags
        near, far = (self.server, self.client) if reply else (self.client, self.server)
        if _invalid_in_userspace(flags):
            return Transition(Verdict.INVALID, self)
        if flags & (SYN | ACK) == SYN:
            if near >= _Peer.FIN_WAIT and far >= _Peer.FIN_WAIT:
                return Transition(Verdict.REOPENS, self)
            if near <= _Peer.SYN_SENT:
                return Transition(Verdict.NEW, self._with(reply, _Peer.SYN_SENT, far))
        # The first segment of an end defines its window, whatever it is.
        if not packet.in_window and near >= _Peer.SYN_SENT:
            return Transition(Verdict.INVALID, self)
        return Transition(Verdict.ESTABLISHED, self._with(reply, *_next_peers(near, far, flags)))

    def _with(self, reply: bool, near: _Peer, far: _Peer) -> Self:
        client, server = (far, near) if reply else (near, far)
        return replace(self, client=client, server=server)


def _next_peers(near: _Peer, far: _Peer, flags: int) -> tuple[_Peer, _Peer]:
    near = max(near, _Peer.SYN_SENT)
    if flags & FIN and near < _Peer.CLOSING:
        near = _Peer.CLOSING
    if flags & ACK:
        if far == _Peer.SYN_SENT:
            far = _Peer.ESTABLISHED
        elif far == _Peer.CLOSING:
            far = _Peer.FIN_WAIT
    if flags & RST:
        near = far = _Peer.TIME_WAIT
    return near, far


def _invalid_in_userspace(flags: int) -> bool:
    """Whether the combination of TCP flags is invalid."""
    if flags & SYN:
        return bool(flags & (RST | FIN))
    if not flags & (ACK | RST):
        return True
    return not flags & ACK and bool(flags & (FIN | _PSH | _URG))


_VALID_IN_KERNEL = frozenset({SYN, SYN | _URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | _URG, ACK, ACK | _URG})
"""Combinations of TCP flags that the kernel tracks, PSH and the flags of ECN apart."""

_STATES = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE",
    "SYN_SENT2",
)  # fmt: skip
_NEXT = {
    # From NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, SYN_SENT2 to:
    (False, "syn"): "SYN_SENT SYN_SENT ignore ignore ignore ignore ignore SYN_SENT SYN_SENT SYN_SENT2",
    (False, "synack"): "invalid invalid SYN_RECV invalid invalid invalid invalid invalid invalid SYN_RECV",
    (False, "fin"): "invalid invalid FIN_WAIT FIN_WAIT LAST_ACK LAST_ACK LAST_ACK TIME_WAIT CLOSE invalid",
    (False, "ack"): "ESTABLISHED invalid ESTABLISHED ESTABLISHED CLOSE_WAIT CLOSE_WAIT TIME_WAIT TIME_WAIT CLOSE "
    "invalid",
    (False, "rst"): "invalid CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE",
    (True, "syn"): "invalid SYN_SENT2 invalid invalid invalid invalid invalid SYN_SENT invalid SYN_SENT2",
    (True, "synack"): "invalid SYN_RECV ignore ignore ignore ignore ignore ignore ignore SYN_RECV",
    (True, "fin"): "invalid invalid FIN_WAIT FIN_WAIT LAST_ACK LAST_ACK LAST_ACK TIME_WAIT CLOSE invalid",
    (True, "ack"): "invalid ignore SYN_RECV ESTABLISHED CLOSE_WAIT CLOSE_WAIT TIME_WAIT TIME_WAIT CLOSE ignore",
    (True, "rst"): "invalid CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE CLOSE",
}
"""The next states by direction (True: reply) and kind of segment: `tcp_conntracks` of Linux."""
_FOLLOWING = {
    (*key, state): following
    for key, row in _NEXT.items()
    for state, following in zip(_STATES, row.split(), strict=True)
}


@dataclass(frozen=True, slots=True)
class KernelTcp:
    """TCP of the kernel's datapath; it becomes `liberal`, without windows, once established (Open vSwitch asks for it).

    `last`: kind of the last segment and whether it was a reply; `closed_by_fin`: a FIN of either end was taken.
    """

    state: str = "NONE"
    last: tuple[str, bool] = ("", False)
    closed_by_fin: bool = False
    assured: bool = False
    liberal: bool = False
    simultaneous_open: bool = False
    challenge_ack: bool = False
    """A SYN was ignored that the other end answers with an ACK, which acknowledges no FIN (RFC 5961)."""

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """A SYN begins one, and so does a bare ACK (nf_conntrack_tcp_loose): no FIN, no RST."""
        kind = _kind(packet.tcp_flags)
        state = _FOLLOWING.get((False, kind, "NONE"), "invalid")
        return None if state == "invalid" else cls(state, (kind, False), liberal=state == "ESTABLISHED")

    def after(self, packet: Packet, *, reply: bool, replied: bool) -> Transition:
        """A segment that cannot follow is invalid; a SYN, SYN+ACK or ACK out of turn changes nothing."""
        kind = _kind(packet.tcp_flags)
        following = _FOLLOWING.get((reply, kind, self.state), "invalid")
        if following == "invalid":
            return Transition(Verdict.INVALID, self)
        if following == "SYN_SENT" and self.state in ("TIME_WAIT", "CLOSE"):
            if self.closed_by_fin or self.last == ("rst", reply):
                return Transition(Verdict.REOPENS, self)
            following = "ignore"
        if following == "ignore":
            return Transition(Verdict.BY_REPLY, self._ignoring(kind, reply))
        if self.challenge_ack and (self.state, kind, self.last) == ("LAST_ACK", "ack", ("syn", not reply)):
            return Transition(Verdict.BY_REPLY, replace(self, challenge_ack=False))
        if not packet.in_window and not self.liberal and (self.state != "SYN_SENT" or not reply):
            return Transition(Verdict.INVALID, self)
        if kind == "rst" and not replied:
            return Transition(Verdict.LAST, self)
        if following == "SYN_RECV" and (reply, kind) == (True, "ack") and self.simultaneous_open:
            following = "ESTABLISHED"
        return Transition(Verdict.BY_REPLY, self._in(following, kind, reply, replied))

    def _ignoring(self, kind: str, reply: bool) -> Self:
        if (kind, reply) != ("syn", False):
            return replace(self, last=(kind, reply))
        return replace(self, last=(kind, reply), simultaneous_open=False, challenge_ack=self.state == "LAST_ACK")

    def _in(self, state: str, kind: str, reply: bool, replied: bool) -> Self:
        confirmed = replied and state == "ESTABLISHED" and self.state in ("SYN_RECV", "ESTABLISHED")
        assured = self.assured or confirmed
        return replace(
            self,
            state=state,
            last=(kind, reply),
            closed_by_fin=self.closed_by_fin or (state == "FIN_WAIT" and self.state != "FIN_WAIT"),
            assured=assured,
            liberal=self.liberal or (assured and state == "ESTABLISHED"),
            simultaneous_open=self.simultaneous_open or state == "SYN_SENT2",
        )


def _kind(flags: int) -> str:
    """Which row of the kernel's table a segment takes; empty if its flags are invalid."""
    if flags & (SYN | ACK | RST | FIN | _URG) not in _VALID_IN_KERNEL:
        return ""
    if flags & RST:
        return "rst"
    if flags & SYN:
        return "synack" if flags & ACK else "syn"
    return "fin" if flags & FIN else "ack"


@dataclass(frozen=True, slots=True)
class KernelSctp:
    """SCTP of the kernel's datapath: which directions have a verification tag, given by an INIT or INIT ACK."""

    original_tag: bool = False
    reply_tag: bool = False

    @classmethod
    def begin(cls, packet: Packet) -> Self | None:
        """Only an INIT begins one (a HEARTBEAT does too, which is not modelled)."""
        return cls(reply_tag=True) if packet.sctp_chunk == INIT else None

    def after(self, packet: Packet, *, reply: bool, replied: bool) -> Transition:
        """A packet that is no INIT is invalid until the other end has given the tag for it."""
        tag = self.reply_tag if reply else self.original_tag
        if packet.sctp_chunk != INIT and not tag:
            return Transition(Verdict.INVALID, self)
        if packet.sctp_chunk not in (INIT, INIT_ACK):
            return Transition(Verdict.BY_REPLY, self)
        return Transition(
            Verdict.BY_REPLY, replace(self, original_tag=True) if reply else replace(self, reply_tag=True)
        )
